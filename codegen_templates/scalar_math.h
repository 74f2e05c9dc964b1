/* What C made from TIR calls: one value at a time, written so that clang vectorizes a loop over it.
 *
 * No libm where a polynomial does it: exp, tanh, erf and sigmoid are straight-line code. Errors were measured against
 * float64 over the whole range (tests/lower/test_scalar_math.py). NaN in gives NaN out, infinities give their limits.
 */
#ifndef SPARSEC_SCALAR_MATH_H
#define SPARSEC_SCALAR_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define SPARSEC_INLINE static inline __attribute__((always_inline, unused))

/* An index made from data: outside of the tensor it ends the kernel with SPARSEC_ERR_INDEX. */
#define SPARSEC_INDEX(index, size)                                  \
    ({                                                              \
        int64_t at_ = (index);                                      \
        if ((uint64_t)at_ >= (uint64_t)(size)) return 7;            \
        at_;                                                        \
    })

/* NaN wins, as in ONNX. */
#define SPARSEC_MINMAX(T, name)                                                 \
    SPARSEC_INLINE T sparsec_min_##name(T a, T b) { return a < b || a != a ? a : b; }     \
    SPARSEC_INLINE T sparsec_max_##name(T a, T b) { return a > b || a != a ? a : b; }
SPARSEC_MINMAX(float, float32)
SPARSEC_MINMAX(double, float64)
SPARSEC_MINMAX(int8_t, int8)
SPARSEC_MINMAX(uint8_t, uint8)
SPARSEC_MINMAX(int16_t, int16)
SPARSEC_MINMAX(uint16_t, uint16)
SPARSEC_MINMAX(int32_t, int32)
SPARSEC_MINMAX(uint32_t, uint32)
SPARSEC_MINMAX(int64_t, int64)
SPARSEC_MINMAX(uint64_t, uint64)
SPARSEC_MINMAX(uint8_t, bool)
SPARSEC_MINMAX(_Float16, float16)
#ifdef SPARSEC_USES_BFLOAT16 /* not all compilers know the type, nor all of their libraries the rounding */
__attribute__((weak, visibility("hidden"))) __bf16 __truncsfbf2(float x);
__attribute__((weak, visibility("hidden"))) __bf16 __truncsfbf2(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t even = bits + 0x7fff + (bits >> 16 & 1); /* ties to even; a NaN stays one */
    const uint16_t upper = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : even >> 16);
    __bf16 y;
    memcpy(&y, &upper, sizeof y);
    return y;
}
SPARSEC_MINMAX(__bf16, bfloat16)
#endif
#undef SPARSEC_MINMAX

/* An integer divisor made from data: zero ends the kernel with SPARSEC_ERR_DIVISION. */
#define SPARSEC_DIVISOR(divisor)                \
    ({                                          \
        const __typeof__(divisor) by_ = (divisor); \
        if (by_ == 0) return 11;                \
        by_;                                    \
    })

/* Division towards zero, and its remainder, that wrap where the quotient does not fit: the instruction would trap. */
#define SPARSEC_DIVISION(T, U, name)                                                                   \
    SPARSEC_INLINE T sparsec_div_##name(T a, T b) { return b == -1 ? (T)(0 - (U)a) : (T)(a / b); }     \
    SPARSEC_INLINE T sparsec_mod_##name(T a, T b) { return b == -1 ? 0 : (T)(a % b); }
SPARSEC_DIVISION(int8_t, uint8_t, int8)
SPARSEC_DIVISION(int16_t, uint16_t, int16)
SPARSEC_DIVISION(int32_t, uint32_t, int32)
SPARSEC_DIVISION(int64_t, uint64_t, int64)
#undef SPARSEC_DIVISION

/* Floor division and its remainder, for operands that may be negative. */
SPARSEC_INLINE int64_t sparsec_floordiv(int64_t a, int64_t b) {
    const int64_t rest = sparsec_mod_int64(a, b);
    return sparsec_div_int64(a, b) - (rest != 0 && (rest ^ b) < 0);
}
SPARSEC_INLINE int64_t sparsec_floormod(int64_t a, int64_t b) {
    const int64_t rest = sparsec_mod_int64(a, b);
    return rest + (rest != 0 && (rest ^ b) < 0 ? b : 0);
}

#define SPARSEC_BITS(FROM, from, TO, to)                     \
    SPARSEC_INLINE TO sparsec_bits_##from##_##to(FROM x) {   \
        TO y;                                                \
        memcpy(&y, &x, sizeof y);                            \
        return y;                                            \
    }
#define SPARSEC_BITS_BOTH(A, a, B, b) SPARSEC_BITS(A, a, B, b) SPARSEC_BITS(B, b, A, a)
SPARSEC_BITS_BOTH(int8_t, int8, uint8_t, uint8)
SPARSEC_BITS_BOTH(int16_t, int16, uint16_t, uint16)
SPARSEC_BITS_BOTH(int32_t, int32, uint32_t, uint32)
SPARSEC_BITS_BOTH(int64_t, int64, uint64_t, uint64)
SPARSEC_BITS_BOTH(_Float16, float16, int16_t, int16)
SPARSEC_BITS_BOTH(_Float16, float16, uint16_t, uint16)
SPARSEC_BITS_BOTH(float, float32, int32_t, int32)
SPARSEC_BITS_BOTH(float, float32, uint32_t, uint32)
SPARSEC_BITS_BOTH(double, float64, int64_t, int64)
SPARSEC_BITS_BOTH(double, float64, uint64_t, uint64)
#undef SPARSEC_BITS_BOTH
#undef SPARSEC_BITS

/* One instruction and one rounding where the CPU has it. Left to the compiler, the choice could differ between a vector
 * loop and its remainder, and results would depend on how a range is cut. */
SPARSEC_INLINE float sparsec_fma(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/* 2^n for the n that was rounded by adding 1.5 * 2^23, split in two factors so that denormal results are right. */
SPARSEC_INLINE float sparsec_scale_by_power(float value, float rounded) {
    int32_t n = sparsec_bits_float32_int32(rounded) - 0x4b400000;
    int32_t half = n >> 1;
    value *= sparsec_bits_int32_float32((half + 127) << 23);
    return value * sparsec_bits_int32_float32((n - half + 127) << 23);
}

/* e^x: 2^n e^r with |r| <= ln(2)/2, degree 6; relative error below 2e-7. */
SPARSEC_INLINE float sparsec_exp_float32(float x) {
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.5f ? -104.5f : x;
    float t = sparsec_fma(x, 0x1.715476p+0f, 0x1.8p+23f);
    float n = t - 0x1.8p+23f;
    float r = sparsec_fma(n, -0x1.62e4p-1f, x);
    r = sparsec_fma(n, -0x1.7f7d1cp-20f, r);
    float p = 0x1.6d43280000000p-10f;
    p = sparsec_fma(p, r, 0x1.120b740000000p-7f);
    p = sparsec_fma(p, r, 0x1.5554ea0000000p-5f);
    p = sparsec_fma(p, r, 0x1.5554dc0000000p-3f);
    p = sparsec_fma(p, r, 0x1.0000000000000p-1f);
    p = sparsec_fma(p, r, 1.0f);
    p = sparsec_fma(p, r, 1.0f);
    return sparsec_scale_by_power(p, t);
}

SPARSEC_INLINE float sparsec_sigmoid_float32(float x) { return 1.0f / (1.0f + sparsec_exp_float32(-x)); }

/* tanh: a + a^3 P(a^2) below 0.65, 1 - 2 / (e^2a + 1) above; absolute error below 2e-7. */
SPARSEC_INLINE float sparsec_tanh_float32(float x) {
    float a = fabsf(x), s = a * a;
    float p = 0x1.22c3f20000000p-9f;
    p = sparsec_fma(p, s, -0x1.0f31300000000p-7f);
    p = sparsec_fma(p, s, 0x1.644fd80000000p-6f);
    p = sparsec_fma(p, s, -0x1.ba031a0000000p-5f);
    p = sparsec_fma(p, s, 0x1.1110da0000000p-3f);
    p = sparsec_fma(p, s, -0x1.5555560000000p-2f);
    float small = sparsec_fma(a * s, p, a);
    float large = 1.0f - 2.0f / (sparsec_exp_float32(2.0f * (a > 9.5f ? 9.5f : a)) + 1.0f);
    float y = a < 0.65f ? small : large;
    return copysignf(x != x ? x : y, x);
}

/* erf: x P(x^2) / Q(x^2) for |x| <= 3.92, 1 beyond; absolute error below 5e-7. */
SPARSEC_INLINE float sparsec_erf_float32(float x) {
    float c = x > 3.92f ? 3.92f : x;
    c = c < -3.92f ? -3.92f : c;
    const float s = c * c;
    float p = 0x1.11190cp-19f;
    p = sparsec_fma(p, s, 0x1.2d70d8p-12f);
    p = sparsec_fma(p, s, 0x1.fb0492p-9f);
    p = sparsec_fma(p, s, 0x1.b2ab56p-5f);
    p = sparsec_fma(p, s, 0x1.8ac6e2p-3f);
    p = sparsec_fma(p, s, 0x1.20dd72p+0f);
    float q = 0x1.3f5bcap-15f;
    q = sparsec_fma(q, s, 0x1.37737ap-10f);
    q = sparsec_fma(q, s, 0x1.f129p-7f);
    q = sparsec_fma(q, s, 0x1.d76222p-4f);
    q = sparsec_fma(q, s, 0x1.02219cp-1f);
    q = sparsec_fma(q, s, 1.0f);
    float y = c * p / q;
    y = x > 3.92f ? 1.0f : y;
    return x < -3.92f ? -1.0f : y;
}

/* Calls that clang turns into instructions, or into libm where there is none. */
#define SPARSEC_UNARY(name, fn) \
    SPARSEC_INLINE float sparsec_##name##_float32(float x) { return fn##f(x); } \
    SPARSEC_INLINE double sparsec_##name##_float64(double x) { return fn(x); }
SPARSEC_UNARY(sqrt, __builtin_sqrt)
SPARSEC_UNARY(floor, __builtin_floor)
SPARSEC_UNARY(ceil, __builtin_ceil)
SPARSEC_UNARY(trunc, __builtin_trunc)
SPARSEC_UNARY(nearbyint, __builtin_nearbyint)
SPARSEC_UNARY(fabs, __builtin_fabs)
SPARSEC_UNARY(log, log)
SPARSEC_UNARY(log2, log2)
SPARSEC_UNARY(log10, log10)
SPARSEC_UNARY(log1p, log1p)
SPARSEC_UNARY(exp2, exp2)
SPARSEC_UNARY(sin, sin)
SPARSEC_UNARY(cos, cos)
SPARSEC_UNARY(tan, tan)
SPARSEC_UNARY(asin, asin)
SPARSEC_UNARY(acos, acos)
SPARSEC_UNARY(atan, atan)
SPARSEC_UNARY(sinh, sinh)
SPARSEC_UNARY(cosh, cosh)
SPARSEC_UNARY(asinh, asinh)
SPARSEC_UNARY(acosh, acosh)
SPARSEC_UNARY(atanh, atanh)
#undef SPARSEC_UNARY
#define SPARSEC_DOUBLE(name, f) \
    SPARSEC_INLINE double sparsec_##name##_float64(double x) { return f; }
SPARSEC_DOUBLE(exp, exp(x))
SPARSEC_DOUBLE(tanh, tanh(x))
SPARSEC_DOUBLE(erf, erf(x))
SPARSEC_DOUBLE(sigmoid, 1.0 / (1.0 + exp(-x)))
SPARSEC_DOUBLE(rsqrt, 1.0 / __builtin_sqrt(x))
#undef SPARSEC_DOUBLE
SPARSEC_INLINE float sparsec_rsqrt_float32(float x) { return 1.0f / __builtin_sqrtf(x); }
/* ONNX rounds half to even. */
SPARSEC_INLINE float sparsec_round_float32(float x) { return __builtin_rintf(x); }
SPARSEC_INLINE double sparsec_round_float64(double x) { return __builtin_rint(x); }
SPARSEC_INLINE float sparsec_pow_float32(float x, float y) { return powf(x, y); }
SPARSEC_INLINE double sparsec_pow_float64(double x, double y) { return pow(x, y); }
SPARSEC_INLINE float sparsec_fmod_float32(float x, float y) { return fmodf(x, y); }
SPARSEC_INLINE double sparsec_fmod_float64(double x, double y) { return fmod(x, y); }
SPARSEC_INLINE float sparsec_atan2_float32(float x, float y) { return atan2f(x, y); }
SPARSEC_INLINE double sparsec_atan2_float64(double x, double y) { return atan2(x, y); }
SPARSEC_INLINE uint8_t sparsec_isnan_float32(float x) { return x != x; }
SPARSEC_INLINE uint8_t sparsec_isnan_float64(double x) { return x != x; }
SPARSEC_INLINE uint8_t sparsec_isinf_float32(float x) { return __builtin_fabsf(x) == __builtin_inff(); }
SPARSEC_INLINE uint8_t sparsec_isinf_float64(double x) { return __builtin_fabs(x) == __builtin_inf(); }
SPARSEC_INLINE int32_t sparsec_fabs_int32(int32_t x) { return x < 0 ? -x : x; }
SPARSEC_INLINE int64_t sparsec_fabs_int64(int64_t x) { return x < 0 ? -x : x; }

/* Half precision is computed in single. */
#define SPARSEC_HALF_OF(T, type, name) \
    SPARSEC_INLINE T sparsec_##name##_##type(T x) { return (T)sparsec_##name##_float32((float)x); }
#ifdef SPARSEC_USES_BFLOAT16
#define SPARSEC_HALF(name) SPARSEC_HALF_OF(_Float16, float16, name) SPARSEC_HALF_OF(__bf16, bfloat16, name)
#else
#define SPARSEC_HALF(name) SPARSEC_HALF_OF(_Float16, float16, name)
#endif
SPARSEC_HALF(sqrt)
SPARSEC_HALF(floor)
SPARSEC_HALF(ceil)
SPARSEC_HALF(trunc)
SPARSEC_HALF(nearbyint)
SPARSEC_HALF(fabs)
SPARSEC_HALF(log)
SPARSEC_HALF(log2)
SPARSEC_HALF(log10)
SPARSEC_HALF(log1p)
SPARSEC_HALF(exp)
SPARSEC_HALF(exp2)
SPARSEC_HALF(sin)
SPARSEC_HALF(cos)
SPARSEC_HALF(tan)
SPARSEC_HALF(asin)
SPARSEC_HALF(acos)
SPARSEC_HALF(atan)
SPARSEC_HALF(sinh)
SPARSEC_HALF(cosh)
SPARSEC_HALF(tanh)
SPARSEC_HALF(asinh)
SPARSEC_HALF(acosh)
SPARSEC_HALF(atanh)
SPARSEC_HALF(erf)
SPARSEC_HALF(sigmoid)
SPARSEC_HALF(rsqrt)
SPARSEC_HALF(round)
#undef SPARSEC_HALF_OF
#define SPARSEC_HALF_OF(T, type, name) \
    SPARSEC_INLINE T sparsec_##name##_##type(T x, T y) { return (T)sparsec_##name##_float32((float)x, (float)y); }
SPARSEC_HALF(pow)
SPARSEC_HALF(fmod)
SPARSEC_HALF(atan2)
#undef SPARSEC_HALF
#undef SPARSEC_HALF_OF
SPARSEC_INLINE uint8_t sparsec_isnan_float16(_Float16 x) { return x != x; }
SPARSEC_INLINE uint8_t sparsec_isinf_float16(_Float16 x) { return sparsec_isinf_float32((float)x); }
#ifdef SPARSEC_USES_BFLOAT16
SPARSEC_INLINE uint8_t sparsec_isnan_bfloat16(__bf16 x) { return sparsec_isnan_float32((float)x); }
SPARSEC_INLINE uint8_t sparsec_isinf_bfloat16(__bf16 x) { return sparsec_isinf_float32((float)x); }
#endif

#endif
