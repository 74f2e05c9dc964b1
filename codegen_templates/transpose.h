/* Transposes of 16x16 squares of 32-bit elements. */
#ifndef SPARSEC_TRANSPOSE_H
#define SPARSEC_TRANSPOSE_H

#include <stdint.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include "wide_neon.h"
#endif

#if defined(__AVX512F__) || defined(__aarch64__)

/* to[c * to_row + r] = from[r * from_row + c] for r, c < 16; rows count elements. */
static inline __attribute__((always_inline)) void sparsec_transpose16(const void *from, int64_t from_row, void *to,
                                                                      int64_t to_row) {
    const int32_t *f = from;
    int32_t *t = to;
    __m512i a[16], b[16];
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(f + i * from_row);
    for (int i = 0; i < 8; ++i) {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {
        a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
    /* a[4 i + j] holds column j + 4 q of rows 4 i .. 4 i + 3 in its 128-bit lane q */
    for (int j = 0; j < 4; ++j) {
        const __m512i low01 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x44), high01 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xee);
        const __m512i low23 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x44);
        const __m512i high23 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xee);
        _mm512_storeu_si512(t + j * to_row, _mm512_shuffle_i32x4(low01, low23, 0x88));
        _mm512_storeu_si512(t + (j + 4) * to_row, _mm512_shuffle_i32x4(low01, low23, 0xdd));
        _mm512_storeu_si512(t + (j + 8) * to_row, _mm512_shuffle_i32x4(high01, high23, 0x88));
        _mm512_storeu_si512(t + (j + 12) * to_row, _mm512_shuffle_i32x4(high01, high23, 0xdd));
    }
}
#elif defined(__AVX2__)
#include <immintrin.h>

/* The same of a square of 8x8. */
static inline __attribute__((always_inline)) void sparsec_transpose8(const float *f, int64_t from_row, float *t, int64_t to_row) {
    __m256 a[8], b[8];
    for (int i = 0; i < 4; ++i) { /* rows i and i + 4 side by side, columns 0-3 and 4-7 */
        const __m256 low = _mm256_loadu_ps(f + i * from_row), high = _mm256_loadu_ps(f + (i + 4) * from_row);
        a[i] = _mm256_permute2f128_ps(low, high, 0x20);
        a[i + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
        b[i + 2] = _mm256_unpacklo_ps(a[i + 2], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_ps(a[i + 2], a[i + 3]);
        _mm256_storeu_ps(t + i * to_row, _mm256_shuffle_ps(b[i], b[i + 2], 0x44));
        _mm256_storeu_ps(t + (i + 1) * to_row, _mm256_shuffle_ps(b[i], b[i + 2], 0xee));
        _mm256_storeu_ps(t + (i + 2) * to_row, _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44));
        _mm256_storeu_ps(t + (i + 3) * to_row, _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee));
    }
}
static inline __attribute__((always_inline)) void sparsec_transpose16(const void *from, int64_t from_row, void *to,
                                                                      int64_t to_row) {
    for (int r = 0; r < 16; r += 8)
        for (int c = 0; c < 16; c += 8)
            sparsec_transpose8((const float *)from + r * from_row + c, from_row, (float *)to + c * to_row + r, to_row);
}
#else
static inline void sparsec_transpose16(const void *from, int64_t from_row, void *to, int64_t to_row) {
    const int32_t *f = from;
    int32_t *t = to;
    for (int r = 0; r < 16; ++r)
        for (int c = 0; c < 16; ++c) t[c * to_row + r] = f[r * from_row + c];
}
#endif

#endif
