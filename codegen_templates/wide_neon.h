/* Vectors of 16 lanes as four of NEON's: kernels of 16 columns are written in the intrinsics of AVX-512 (wide.h).
 *
 * Each is a function of the same name and meaning on vectors of 64 bytes, which clang and gcc keep in four registers.
 * What AVX-512 does within quarters of a vector is one instruction for each register. Only what the kernels use is here;
 * where it differs, a comment says so.
 */
#ifndef SPARSEC_WIDE_NEON_H
#define SPARSEC_WIDE_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define SPARSEC_NEON static inline __attribute__((always_inline, unused))

typedef uint16_t __mmask16;
typedef uint64_t __mmask64;
#define __m512 sparsec_wide_f
#define __m512i sparsec_wide_i
typedef float __m512 __attribute__((vector_size(64), may_alias));
typedef int64_t __m512i __attribute__((vector_size(64), may_alias));
typedef float sparsec_f16_any __attribute__((vector_size(64), aligned(4), may_alias));
typedef int64_t sparsec_i8_any __attribute__((vector_size(64), aligned(1), may_alias));
typedef int32_t sparsec_i16 __attribute__((vector_size(64)));
typedef uint32_t sparsec_u16 __attribute__((vector_size(64)));
typedef int16_t sparsec_s32 __attribute__((vector_size(64)));
typedef uint8_t sparsec_b64 __attribute__((vector_size(64)));
typedef int32_t sparsec_quarter __attribute__((vector_size(16)));

#define SPARSEC_OP(result, name, type, op) \
    SPARSEC_NEON result name(result a, result b) { return (result)((type)a op(type) b); }
SPARSEC_OP(__m512, _mm512_add_ps, __m512, +)
SPARSEC_OP(__m512, _mm512_sub_ps, __m512, -)
SPARSEC_OP(__m512, _mm512_mul_ps, __m512, *)
SPARSEC_OP(__m512, _mm512_div_ps, __m512, /)
SPARSEC_OP(__m512i, _mm512_add_epi32, sparsec_u16, +)
SPARSEC_OP(__m512i, _mm512_sub_epi32, sparsec_u16, -)
SPARSEC_OP(__m512i, _mm512_mullo_epi32, sparsec_u16, *)
SPARSEC_OP(__m512i, _mm512_and_si512, sparsec_u16, &)
SPARSEC_OP(__m512i, _mm512_or_si512, sparsec_u16, |)
SPARSEC_OP(__m512i, _mm512_xor_si512, sparsec_u16, ^)
#undef SPARSEC_OP
#define _mm512_slli_epi32(a, n) ((__m512i)((sparsec_u16)(a) << (n)))
#define _mm512_srli_epi32(a, n) ((__m512i)((sparsec_u16)(a) >> (n)))

SPARSEC_NEON __m512 _mm512_setzero_ps(void) { return (__m512){0}; }
SPARSEC_NEON __m512i _mm512_setzero_si512(void) { return (__m512i){0}; }
SPARSEC_NEON __m512 _mm512_set1_ps(float x) { return x - (__m512){0}; }
SPARSEC_NEON __m512i _mm512_set1_epi32(int32_t x) { return (__m512i)(x - (sparsec_i16){0}); }
SPARSEC_NEON __m512i _mm512_set1_epi16(int16_t x) { return (__m512i)(x - (sparsec_s32){0}); }
SPARSEC_NEON __m512i _mm512_set1_epi8(char x) { return (__m512i)((uint8_t)x - (sparsec_b64){0}); }
SPARSEC_NEON __m512i _mm512_setr_epi32(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f, int32_t g, int32_t h,
                                       int32_t i, int32_t j, int32_t k, int32_t l, int32_t m, int32_t n, int32_t o, int32_t p) {
    return (__m512i)(sparsec_i16){a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p};
}
#define _mm512_set_epi32(p, o, n, m, l, k, j, i, h, g, f, e, d, c, b, a) \
    _mm512_setr_epi32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
#define _mm512_set4_epi32(d, c, b, a) _mm512_setr_epi32(a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d)

SPARSEC_NEON __m512 _mm512_loadu_ps(const void *p) { return *(const sparsec_f16_any *)p; }
SPARSEC_NEON void _mm512_storeu_ps(void *p, __m512 x) { *(sparsec_f16_any *)p = x; }
SPARSEC_NEON __m512i _mm512_loadu_si512(const void *p) { return *(const sparsec_i8_any *)p; }
SPARSEC_NEON void _mm512_storeu_si512(void *p, __m512i x) { *(sparsec_i8_any *)p = x; }
#define _mm512_load_ps _mm512_loadu_ps
#define _mm512_store_ps _mm512_storeu_ps
#define _mm512_stream_ps _mm512_storeu_ps
#define _mm512_load_si512 _mm512_loadu_si512
#define _mm512_store_si512 _mm512_storeu_si512
#define _mm512_castps_si512(x) ((__m512i)(x))
#define _mm512_castsi512_ps(x) ((__m512)(x))
SPARSEC_NEON void sparsec_no_fence(void) {}
#define _mm_sfence sparsec_no_fence

/* Quarters of a vector; those of a result. */
#define SPARSEC_PART(x, i) __builtin_shufflevector((sparsec_i16)(x), (sparsec_i16)(x), 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3)
#define SPARSEC_HALVES(a, b) __builtin_shufflevector((sparsec_quarter)(a), (sparsec_quarter)(b), 0, 1, 2, 3, 4, 5, 6, 7)
#define SPARSEC_JOIN(a, b, c, d) \
    ((__m512i)__builtin_shufflevector(SPARSEC_HALVES(a, b), SPARSEC_HALVES(c, d), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
/* `f` of every quarter of one vector, or of two. */
#define SPARSEC_MAP(f, a) SPARSEC_JOIN(f(SPARSEC_PART(a, 0)), f(SPARSEC_PART(a, 1)), f(SPARSEC_PART(a, 2)), f(SPARSEC_PART(a, 3)))
#define SPARSEC_MAP2(f, a, b)                                                                               \
    SPARSEC_JOIN(f(SPARSEC_PART(a, 0), SPARSEC_PART(b, 0)), f(SPARSEC_PART(a, 1), SPARSEC_PART(b, 1)), \
                 f(SPARSEC_PART(a, 2), SPARSEC_PART(b, 2)), f(SPARSEC_PART(a, 3), SPARSEC_PART(b, 3)))

/* Where the mask's bit is set, all ones. */
SPARSEC_NEON sparsec_i16 sparsec_lanes_of(uint32_t mask) {
    const sparsec_i16 bits = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    return (sparsec_i16)((((int32_t)mask - (sparsec_i16){0}) & bits) != 0);
}
SPARSEC_NEON __m512i sparsec_blend(sparsec_i16 mask, __m512i no, __m512i yes) {
    return (__m512i)((mask & (sparsec_i16)yes) | (~mask & (sparsec_i16)no));
}
#define _mm512_mask_mov_epi32(no, mask, yes) sparsec_blend(sparsec_lanes_of(mask), no, yes)
#define _mm512_maskz_mov_epi32(mask, yes) sparsec_blend(sparsec_lanes_of(mask), (__m512i){0}, yes)
#define _mm512_mask_blend_ps(mask, no, yes) ((__m512)sparsec_blend(sparsec_lanes_of(mask), (__m512i)(no), (__m512i)(yes)))
#define _mm512_mask_sub_ps(no, mask, a, b) _mm512_mask_blend_ps(mask, no, _mm512_sub_ps(a, b))
SPARSEC_NEON __mmask16 _mm512_movepi32_mask(__m512i x) {
    uint32_t mask = 0;
    for (int i = 0; i < 16; ++i) mask |= ((sparsec_u16)x)[i] >> 31 << i;
    return (__mmask16)mask;
}

/* Only lanes of the mask touch memory. */
SPARSEC_NEON __m512i sparsec_load_some(__m512i other, uint32_t mask, const void *p) {
    if (mask == 0xffffu) return _mm512_loadu_si512(p);
    int32_t all[16];
    memcpy(all, &other, sizeof all);
    for (int i = 0; i < 16; i += 4) {
        const uint32_t four = mask >> i & 15;
        if (four == 15) memcpy(all + i, (const char *)p + 4 * i, 16);
        else for (uint32_t rest = four; rest; rest &= rest - 1) {
            const int lane = i + __builtin_ctz(rest);
            memcpy(all + lane, (const char *)p + 4 * lane, 4);
        }
    }
    return _mm512_loadu_si512(all);
}
SPARSEC_NEON void sparsec_store_some(void *p, uint32_t mask, __m512i x) {
    if (mask == 0xffffu) {
        _mm512_storeu_si512(p, x);
        return;
    }
    int32_t all[16];
    memcpy(all, &x, sizeof all);
    for (int i = 0; i < 16; i += 4) {
        const uint32_t four = mask >> i & 15;
        if (four == 15) memcpy((char *)p + 4 * i, all + i, 16);
        else for (uint32_t rest = four; rest; rest &= rest - 1) {
            const int lane = i + __builtin_ctz(rest);
            memcpy((char *)p + 4 * lane, all + lane, 4);
        }
    }
}
#define _mm512_mask_loadu_ps(other, mask, p) ((__m512)sparsec_load_some((__m512i)(other), mask, p))
#define _mm512_maskz_loadu_ps(mask, p) ((__m512)sparsec_load_some((__m512i){0}, mask, p))
#define _mm512_maskz_loadu_epi32(mask, p) sparsec_load_some((__m512i){0}, mask, p)
#define _mm512_mask_storeu_ps(p, mask, x) sparsec_store_some(p, mask, (__m512i)(x))
#define _mm512_mask_storeu_epi32(p, mask, x) sparsec_store_some(p, mask, x)
/* The mask's lanes side by side, and the other way. */
SPARSEC_NEON __m512 _mm512_maskz_compress_ps(uint32_t mask, __m512 x) {
    if (mask == 0xffffu) return x;
    float all[16], some[16] = {0};
    memcpy(all, &x, sizeof all);
    for (int n = 0; mask; mask &= mask - 1) some[n++] = all[__builtin_ctz(mask)];
    return _mm512_loadu_ps(some);
}
SPARSEC_NEON __m512 _mm512_maskz_expand_ps(uint32_t mask, __m512 x) {
    if (mask == 0xffffu) return x;
    float all[16] = {0}, some[16];
    memcpy(some, &x, sizeof some);
    for (int n = 0; mask; mask &= mask - 1) all[__builtin_ctz(mask)] = some[n++];
    return _mm512_loadu_ps(all);
}
SPARSEC_NEON __m512i sparsec_gather(__m512i other, uint32_t mask, __m512i index, const void *p) {
    int32_t all[16], at[16];
    memcpy(all, &other, sizeof all);
    memcpy(at, &index, sizeof at);
    for (; mask; mask &= mask - 1) {
        const int lane = __builtin_ctz(mask);
        memcpy(all + lane, (const char *)p + 4 * (int64_t)at[lane], 4);
    }
    return _mm512_loadu_si512(all);
}
#define _mm512_mask_i32gather_epi32(other, mask, index, p, scale) sparsec_gather(other, mask, index, p)
#define _mm512_mask_i32gather_ps(other, mask, index, p, scale) ((__m512)sparsec_gather((__m512i)(other), mask, index, p))
SPARSEC_NEON __m512i _mm512_permutex2var_epi32(__m512i a, __m512i index, __m512i b) {
    int32_t both[32], to[16];
    memcpy(both, &a, sizeof a);
    memcpy(both + 16, &b, sizeof b);
    for (int i = 0; i < 16; ++i) to[i] = both[((sparsec_u16)index)[i] & 31];
    return _mm512_loadu_si512(to);
}
SPARSEC_NEON __m512i _mm512_permutexvar_epi32(__m512i index, __m512i a) {
    return _mm512_permutex2var_epi32(a, (__m512i)((sparsec_i16)index & 15), a);
}
#define _mm512_permutex2var_ps(a, index, b) ((__m512)_mm512_permutex2var_epi32((__m512i)(a), index, (__m512i)(b)))

SPARSEC_NEON __m512 _mm512_cvtepi32_ps(__m512i x) { return __builtin_convertvector((sparsec_i16)x, __m512); }
SPARSEC_NEON __m512 _mm512_abs_ps(__m512 x) { return (__m512)((sparsec_i16)x & 0x7fffffff); }
/* b where either is NaN: where one of them is a constant that is none, an instruction does it. */
#define SPARSEC_EXTREME(name, compared, number, nan)                                                       \
    SPARSEC_NEON int32x4_t sparsec_q_number_##name(float32x4_t a, float32x4_t b) { return (int32x4_t)number(a, b); } \
    SPARSEC_NEON int32x4_t sparsec_q_nan_##name(float32x4_t a, float32x4_t b) { return (int32x4_t)nan(a, b); }       \
    SPARSEC_NEON __m512 _mm512_##name(__m512 a, __m512 b) {                                                \
        if (__builtin_constant_p(b[0]) && b[0] == b[0]) return SPARSEC_MAPF(sparsec_q_number_##name, a, b); \
        if (__builtin_constant_p(a[0]) && a[0] == a[0]) return SPARSEC_MAPF(sparsec_q_nan_##name, a, b);    \
        return (__m512)sparsec_blend((sparsec_i16)(a compared b), (__m512i)b, (__m512i)a);                 \
    }
#define SPARSEC_MAPF(f, a, b)                                                                               \
    ((__m512)SPARSEC_JOIN(f((float32x4_t)SPARSEC_PART(a, 0), (float32x4_t)SPARSEC_PART(b, 0)), f((float32x4_t)SPARSEC_PART(a, 1), (float32x4_t)SPARSEC_PART(b, 1)), \
                          f((float32x4_t)SPARSEC_PART(a, 2), (float32x4_t)SPARSEC_PART(b, 2)), f((float32x4_t)SPARSEC_PART(a, 3), (float32x4_t)SPARSEC_PART(b, 3))))
SPARSEC_EXTREME(min_ps, <, vminnmq_f32, vminq_f32)
SPARSEC_EXTREME(max_ps, >, vmaxnmq_f32, vmaxq_f32)
#undef SPARSEC_EXTREME
SPARSEC_NEON __m512i _mm512_max_epu8(__m512i a, __m512i b) {
    const sparsec_b64 greater = (sparsec_b64)((sparsec_b64)a > (sparsec_b64)b);
    return (__m512i)((greater & (sparsec_b64)a) | (~greater & (sparsec_b64)b));
}

SPARSEC_NEON int32x4_t sparsec_q_fma(float32x4_t a, float32x4_t b, float32x4_t c) { return (int32x4_t)vfmaq_f32(c, a, b); }
SPARSEC_NEON int32x4_t sparsec_q_fnma(float32x4_t a, float32x4_t b, float32x4_t c) { return (int32x4_t)vfmsq_f32(c, a, b); }
#define SPARSEC_MAP3(f, a, b, c)                                                                                       \
    ((__m512)SPARSEC_JOIN(f((float32x4_t)SPARSEC_PART(a, 0), (float32x4_t)SPARSEC_PART(b, 0), (float32x4_t)SPARSEC_PART(c, 0)), \
                  f((float32x4_t)SPARSEC_PART(a, 1), (float32x4_t)SPARSEC_PART(b, 1), (float32x4_t)SPARSEC_PART(c, 1)), \
                  f((float32x4_t)SPARSEC_PART(a, 2), (float32x4_t)SPARSEC_PART(b, 2), (float32x4_t)SPARSEC_PART(c, 2)), \
                  f((float32x4_t)SPARSEC_PART(a, 3), (float32x4_t)SPARSEC_PART(b, 3), (float32x4_t)SPARSEC_PART(c, 3))))
SPARSEC_NEON __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) { return SPARSEC_MAP3(sparsec_q_fma, a, b, c); }
SPARSEC_NEON __m512 _mm512_fnmadd_ps(__m512 a, __m512 b, __m512 c) { return SPARSEC_MAP3(sparsec_q_fnma, a, b, c); }

/* NaN stays NaN. */
SPARSEC_NEON __m512 sparsec_bounded(__m512 x, float low, float high) {
#define SPARSEC_Q(x) vminq_f32(vmaxq_f32((float32x4_t)(x), vdupq_n_f32(low)), vdupq_n_f32(high))
    return (__m512)SPARSEC_MAP(SPARSEC_Q, x);
#undef SPARSEC_Q
}

/* NaN becomes INT32_MIN, as it does there; what is too large, INT32_MAX. */
#define SPARSEC_Q(x) vcvtnq_s32_f32(vmaxnmq_f32((float32x4_t)(x), vdupq_n_f32(-0x1p31f)))
SPARSEC_NEON __m512i _mm512_cvtps_epi32(__m512 x) { return SPARSEC_MAP(SPARSEC_Q, x); }
#undef SPARSEC_Q
#define SPARSEC_Q(a, b) vqmovn_high_s32(vqmovn_s32(a), b)
SPARSEC_NEON __m512i _mm512_packs_epi32(__m512i a, __m512i b) { return SPARSEC_MAP2(SPARSEC_Q, a, b); }
#undef SPARSEC_Q
#define SPARSEC_Q(a, b) vqmovun_high_s16(vqmovun_s16((int16x8_t)(a)), (int16x8_t)(b))
SPARSEC_NEON __m512i _mm512_packus_epi16(__m512i a, __m512i b) { return SPARSEC_MAP2(SPARSEC_Q, a, b); }
#undef SPARSEC_Q
#define SPARSEC_Q(a, b) vqaddq_s16((int16x8_t)(a), (int16x8_t)(b))
SPARSEC_NEON __m512i _mm512_adds_epi16(__m512i a, __m512i b) { return SPARSEC_MAP2(SPARSEC_Q, a, b); }
#undef SPARSEC_Q
#define SPARSEC_Q(a, b) vqtbl1q_u8((uint8x16_t)(a), (uint8x16_t)(b))
SPARSEC_NEON __m512i _mm512_shuffle_epi8(__m512i a, __m512i order) { return SPARSEC_MAP2(SPARSEC_Q, a, order); }
#undef SPARSEC_Q
#define SPARSEC_Q(x) vsqrtq_f32((float32x4_t)(x))
SPARSEC_NEON __m512 _mm512_sqrt_ps(__m512 x) { return (__m512)SPARSEC_MAP(SPARSEC_Q, x); }
#undef SPARSEC_Q
#define SPARSEC_Q(x) vrndmq_f32((float32x4_t)(x))
SPARSEC_NEON __m512 sparsec_floor(__m512 x) { return (__m512)SPARSEC_MAP(SPARSEC_Q, x); }
#undef SPARSEC_Q
#define SPARSEC_Q(x) vrndnq_f32((float32x4_t)(x))
SPARSEC_NEON __m512 sparsec_nearest(__m512 x) { return (__m512)SPARSEC_MAP(SPARSEC_Q, x); }
#undef SPARSEC_Q
/* The low or high halves of quarters, interleaved. */
#define SPARSEC_ZIP(name, f, type)                                   \
    SPARSEC_NEON int32x4_t sparsec_q_##name(sparsec_quarter a, sparsec_quarter b) { return (int32x4_t)f((type)a, (type)b); } \
    SPARSEC_NEON __m512i _mm512_##name(__m512i a, __m512i b) { return SPARSEC_MAP2(sparsec_q_##name, a, b); }
SPARSEC_ZIP(unpacklo_epi32, vzip1q_s32, int32x4_t)
SPARSEC_ZIP(unpackhi_epi32, vzip2q_s32, int32x4_t)
SPARSEC_ZIP(unpacklo_epi64, vzip1q_s64, int64x2_t)
SPARSEC_ZIP(unpackhi_epi64, vzip2q_s64, int64x2_t)
#undef SPARSEC_ZIP

/* Quarters by two-bit numbers: two of a, two of b. */
#define _mm512_shuffle_i32x4(a, b, which) \
    SPARSEC_JOIN(SPARSEC_PART(a, (which) & 3), SPARSEC_PART(a, (which) >> 2 & 3), SPARSEC_PART(b, (which) >> 4 & 3), SPARSEC_PART(b, (which) >> 6))

/* Only what attention asks for: to the nearest integer, and what is left of the floor. */
#define _MM_FROUND_TO_NEAREST_INT 0
#define _MM_FROUND_NO_EXC 0
#define _mm512_roundscale_ps(x, how) sparsec_nearest(x)
#define _mm512_reduce_ps(x, how) _mm512_sub_ps(x, sparsec_floor(x))
/* a * 2^floor(b) for b below 128; zero for b below -126. */
SPARSEC_NEON __m512 _mm512_scalef_ps(__m512 a, __m512 b) {
    const sparsec_i16 exponent = __builtin_convertvector(sparsec_floor(b), sparsec_i16) + 127;
    return a * (__m512)((exponent & ~(exponent >> 31)) << 23);
}

/* 16 bytes, one per lane. */
typedef uint8_t sparsec_bytes16 __attribute__((vector_size(16)));
#define __m128i sparsec_bytes16
SPARSEC_NEON __m128i _mm_set1_epi8(char x) { return (uint8_t)x - (__m128i){0}; }
SPARSEC_NEON __m128i _mm_xor_si128(__m128i a, __m128i b) { return a ^ b; }
SPARSEC_NEON void _mm_storeu_si128(__m128i *p, __m128i x) { memcpy(p, &x, sizeof x); }
SPARSEC_NEON __m512i _mm512_cvtepu8_epi32(__m128i x) { return (__m512i)__builtin_convertvector(x, sparsec_u16); }
SPARSEC_NEON __m128i _mm512_cvtepi32_epi8(__m512i x) { return __builtin_convertvector((sparsec_u16)x, __m128i); }
SPARSEC_NEON __m128i _mm512_maskz_cvtepi32_epi8(uint32_t mask, __m512i x) { return _mm512_cvtepi32_epi8(_mm512_maskz_mov_epi32(mask, x)); }
SPARSEC_NEON __m128i _mm_maskz_loadu_epi8(uint32_t mask, const void *p) {
    uint8_t all[16] = {0};
    if (mask == 0xffffu) memcpy(all, p, sizeof all);
    else for (; mask; mask &= mask - 1) all[__builtin_ctz(mask)] = ((const uint8_t *)p)[__builtin_ctz(mask)];
    __m128i x;
    memcpy(&x, all, sizeof x);
    return x;
}
SPARSEC_NEON void _mm_mask_storeu_epi8(void *p, uint32_t mask, __m128i x) {
    if (mask == 0xffffu) memcpy(p, &x, sizeof x);
    else for (; mask; mask &= mask - 1) ((uint8_t *)p)[__builtin_ctz(mask)] = x[__builtin_ctz(mask)];
}

#endif
