/* Stores of 16 columns of a feature (layout.py), as floats, or of four features as bytes. */
#ifndef SPARSEC_PANEL_BYTES_H
#define SPARSEC_PANEL_BYTES_H

#include "wide_bytes.h"

/* A feature of a tensor of so many values: past the caches where it is larger than what they hold of several tensors,
 * which spares reading its lines first. The kernel ends with a fence. */
SPARSEC_INLINE void sparsec_store_panel(float *to, vf x, int64_t values) {
    if (values > 1 << 20) _mm512_stream_ps(to, (__m512)x);
    else vstore(to, x);
}

/* round(x * inverse) + zero, saturated to 0..255, of four features: a group of four bytes per column. `zero` is int16. */
SPARSEC_INLINE __m512i sparsec_bytes_of(const vf *x, __m512 inverse, __m512i zero) {
    __m512i q[4];
#pragma clang loop unroll(full)
    for (int j = 0; j < 4; ++j) q[j] = sparsec_rounded(_mm512_mul_ps((__m512)x[j], inverse));
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), zero);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), zero);
    const __m512i order = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
    return _mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order);
}

/* Every byte's entry of a table of 256. */
SPARSEC_INLINE __m512i sparsec_looked_up(__m512i x, const uint8_t *table) {
#if defined(__aarch64__)
    uint8x16_t part[4];
    for (int i = 0; i < 4; ++i) {
        uint8x16_t at, found = vdupq_n_u8(0);
        memcpy(&at, (const char *)&x + 16 * i, 16);
        for (int j = 0; j < 4; ++j, at = vsubq_u8(at, vdupq_n_u8(64))) /* places out of range keep what was found */
            found = vqtbx4q_u8(found, vld1q_u8_x4(table + 64 * j), at);
        part[i] = found;
    }
    return _mm512_loadu_si512(part);
#elif defined(__AVX512VBMI__)
    const __m512i low = _mm512_permutex2var_epi8(_mm512_loadu_si512(table), x, _mm512_loadu_si512(table + 64));
    const __m512i high = _mm512_permutex2var_epi8(_mm512_loadu_si512(table + 128), x, _mm512_loadu_si512(table + 192));
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
#else
    __m512i found = _mm512_setzero_si512();
    for (int i = 0; i < 16; ++i) { /* a shuffle by a byte above 127 gives zero */
        const __m512i inside = _mm512_adds_epu8(_mm512_xor_si512(x, _mm512_set1_epi8((char)(16 * i))), _mm512_set1_epi8(0x70));
        const __m512i part = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(table + 16 * i)));
        found = _mm512_or_si512(found, _mm512_shuffle_epi8(part, inside));
    }
    return found;
#endif
}

#endif
