/* Products of 16-bit pairs, summed in 32 bits modulo 2^32: exact for 8-bit operands less their zero points. */
#ifndef SPARSEC_INTEGER_VECTOR_H
#define SPARSEC_INTEGER_VECTOR_H

#include "vector.h"

typedef int16_t vs __attribute__((vector_size(SPARSEC_LANES * 4)));
typedef int8_t vb __attribute__((vector_size(SPARSEC_LANES * 2), aligned(1), may_alias));
typedef vs vs_unaligned __attribute__((aligned(2), may_alias));

/* One pair per lane, from 16-bit or from signed 8-bit integers. */
SPARSEC_INLINE vs load_pairs16(const int16_t *p) { return *(const vs_unaligned *)p; }
SPARSEC_INLINE vs load_pairs8(const int8_t *p) { return __builtin_convertvector(*(const vb *)p, vs); }
SPARSEC_INLINE vs set_pair(int32_t pair) { return (vs)(pair - (vi){0}); }

/* sum + a[0] * b[0] + a[1] * b[1] in every lane. */
SPARSEC_INLINE vi dot_pairs(vi sum, vs a, vs b) {
#if defined(__AVX512VNNI__)
    return (vi)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512F__)
    return (vi)_mm512_add_epi32((__m512i)sum, _mm512_madd_epi16((__m512i)a, (__m512i)b));
#elif defined(__AVX2__)
    return (vi)_mm256_add_epi32((__m256i)sum, _mm256_madd_epi16((__m256i)a, (__m256i)b));
#elif defined(__SSE2__)
    return (vi)_mm_add_epi32((__m128i)sum, _mm_madd_epi16((__m128i)a, (__m128i)b));
#elif defined(__aarch64__)
    const int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    return (vi)vaddq_s32((int32x4_t)sum, vpaddq_s32(low, vmull_high_s16((int16x8_t)a, (int16x8_t)b)));
#else
    typedef uint32_t vu __attribute__((vector_size(SPARSEC_LANES * 4)));
    const vi even = ((vi)a << 16 >> 16) * ((vi)b << 16 >> 16), odd = ((vi)a >> 16) * ((vi)b >> 16);
    return (vi)((vu)sum + (vu)even + (vu)odd);
#endif
}

#endif
