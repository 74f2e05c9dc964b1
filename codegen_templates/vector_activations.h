/* Activations of a vector register of floats; NaN in gives NaN out. */
#ifndef SPARSEC_VECTOR_ACTIVATIONS_H
#define SPARSEC_VECTOR_ACTIVATIONS_H

#include "scalar_math.h"
#include "vector_math.h"

/* A scalar function of every lane; clang makes vector code of it. */
#define SPARSEC_LANEWISE(name, function)                       \
    SPARSEC_INLINE vf name(vf x) {                             \
        float lanes[SPARSEC_LANES];                            \
        memcpy(lanes, &x, sizeof lanes);                       \
        for (int i = 0; i < SPARSEC_LANES; ++i) lanes[i] = function(lanes[i]); \
        memcpy(&x, lanes, sizeof x);                           \
        return x;                                              \
    }
SPARSEC_LANEWISE(vtanh, sparsec_tanh_float32)
SPARSEC_LANEWISE(verf, sparsec_erf_float32)
#undef SPARSEC_LANEWISE

#if defined(__AVX512F__)
/* 1 / (1 + e^-x), relative error below 5e-7; NaN stays NaN. e^r is a polynomial of degree 5, and a step of Newton's stands for the
 * division, which would take as long as all the rest. */
SPARSEC_INLINE vf vsigmoid(vf x) {
    const __m512 one = _mm512_set1_ps(1.0f), magic = _mm512_set1_ps(0x1.8p+23f);
    const __m512 c = _mm512_min_ps(_mm512_set1_ps(87.0f), _mm512_max_ps(_mm512_set1_ps(-87.0f), (__m512)x));
    const __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(c, _mm512_set1_ps(-0x1.715476p+0f), magic), magic);
    const __m512 r = _mm512_fnmsub_ps(n, _mm512_set1_ps(0x1.62e43p-1f), c);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.10621ep-7f), r, _mm512_set1_ps(0x1.572adap-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5557b0p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffdfap-2f));
    p = _mm512_fmadd_ps(_mm512_fmadd_ps(p, r, one), r, one);
    const __m512 d = _mm512_add_ps(_mm512_scalef_ps(p, n), one), y = _mm512_rcp14_ps(d);
    return (vf)_mm512_mul_ps(y, _mm512_fnmadd_ps(d, y, _mm512_set1_ps(2.0f)));
}
#else
SPARSEC_INLINE vf vsigmoid(vf x) { return vset(1.0f) / (vset(1.0f) + vexp(-x)); }
#endif

SPARSEC_INLINE vf vclamp(vf x, float low, float high) {
#if defined(__aarch64__) && SPARSEC_LANES == 16
    return (vf)sparsec_bounded((__m512)x, low, high);
#endif
    x = vselect((vi)(x < vset(low)), vset(low), x);
    return vselect((vi)(x > vset(high)), vset(high), x);
}

/* To steps of a quantization and back: how = {1 / scale, scale, lowest step, highest step}; NaN to the lowest. */
SPARSEC_INLINE vf vfake_quantize(vf x, const float *how) {
    x *= vset(how[0]);
    x = vselect((vi)(x > vset(how[2])), x, vset(how[2]));
    x = vselect((vi)(x < vset(how[3])), x, vset(how[3]));
    return ((x + vset(0x1.8p+23f)) - vset(0x1.8p+23f)) * vset(how[1]);
}

#if defined(__AVX512F__) || (defined(SPARSEC_WIDE) && !defined(__aarch64__))
/* 1 - F(t) of the normal distribution for t = 5.5 / 31 * (i + r), |r| <= 1/2: a cubic in r for each i. */
static const float SPARSEC_NORMAL[4][32] = {
    {0x1.0p-1f, 0x1.b7e654p-2f, 0x1.720722p-2f, 0x1.30688ap-2f, 0x1.e95fdp-3f, 0x1.80071ep-3f,
     0x1.25fc4cp-3f, 0x1.b6ce4p-4f, 0x1.3f11d4p-4f, 0x1.c3dad2p-5f, 0x1.376c6ap-5f, 0x1.a1a972p-6f,
     0x1.106576p-6f, 0x1.597638p-7f, 0x1.a9dcp-8f, 0x1.fe2386p-9f, 0x1.28d99p-9f, 0x1.4f91dp-10f,
     0x1.70658cp-11f, 0x1.88b3f8p-12f, 0x1.9668bcp-13f, 0x1.9846eap-14f, 0x1.8e1812p-15f, 0x1.78b5e2p-16f,
     0x1.59ebep-17f, 0x1.343746p-18f, 0x1.0a7168p-19f, 0x1.bee978p-21f, 0x1.6b984ap-22f, 0x1.1ef11p-23f,
     0x1.b74ae6p-25f, 0x0.0p+0f},
    {-0x1.21ea44p-4f, -0x1.1d634cp-4f, -0x1.1039ep-4f, -0x1.f73fe2p-5f, -0x1.c2c034p-5f, -0x1.8737dep-5f,
     -0x1.4906d4p-5f, -0x1.0c2592p-5f, -0x1.a785p-6f, -0x1.441896p-6f, -0x1.e0a7aap-7f, -0x1.596054p-7f,
     -0x1.e0f652p-8f, -0x1.4482aep-8f, -0x1.a85502p-9f, -0x1.0cd532p-9f, -0x1.4a143cp-10f, -0x1.88b84ap-11f,
     -0x1.c4c4f6p-12f, -0x1.f9d33ep-13f, -0x1.11cb1cp-13f, -0x1.1f369ep-14f, -0x1.23f464p-15f, -0x1.1f93e4p-16f,
     -0x1.127d0ap-17f, -0x1.fbc094p-19f, -0x1.c7120ap-20f, -0x1.8b373ep-21f, -0x1.4c98eep-22f, -0x1.0f39fcp-23f,
     -0x1.aca6cp-25f, 0x0.0p+0f},
    {0x0.0p+0f, 0x1.1ee86ap-10f, 0x1.11b16p-9f, 0x1.7b828cp-9f, 0x1.c54aa6p-9f, 0x1.ebdedap-9f,
     0x1.f086cep-9f, 0x1.d83916p-9f, 0x1.aa541p-9f, 0x1.6f27a4p-9f, 0x1.2ea052p-9f, 0x1.de9aaap-10f,
     0x1.6bb6aep-10f, 0x1.09fd28p-10f, 0x1.76c5acp-11f, 0x1.fd17c4p-12f, 0x1.4d9658p-12f, 0x1.a5fcc4p-13f,
     0x1.01c068p-13f, 0x1.302f68p-14f, 0x1.5ae90ep-15f, 0x1.7e6f26p-16f, 0x1.979f3p-17f, 0x1.a42718p-18f,
     0x1.a2df7cp-19f, 0x1.93f88ep-20f, 0x1.78f01p-21f, 0x1.54531cp-22f, 0x1.2959a4p-23f, 0x1.f6e1b6p-25f,
     0x1.9b96cep-26f, 0x0.0p+0f},
    {0x1.84cf7cp-12f, 0x1.72b1c6p-12f, 0x1.3f2beep-12f, 0x1.e3f358p-13f, 0x1.2c6a54p-13f, 0x1.c0ec4p-15f,
     -0x1.d2800cp-16f, -0x1.854dcp-14f, -0x1.1fd7dap-13f, -0x1.50a678p-13f, -0x1.5a248cp-13f, -0x1.4569e4p-13f,
     -0x1.1d1b32p-13f, -0x1.d6a272p-14f, -0x1.7069p-14f, -0x1.12bfecp-14f, -0x1.87a92ep-15f, -0x1.0b6cfp-15f,
     -0x1.5e769p-16f, -0x1.b95cbp-17f, -0x1.0b5d7ep-17f, -0x1.37e66ap-18f, -0x1.5e999ap-19f, -0x1.7bfa04p-20f,
     -0x1.8d41c8p-21f, -0x1.90d0aep-22f, -0x1.866c8ep-23f, -0x1.6f45dap-24f, -0x1.4dc062p-25f, -0x1.250db4p-26f,
     -0x1.f16044p-28f, 0x0.0p+0f},
};

SPARSEC_INLINE __m512 sparsec_part(const float part[32], __m512i i) {
    return _mm512_permutex2var_ps(_mm512_loadu_ps(part), i, _mm512_loadu_ps(part + 16));
}

/* x F(x) = max(x, 0) - |x| (1 - F(|x|)); absolute error below 1e-6, relative to x below 5e-7. */
SPARSEC_INLINE vf vgelu(vf x) {
    const __m512 magic = _mm512_set1_ps(0x1.8p+23f);
    const __m512 t = _mm512_abs_ps((__m512)x);
    const __m512 u = _mm512_min_ps(_mm512_set1_ps(31.0f), _mm512_mul_ps(t, _mm512_set1_ps(31.0f / 5.5f)));
    const __m512 whole = _mm512_add_ps(u, magic);
    const __m512 r = _mm512_sub_ps(u, _mm512_sub_ps(whole, magic));
    const __m512i i = _mm512_castps_si512(whole); /* vpermt2ps takes the low five bits */
    __m512 h = _mm512_fmadd_ps(sparsec_part(SPARSEC_NORMAL[3], i), r, sparsec_part(SPARSEC_NORMAL[2], i));
    h = _mm512_fmadd_ps(h, r, sparsec_part(SPARSEC_NORMAL[1], i));
    h = _mm512_fmadd_ps(h, r, sparsec_part(SPARSEC_NORMAL[0], i));
    return (vf)_mm512_fnmadd_ps(t, h, _mm512_max_ps(_mm512_setzero_ps(), (__m512)x));
}

/* 1 / (1 + e^(0.86 (1 - w))) for 1 <= w < 16, a cubic in w for each quarter of an octave: coefficients of w^0 to w^3, in
 * the order of the exponent's last two bits and the mantissa's first two. Interpolated at Chebyshev's points. */
static const float SPARSEC_LOGISTIC[4][16] = {
    {0x1.e4ff78p-3f, 0x1.586d4ep-3f, 0x1.bf342p-4f, 0x1.763f44p-4f, 0x1.43d3b4p-3f, 0x1.6bbff4p-2f, 0x1.21eda2p-1f,
     0x1.7634e6p-1f, 0x1.c08996p-1f, 0x1.eca208p-1f, 0x1.fa8ef6p-1f, 0x1.fe8ef8p-1f, 0x1.313206p-2f, 0x1.2ebc38p-2f,
     0x1.273facp-2f, 0x1.183d3ep-2f},
    {0x1.19785cp-2f, 0x1.6e2498p-2f, 0x1.ab30d8p-2f, 0x1.bb5ffp-2f, 0x1.8a327ap-2f, 0x1.1106bp-2f, 0x1.48a258p-3f,
     0x1.6e4e6ap-4f, 0x1.239464p-5f, 0x1.2bfbp-7f, 0x1.22f9d6p-9f, 0x1.0f0b24p-11f, 0x1.681b3ep-3f, 0x1.73b67cp-3f,
     0x1.9172fp-3f, 0x1.c4be8ap-3f},
    {-0x1.f7b9e2p-7f, -0x1.8e6464p-5f, -0x1.198984p-4f, -0x1.2cae2p-4f, -0x1.faf4dp-5f, -0x1.38a834p-5f,
     -0x1.4d5512p-6f, -0x1.4b8ca8p-7f, -0x1.c4d01ap-9f, -0x1.86e3c2p-11f, -0x1.4661dcp-13f, -0x1.0acf96p-15f,
     0x1.412998p-5f, 0x1.1c9c08p-5f, 0x1.9b909cp-6f, 0x1.6343d6p-7f},
    {-0x1.6f34d4p-9f, 0x1.b4737cp-10f, 0x1.015936p-8f, 0x1.1f8862p-8f, 0x1.c62c4cp-9f, 0x1.ec4298p-10f,
     0x1.cd1cep-11f, 0x1.972efp-12f, 0x1.da2fa8p-14f, 0x1.5647d4p-16f, 0x1.eb01a4p-19f, 0x1.5fc718p-21f,
     -0x1.ac9b0ap-7f, -0x1.862dd4p-7f, -0x1.40729ap-7f, -0x1.cef01ep-8f},
};

/* 1 / (1 + e^(0.86 (1 - w))); error below 4e-6, a quarter of that on average. */
SPARSEC_INLINE __m512 sparsec_logistic(__m512 w) {
    const __m512i i = _mm512_srli_epi32(_mm512_castps_si512(w), 21); /* vpermps takes the low four bits */
    __m512 h = _mm512_permutexvar_ps(i, _mm512_loadu_ps(SPARSEC_LOGISTIC[3]));
#pragma clang loop unroll(full)
    for (int k = 2; k >= 0; --k) h = _mm512_fmadd_ps(h, w, _mm512_permutexvar_ps(i, _mm512_loadu_ps(SPARSEC_LOGISTIC[k])));
    return h;
}

/* x / (1 + e^(-x * unit)), given the unit over 0.86; error below 4e-6, relative to x. Bits of positive floats have the
 * order of the numbers, and minima of integers are computed beside the products. */
SPARSEC_INLINE vf vsilu(vf x, float steps) {
    const __m512i most = _mm512_set1_epi32(0x417fffff); /* just below 16 */
    const __m512 t = _mm512_abs_ps((__m512)x), w = _mm512_fmadd_ps(t, _mm512_set1_ps(steps), _mm512_set1_ps(1.0f));
    const __m512 h = sparsec_logistic(_mm512_castsi512_ps(_mm512_min_epu32(_mm512_castps_si512(w), most)));
    const __m512i negative = _mm512_min_epi32((__m512i)x, _mm512_setzero_si512());
    return (vf)_mm512_fmadd_ps(t, h, _mm512_castsi512_ps(negative));
}

/* 1 / (1 + e^-x); absolute error below 4e-6. */
SPARSEC_INLINE vf vlogistic(vf x) {
    const __m512 w = _mm512_fmadd_ps(_mm512_abs_ps((__m512)x), _mm512_set1_ps(1.0f / 0.86f), _mm512_set1_ps(1.0f));
    const __m512 h = sparsec_logistic(_mm512_min_ps(_mm512_set1_ps(0x1.fffffep+3f), w));
    return (vf)_mm512_mask_sub_ps(h, _mm512_movepi32_mask((__m512i)x), _mm512_set1_ps(1.0f), h);
}
#else /* no permutation of a table in registers */
SPARSEC_INLINE vf vsilu(vf x, float steps) { return x / (vset(1.0f) + vexp(x * vset(steps * -0.86f))); }
SPARSEC_INLINE vf vlogistic(vf x) { return vsigmoid(x); }
#if defined(__aarch64__)
/* erf(t / sqrt(2)) as t P(t^2) / Q(t^2) for |t| < 5.54: a division takes less than the choice between two polynomials. Absolute error
 * of the result below 1.1e-6. */
SPARSEC_INLINE vf vgelu(vf x) {
    static const float P[6] = {0x1.98844ep-1f, 0x1.172312p-4f, 0x1.3359eep-7f, 0x1.667bap-12f, 0x1.aa4ae2p-17f, 0x1.823c2ap-25f};
    static const float Q[6] = {1.0f, 0x1.02209ep-2f, 0x1.d75e74p-6f, 0x1.f12306p-10f, 0x1.376df2p-14f, 0x1.3f5d08p-20f};
    const vf t = vclamp(x, -5.5437f, 5.5437f), s = t * t, s2 = s * s;
    const vf powers[5] = {s, s2, s2 * s, s2 * s2, s2 * (s2 * s)};
    vf p = vset(P[0]), q = vset(Q[0]);
    for (int i = 0; i < 5; ++i) p = vfma(powers[i], vset(P[i + 1]), p), q = vfma(powers[i], vset(Q[i + 1]), q);
    const vf half = x * vset(0.5f);
    return vfma(half, t * p / q, half);
}
#else
SPARSEC_INLINE vf vgelu(vf x) { return x * (vset(0.5f) + vset(0.5f) * verf(x * vset(0x1.6a09e6p-1f))); }
#endif
#endif

#endif
