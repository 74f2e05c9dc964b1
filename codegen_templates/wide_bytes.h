/* Bytes of activations as tiles of 16 columns hold them in memory, and their products with int8 weights.
 *
 * x86 multiplies unsigned bytes by signed ones: activations are kept as they are, 0..255. ARM's `sdot` takes two signed
 * bytes: there they are kept 128 lower, and kernels take zero points 128 lower to match (`kept_lower` of catalogue.py).
 */
#ifndef SPARSEC_WIDE_BYTES_H
#define SPARSEC_WIDE_BYTES_H

#include "wide.h"

#if defined(__aarch64__)
enum { SPARSEC_LOWER = 128 };
#else
enum { SPARSEC_LOWER = 0 };
#endif

/* Vectors of sums that the registers hold beside their operands. */
#if defined(__AVX512F__)
enum { SPARSEC_SUMS = 16 };
#else
enum { SPARSEC_SUMS = 4 };
#endif

/* Between bytes as they are and as memory holds them: its own inverse. */
SPARSEC_INLINE __m512i sparsec_kept(__m512i bytes) {
    return SPARSEC_LOWER ? _mm512_xor_si512(bytes, _mm512_set1_epi8((char)SPARSEC_LOWER)) : bytes;
}

/* To the nearest integers, any above 65535 for what is larger; NaN becomes the lowest. */
SPARSEC_INLINE __m512i sparsec_rounded(__m512 x) {
#if defined(__aarch64__)
    return _mm512_cvtps_epi32(x); /* saturates */
#else
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_set1_ps(65536.0f), x)); /* would wrap */
#endif
}

/* Adds four products of bytes as memory holds them by signed ones to each lane. */
#if defined(__ARM_FEATURE_DOTPROD)
SPARSEC_INLINE __m512i sparsec_dot(__m512i sum, __m512i x, __m512i w) {
#define SPARSEC_Q(i) vdotq_s32((int32x4_t)SPARSEC_PART(sum, i), (int8x16_t)SPARSEC_PART(x, i), (int8x16_t)SPARSEC_PART(w, i))
    return SPARSEC_JOIN(SPARSEC_Q(0), SPARSEC_Q(1), SPARSEC_Q(2), SPARSEC_Q(3));
#undef SPARSEC_Q
}
#elif defined(__x86_64__)
SPARSEC_INLINE __m512i sparsec_dot(__m512i sum, __m512i x, __m512i w) { return _mm512_dpbusd_epi32(sum, x, w); }
#endif

#endif
