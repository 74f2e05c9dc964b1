/* Winograd's minimal filtering F(m, r), one dimension at a time (Lavin and Gray, 2015): m outputs of a filter of r taps from
 * m + r - 1 inputs by as many products. Points 0, 1, -1, infinity for m = 2, and 2, -2 for m = 4, and 1/2 for r = 4; winograd.py has
 * the filter's side.
 */
#ifndef SPARSEC_WINOGRAD_H
#define SPARSEC_WINOGRAD_H

#include "vector.h"

/* Floats of one point of 16 tiles: an odd number of lines, so that the points of a channel do not meet in one set of the cache. */
#define SPARSEC_POINT(channels) (((channels) | 1) * 16)

SPARSEC_INLINE void sparsec_winograd_in(const int m, const int r, const vf *d, vf *v) {
    if (m == 2) {
        v[0] = d[0] - d[2];
        v[1] = d[1] + d[2];
        v[2] = d[2] - d[1];
        v[3] = d[1] - d[3];
        return;
    }
    if (r == 4) {
        const vf half = vset(-0.5f);
        const vf one = vfma(d[3], half, vfma(d[2], vset(-4), vfma(d[1], vset(2), d[4])));
        const vf one_on = vfma(d[4], half, vfma(d[3], vset(-4), vfma(d[2], vset(2), d[5])));
        const vf two = vfma(d[3] - d[1], half, d[4] - d[2]), two_on = vfma(d[4] - d[2], half, d[5] - d[3]);
        v[0] = vfma(d[0], vset(-2), vfma(d[1], vset(4), vfma(d[2], vset(2.5f), vfma(d[3], vset(-5), vfma(d[4], half, d[5])))));
        v[1] = one_on + one;
        v[2] = one_on - one;
        v[3] = vfma(two, vset(2), two_on);
        v[4] = vfma(two, vset(-2), two_on);
        v[5] = vfma(d[1], vset(4), vfma(d[3], vset(-5), d[5]));
        v[6] = vfma(d[1], vset(-2), vfma(d[2], vset(4), vfma(d[3], vset(2.5f), vfma(d[4], vset(-5), vfma(d[5], half, d[6])))));
        return;
    }
    const vf a = vfma(d[2], vset(-4), d[4]), b = vfma(d[1], vset(-4), d[3]);
    const vf c = d[4] - d[2], e = (d[3] - d[1]) * vset(2);
    v[0] = vfma(d[0], vset(4), vfma(d[2], vset(-5), d[4]));
    v[1] = a + b;
    v[2] = a - b;
    v[3] = c + e;
    v[4] = c - e;
    v[5] = vfma(d[1], vset(4), vfma(d[3], vset(-5), d[5]));
}

SPARSEC_INLINE void sparsec_winograd_out(const int m, const int r, const vf *s, vf *y) {
    if (m == 2) {
        y[0] = s[0] + s[1] + s[2];
        y[1] = s[1] - s[2] - s[3];
        return;
    }
    const vf even = s[1] + s[2], odd = s[1] - s[2], far_even = s[3] + s[4], far_odd = s[3] - s[4];
    if (r == 4) {
        y[0] = s[0] + even + far_even + s[5];
        y[1] = vfma(s[5], vset(0.5f), vfma(far_odd, vset(2), odd));
        y[2] = vfma(s[5], vset(0.25f), vfma(far_even, vset(4), even));
        y[3] = vfma(s[5], vset(0.125f), vfma(far_odd, vset(8), odd)) + s[6];
        return;
    }
    y[0] = s[0] + even + far_even;
    y[1] = vfma(far_odd, vset(2), odd);
    y[2] = vfma(far_even, vset(4), even);
    y[3] = vfma(far_odd, vset(8), odd) + s[5];
}

/* Of 32 lanes, a's then b's: those of even and of odd number. */
SPARSEC_INLINE vf sparsec_evens(vf a, vf b) {
    const __m512i at = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return (vf)_mm512_permutex2var_ps((__m512)a, at, (__m512)b);
}
SPARSEC_INLINE vf sparsec_odds(vf a, vf b) {
    const __m512i at = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return (vf)_mm512_permutex2var_ps((__m512)a, at, (__m512)b);
}
/* Lanes of a and b in turns: the first half of the result, and the second. */
SPARSEC_INLINE vf sparsec_turns_low(vf a, vf b) {
    const __m512i at = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (vf)_mm512_permutex2var_ps((__m512)a, at, (__m512)b);
}
SPARSEC_INLINE vf sparsec_turns_high(vf a, vf b) {
    const __m512i at = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
    return (vf)_mm512_permutex2var_ps((__m512)a, at, (__m512)b);
}
/* a without its first lane, then lane `lane` of b. */
SPARSEC_INLINE vf sparsec_next_lanes(vf a, vf b, const int lane) {
    const __m512i at = _mm512_set_epi32(16 + lane, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1);
    return (vf)_mm512_permutex2var_ps((__m512)a, at, (__m512)b);
}

#endif
