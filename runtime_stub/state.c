#include "state.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "tensor.h"

static uint64_t largest_bytes(const sparsec_program *program, const sparsec_tensor_info *input) {
    uint64_t bytes = (uint64_t)sparsec_item_bytes(input->dtype);
    for (int32_t i = 0; i < input->ndim; ++i) {
        const sparsec_axis axis = input->axes[i];
        bytes *= (uint64_t)(axis.dim < 0 ? axis.size : program->dims[axis.dim].upper);
    }
    return (bytes + 63) / 64 * 64;
}

static int32_t check_pair(const sparsec_program *program, const sparsec_state *pairs, size_t at, char *message,
                          size_t message_size) {
    const sparsec_state pair = pairs[at];
    if (pair.output < 0 || pair.output >= program->n_outputs || pair.input < 0 || pair.input >= program->n_inputs) {
        snprintf(message, message_size, "a state joins output %d and input %d, the model has %d and %d", pair.output,
                 pair.input, program->n_outputs, program->n_inputs);
        return SPARSEC_ERR_ARGUMENT;
    }
    const sparsec_tensor_info *output = &program->outputs[pair.output], *input = &program->inputs[pair.input];
    for (size_t i = 0; i < at; ++i) {
        if (pairs[i].output == pair.output || pairs[i].input == pair.input) {
            snprintf(message, message_size, "output %s and input %s: one of them belongs to another state already",
                     output->name, input->name);
            return SPARSEC_ERR_ARGUMENT;
        }
    }
    if (memcmp(&output->dtype, &input->dtype, sizeof output->dtype) || output->ndim != input->ndim) {
        snprintf(message, message_size, "output %s cannot be the state of input %s: dtype or number of axes differ",
                 output->name, input->name);
        return SPARSEC_ERR_ARGUMENT;
    }
    return SPARSEC_OK;
}

static const sparsec_cache *cache_in(const sparsec_program *program, sparsec_state pair) {
    for (int32_t i = 0; i < program->n_caches; ++i) {
        const sparsec_cache *cache = &program->caches[i];
        if (cache->output == pair.output && cache->input == pair.input) return cache;
    }
    return NULL;
}

/* How the rows of a pair are appended, or NULL where the output is made anew in any bucket. */
static const sparsec_cache *cache_of(const sparsec_model *model, sparsec_state pair) {
    for (int32_t i = 0; i < model->n_buckets; ++i) {
        if (!cache_in(model->buckets[i], pair)) return NULL;
    }
    return cache_in(model->program, pair);
}

int32_t sparsec_states_create(sparsec_states *states, const sparsec_model *model, const sparsec_state *pairs,
                              size_t count, char *message, size_t message_size) {
    const sparsec_program *program = model->program;
    char unheard[1];
    if (!message || !message_size) message = unheard, message_size = sizeof unheard;
    if (count > (size_t)program->n_inputs || (count && !pairs)) {
        snprintf(message, message_size, "options.n_states is more than the model has inputs, or states is NULL");
        return SPARSEC_ERR_ARGUMENT;
    }
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; ++i) {
        int32_t status = check_pair(program, pairs, i, message, message_size);
        if (status) return status;
        const uint64_t size = largest_bytes(program, &program->inputs[pairs[i].input]);
        bytes += cache_of(model, pairs[i]) ? size : 2 * size;
    }
    if (!count) return SPARSEC_OK;
    states->slots = calloc(count, sizeof *states->slots);
    if (!states->slots || posix_memalign(&states->memory, 64, bytes + 64)) {
        snprintf(message, message_size, "not enough memory for %" PRIu64 " bytes of states", bytes);
        return SPARSEC_ERR_MEMORY;
    }
    unsigned char *at = states->memory;
    for (size_t i = 0; i < count; ++i) {
        const uint64_t size = largest_bytes(program, &program->inputs[pairs[i].input]);
        const sparsec_cache *cache = cache_of(model, pairs[i]);
        states->slots[i] = (sparsec_slot){.output = pairs[i].output,
                                          .input = pairs[i].input,
                                          .cache = cache,
                                          .buffers = {at, cache ? at : at + size}};
        memset(at, 0, (size_t)size);
        at += cache ? size : 2 * size;
    }
    states->count = (int32_t)count;
    return SPARSEC_OK;
}

void sparsec_states_destroy(sparsec_states *states) {
    free(states->slots);
    free(states->memory);
}

sparsec_slot *sparsec_slot_of_input(const sparsec_states *states, int32_t index) {
    for (int32_t i = 0; i < states->count; ++i) {
        if (states->slots[i].input == index) return &states->slots[i];
    }
    return NULL;
}

sparsec_slot *sparsec_slot_of_output(const sparsec_states *states, int32_t index) {
    for (int32_t i = 0; i < states->count; ++i) {
        if (states->slots[i].output == index) return &states->slots[i];
    }
    return NULL;
}

/* Extents of a state that has not begun. */
static void first_extents(const sparsec_context *c, const sparsec_slot *slot, int64_t *extents) {
    const sparsec_tensor_info *info = &c->program->inputs[slot->input];
    for (int32_t i = 0; i < info->ndim; ++i) {
        const sparsec_axis axis = info->axes[i];
        if (axis.dim < 0) {
            extents[i] = axis.size;
        } else {
            extents[i] = c->dims[axis.dim] >= 0 ? c->dims[axis.dim] : c->program->dims[axis.dim].lower;
        }
    }
}

int32_t sparsec_states_bind(sparsec_context *c) {
    for (int32_t i = 0; i < c->states.count; ++i) {
        sparsec_slot *slot = &c->states.slots[i];
        const sparsec_tensor_info *info = &c->program->inputs[slot->input];
        if (!slot->is_begun) first_extents(c, slot, slot->extents);
        int32_t status = sparsec_bind_shape(c, slot->input, info->ndim, slot->extents);
        if (status) {
            const size_t length = strlen(c->message);
            snprintf(c->message + length, sizeof c->message - length, "; it is a state: reset or set it first");
            return status;
        }
        c->inputs[slot->input] = slot->buffers[slot->current];
    }
    return SPARSEC_OK;
}

int32_t sparsec_states_check_room(sparsec_context *c) {
    for (int32_t i = 0; i < c->states.count; ++i) {
        const sparsec_slot *slot = &c->states.slots[i];
        const sparsec_program *largest = c->model->program;
        const sparsec_tensor_info *input = &largest->inputs[slot->input];
        const int64_t *extents = c->output_extents[slot->output];
        for (int32_t d = 0; d < input->ndim; ++d) {
            const sparsec_axis axis = input->axes[d];
            const int64_t room = axis.dim < 0 ? axis.size : largest->dims[axis.dim].upper;
            if (extents[d] <= room && (axis.dim >= 0 || extents[d] == room)) continue;
            return sparsec_fail(c, SPARSEC_ERR_SHAPE,
                                "output %s would have %" PRId64 " along axis %d, the state %s has room for %" PRId64,
                                c->program->outputs[slot->output].name, extents[d], d, input->name, room);
        }
        c->outputs[slot->output] = slot->buffers[!slot->current];
    }
    return SPARSEC_OK;
}

void sparsec_states_advance(sparsec_context *c) {
    for (int32_t i = 0; i < c->states.count; ++i) {
        sparsec_slot *slot = &c->states.slots[i];
        slot->current = !slot->current;
        slot->is_begun = 1;
        memcpy(slot->extents, c->output_extents[slot->output], sizeof slot->extents);
    }
}

/* --- sparsec.h --------------------------------------------------------------------------------------------------- */

int32_t sparsec_state_reset(sparsec_context *context) {
    if (!context) return SPARSEC_ERR_ARGUMENT;
    if (atomic_flag_test_and_set(&context->busy)) return SPARSEC_ERR_BUSY;
    context->message[0] = 0;
    sparsec_forget_dims(context); /* those of the last run */
    for (int32_t i = 0; i < context->states.count; ++i) {
        sparsec_slot *slot = &context->states.slots[i];
        slot->is_begun = 0;
        memset(slot->buffers[slot->current], 0,
               (size_t)largest_bytes(context->model->program, &context->model->program->inputs[slot->input]));
    }
    atomic_flag_clear(&context->busy);
    return SPARSEC_OK;
}

/* Strides, in elements, of a tensor of the slot's extents in its cache. */
static void cache_strides(const sparsec_slot *slot, int32_t ndim, const int64_t *extents, int64_t *strides) {
    int64_t stride = 1;
    for (int32_t i = ndim - 1; i >= 0; --i) {
        if (i == slot->cache->axis) continue;
        strides[i] = stride;
        stride *= extents[i];
    }
    strides[slot->cache->axis] = stride;
}

/* The slot of a call from outside, or NULL with the reason in *status. */
static sparsec_slot *slot_for(sparsec_context *c, int32_t input, const DLTensor *tensor, int32_t *status) {
    sparsec_slot *slot = sparsec_slot_of_input(&c->states, input);
    *status = SPARSEC_OK;
    if (!slot) {
        *status = sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "input %d is bound to no state", input);
    } else if (!tensor) {
        *status = sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "the state's tensor is a null pointer");
    }
    return *status ? NULL : slot;
}

int32_t sparsec_state_get(sparsec_context *context, int32_t input, DLTensor *state) {
    if (!context) return SPARSEC_ERR_ARGUMENT;
    if (atomic_flag_test_and_set(&context->busy)) return SPARSEC_ERR_BUSY;
    context->message[0] = 0;
    int32_t status;
    sparsec_slot *slot = slot_for(context, input, state, &status);
    if (slot) {
        const sparsec_tensor_info *info = &context->program->inputs[input];
        if (!slot->is_begun) first_extents(context, slot, slot->extents);
        *state = (DLTensor){.data = slot->buffers[slot->current],
                            .device = {1, 0},
                            .ndim = info->ndim,
                            .dtype = info->dtype,
                            .shape = slot->extents};
        if (slot->cache) {
            cache_strides(slot, info->ndim, slot->extents, slot->strides);
            state->strides = slot->strides;
        }
    }
    atomic_flag_clear(&context->busy);
    return status;
}

/* Whether the shape is one that the input may have, whatever the other inputs' are. */
static int32_t check_shape(sparsec_context *c, int32_t input, const DLTensor *state) {
    int64_t kept[SPARSEC_MAX_NDIM];
    const sparsec_tensor_info *info = &c->program->inputs[input];
    for (int32_t i = 0; i < info->ndim; ++i) kept[i] = info->axes[i].dim < 0 ? 0 : c->dims[info->axes[i].dim];
    for (int32_t i = 0; i < info->ndim; ++i) {
        if (info->axes[i].dim >= 0) c->dims[info->axes[i].dim] = -1;
    }
    const int32_t status = sparsec_bind_shape(c, input, state->ndim, state->shape);
    for (int32_t i = 0; i < info->ndim; ++i) {
        if (info->axes[i].dim >= 0) c->dims[info->axes[i].dim] = kept[i];
    }
    return status;
}

/* Copies a tensor into the rows of a cache, of which it may be a view. */
static int32_t set_rows(sparsec_context *c, sparsec_slot *slot, const DLTensor *state, int64_t count) {
    int64_t shape[SPARSEC_MAX_NDIM], strides[SPARSEC_MAX_NDIM], compact = 1;
    const int32_t axis = slot->cache->axis;
    for (int32_t i = state->ndim - 1, at = state->ndim - 1; i >= 0; --i) {
        const int64_t stride = state->strides ? state->strides[i] : compact;
        const int32_t place = i == axis ? 0 : at--;
        shape[place] = state->shape[i];
        strides[place] = stride;
        compact *= state->shape[i];
    }
    DLTensor rows = *state;
    rows.shape = shape;
    rows.strides = strides;
    const size_t bytes = (size_t)(count * sparsec_item_bytes(state->dtype));
    void *between = malloc(bytes);
    if (!between) return sparsec_fail(c, SPARSEC_ERR_MEMORY, "not enough memory to set the state");
    sparsec_tensor_pack(&rows, between);
    memcpy(slot->buffers[0], between, bytes);
    free(between);
    return SPARSEC_OK;
}

int32_t sparsec_state_set(sparsec_context *context, int32_t input, const DLTensor *state) {
    if (!context) return SPARSEC_ERR_ARGUMENT;
    if (atomic_flag_test_and_set(&context->busy)) return SPARSEC_ERR_BUSY;
    context->message[0] = 0;
    int32_t status;
    sparsec_slot *slot = slot_for(context, input, state, &status);
    if (slot) status = sparsec_check_dtype(context, "state", &context->program->inputs[input], state);
    if (slot && !status && context->program != context->model->program) {
        sparsec_use_program(context, context->model->program);
    }
    if (slot && !status) status = check_shape(context, input, state);
    if (slot && !status) {
        int64_t count = 1;
        for (int32_t i = 0; i < state->ndim; ++i) count *= state->shape[i];
        if (count && !state->data) {
            status = sparsec_fail(context, SPARSEC_ERR_ARGUMENT, "the state's tensor has no data");
        } else {
            /* the other buffer: `state` may be a view of this one */
            if (count && !slot->cache) sparsec_tensor_pack(state, slot->buffers[!slot->current]);
            if (count && slot->cache) status = set_rows(context, slot, state, count);
            int64_t extents[SPARSEC_MAX_NDIM] = {0};
            for (int32_t i = 0; i < state->ndim; ++i) extents[i] = state->shape[i];
            if (!status) {
                memcpy(slot->extents, extents, sizeof extents);
                slot->current = !slot->current;
                slot->is_begun = 1;
            }
        }
    }
    atomic_flag_clear(&context->busy);
    return status;
}
