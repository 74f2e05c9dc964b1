/* How a kernel calls the row blocks of pattern.py. */
#ifndef SPARSEC_PATTERN_CODE_H
#define SPARSEC_PATTERN_CODE_H

#include <stdint.h>

enum { SPARSEC_STREAM_BIAS = 512 };

typedef struct {
#if defined(__aarch64__) /* emit/code/aarch64.py: what is fetched ahead is fetched by its caller */
    void (*function)(const void *x, const void *w, void *sums, int64_t quarters);
#else
    void (*function)(const void *x, const void *w, void *sums, const void *next_code, const void *next_w);
#endif
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

enum { SPARSEC_SEGMENTS = 4 };

/* What code that stores its sums itself (`Ending` of pattern.py) reads: the plane of the block's first row, and the first row of a
 * tensor that is added, from where lane 0 of each segment lies; the block's bias; the lanes of the segments. */
typedef struct {
    float *to[SPARSEC_SEGMENTS];
    const float *added[SPARSEC_SEGMENTS];
    const float *bias;
    uint32_t lanes[SPARSEC_SEGMENTS], added_lanes[SPARSEC_SEGMENTS];
} sparsec_ending;

/* The block's sums of `columns` columns of activations at `x`, at least: of whole registers. */
static inline void sparsec_run_columns(const sparsec_block *b, const void *x, int64_t tile, void *sums, int64_t columns) {
    const char *code = b->next_code + tile * b->code_step, *weights = b->next_weights + tile * b->weights_step;
#if defined(__aarch64__)
    for (int64_t i = 0; i < b->code_step; i += 64) __builtin_prefetch(code + i, 0, 2);
    for (int64_t i = 0; i < b->weights_step; i += 64) __builtin_prefetch(weights + i, 0, 2);
    b->function(x, b->weights, sums, columns < 16 ? (columns + 3) / 4 : 4);
#else
    (void)columns;
    b->function(x, b->weights, sums, code, weights);
#endif
}

/* The same block in other code of the layer. It fetches what `b` would. */
static inline sparsec_block sparsec_instead(const sparsec_block *b, const char *code, int64_t block) {
    sparsec_block other = *b;
    const void *entry = code + ((const uint32_t *)code)[block];
    __builtin_memcpy(&other.function, &entry, sizeof entry);
    return other;
}

/* The block's sums of the activations at `x`, as its `tile`-th tile: into `sums`, or where an ending says. */
static inline void sparsec_run_block(const sparsec_block *b, const void *x, int64_t tile, void *sums) {
    sparsec_run_columns(b, x, tile, sums, 16);
}

#if !defined(__aarch64__)
/* The arguments of a block that leaves its sums in registers, as sparsec_call_block loads them. */
typedef struct {
    const void *x, *weights, *start, *next_code, *next_weights;
    void (*function)(const void *x, const void *w, void *sums, const void *next_code, const void *next_w);
} sparsec_call;

static inline sparsec_call sparsec_call_of(const sparsec_block *b, const void *x, int64_t tile, const void *start) {
    const sparsec_call call = {x, b->weights, start, b->next_code + tile * b->code_step, b->next_weights + tile * b->weights_step, b->function};
    return call;
}

/* Calls a block by the sparsec_call at rbx; its operands say which registers hold the sums. The call must not write to the
 * bytes below the stack pointer that belong to the caller. */
#define SPARSEC_CALL_BLOCK                                                                                        \
    "lea -128(%%rsp), %%rsp\n\tmov (%%rbx), %%rdi\n\tmov 8(%%rbx), %%rsi\n\tmov 16(%%rbx), %%rdx\n\t"                \
    "mov 24(%%rbx), %%rcx\n\tmov 32(%%rbx), %%r8\n\tcall *40(%%rbx)\n\tlea 128(%%rsp), %%rsp"
#define SPARSEC_CALL_CLOBBERS "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "cc", "memory"
#endif

#endif
