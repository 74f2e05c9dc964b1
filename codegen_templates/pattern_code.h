/* How a kernel calls the row blocks of pattern.py. */
#ifndef SPARSEC_PATTERN_CODE_H
#define SPARSEC_PATTERN_CODE_H

#include <stdint.h>

enum { SPARSEC_STREAM_BIAS = 512 };

typedef struct {
    void (*function)(const void *x, const void *w, void *sums, const void *next_code, const void *next_w);
    const char *weights;
    /* Of the next block, and how much of them one call fetches. */
    const char *next_code, *next_weights;
    int64_t code_step, weights_step;
} sparsec_block;

/* Block `block` of a layer; `next` runs after it. `code` begins with three tables (emit/code/x86.py), `starts` counts units. */
static inline sparsec_block sparsec_find_block(const char *code, const char *w, const int64_t *starts, int64_t blocks,
                                               int64_t block, int64_t next) {
    const uint32_t *offsets = (const uint32_t *)code, *code_bytes = offsets + blocks + 1, *weight_bytes = code_bytes + blocks;
    sparsec_block b;
    const void *entry = code + offsets[block];
    __builtin_memcpy(&b.function, &entry, sizeof entry);
    b.weights = w + starts[block] * 4 + SPARSEC_STREAM_BIAS;
    b.next_code = code + offsets[next];
    b.next_weights = w + starts[next] * 4;
    b.code_step = code_bytes[block];
    b.weights_step = weight_bytes[block];
    return b;
}

/* The block's sums of the activations at `x`, as its `tile`-th tile. */
static inline void sparsec_run_block(const sparsec_block *b, const void *x, int64_t tile, void *sums) {
    b->function(x, b->weights, sums, b->next_code + tile * b->code_step, b->next_weights + tile * b->weights_step);
}

#endif
