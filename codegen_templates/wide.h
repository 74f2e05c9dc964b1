/* Registers of 16 lanes: kernels of 16 columns are written in the intrinsics of AVX-512.
 *
 * Elsewhere they are functions of the same names. To be included before vector.h, whose registers then have 16 lanes too.
 */
#ifndef SPARSEC_WIDE_H
#define SPARSEC_WIDE_H

#define SPARSEC_WIDE 1
#if defined(__x86_64__)
#include "wide_avx2.h"
#elif defined(__aarch64__)
#include "wide_neon.h"
#endif
#include "vector.h"

#endif
