/* What a context is, for the runtime's own files. Private. */
#ifndef SPARSEC_CONTEXT_H
#define SPARSEC_CONTEXT_H

#include <stdatomic.h>

#include "model.h"
#include "pool.h"
#include "state.h"

struct sparsec_context {
    const sparsec_model *model;
    const sparsec_program *program; /* for the sizes of the moment */
    uint64_t arena_bytes;           /* what the largest of the model's programs needs */
    sparsec_frame frame;
    sparsec_pool *pool; /* NULL with one thread or with the caller's parallel_for */
    sparsec_parallel_for parallel_for;
    void *parallel_for_user;
    int64_t *layer_nanoseconds; /* NULL: nobody asks */
    int32_t threads, prepared;
    atomic_flag busy;
    void *owned_arena;
    void **inputs, **outputs, **caches;
    unsigned char *left_out; /* one per step: 1 where a state makes it needless; NULL: the model has no caches */
    int64_t *dims;
    int64_t (*output_extents)[SPARSEC_MAX_NDIM];
    sparsec_states states;
    char message[512];
};

/* From now on the context runs this program of its model; no dimension is bound. */
void sparsec_use_program(sparsec_context *context, const sparsec_program *program);

/* No dimension is bound. */
void sparsec_forget_dims(sparsec_context *context);

/* Begins a call: nothing is bound, and the program is the smallest that takes these sizes, given as tensors or as
 * shapes, or the one that says why not. */
void sparsec_choose_program(sparsec_context *context, const DLTensor *const *tensors, const sparsec_shape *shapes);

/* Whether dimensions that must be sums of others are; all are bound. */
int32_t sparsec_check_sums(sparsec_context *context);

/* For the dimensions bound now. */
void sparsec_find_output_shapes(sparsec_context *context);

/* How many extents of a caller's shape can be printed. */
int32_t sparsec_printable(int32_t ndim, const int64_t *extents);

/* Where a run reads and writes: in the caller's tensors, or in the arena. Leaves a sentence where one does not fit. */
int32_t sparsec_bind_inputs(sparsec_context *context, const DLTensor *const *inputs);
int32_t sparsec_bind_outputs(sparsec_context *context, const DLTensor *const *inputs, DLTensor *const *outputs);

/* Copies a sentence into the caller's `message`, unless it is NULL, and returns `status`. */
int32_t sparsec_refuse(char *message, size_t size, int32_t status, const char *text);

/* Leaves a sentence and returns `status`. */
int32_t sparsec_fail(sparsec_context *context, int32_t status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Whether the shape is one that input `index` may have; binds the dimensions in it. */
int32_t sparsec_bind_shape(sparsec_context *context, int32_t index, int32_t ndim, const int64_t *extents);

/* Whether a tensor of the caller has the dtype of the model's and lies in the CPU's memory; `kind` is "input", … */
int32_t sparsec_check_dtype(sparsec_context *context, const char *kind, const sparsec_tensor_info *info,
                            const DLTensor *tensor);

#endif
