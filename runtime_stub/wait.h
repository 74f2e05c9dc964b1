/* Sleeping on a 32-bit word. Private to the runtime. */
#ifndef SPARSEC_WAIT_H
#define SPARSEC_WAIT_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#if defined(__linux__)
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Returns when *word may differ from `value`; spurious returns are allowed. */
static inline void sparsec_sleep_while(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

/* Wakes all that sleep on the word. */
static inline void sparsec_wake_all(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

#elif defined(__APPLE__)
/* What libc++ waits with; in libSystem since macOS 10.12, in no header. */
enum { SPARSEC_COMPARE_AND_WAIT = 1, SPARSEC_WAKE_ALL = 0x100 };
extern int __ulock_wait(uint32_t operation, void *address, uint64_t value, uint32_t microseconds);
extern int __ulock_wake(uint32_t operation, void *address, uint64_t unused);

static inline void sparsec_sleep_while(_Atomic uint32_t *word, uint32_t value) {
    __ulock_wait(SPARSEC_COMPARE_AND_WAIT, (void *)word, value, 0);
}

static inline void sparsec_wake_all(_Atomic uint32_t *word) {
    __ulock_wake(SPARSEC_COMPARE_AND_WAIT | SPARSEC_WAKE_ALL, (void *)word, 0);
}
#endif

static inline void sparsec_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline int64_t sparsec_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

enum { SPARSEC_SPIN_NANOSECONDS = 20000, SPARSEC_SPIN_STEPS = 32, SPARSEC_YIELD_NANOSECONDS = 1000000 };

/* Spins for at most SPARSEC_SPIN_NANOSECONDS; true when the word changed from `value`. While *busy is not 0 it goes on for
 * SPARSEC_YIELD_NANOSECONDS in all, offering the CPU to others: between the steps of a run a thread that sleeps is woken late, and
 * often on the CPU of the thread that wakes it, where the two take turns from then on. */
static inline int sparsec_spin_while(_Atomic uint32_t *word, uint32_t value, _Atomic uint32_t *busy) {
    int64_t begin = 0;
    for (;;) {
        for (int i = 0; i < SPARSEC_SPIN_STEPS; ++i) {
            if (atomic_load_explicit(word, memory_order_acquire) != value) return 1;
            sparsec_relax();
        }
        const int64_t now = sparsec_nanoseconds();
        if (begin == 0) begin = now;
        if (now - begin < SPARSEC_SPIN_NANOSECONDS) continue;
        if (now - begin >= SPARSEC_YIELD_NANOSECONDS || !atomic_load_explicit(busy, memory_order_relaxed)) return 0;
        sched_yield();
    }
}

#endif
