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
    X(DOTPROD, "dotprod")             \
    X(I8MM, "i8mm")

enum {
#define SPARSEC_CPU_ID(name, text) SPARSEC_CPU_##name,
    SPARSEC_CPU_FEATURES(SPARSEC_CPU_ID)
#undef SPARSEC_CPU_ID
        SPARSEC_CPU_COUNT
};

/* Bit i is set when feature i is there and the operating system saves its registers. */
uint64_t sparsec_cpu_detect(void);

/* Whether all `n` features are among `have`; if not, a sentence that names what is missing and what is there. */
int sparsec_cpu_check(const uint64_t *features, int32_t n, uint64_t have, char *message, size_t message_size);

#endif
