/* The contract between a generated model (model.c, one per artifact) and the runtime that is linked into it.
 *
 * Private: nothing here is part of the artifact's ABI (that is sparsec.h). The compiler's driver template fills in one
 * `sparsec_program`; the runtime reads it and never writes to it.
 */
#ifndef SPARSEC_MODEL_H
#define SPARSEC_MODEL_H

#include <stdint.h>

#include "cpu.h"
#include "sparsec.h"

/* What a step sees. Every pointer is valid for the whole of one sparsec_run. */
typedef struct sparsec_frame {
    unsigned char *arena;         /* 64-byte aligned, at least program->arena_bytes long */
    const unsigned char *weights; /* 64-byte aligned, read-only */
    void *const *inputs;          /* input tensors' data, in manifest order; compact row-major, element-aligned */
    void *const *outputs;         /* output tensors' data: the caller's buffers or places in the arena */
    int64_t *dims;                /* the values of program->dims in this run; steps write those that they find */
    int64_t first_image;          /* of a walk: where the images of the moment begin */
    void *const *caches;          /* the rows of program->caches: places in the arena, or of states */
} sparsec_frame;

/* Computes the slice [begin, end) of the step's range axis. Returns a sparsec_status. */
typedef int32_t (*sparsec_step_fn)(const sparsec_frame *frame, int64_t begin, int64_t end);

typedef struct sparsec_step {
    sparsec_step_fn run;
    int64_t (*extent)(const int64_t *dims); /* length of the range axis */
    int64_t grain;                          /* slices start at multiples of this; results do not depend on the split */
    int64_t cost;                           /* estimated nanoseconds in one thread, at the dims' upper bounds */
    const char *label;                      /* ONNX node name(s), for error messages */
} sparsec_step;

/* Steps [first, last) that a run goes through for `per_thread` images a thread, at most `most`, at a time: each step's range begins with the
 * axis of images, and its buffers in the arena that nothing else uses hold `most` of them. */
typedef struct sparsec_walk {
    int32_t first, last;
    int64_t per_thread, most;
    int64_t (*images)(const int64_t *dims);
} sparsec_walk;

/* Rows that output `output` appends to input `input`, in a buffer whose outermost axis is axis `axis` of both; the other
 * axes follow in order. Where the two are bound as a state the buffer outlives the run, and the steps that copy the input
 * into it and it to the output are left out. */
typedef struct sparsec_cache {
    int32_t input, output, axis, load_step, store_step;
    uint64_t arena_offset; /* of the rows where the two are not bound */
} sparsec_cache;

/* A dynamic dimension: bound at sparsec_prepare by the input shapes, or found by a step of the run. */
typedef struct sparsec_dim {
    const char *name;
    int64_t lower, upper; /* both included */
    int64_t (*equals)(const int64_t *dims); /* what it must be in every run; NULL: anything between the bounds */
    const char *equals_text;
} sparsec_dim;

/* One axis of an input: dims[dim] when dim >= 0, otherwise the constant `size`. */
typedef struct sparsec_axis {
    int32_t dim;
    int64_t size;
} sparsec_axis;

typedef struct sparsec_tensor_info {
    const char *name;
    DLDataType dtype;
    int32_t ndim;
    const sparsec_axis *axes;                             /* inputs: ndim entries; outputs: NULL */
    void (*shape)(const int64_t *dims, int64_t *extents); /* outputs: fills ndim extents; inputs: NULL */
    uint64_t arena_offset; /* where the tensor lives when the caller brings no usable buffer: outputs, and copies of
                              inputs whose pointer is not aligned to its element size */
} sparsec_tensor_info;

typedef struct sparsec_program {
    const char *manifest; /* JSON, NUL-terminated; empty in a smaller bucket */
    int32_t n_inputs, n_outputs, n_steps, n_walks;
    int32_t n_dims, n_found_dims; /* bound by the inputs; after them those that steps find */
    const sparsec_tensor_info *inputs, *outputs;
    const sparsec_dim *dims;
    const sparsec_step *steps;
    const sparsec_walk *walks; /* n_walks, in the order of their steps */
    int32_t n_caches;
    const sparsec_cache *caches;
    uint64_t arena_bytes; /* at the dims' upper bounds; covers every arena_offset above */
    const unsigned char *weights;
    uint64_t weights_bytes;
    int32_t first_layer; /* of the manifest: that of the first step */
} sparsec_program;

struct sparsec_model {
    const sparsec_program *program; /* takes all sizes */
    int32_t n_buckets;
    const sparsec_program *const *buckets; /* the same for smaller sizes, and `program` as the last; NULL: there is one */
};

/* One for each target that the artifact was built for, best first, and what it needs; defined by models.c. */
extern const struct sparsec_model sparsec_the_models[];
extern const sparsec_cpu_needs sparsec_the_needs[];
extern const int32_t sparsec_n_models;

#endif
