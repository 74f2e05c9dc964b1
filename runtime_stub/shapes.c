/* The sizes of a run: which program takes them, what dimensions they bind, what shapes the outputs get. */
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "context.h"
#include "pool.h"
#include "tensor.h"

int32_t sparsec_printable(int32_t ndim, const int64_t *extents) {
    return extents && ndim > 0 && ndim <= SPARSEC_MAX_NDIM ? ndim : 0;
}

/* Whether the shape is one that input `index` may have; binds the dimensions in it. */
int32_t sparsec_bind_shape(sparsec_context *c, int32_t index, int32_t ndim, const int64_t *extents) {
    const sparsec_tensor_info *info = &c->program->inputs[index];
    int64_t wanted[SPARSEC_MAX_NDIM];
    char have_text[128], want_text[128];
    int fits = ndim == info->ndim && (ndim == 0 || extents);
    for (int32_t i = 0; i < info->ndim; ++i) {
        const sparsec_axis axis = info->axes[i];
        wanted[i] = axis.dim < 0 ? axis.size : -1;
        if (!fits) continue;
        if (axis.dim < 0) {
            fits = extents[i] == axis.size;
            continue;
        }
        const sparsec_dim *dim = &c->program->dims[axis.dim];
        if (extents[i] < dim->lower || extents[i] > dim->upper) {
            return sparsec_fail(c, SPARSEC_ERR_SHAPE,
                                "input %s: dimension %s is %" PRId64 ", but the artifact was built for %" PRId64
                                "..%" PRId64,
                                info->name, dim->name, extents[i], dim->lower, dim->upper);
        }
        if (c->dims[axis.dim] >= 0 && c->dims[axis.dim] != extents[i]) {
            return sparsec_fail(c, SPARSEC_ERR_SHAPE,
                                "input %s: dimension %s is %" PRId64 ", but %" PRId64 " in another place", info->name,
                                dim->name, extents[i], c->dims[axis.dim]);
        }
        c->dims[axis.dim] = extents[i];
    }
    if (fits) return SPARSEC_OK;
    sparsec_shape_text(wanted, info->ndim, want_text, sizeof want_text);
    sparsec_shape_text(extents, sparsec_printable(ndim, extents), have_text, sizeof have_text);
    return sparsec_fail(c, SPARSEC_ERR_SHAPE, "input %s has shape %s, the model takes %s", info->name, have_text,
                        want_text);
}

/* What a run is going to find is as large as it can be until then. */
void sparsec_forget_dims(sparsec_context *c) {
    for (int32_t i = 0; i < c->program->n_dims; ++i) c->dims[i] = -1;
    for (int32_t i = 0; i < c->program->n_found_dims; ++i) {
        c->dims[c->program->n_dims + i] = c->program->dims[c->program->n_dims + i].upper;
    }
}

static int takes(const sparsec_program *program, int32_t input, int32_t ndim, const int64_t *extents) {
    const sparsec_tensor_info *info = &program->inputs[input];
    if (ndim != info->ndim || (ndim && !extents)) return 0;
    for (int32_t i = 0; i < ndim; ++i) {
        const sparsec_axis axis = info->axes[i];
        if (axis.dim < 0 && extents[i] != axis.size) return 0;
        if (axis.dim < 0) continue;
        const sparsec_dim *dim = &program->dims[axis.dim];
        if (extents[i] < dim->lower || extents[i] > dim->upper) return 0;
    }
    return 1;
}

/* Whether a program takes the sizes of the inputs, given as tensors or as shapes, and of the states that have begun. */
static int takes_all(sparsec_context *c, const sparsec_program *program, const DLTensor *const *tensors,
                     const sparsec_shape *shapes) {
    for (int32_t i = 0; i < program->n_inputs; ++i) {
        const sparsec_slot *slot = sparsec_slot_of_input(&c->states, i);
        if (slot) {
            if (slot->is_begun && !takes(program, i, program->inputs[i].ndim, slot->extents)) return 0;
        } else if (tensors) {
            if (!tensors[i] || !takes(program, i, tensors[i]->ndim, tensors[i]->shape)) return 0;
        } else if (!takes(program, i, shapes[i].ndim, shapes[i].extents)) {
            return 0;
        }
    }
    return 1;
}

void sparsec_choose_program(sparsec_context *c, const DLTensor *const *tensors, const sparsec_shape *shapes) {
    const sparsec_program *chosen = c->model->program;
    for (int32_t i = c->model->n_buckets - 1; i >= 0; --i) {
        if (takes_all(c, c->model->buckets[i], tensors, shapes)) chosen = c->model->buckets[i];
    }
    if (chosen != c->program) sparsec_use_program(c, chosen);
    c->prepared = 0;
    sparsec_forget_dims(c);
}

int32_t sparsec_check_sums(sparsec_context *c) {
    for (int32_t i = 0; i < c->program->n_dims; ++i) {
        const sparsec_dim *dim = &c->program->dims[i];
        const int64_t wanted = dim->equals && c->dims[i] >= 0 ? dim->equals(c->dims) : c->dims[i];
        if (wanted == c->dims[i]) continue;
        return sparsec_fail(c, SPARSEC_ERR_SHAPE, "dimension %s is %" PRId64 ", but %s is %" PRId64, dim->name,
                            c->dims[i], dim->equals_text, wanted);
    }
    return SPARSEC_OK;
}

void sparsec_find_output_shapes(sparsec_context *c) {
    for (int32_t i = 0; i < c->program->n_outputs; ++i) c->program->outputs[i].shape(c->dims, c->output_extents[i]);
    c->prepared = 1;
}

static int32_t prepare(sparsec_context *c, const sparsec_shape *shapes, int32_t n_inputs) {
    if (n_inputs != c->program->n_inputs || (n_inputs && !shapes)) {
        return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "%d shapes given, the model has %d inputs", n_inputs,
                            c->program->n_inputs);
    }
    sparsec_choose_program(c, NULL, shapes);
    for (int32_t i = 0; i < n_inputs; ++i) {
        if (sparsec_slot_of_input(&c->states, i)) continue;
        int32_t status = sparsec_bind_shape(c, i, shapes[i].ndim, shapes[i].extents);
        if (status) return status;
    }
    int32_t status = sparsec_states_bind(c);
    if (!status) status = sparsec_check_sums(c);
    if (status) return status;
    sparsec_find_output_shapes(c);
    if (c->pool && sparsec_pool_is_orphan(c->pool)) {
        sparsec_pool *pool = sparsec_pool_create(c->threads);
        if (!pool) {
            return sparsec_fail(c, SPARSEC_ERR_THREADS, "the context's threads could not be created after a fork");
        }
        sparsec_pool_destroy(c->pool);
        c->pool = pool;
    }
    return SPARSEC_OK;
}

int32_t sparsec_output_shape(sparsec_context *context, int32_t index, int32_t *ndim, int64_t *extents) {
    if (!context || !ndim || !extents) return SPARSEC_ERR_ARGUMENT;
    if (index < 0 || index >= context->program->n_outputs) {
        return sparsec_fail(context, SPARSEC_ERR_ARGUMENT, "there is no output %d", index);
    }
    if (!context->prepared) return sparsec_fail(context, SPARSEC_ERR_UNPREPARED, "sparsec_prepare has not been called");
    *ndim = context->program->outputs[index].ndim;
    memcpy(extents, context->output_extents[index], (size_t)*ndim * sizeof *extents);
    return SPARSEC_OK;
}

int32_t sparsec_prepare(sparsec_context *context, const sparsec_shape *shapes, int32_t n_inputs) {
    if (!context) return SPARSEC_ERR_ARGUMENT;
    if (atomic_flag_test_and_set(&context->busy)) return SPARSEC_ERR_BUSY;
    context->message[0] = 0;
    int32_t status = prepare(context, shapes, n_inputs);
    atomic_flag_clear(&context->busy);
    return status;
}
