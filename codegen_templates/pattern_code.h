/* How a kernel calls the row blocks of pattern.py, and reads ahead for them. */
#ifndef SPARSEC_PATTERN_CODE_H
#define SPARSEC_PATTERN_CODE_H

#include <stdint.h>

enum { SPARSEC_STREAM_BIAS = 512 };

/* w points SPARSEC_STREAM_BIAS bytes into the block's stream. */
typedef void (*sparsec_block_code)(const void *x, const void *w, void *out);

/* Prefetches the part-th of `parts` slices of a range into the L2 cache. */
static inline void sparsec_prefetch_slice(const char *from, int64_t bytes, int64_t part, int64_t parts) {
    enum { LINE = 64 };
    const int64_t slice = (bytes / parts + LINE) / LINE * LINE, begin = part * slice;
    const int64_t end = begin + slice < bytes ? begin + slice : bytes;
    for (int64_t at = begin; at < end; at += LINE) __builtin_prefetch(from + at, 0, 2);
}

#endif
