/* Counts allocations of the whole process between quiet_begin and quiet_end: linked into the program, these functions come
 * before libc's in every library that the program loads. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long calls;
static atomic_int quiet;

void quiet_begin(void) {
    atomic_store(&calls, 0);
    atomic_store(&quiet, 1);
}

long quiet_end(void) {
    atomic_store(&quiet, 0);
    return atomic_load(&calls);
}

static void count(void) {
    if (atomic_load(&quiet)) atomic_fetch_add(&calls, 1);
}

/* glibc's own names of its allocator. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

void *malloc(size_t size) { return count(), __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return count(), __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { return count(), __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { return count(), __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return count(), __libc_memalign(alignment, size); }
int posix_memalign(void **memory, size_t alignment, size_t size) {
    count();
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}
void free(void *memory) {
    count();
    __libc_free(memory);
}
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    count();
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}
