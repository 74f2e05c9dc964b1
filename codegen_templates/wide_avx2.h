/* Vectors of 16 lanes on x86 without AVX-512, or without its VNNI: kernels of 16 columns are written in its intrinsics (wide.h).
 *
 * Without AVX-512 a vector is two registers of AVX2. Here is what those kernels use, under the same names and with the same
 * results, bit for bit. With AVX-512 it is the products and tables of bytes alone that may be missing.
 */
#ifndef SPARSEC_WIDE_AVX2_H
#define SPARSEC_WIDE_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define SPARSEC_PAIR static inline __attribute__((always_inline, unused))

/* Sixteen integers, for arithmetic that wraps. */
typedef uint32_t sparsec_u16 __attribute__((vector_size(64)));
typedef int32_t sparsec_i16 __attribute__((vector_size(64)));

/* Keeps a load from becoming an operand of the instruction that uses it. */
#if defined(__AVX512F__)
#define SPARSEC_IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define SPARSEC_IN_REGISTER(v) (void)(v)
#endif

#if !defined(__AVX512F__)

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

/* --- halves --- */

SPARSEC_PAIR __m256 sparsec_low_ps(__m512 v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
SPARSEC_PAIR __m256 sparsec_high_ps(__m512 v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }
SPARSEC_PAIR __m512 sparsec_join_ps(__m256 a, __m256 b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
SPARSEC_PAIR __m256i sparsec_low(__m512i v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3); }
SPARSEC_PAIR __m256i sparsec_high(__m512i v) { return __builtin_shufflevector(v, v, 4, 5, 6, 7); }
SPARSEC_PAIR __m512i sparsec_join(__m256i a, __m256i b) { return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7); }

/* Operations that do the same in either half. */
#define SPARSEC_ONE_PS(name) \
    SPARSEC_PAIR __m512 sparsec512_##name(__m512 a) { return sparsec_join_ps(_mm256_##name(sparsec_low_ps(a)), _mm256_##name(sparsec_high_ps(a))); }
#define SPARSEC_TWO_PS(name)                                                                       \
    SPARSEC_PAIR __m512 sparsec512_##name(__m512 a, __m512 b) {                                  \
        return sparsec_join_ps(_mm256_##name(sparsec_low_ps(a), sparsec_low_ps(b)),                \
                               _mm256_##name(sparsec_high_ps(a), sparsec_high_ps(b)));             \
    }
#define SPARSEC_THREE_PS(name)                                                                             \
    SPARSEC_PAIR __m512 sparsec512_##name(__m512 a, __m512 b, __m512 c) {                                \
        return sparsec_join_ps(_mm256_##name(sparsec_low_ps(a), sparsec_low_ps(b), sparsec_low_ps(c)),     \
                               _mm256_##name(sparsec_high_ps(a), sparsec_high_ps(b), sparsec_high_ps(c))); \
    }
#define SPARSEC_TWO(name)                                                                  \
    SPARSEC_PAIR __m512i sparsec512_##name(__m512i a, __m512i b) {                       \
        return sparsec_join(_mm256_##name(sparsec_low(a), sparsec_low(b)),                 \
                            _mm256_##name(sparsec_high(a), sparsec_high(b)));              \
    }
SPARSEC_ONE_PS(sqrt_ps)
SPARSEC_TWO_PS(add_ps)
SPARSEC_TWO_PS(sub_ps)
SPARSEC_TWO_PS(mul_ps)
SPARSEC_TWO_PS(div_ps)
SPARSEC_TWO_PS(min_ps)
SPARSEC_TWO_PS(max_ps)
SPARSEC_THREE_PS(fmadd_ps)
SPARSEC_THREE_PS(fnmadd_ps)
SPARSEC_TWO(add_epi32)
SPARSEC_TWO(sub_epi32)
SPARSEC_TWO(mullo_epi32)
SPARSEC_TWO(adds_epi16)
SPARSEC_TWO(adds_epu8)
SPARSEC_TWO(packs_epi32)
SPARSEC_TWO(packus_epi16)
SPARSEC_TWO(max_epu8)
SPARSEC_TWO(min_epi32)
SPARSEC_TWO(min_epu32)
SPARSEC_TWO(shuffle_epi8)
SPARSEC_TWO(unpacklo_epi32)
SPARSEC_TWO(unpackhi_epi32)
#undef SPARSEC_ONE_PS
#undef SPARSEC_TWO_PS
#undef SPARSEC_THREE_PS
#undef SPARSEC_TWO

SPARSEC_PAIR __m512i sparsec512_and_si512(__m512i a, __m512i b) { return a & b; }
SPARSEC_PAIR __m512i sparsec512_or_si512(__m512i a, __m512i b) { return a | b; }
SPARSEC_PAIR __m512i sparsec512_xor_si512(__m512i a, __m512i b) { return a ^ b; }
SPARSEC_PAIR __m512i sparsec512_slli_epi32(__m512i a, unsigned n) { return (__m512i)((sparsec_u16)a << n); }
SPARSEC_PAIR __m512i sparsec512_srli_epi32(__m512i a, unsigned n) {
    return sparsec_join(_mm256_srli_epi32(sparsec_low(a), (int)n), _mm256_srli_epi32(sparsec_high(a), (int)n));
}
SPARSEC_PAIR __m512 sparsec512_abs_ps(__m512 a) { return (__m512)((sparsec_i16)a & 0x7fffffff); }
SPARSEC_PAIR __m512 sparsec512_castsi512_ps(__m512i a) { return (__m512)a; }
SPARSEC_PAIR __m512i sparsec512_castps_si512(__m512 a) { return (__m512i)a; }
SPARSEC_PAIR __m512 sparsec512_cvtepi32_ps(__m512i a) {
    return sparsec_join_ps(_mm256_cvtepi32_ps(sparsec_low(a)), _mm256_cvtepi32_ps(sparsec_high(a)));
}
SPARSEC_PAIR __m512i sparsec512_cvtps_epi32(__m512 a) {
    return sparsec_join(_mm256_cvtps_epi32(sparsec_low_ps(a)), _mm256_cvtps_epi32(sparsec_high_ps(a)));
}
SPARSEC_PAIR __m512i sparsec512_cvtepu8_epi32(__m128i a) {
    return sparsec_join(_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8)));
}
/* The lowest byte of every lane. */
SPARSEC_PAIR __m128i sparsec512_cvtepi32_epi8(__m512i a) {
    const __m512i bytes = (__m512i)((sparsec_i16)a & 255);
    const __m256i pairs = _mm256_packus_epi32(sparsec_low(bytes), sparsec_high(bytes)); /* 0-3 8-11 | 4-7 12-15 */
    const __m256i in_order = _mm256_permute4x64_epi64(pairs, 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(in_order), _mm256_extracti128_si256(in_order, 1));
}

/* --- constants --- */

SPARSEC_PAIR __m512 sparsec512_setzero_ps(void) { return (__m512){0}; }
SPARSEC_PAIR __m512i sparsec512_setzero_si512(void) { return (__m512i){0}; }
SPARSEC_PAIR __m512 sparsec512_set1_ps(float x) { return x - (__m512){0}; }
SPARSEC_PAIR __m512i sparsec512_set1_epi8(char x) { return sparsec_join(_mm256_set1_epi8(x), _mm256_set1_epi8(x)); }
SPARSEC_PAIR __m512i sparsec512_set1_epi16(short x) { return sparsec_join(_mm256_set1_epi16(x), _mm256_set1_epi16(x)); }
SPARSEC_PAIR __m512i sparsec512_set1_epi32(int x) { return (__m512i)(x - (sparsec_i16){0}); }
SPARSEC_PAIR __m512i sparsec512_broadcast_i32x4(__m128i x) {
    return sparsec_join(_mm256_broadcastsi128_si256(x), _mm256_broadcastsi128_si256(x));
}
SPARSEC_PAIR __m512i sparsec512_set1_epi64(long long x) { return sparsec_join(_mm256_set1_epi64x(x), _mm256_set1_epi64x(x)); }
#define sparsec512_setr_epi32(...) ((__m512i)(sparsec_i16){__VA_ARGS__})
#define sparsec512_set_epi32(p, o, n, m, l, k, j, i, h, g, f, e, d, c, b, a) \
    ((__m512i)(sparsec_i16){a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p})
#define sparsec512_set4_epi32(d, c, b, a) ((__m512i)(sparsec_i16){a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d})

/* --- masks: a bit per lane --- */

SPARSEC_PAIR __m256i sparsec_half_lanes(unsigned mask) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)mask), bits), bits);
}
SPARSEC_PAIR __m512i sparsec_lanes(__mmask16 mask) {
    return sparsec_join(sparsec_half_lanes(mask), sparsec_half_lanes((unsigned)mask >> 8));
}
SPARSEC_PAIR __m512i sparsec_chosen(__m512i lanes, __m512i yes, __m512i no) { return (lanes & yes) | (~lanes & no); }

SPARSEC_PAIR __mmask16 sparsec512_movepi32_mask(__m512i a) {
    const int low = _mm256_movemask_ps((__m256)sparsec_low(a)), high = _mm256_movemask_ps((__m256)sparsec_high(a));
    return (__mmask16)(low | high << 8);
}
SPARSEC_PAIR __m512i sparsec512_mask_mov_epi32(__m512i no, __mmask16 mask, __m512i yes) {
    return mask == 0xffff ? yes : sparsec_chosen(sparsec_lanes(mask), yes, no);
}
SPARSEC_PAIR __m512i sparsec512_maskz_mov_epi32(__mmask16 mask, __m512i a) { return sparsec_lanes(mask) & a; }
SPARSEC_PAIR __m512 sparsec512_mask_sub_ps(__m512 no, __mmask16 mask, __m512 a, __m512 b) {
    return (__m512)sparsec_chosen(sparsec_lanes(mask), (__m512i)(a - b), (__m512i)no);
}
SPARSEC_PAIR __m512 sparsec512_mask_blend_ps(__mmask16 mask, __m512 no, __m512 yes) {
    return (__m512)sparsec_chosen(sparsec_lanes(mask), (__m512i)yes, (__m512i)no);
}

/* --- memory; nothing is touched where the mask has no bit --- */

SPARSEC_PAIR __m512i sparsec512_loadu_si512(const void *p) {
    return sparsec_join(_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)p + 1));
}
SPARSEC_PAIR void sparsec512_storeu_si512(void *p, __m512i a) {
    _mm256_storeu_si256((__m256i *)p, sparsec_low(a));
    _mm256_storeu_si256((__m256i *)p + 1, sparsec_high(a));
}
SPARSEC_PAIR __m512 sparsec512_loadu_ps(const void *p) { return (__m512)sparsec512_loadu_si512(p); }
SPARSEC_PAIR void sparsec512_storeu_ps(void *p, __m512 a) { sparsec512_storeu_si512(p, (__m512i)a); }
SPARSEC_PAIR void sparsec512_stream_ps(float *p, __m512 a) {
    _mm256_stream_ps(p, sparsec_low_ps(a));
    _mm256_stream_ps(p + 8, sparsec_high_ps(a));
}
SPARSEC_PAIR __m512i sparsec512_maskz_loadu_epi32(__mmask16 mask, const void *p) {
    if (mask == 0xffff) return sparsec512_loadu_si512(p);
    return sparsec_join(_mm256_maskload_epi32((const int *)p, sparsec_half_lanes(mask)),
                        _mm256_maskload_epi32((const int *)p + 8, sparsec_half_lanes((unsigned)mask >> 8)));
}
SPARSEC_PAIR __m512 sparsec512_maskz_loadu_ps(__mmask16 mask, const void *p) {
    return (__m512)sparsec512_maskz_loadu_epi32(mask, p);
}
SPARSEC_PAIR __m512 sparsec512_mask_loadu_ps(__m512 no, __mmask16 mask, const void *p) {
    if (mask == 0xffff) return sparsec512_loadu_ps(p);
    return (__m512)sparsec_chosen(sparsec_lanes(mask), sparsec512_maskz_loadu_epi32(mask, p), (__m512i)no);
}
SPARSEC_PAIR void sparsec512_mask_storeu_epi32(void *p, __mmask16 mask, __m512i a) {
    if (mask == 0xffff) {
        sparsec512_storeu_si512(p, a);
        return;
    }
    _mm256_maskstore_epi32((int *)p, sparsec_half_lanes(mask), sparsec_low(a));
    _mm256_maskstore_epi32((int *)p + 8, sparsec_half_lanes((unsigned)mask >> 8), sparsec_high(a));
}
SPARSEC_PAIR void sparsec512_mask_storeu_ps(void *p, __mmask16 mask, __m512 a) {
    sparsec512_mask_storeu_epi32(p, mask, (__m512i)a);
}
SPARSEC_PAIR __m128i sparsec_maskz_loadu_bytes(__mmask16 mask, const void *p) {
    if (mask == 0xffff) return _mm_loadu_si128((const __m128i *)p);
    uint8_t all[16] = {0};
    for (unsigned rest = mask; rest; rest &= rest - 1) all[__builtin_ctz(rest)] = ((const uint8_t *)p)[__builtin_ctz(rest)];
    return _mm_loadu_si128((const __m128i *)all);
}
SPARSEC_PAIR void sparsec_mask_storeu_bytes(void *p, __mmask16 mask, __m128i a) {
    if (mask == 0xffff) {
        _mm_storeu_si128((__m128i *)p, a);
        return;
    }
    uint8_t all[16];
    _mm_storeu_si128((__m128i *)all, a);
    for (unsigned rest = mask; rest; rest &= rest - 1) ((uint8_t *)p)[__builtin_ctz(rest)] = all[__builtin_ctz(rest)];
}
SPARSEC_PAIR __m128i sparsec512_maskz_cvtepi32_epi8(__mmask16 mask, __m512i a) {
    return sparsec512_cvtepi32_epi8(sparsec_lanes(mask) & a);
}
#define sparsec512_mask_i32gather_epi32(no, mask, index, p, scale) sparsec_gather(no, mask, index, (const char *)(p), scale)
#define sparsec512_mask_i32gather_ps(no, mask, index, p, scale) \
    ((__m512)sparsec_gather((__m512i)(no), mask, index, (const char *)(p), scale))
SPARSEC_PAIR __m512i sparsec_gather(__m512i no, __mmask16 mask, __m512i index, const char *p, int scale) {
    sparsec_i16 to = (sparsec_i16)no;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        int32_t x;
        memcpy(&x, p + (int64_t)((sparsec_i16)index)[lane] * scale, sizeof x);
        to[lane] = x;
    }
    return (__m512i)to;
}

/* --- across lanes --- */

/* Lane i is lane index[i] % 16 of a, or of b where index[i] has bit 4. */
SPARSEC_PAIR __m256 sparsec_half_of_two(__m512 a, __m256i index, __m512 b) {
    const __m256 third = (__m256)_mm256_slli_epi32(index, 28), fourth = (__m256)_mm256_slli_epi32(index, 27);
    const __m256 first = _mm256_blendv_ps(_mm256_permutevar8x32_ps(sparsec_low_ps(a), index),
                                          _mm256_permutevar8x32_ps(sparsec_high_ps(a), index), third);
    const __m256 second = _mm256_blendv_ps(_mm256_permutevar8x32_ps(sparsec_low_ps(b), index),
                                           _mm256_permutevar8x32_ps(sparsec_high_ps(b), index), third);
    return _mm256_blendv_ps(first, second, fourth);
}
SPARSEC_PAIR __m512 sparsec512_permutex2var_ps(__m512 a, __m512i index, __m512 b) {
    return sparsec_join_ps(sparsec_half_of_two(a, sparsec_low(index), b), sparsec_half_of_two(a, sparsec_high(index), b));
}
SPARSEC_PAIR __m512i sparsec512_permutex2var_epi32(__m512i a, __m512i index, __m512i b) {
    return (__m512i)sparsec512_permutex2var_ps((__m512)a, index, (__m512)b);
}
/* The same of one vector. */
SPARSEC_PAIR __m256 sparsec_half_of_one(__m256i index, __m512 a) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(sparsec_low_ps(a), index), _mm256_permutevar8x32_ps(sparsec_high_ps(a), index),
                            (__m256)_mm256_slli_epi32(index, 28));
}
SPARSEC_PAIR __m512 sparsec512_permutexvar_ps(__m512i index, __m512 a) {
    return sparsec_join_ps(sparsec_half_of_one(sparsec_low(index), a), sparsec_half_of_one(sparsec_high(index), a));
}
SPARSEC_PAIR __m512i sparsec512_permutexvar_epi32(__m512i index, __m512i a) {
    return (__m512i)sparsec512_permutexvar_ps(index, (__m512)a);
}
#define sparsec512_shuffle_ps(a, b, how)                                               \
    sparsec_join_ps(_mm256_shuffle_ps(sparsec_low_ps(a), sparsec_low_ps(b), how),      \
                    _mm256_shuffle_ps(sparsec_high_ps(a), sparsec_high_ps(b), how))
/* The lanes of a mask of 8 bits, first to last, by those of the bytes 0, 1, 2, ...; then zeros. */
SPARSEC_PAIR __m256 sparsec_half_packed(unsigned mask, __m256 a) {
    const uint64_t bytes = _pdep_u64(mask, UINT64_C(0x0101010101010101)) * 255;
    const __m128i order = _mm_cvtsi64_si128((long long)_pext_u64(UINT64_C(0x0706050403020100), bytes));
    const __m256 packed = _mm256_permutevar8x32_ps(a, _mm256_cvtepu8_epi32(order));
    return _mm256_and_ps(packed, (__m256)sparsec_half_lanes((1u << __builtin_popcount(mask)) - 1));
}
/* The same of all lanes; and back. */
SPARSEC_PAIR __m512 sparsec512_maskz_compress_ps(__mmask16 mask, __m512 a) {
    if (mask == 0xffff) return a;
    float to[24] = {0};
    _mm256_storeu_ps(to, sparsec_half_packed(mask & 255u, sparsec_low_ps(a)));
    _mm256_storeu_ps(to + __builtin_popcount(mask & 255u), sparsec_half_packed((unsigned)mask >> 8, sparsec_high_ps(a)));
    return sparsec512_loadu_ps(to);
}
/* Eight lanes of memory, spread over the lanes of a mask of 8 bits: by spreading the bytes 0, 1, 2, ... over its bits. */
SPARSEC_PAIR __m256i sparsec_half_spread(unsigned mask, const int32_t *from) {
    const uint64_t bytes = _pdep_u64(mask, UINT64_C(0x0101010101010101)) * 255;
    const __m128i order = _mm_cvtsi64_si128((long long)_pdep_u64(UINT64_C(0x0706050403020100), bytes));
    const __m256i all = _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)from), _mm256_cvtepu8_epi32(order));
    return _mm256_and_si256(all, sparsec_half_lanes(mask));
}
SPARSEC_PAIR __m512i sparsec512_maskz_expand_epi32(__mmask16 mask, __m512i a) {
    if (mask == 0xffff) return a;
    int32_t from[16];
    sparsec512_storeu_si512(from, a);
    const int first = __builtin_popcount(mask & 255u);
    return sparsec_join(sparsec_half_spread(mask & 255u, from), sparsec_half_spread((unsigned)mask >> 8, from + first));
}
SPARSEC_PAIR __m512 sparsec512_maskz_expand_ps(__mmask16 mask, __m512 a) {
    return (__m512)sparsec512_maskz_expand_epi32(mask, (__m512i)a);
}

/* --- powers of two --- */

/* x less its floor, where `how` is 1. */
#define sparsec512_reduce_ps(a, how) sparsec_fraction(a)
SPARSEC_PAIR __m512 sparsec_floor(__m512 a) {
    return sparsec_join_ps(_mm256_floor_ps(sparsec_low_ps(a)), _mm256_floor_ps(sparsec_high_ps(a)));
}
SPARSEC_PAIR __m512 sparsec_fraction(__m512 a) { return a - sparsec_floor(a); }
#define sparsec512_roundscale_ps(a, how) \
    sparsec_join_ps(_mm256_round_ps(sparsec_low_ps(a), how), _mm256_round_ps(sparsec_high_ps(a), how))
/* a * 2^floor(b) for |b| <= 250. */
SPARSEC_PAIR __m512 sparsec512_scalef_ps(__m512 a, __m512 b) {
    const sparsec_i16 whole = (sparsec_i16)sparsec512_cvtps_epi32(sparsec_floor(b)), half = whole >> 1;
    return a * (__m512)((half + 127) << 23) * (__m512)((whole - half + 127) << 23);
}

#define _mm512_abs_ps sparsec512_abs_ps
#define _mm512_add_epi32 sparsec512_add_epi32
#define _mm512_add_ps sparsec512_add_ps
#define _mm512_adds_epi16 sparsec512_adds_epi16
#define _mm512_adds_epu8 sparsec512_adds_epu8
#define _mm512_and_si512 sparsec512_and_si512
#define _mm512_broadcast_i32x4 sparsec512_broadcast_i32x4
#define _mm512_castps_si512 sparsec512_castps_si512
#define _mm512_castsi512_ps sparsec512_castsi512_ps
#define _mm512_cvtepi32_epi8 sparsec512_cvtepi32_epi8
#define _mm512_cvtepi32_ps sparsec512_cvtepi32_ps
#define _mm512_cvtepu8_epi32 sparsec512_cvtepu8_epi32
#define _mm512_cvtps_epi32 sparsec512_cvtps_epi32
#define _mm512_div_ps sparsec512_div_ps
#define _mm512_fmadd_ps sparsec512_fmadd_ps
#define _mm512_fnmadd_ps sparsec512_fnmadd_ps
#define _mm512_load_ps sparsec512_loadu_ps
#define _mm512_load_si512 sparsec512_loadu_si512
#define _mm512_loadu_ps sparsec512_loadu_ps
#define _mm512_loadu_si512 sparsec512_loadu_si512
#define _mm512_mask_blend_ps sparsec512_mask_blend_ps
#undef _mm512_mask_i32gather_epi32
#define _mm512_mask_i32gather_epi32 sparsec512_mask_i32gather_epi32
#undef _mm512_mask_i32gather_ps
#define _mm512_mask_i32gather_ps sparsec512_mask_i32gather_ps
#define _mm512_mask_loadu_ps sparsec512_mask_loadu_ps
#define _mm512_mask_mov_epi32 sparsec512_mask_mov_epi32
#define _mm512_mask_storeu_epi32 sparsec512_mask_storeu_epi32
#define _mm512_mask_storeu_ps sparsec512_mask_storeu_ps
#define _mm512_mask_sub_ps sparsec512_mask_sub_ps
#define _mm512_maskz_compress_ps sparsec512_maskz_compress_ps
#define _mm512_maskz_cvtepi32_epi8 sparsec512_maskz_cvtepi32_epi8
#define _mm512_maskz_expand_epi32 sparsec512_maskz_expand_epi32
#define _mm512_maskz_expand_ps sparsec512_maskz_expand_ps
#define _mm512_maskz_loadu_epi32 sparsec512_maskz_loadu_epi32
#define _mm512_maskz_loadu_ps sparsec512_maskz_loadu_ps
#define _mm512_maskz_mov_epi32 sparsec512_maskz_mov_epi32
#define _mm512_max_epu8 sparsec512_max_epu8
#define _mm512_max_ps sparsec512_max_ps
#define _mm512_min_epi32 sparsec512_min_epi32
#define _mm512_min_epu32 sparsec512_min_epu32
#define _mm512_min_ps sparsec512_min_ps
#define _mm512_movepi32_mask sparsec512_movepi32_mask
#define _mm512_mul_ps sparsec512_mul_ps
#define _mm512_mullo_epi32 sparsec512_mullo_epi32
#define _mm512_or_si512 sparsec512_or_si512
#define _mm512_packs_epi32 sparsec512_packs_epi32
#define _mm512_packus_epi16 sparsec512_packus_epi16
#define _mm512_permutex2var_epi32 sparsec512_permutex2var_epi32
#define _mm512_permutex2var_ps sparsec512_permutex2var_ps
#define _mm512_permutexvar_epi32 sparsec512_permutexvar_epi32
#define _mm512_permutexvar_ps sparsec512_permutexvar_ps
#undef _mm512_reduce_ps
#define _mm512_reduce_ps sparsec512_reduce_ps
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps sparsec512_roundscale_ps
#define _mm512_scalef_ps sparsec512_scalef_ps
#define _mm512_set1_epi16 sparsec512_set1_epi16
#define _mm512_set1_epi32 sparsec512_set1_epi32
#define _mm512_set1_epi64 sparsec512_set1_epi64
#define _mm512_set1_epi8 sparsec512_set1_epi8
#define _mm512_set1_ps sparsec512_set1_ps
#define _mm512_set4_epi32 sparsec512_set4_epi32
#define _mm512_set_epi32 sparsec512_set_epi32
#undef _mm512_setr_epi32
#define _mm512_setr_epi32 sparsec512_setr_epi32
#define _mm512_setzero_ps sparsec512_setzero_ps
#define _mm512_setzero_si512 sparsec512_setzero_si512
#define _mm512_shuffle_epi8 sparsec512_shuffle_epi8
#undef _mm512_shuffle_ps
#define _mm512_shuffle_ps sparsec512_shuffle_ps
#define _mm512_slli_epi32 sparsec512_slli_epi32
#define _mm512_sqrt_ps sparsec512_sqrt_ps
#define _mm512_srli_epi32 sparsec512_srli_epi32
#define _mm512_store_ps sparsec512_storeu_ps
#define _mm512_store_si512 sparsec512_storeu_si512
#define _mm512_storeu_ps sparsec512_storeu_ps
#define _mm512_storeu_si512 sparsec512_storeu_si512
#define _mm512_stream_ps sparsec512_stream_ps
#define _mm512_sub_epi32 sparsec512_sub_epi32
#define _mm512_sub_ps sparsec512_sub_ps
#define _mm512_unpackhi_epi32 sparsec512_unpackhi_epi32
#define _mm512_unpacklo_epi32 sparsec512_unpacklo_epi32
#define _mm512_xor_si512 sparsec512_xor_si512
#define _mm_mask_storeu_epi8 sparsec_mask_storeu_bytes
#define _mm_maskz_loadu_epi8 sparsec_maskz_loadu_bytes

#endif /* without AVX-512 */

#if !defined(__AVX512VNNI__) || !defined(__AVX512F__)
/* sum + the products of four unsigned bytes by four signed ones, exact: pairs of 16 bits, the even bytes and the odd. */
#if defined(__AVX512F__)
SPARSEC_PAIR __m512i sparsec512_dpbusd_epi32(__m512i sum, __m512i u, __m512i s) {
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(u, _mm512_set1_epi16(255)), _mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8));
    const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(u, 8), _mm512_srai_epi16(s, 8));
    return _mm512_add_epi32(_mm512_add_epi32(sum, even), odd);
}
#else
SPARSEC_PAIR __m256i sparsec_half_dot(__m256i sum, __m256i u, __m256i s) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, u, s);
#else
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
    return _mm256_add_epi32(_mm256_add_epi32(sum, even), odd);
#endif
}
SPARSEC_PAIR __m512i sparsec512_dpbusd_epi32(__m512i sum, __m512i u, __m512i s) {
    return sparsec_join(sparsec_half_dot(sparsec_low(sum), sparsec_low(u), sparsec_low(s)),
                        sparsec_half_dot(sparsec_high(sum), sparsec_high(u), sparsec_high(s)));
}
#endif
#define _mm512_dpbusd_epi32 sparsec512_dpbusd_epi32
#endif

/* The same where no two of its products leave 16 bits (row_code.py). */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define sparsec_split_dot _mm512_dpbusd_epi32
#elif defined(__AVX512F__)
SPARSEC_PAIR __m512i sparsec_split_dot(__m512i sum, __m512i u, __m512i s) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(u, s), _mm512_set1_epi16(1)));
}
#else
SPARSEC_PAIR __m256i sparsec_half_split_dot(__m256i sum, __m256i u, __m256i s) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
}
SPARSEC_PAIR __m512i sparsec_split_dot(__m512i sum, __m512i u, __m512i s) {
    return sparsec_join(sparsec_half_split_dot(sparsec_low(sum), sparsec_low(u), sparsec_low(s)),
                        sparsec_half_split_dot(sparsec_high(sum), sparsec_high(u), sparsec_high(s)));
}
#endif

#if !defined(__AVX512VBMI2__)
/* Bytes spread over the bits of a mask, eight at a time. */
SPARSEC_PAIR __m512i sparsec512_maskz_expand_epi8(uint64_t mask, __m512i a) {
    uint8_t from[72];
    uint64_t to[8];
    memcpy(from, &a, 64);
    const uint8_t *at = from;
    for (int i = 0; i < 8; ++i, mask >>= 8) {
        const uint64_t bytes = _pdep_u64(mask & 255, UINT64_C(0x0101010101010101)) * 255;
        uint64_t eight;
        memcpy(&eight, at, sizeof eight);
        to[i] = _pdep_u64(eight, bytes);
        at += __builtin_popcount((unsigned)(mask & 255));
    }
    return _mm512_loadu_si512(to);
}
#define _mm512_maskz_expand_epi8 sparsec512_maskz_expand_epi8
#endif

#endif
