/* Planes of quantized images (qplanes.py): groups of four channels, whose bytes at one position lie together. */
#ifndef SPARSEC_QPLANES_H
#define SPARSEC_QPLANES_H

#include "wide_bytes.h"

enum { SPARSEC_TILE = 16, SPARSEC_GROUP = 4 };

/* Positions [from, to) of a plane become the zero point. */
SPARSEC_INLINE void sparsec_fill(uint32_t *plane, int64_t from, int64_t to, uint32_t word) {
    const __m512i all = _mm512_set1_epi32((int)word);
    for (; from + SPARSEC_TILE <= to; from += SPARSEC_TILE) _mm512_storeu_si512(plane + from, all);
    if (from < to) _mm512_mask_storeu_epi32(plane + from, (__mmask16)((1u << (to - from)) - 1), all);
}

/* The first n of 16 positions; 0 < n <= 16. */
SPARSEC_INLINE __mmask16 sparsec_first(int64_t n) { return (__mmask16)(n >= SPARSEC_TILE ? 0xffff : (1u << n) - 1); }

/* Positions from, from + step, ...: the first n of 16, others are zero. */
SPARSEC_INLINE __m512i sparsec_every(const uint32_t *from, int64_t step, int64_t n) {
    if (step == 1) return _mm512_maskz_loadu_epi32(sparsec_first(n), from);
#if defined(__aarch64__)
    uint32_t every[SPARSEC_TILE] = {0};
    int64_t i = 0;
    if (step == 2)
        for (; i + 4 < n; i += 4) vst1q_u32(every + i, vld2q_u32(from + 2 * i).val[0]);
    for (; i < n; ++i) every[i] = from[i * step];
    return _mm512_loadu_si512(every);
#else
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    if (step != 2) return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), sparsec_first(n), _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)step)), from, 4);
    const int64_t count = 2 * n - 1;
    const __m512i low = _mm512_maskz_loadu_epi32(sparsec_first(count), from);
    if (count <= SPARSEC_TILE) return _mm512_permutexvar_epi32(_mm512_slli_epi32(lane, 1), low);
    const __m512i high = _mm512_maskz_loadu_epi32(sparsec_first(count - SPARSEC_TILE), from + SPARSEC_TILE);
    return _mm512_permutex2var_epi32(low, _mm512_slli_epi32(lane, 1), high);
#endif
}

/* The four bytes of a position that holds the zero point. */
SPARSEC_INLINE uint32_t sparsec_word(int64_t zero) { return (uint32_t)(zero ^ SPARSEC_LOWER) * 0x01010101u; }

/* Byte j of every position as float32(byte - zero) * scale. */
SPARSEC_INLINE vf sparsec_dequantized(__m512i bytes, int j, int32_t zero, float scale) {
    const __m512i byte = _mm512_and_si512(_mm512_srli_epi32(sparsec_kept(bytes), (unsigned)(8 * j)), _mm512_set1_epi32(255));
    return (vf)_mm512_cvtepi32_ps(_mm512_sub_epi32(byte, _mm512_set1_epi32(zero))) * scale;
}

/* round(x * inverse) as int32, at least `low` and at most `high`; NaN becomes `low`. */
SPARSEC_INLINE __m512i sparsec_steps(vf x, float inverse, float low, float high) {
    const __m512 steps = _mm512_max_ps((__m512)(x * inverse), _mm512_set1_ps(low));
    return _mm512_cvtps_epi32(_mm512_min_ps(steps, _mm512_set1_ps(high)));
}

/* Four rows of 16 int32, each plus the zero point, as bytes [16 positions][4]. Beyond 16 bits they saturate, then at 0. */
SPARSEC_INLINE __m512i sparsec_pack4(const __m512i q[4], int32_t zero) {
    const __m512i offset = _mm512_set1_epi16((short)zero);
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), offset);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), offset);
    const __m512i order = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
    return sparsec_kept(_mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order));
}

#endif
