/* One vector register of floats on any ISA, by the vector extensions of clang and gcc.
 *
 * SPARSEC_LANES comes from the compiler's target, or from wide.h; partial loads and stores touch no byte outside of their n elements.
 */
#ifndef SPARSEC_VECTOR_H
#define SPARSEC_VECTOR_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(SPARSEC_WIDE) || defined(__AVX512F__)
#define SPARSEC_LANES 16
#elif defined(__AVX2__)
#define SPARSEC_LANES 8
#else
#define SPARSEC_LANES 4
#endif

#define SPARSEC_INLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(SPARSEC_LANES * 4)));
typedef float vf_unaligned __attribute__((vector_size(SPARSEC_LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(SPARSEC_LANES * 4)));

SPARSEC_INLINE vf vload(const float *p) { return *(const vf_unaligned *)p; }
SPARSEC_INLINE void vstore(float *p, vf v) { *(vf_unaligned *)p = v; }
SPARSEC_INLINE vf vset(float x) { return x - (vf){0}; }
SPARSEC_INLINE vf vfma(vf a, vf b, vf c) {
#if SPARSEC_LANES == 16
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}
/* The larger one; b when either is NaN. */
SPARSEC_INLINE vf vmax(vf a, vf b) {
    const vi greater = (vi)(a > b);
    return (vf)((greater & (vi)a) | (~greater & (vi)b));
}

/* The first n elements, 0 < n <= SPARSEC_LANES; the others are `fill`. */
SPARSEC_INLINE vf vload_part(const float *p, int64_t n, float fill) {
#if SPARSEC_LANES == 16
    return (vf)_mm512_mask_loadu_ps((__m512)vset(fill), (__mmask16)((1u << n) - 1), p);
#else
    vf v = vset(fill);
    for (int64_t i = 0; i < n; ++i) v[i] = p[i];
    return v;
#endif
}

/* Lane i is p[i * stride] for from <= i < to, else `fill`; nothing else is read. */
SPARSEC_INLINE vf vload_strided(const float *p, int64_t stride, int64_t from, int64_t to, float fill) {
#if SPARSEC_LANES == 16
    const __mmask16 lanes = (__mmask16)((1u << to) - (1u << from));
    if (stride == 1) return (vf)_mm512_mask_loadu_ps((__m512)vset(fill), lanes, p);
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    if (stride != 2) {
        const __m512i index = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)stride));
        return (vf)_mm512_mask_i32gather_ps((__m512)vset(fill), lanes, index, p, 4);
    }
    const uint32_t both = (uint32_t)((UINT64_C(1) << 2 * to >> 1) - (UINT64_C(1) << 2 * from));
    const __m512 low = _mm512_maskz_loadu_ps((__mmask16)both, p), high = _mm512_maskz_loadu_ps((__mmask16)(both >> 16), p + 16);
    return (vf)_mm512_mask_blend_ps(lanes, (__m512)vset(fill), _mm512_permutex2var_ps(low, _mm512_slli_epi32(lane, 1), high));
#else
    if (stride == 1 && from == 0 && to == SPARSEC_LANES) return vload(p);
    vf v = vset(fill);
    for (int64_t i = from; i < to; ++i) v[i] = p[i * stride];
    return v;
#endif
}

SPARSEC_INLINE void vstore_part(float *p, vf v, int64_t n) {
#if SPARSEC_LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    float all[SPARSEC_LANES];
    memcpy(all, &v, sizeof all);
    memcpy(p, all, (size_t)n * sizeof *p);
#endif
}

/* Sum and maximum over the lanes, in one fixed order. */
SPARSEC_INLINE float vsum(vf v) {
    float all[SPARSEC_LANES];
    memcpy(all, &v, sizeof all);
    for (int n = SPARSEC_LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; ++i) all[i] += all[i + n];
    return all[0];
}
SPARSEC_INLINE float vlargest(vf v) {
    float all[SPARSEC_LANES];
    memcpy(all, &v, sizeof all);
    for (int n = SPARSEC_LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; ++i) all[i] = all[i] > all[i + n] ? all[i] : all[i + n];
    return all[0];
}

#endif
