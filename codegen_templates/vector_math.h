/* exp of a vector register: the polynomial of scalar_math.h, for kernels that keep their values in registers. */
#ifndef SPARSEC_VECTOR_MATH_H
#define SPARSEC_VECTOR_MATH_H

#include "vector.h"

SPARSEC_INLINE vf vselect(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* e^x; relative error below 2e-7, NaN stays NaN. */
SPARSEC_INLINE vf vexp(vf x) {
    x = vselect((vi)(x > vset(89.0f)), vset(89.0f), x);
    x = vselect((vi)(x < vset(-104.5f)), vset(-104.5f), x);
    const vf t = vfma(x, vset(0x1.715476p+0f), vset(0x1.8p+23f));
    const vf n = t - vset(0x1.8p+23f);
    vf r = vfma(n, vset(-0x1.62e4p-1f), x);
    r = vfma(n, vset(-0x1.7f7d1cp-20f), r);
    vf p = vset(0x1.6d4328p-10f);
    p = vfma(p, r, vset(0x1.120b74p-7f));
    p = vfma(p, r, vset(0x1.5554eap-5f));
    p = vfma(p, r, vset(0x1.5554dcp-3f));
    p = vfma(p, r, vset(0.5f));
    p = vfma(p, r, vset(1.0f));
    p = vfma(p, r, vset(1.0f));
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    const vi whole = (vi)t - 0x4b400000, half = whole >> 1;
    return p * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
#endif
}

#endif
