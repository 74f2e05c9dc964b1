/* Where the values of a float32 image tensor lie (planes.py): the same fields in the same order. Counts are in floats. */
#ifndef SPARSEC_PLANES_H
#define SPARSEC_PLANES_H

#include <stdint.h>
#include <string.h>

typedef struct {
    int64_t height, width, top, left, bottom, right, stride_h, stride_w, phases_h, phases_w, pitch, filled, phase, plane;
} sparsec_planes;

enum { SPARSEC_FEW = 8 };

/* Mostly one or two values between rows: a call of memset, which clang makes of a plain loop, costs more than they do. */
static inline void sparsec_clear(float *from, float *to) {
    if (to - from > SPARSEC_FEW) memset(from, 0, (size_t)(to - from) * sizeof *from);
    else
        for (; from < to; ++from) *(volatile float *)from = 0;
}

/* Zeros where one plane's readers find padding. */
static inline void sparsec_clear_pads(const sparsec_planes *p, float *plane) {
    if (p->stride_h == 1 && p->stride_w == 1 && p->filled == p->height * p->width) return;
    for (int64_t i = 0; i < p->phases_h; ++i)
        for (int64_t j = 0; j < p->phases_w; ++j) {
            float *at = plane + (i * p->phases_w + j) * p->phase, *const end = at + p->filled;
            /* rows y0 .. and columns x0 .. of this phase are those of the image */
            const int64_t y0 = (p->top - i + p->stride_h - 1) / p->stride_h, x0 = (p->left - j + p->stride_w - 1) / p->stride_w;
            const int64_t rows = (p->height + p->top - i + p->stride_h - 1) / p->stride_h - y0;
            const int64_t columns = (p->width + p->left - j + p->stride_w - 1) / p->stride_w - x0;
            for (int64_t r = 0; r < rows && columns > 0; ++r) {
                float *row = plane + (i * p->phases_w + j) * p->phase + (y0 + r) * p->pitch + x0;
                sparsec_clear(at, row);
                at = row + columns;
            }
            sparsec_clear(at, end);
        }
}

#endif
