/* Tiles of 16 output positions: where their lanes lie in planes. */
#ifndef SPARSEC_PLANE_TILES_H
#define SPARSEC_PLANE_TILES_H

#include "planes.h"
#include "wide.h"

enum { SPARSEC_TILE = 16 };

/* Lanes of a tile and where they go: `tile_segments` of planes.py. */
typedef struct {
    int32_t to;
    uint32_t lanes;
} sparsec_segment;

typedef struct {
    const sparsec_segment *segments;
    int count;
} sparsec_segments;

static inline sparsec_segments sparsec_find_segments(const int32_t *table, int64_t tile) {
    const int32_t *first = table + 1 + tile;
    const sparsec_segments s = {(const sparsec_segment *)(table + 2 + table[0]) + first[0], first[1] - first[0]};
    return s;
}

/* Where the lane after the last one of a tile goes. */
static inline int64_t sparsec_ahead_of(sparsec_segments s) {
    return s.count ? s.segments[s.count - 1].to + 2 * SPARSEC_TILE - 1 : 0;
}

/* Fetches a line that is going to be written, from another core's cache too; compilers emit prefetchw only for some CPUs. */
#if defined(__x86_64__)
static inline void sparsec_fetch_to_write(const float *at) { __asm__ volatile("prefetchw %0" : : "m"(*at)); }
#else
static inline void sparsec_fetch_to_write(const float *at) { __builtin_prefetch(at, 1); }
#endif

/* The values of a tile of a plane without phases. */
static inline vf sparsec_gathered(const float *plane, sparsec_segments at) {
    __m512 v = _mm512_setzero_ps();
    for (int s = 0; s < at.count; ++s)
        v = _mm512_mask_loadu_ps(v, (__mmask16)at.segments[s].lanes, plane + at.segments[s].to);
    __builtin_prefetch(plane + sparsec_ahead_of(at), 0, 3);
    return (vf)v;
}

static inline void sparsec_scatter(float *plane, sparsec_segments to, int64_t stride_w, vf x) {
    for (int s = 0; s < to.count; ++s) {
        const __mmask16 lanes = (__mmask16)to.segments[s].lanes;
        float *at = plane + to.segments[s].to;
        if (stride_w == 1) {
            _mm512_mask_storeu_ps(at, lanes, (__m512)x);
        } else {
            const __mmask16 low = (__mmask16)((1u << __builtin_popcount(lanes)) - 1);
            _mm512_mask_storeu_ps(at, low, _mm512_maskz_compress_ps(lanes, (__m512)x));
        }
    }
}

/* `lanes` of columns `column` .. of row `row` of the image. */
static inline vf sparsec_load_row(const float *plane, const sparsec_planes *p, int64_t row, int64_t column, __mmask16 lanes) {
    return (vf)_mm512_maskz_loadu_ps(lanes, plane + (row + p->top) * p->pitch + column + p->left);
}

static inline void sparsec_store_row(float *plane, const sparsec_planes *p, int64_t row, int64_t column, __mmask16 lanes, vf x) {
    const int64_t y = row + p->top, first = column + p->left;
    if (p->stride_w == 1 && p->stride_h == 1) {
        _mm512_mask_storeu_ps(plane + y * p->pitch + first, lanes, (__m512)x);
        return;
    }
    const int64_t i = y % p->stride_h;
    if (i >= p->phases_h) return;
    float *at = plane + i * p->phases_w * p->phase + y / p->stride_h * p->pitch;
    if (p->stride_w == 2) { /* lanes of even number lie in the phase of the first one's column */
        for (int64_t odd = 0; odd < 2; ++odd) {
            const int64_t column_of = first + odd;
            if ((column_of & 1) >= p->phases_w) continue;
            const uint32_t here = lanes & (odd ? 0xaaaau : 0x5555u), low = (1u << __builtin_popcount(here)) - 1;
            _mm512_mask_storeu_ps(at + (column_of & 1) * p->phase + (column_of >> 1), (__mmask16)low, _mm512_maskz_compress_ps((__mmask16)here, (__m512)x));
        }
        return;
    }
    for (int64_t j = 0; j < p->phases_w; ++j, at += p->phase) {
        const int64_t skipped = (j - first % p->stride_w + p->stride_w) % p->stride_w;
        uint32_t here = 0;
        for (int64_t lane = skipped; lane < SPARSEC_TILE; lane += p->stride_w) here |= 1u << lane;
        here &= lanes;
        const __mmask16 low = (__mmask16)((1u << __builtin_popcount(here)) - 1);
        _mm512_mask_storeu_ps(at + (first + skipped) / p->stride_w, low, _mm512_maskz_compress_ps((__mmask16)here, (__m512)x));
    }
}

#endif
