/* CPU features by name. Private to the runtime. */
#ifndef SPARSEC_CPU_H
#define SPARSEC_CPU_H

#include <stddef.h>
#include <stdint.h>

/* ONE row per feature: name in C, name in the manifest, the same as in compiler/target.py. */
#define SPARSEC_CPU_FEATURES(X)       \
    X(SSE4_2, "sse4.2")               \
    X(AVX2, "avx2")                   \
    X(FMA, "fma")                     \
    X(BMI2, "bmi2")                   \
    X(F16C, "f16c")                   \
    X(AVXVNNI, "avxvnni")             \
    X(AVX512F, "avx512f")             \
    X(AVX512BW, "avx512bw")           \
    X(AVX512CD, "avx512cd")           \
    X(AVX512DQ, "avx512dq")           \
    X(AVX512VL, "avx512vl")           \
    X(AVX512VNNI, "avx512vnni")       \
    X(AVX512VBMI, "avx512vbmi")       \
    X(AVX512VBMI2, "avx512vbmi2")     \
    X(AMXTILE, "amxtile")             \
    X(AMXINT8, "amxint8")             \
    X(DOTPROD, "dotprod")             \
    X(I8MM, "i8mm")

enum {
#define SPARSEC_CPU_ID(name, text) SPARSEC_CPU_##name,
    SPARSEC_CPU_FEATURES(SPARSEC_CPU_ID)
#undef SPARSEC_CPU_ID
        SPARSEC_CPU_COUNT
};

/* Asks the kernel to let this process use AMX's tiles, as Linux wants it (arch_prctl, ARCH_REQ_XCOMP_PERM for
 * XTILEDATA). Whether it does. */
int sparsec_cpu_request_tiles(void);

/* Bit i is set when feature i is there and the operating system saves its registers. */
uint64_t sparsec_cpu_detect(void);

/* What the kernels for one target need. */
typedef struct sparsec_cpu_needs {
    const char *target;
    const uint64_t *features; /* `count` ids from above */
    int32_t count;
} sparsec_cpu_needs;

/* The first of `n` targets whose features are all among `have`. If there is none -1, and a sentence that names what each
 * of them misses and what is there. */
int32_t sparsec_cpu_choose(const sparsec_cpu_needs *needs, int32_t n, uint64_t have, char *message,
                           size_t message_size);

/* The same; where that target uses AMX's tiles `request_tiles` is asked, and if it returns 0 they are not there. */
int32_t sparsec_cpu_select(const sparsec_cpu_needs *needs, int32_t n, uint64_t have, int (*request_tiles)(void),
                           char *message, size_t message_size);

#endif
