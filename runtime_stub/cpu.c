#include "cpu.h"

#include <stdio.h>

static const char *const NAMES[] = {
#define SPARSEC_CPU_TEXT(name, text) text,
    SPARSEC_CPU_FEATURES(SPARSEC_CPU_TEXT)
#undef SPARSEC_CPU_TEXT
};

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t enabled_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

uint64_t sparsec_cpu_detect(void) {
    uint32_t a, b, c, d, b7 = 0, c7 = 0, a71 = 0, unused;
    uint64_t have = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    uint32_t d7 = 0;
    __get_cpuid_count(7, 0, &unused, &b7, &c7, &d7);
    if (__get_cpuid_max(0, 0) >= 7) {
        uint32_t b71, c71, d71;
        __cpuid_count(7, 1, a71, b71, c71, d71);
        (void)b71, (void)c71, (void)d71;
    }
    uint64_t state = (c >> 27 & 1) ? enabled_state() : 0;
    int avx = (c >> 28 & 1) && (state & 0x6) == 0x6;
    int avx512 = avx && (state & 0xe0) == 0xe0;
#define HAVE(name, condition) \
    if (condition) have |= UINT64_C(1) << SPARSEC_CPU_##name
    HAVE(SSE4_2, c >> 20 & 1);
    HAVE(AVX2, avx && (b7 >> 5 & 1));
    HAVE(FMA, avx && (c >> 12 & 1));
    HAVE(BMI2, b7 >> 8 & 1);
    HAVE(F16C, avx && (c >> 29 & 1));
    HAVE(AVXVNNI, avx && (a71 >> 4 & 1));
    HAVE(AVX512F, avx512 && (b7 >> 16 & 1));
    HAVE(AVX512DQ, avx512 && (b7 >> 17 & 1));
    HAVE(AVX512CD, avx512 && (b7 >> 28 & 1));
    HAVE(AVX512BW, avx512 && (b7 >> 30 & 1));
    HAVE(AVX512VL, avx512 && (b7 >> 31 & 1));
    HAVE(AVX512VBMI, avx512 && (c7 >> 1 & 1));
    HAVE(AVX512VBMI2, avx512 && (c7 >> 6 & 1));
    HAVE(AVX512VNNI, avx512 && (c7 >> 11 & 1));
    const int tiles = (state & 0x60000) == 0x60000;
    HAVE(AMXTILE, tiles && (d7 >> 24 & 1));
    HAVE(AMXINT8, tiles && (d7 >> 25 & 1));
#undef HAVE
    return have;
}

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

int sparsec_cpu_request_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return 0;
#endif
}

#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

uint64_t sparsec_cpu_detect(void) {
    uint64_t have = 0;
    if (getauxval(AT_HWCAP) >> 20 & 1) have |= UINT64_C(1) << SPARSEC_CPU_DOTPROD;
    if (getauxval(26 /* AT_HWCAP2 */) >> 13 & 1) have |= UINT64_C(1) << SPARSEC_CPU_I8MM;
    return have;
}

#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

static int has(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(name, &value, &size, NULL, 0) && value;
}

uint64_t sparsec_cpu_detect(void) {
    uint64_t have = 0;
    if (has("hw.optional.arm.FEAT_DotProd")) have |= UINT64_C(1) << SPARSEC_CPU_DOTPROD;
    if (has("hw.optional.arm.FEAT_I8MM")) have |= UINT64_C(1) << SPARSEC_CPU_I8MM;
    return have;
}

#else
uint64_t sparsec_cpu_detect(void) { return 0; }
#endif

#if !defined(__x86_64__)
int sparsec_cpu_request_tiles(void) { return 0; }
#endif

/* Appends text and returns the new length; what does not fit is cut off. */
static size_t append(char *message, size_t size, size_t length, const char *text) {
    if (length + 1 >= size) return length;
    int n = snprintf(message + length, size - length, "%s", text);
    return n < 0 ? length : length + (size_t)n >= size ? size - 1 : length + (size_t)n;
}

static size_t append_names(char *message, size_t size, size_t length, uint64_t features) {
    for (int i = 0; i < SPARSEC_CPU_COUNT; ++i) {
        if (!(features >> i & 1)) continue;
        length = append(message, size, length, " ");
        length = append(message, size, length, NAMES[i]);
    }
    return length;
}

static uint64_t missing(const sparsec_cpu_needs *needs, uint64_t have) {
    uint64_t bits = 0;
    for (int32_t i = 0; i < needs->count; ++i) bits |= (UINT64_C(1) << needs->features[i]) & ~have;
    return bits;
}

int32_t sparsec_cpu_choose(const sparsec_cpu_needs *needs, int32_t n, uint64_t have, char *message,
                           size_t message_size) {
    for (int32_t i = 0; i < n; ++i) {
        if (!missing(&needs[i], have)) return i;
    }
    if (!message || !message_size) return -1;
    message[0] = 0;
    size_t length = append(message, message_size, 0, "this artifact needs");
    for (int32_t i = 0; i < n; ++i) {
        if (i) length = append(message, message_size, length, ", or");
        length = append_names(message, message_size, length, missing(&needs[i], have));
        if (n == 1) continue;
        length = append(message, message_size, length, " for ");
        length = append(message, message_size, length, needs[i].target);
    }
    length = append(message, message_size, length, "; this CPU has");
    if (have) {
        length = append_names(message, message_size, length, have);
    } else {
        length = append(message, message_size, length, " none of them");
    }
    append(message, message_size, length, ": build for a target it has");
    return -1;
}

int32_t sparsec_cpu_select(const sparsec_cpu_needs *needs, int32_t n, uint64_t have, int (*request_tiles)(void),
                           char *message, size_t message_size) {
    const uint64_t tiles = UINT64_C(1) << SPARSEC_CPU_AMXTILE;
    int32_t chosen = sparsec_cpu_choose(needs, n, have, message, message_size);
    if (chosen < 0 || !missing(&needs[chosen], ~tiles) || request_tiles()) return chosen;
    chosen = sparsec_cpu_choose(needs, n, have & ~tiles, NULL, 0);
    if (chosen < 0 && message && message_size) {
        message[0] = 0;
        append(message, message_size, 0,
               "the operating system does not let this process use the AMX tiles of this CPU (arch_prctl refuses "
               "XTILEDATA): allow it, or build for avx512-amx,avx512");
    }
    return chosen;
}
