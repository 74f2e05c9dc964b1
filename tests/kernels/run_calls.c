/* Reads arrays and kernel calls (emulated.py), makes the calls, and writes their statuses' union and the arrays.
 *
 * No call may write beside an array: there are guards around each.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SLOTS                                                                                                          \
    int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, \
        int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,      \
        int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,      \
        int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t
typedef int32_t (*function)(SLOTS);
#include "functions.h"

enum { GUARD = 128, VALUE = 0xA5, MOST = 48 };

static void *read_all(void *to, size_t size) {
    if (fread(to, 1, size, stdin) != size) exit(2);
    return to;
}

int main(void) {
    int64_t words;
    read_all(&words, sizeof words);
    int64_t *head = read_all(malloc((size_t)words * 8), (size_t)words * 8);
    const int64_t n = *head++, *sizes = head;
    unsigned char **arrays = malloc((size_t)n * sizeof *arrays);
    for (int64_t i = 0; i < n; ++i) {
        const size_t size = (size_t)sizes[2 * i];
        const int access = PROT_READ | PROT_WRITE | (sizes[2 * i + 1] ? PROT_EXEC : 0);
        unsigned char *all = mmap(0, size + 2 * GUARD, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(all, VALUE, size + 2 * GUARD);
        arrays[i] = read_all(all + GUARD, size);
        if (sizes[2 * i + 1]) __builtin___clear_cache((char *)all, (char *)all + size + 2 * GUARD);
    }
    const int64_t *call = sizes + 2 * n, count = *call;
    call += 2;
    int64_t status = 0;
    for (int64_t c = 0; c < count; ++c) {
        const function f = FUNCTIONS[*call++];
        const int64_t arguments = *call++;
        int64_t a[MOST] = {0};
        if (arguments > MOST) exit(2);
        for (int64_t i = 0; i < arguments; ++i, call += 2) a[i] = call[0] ? call[1] : (int64_t)(intptr_t)arrays[call[1]];
        status |= f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15], a[16],
                    a[17], a[18], a[19], a[20], a[21], a[22], a[23], a[24], a[25], a[26], a[27], a[28], a[29], a[30], a[31],
                    a[32], a[33], a[34], a[35], a[36], a[37], a[38], a[39], a[40], a[41], a[42], a[43], a[44], a[45], a[46], a[47]);
    }
    fwrite(&status, sizeof status, 1, stdout);
    for (int64_t i = 0; i < n; ++i) {
        for (int j = 0; j < GUARD; ++j)
            if (arrays[i][j - GUARD] != VALUE || arrays[i][sizes[2 * i] + j] != VALUE) {
                fprintf(stderr, "array %lld: bytes beside it were written\n", (long long)i);
                return 3;
            }
        fwrite(arrays[i], 1, (size_t)sizes[2 * i], stdout);
    }
    return 0;
}
