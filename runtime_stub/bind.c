/* The caller's tensors: read and written in place, or refused. */
#include <string.h>

#include "context.h"
#include "tensor.h"

int32_t sparsec_check_dtype(sparsec_context *c, const char *kind, const sparsec_tensor_info *info, const DLTensor *t) {
    if (memcmp(&t->dtype, &info->dtype, sizeof t->dtype) == 0) {
        if (t->device.device_type == 1 || t->device.device_type == 0) return SPARSEC_OK;
        return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "%s %s is not in the CPU's memory", kind, info->name);
    }
    char have[24], want[24];
    sparsec_dtype_text(t->dtype, have);
    sparsec_dtype_text(info->dtype, want);
    return sparsec_fail(c, SPARSEC_ERR_DTYPE, "%s %s is %s, the model has %s", kind, info->name, have, want);
}

static int is_usable_in_place(const DLTensor *t) {
    const uintptr_t item = (uintptr_t)sparsec_item_bytes(t->dtype);
    return (uintptr_t)sparsec_tensor_data(t) % item == 0 && sparsec_tensor_is_compact(t);
}

/* Whether a tensor begins in the memory that the run is going to overwrite. */
static int is_in_workspace(const sparsec_context *c, const DLTensor *t) {
    return (uintptr_t)sparsec_tensor_data(t) - (uintptr_t)c->frame.arena < c->arena_bytes;
}

static uint64_t compact_bytes(DLDataType dtype, int32_t ndim, const int64_t *extents) {
    uint64_t bytes = (uint64_t)sparsec_item_bytes(dtype);
    for (int32_t i = 0; i < ndim; ++i) bytes *= (uint64_t)extents[i];
    return bytes;
}

static int overlap(const void *a, uint64_t a_bytes, const void *b, uint64_t b_bytes) {
    return (uintptr_t)a < (uintptr_t)b + b_bytes && (uintptr_t)b < (uintptr_t)a + a_bytes && a_bytes && b_bytes;
}

int32_t sparsec_bind_inputs(sparsec_context *c, const DLTensor *const *inputs) {
    sparsec_choose_program(c, inputs, NULL);
    for (int32_t i = 0; i < c->program->n_inputs; ++i) {
        const sparsec_tensor_info *info = &c->program->inputs[i];
        const DLTensor *t = inputs[i];
        if (sparsec_slot_of_input(&c->states, i)) {
            if (!t) continue;
            return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "input %s is a state: its tensor must be NULL", info->name);
        }
        if (!t) return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "input %s is a null pointer", info->name);
        int32_t status = sparsec_check_dtype(c, "input", info, t);
        if (!status) status = sparsec_bind_shape(c, i, t->ndim, t->shape);
        if (status) return status;
        int64_t count = 1;
        for (int32_t d = 0; d < t->ndim; ++d) count *= t->shape[d];
        unsigned char *own = c->frame.arena + info->arena_offset;
        if (count == 0) {
            c->inputs[i] = own;
        } else if (!t->data) {
            return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "input %s has no data", info->name);
        } else if (is_in_workspace(c, t)) {
            return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "input %s lies in the context's workspace: copy it first",
                                info->name);
        } else if (is_usable_in_place(t)) {
            c->inputs[i] = sparsec_tensor_data(t);
        } else {
            sparsec_tensor_pack(t, own);
            c->inputs[i] = own;
        }
    }
    int32_t status = sparsec_states_bind(c);
    if (!status) status = sparsec_check_sums(c);
    if (status) return status;
    sparsec_find_output_shapes(c);
    return sparsec_states_check_room(c);
}

/* Whether `data` is where a run of any of the model's programs leaves output `index`. */
static int is_place_of(const sparsec_context *c, const void *data, int32_t index) {
    const sparsec_model *model = c->model;
    if (data == c->frame.arena + c->program->outputs[index].arena_offset) return 1;
    for (int32_t i = 0; i < model->n_buckets; ++i) {
        if (data == c->frame.arena + model->buckets[i]->outputs[index].arena_offset) return 1;
    }
    return 0;
}

/* Output `index` in the caller's memory: no byte of it may belong to another output or to an input read in place. */
static int32_t check_overlap(sparsec_context *c, int32_t index, const DLTensor *const *inputs) {
    const sparsec_program *p = c->program;
    const sparsec_tensor_info *info = &p->outputs[index];
    const uint64_t bytes = compact_bytes(info->dtype, info->ndim, c->output_extents[index]);
    for (int32_t i = 0; i < p->n_inputs; ++i) {
        const sparsec_slot *slot = sparsec_slot_of_input(&c->states, i);
        const int64_t *extents = slot ? slot->extents : inputs[i]->shape;
        const uint64_t input_bytes = compact_bytes(p->inputs[i].dtype, p->inputs[i].ndim, extents);
        if (overlap(c->outputs[index], bytes, c->inputs[i], input_bytes)) {
            return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "output %s overlaps input %s", info->name, p->inputs[i].name);
        }
    }
    for (int32_t i = 0; i < index; ++i) {
        const sparsec_tensor_info *other = &p->outputs[i];
        const uint64_t other_bytes = compact_bytes(other->dtype, other->ndim, c->output_extents[i]);
        if (overlap(c->outputs[index], bytes, c->outputs[i], other_bytes)) {
            return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "output %s overlaps output %s", info->name, other->name);
        }
    }
    return SPARSEC_OK;
}

int32_t sparsec_bind_outputs(sparsec_context *c, const DLTensor *const *inputs, DLTensor *const *outputs) {
    for (int32_t i = 0; i < c->program->n_outputs; ++i) {
        const sparsec_tensor_info *info = &c->program->outputs[i];
        DLTensor *t = outputs[i];
        if (sparsec_slot_of_output(&c->states, i)) {
            if (!t) continue;
            return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "output %s is a state: its tensor must be NULL", info->name);
        }
        if (!t) return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "output %s is a null pointer", info->name);
        if (!t->data || is_place_of(c, t->data, i)) {
            *t = (DLTensor){.data = c->frame.arena + info->arena_offset,
                            .device = {1, 0},
                            .ndim = info->ndim,
                            .dtype = info->dtype,
                            .shape = c->output_extents[i]};
            c->outputs[i] = t->data;
            continue;
        }
        int32_t status = sparsec_check_dtype(c, "output", info, t);
        if (status) return status;
        if (t->ndim != info->ndim ||
            (t->ndim && memcmp(t->shape, c->output_extents[i], (size_t)t->ndim * sizeof(int64_t)))) {
            char have[128], want[128];
            sparsec_shape_text(t->shape, sparsec_printable(t->ndim, t->shape), have, sizeof have);
            sparsec_shape_text(c->output_extents[i], info->ndim, want, sizeof want);
            return sparsec_fail(c, SPARSEC_ERR_SHAPE, "output %s has shape %s, the model gives %s", info->name, have,
                                want);
        }
        if (!is_usable_in_place(t)) {
            return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "output %s must be compact and aligned to its element size",
                                info->name);
        }
        if (is_in_workspace(c, t)) {
            return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "output %s lies in the workspace, but not in its place",
                                info->name);
        }
        c->outputs[i] = sparsec_tensor_data(t);
        status = check_overlap(c, i, inputs);
        if (status) return status;
    }
    return SPARSEC_OK;
}
