/* The functions of sparsec.h that say what a model is: it never changes, and belongs to all. */
#include <stdio.h>
#include <string.h>

#include "context.h"

int32_t sparsec_abi_version(void) { return SPARSEC_ABI_VERSION; }

int32_t sparsec_model_open(int32_t abi_version, const sparsec_model **model, char *message, size_t message_size) {
    if (!model) return sparsec_refuse(message, message_size, SPARSEC_ERR_ARGUMENT, "model is a null pointer");
    *model = NULL;
    if (abi_version != SPARSEC_ABI_VERSION) {
        char text[128];
        snprintf(text, sizeof text, "this artifact has ABI version %d, the caller was written for version %d",
                 SPARSEC_ABI_VERSION, (int)abi_version);
        return sparsec_refuse(message, message_size, SPARSEC_ERR_ABI, text);
    }
    const int32_t chosen = sparsec_cpu_select(sparsec_the_needs, sparsec_n_models, sparsec_cpu_detect(),
                                              sparsec_cpu_request_tiles, message, message_size);
    if (chosen < 0) return SPARSEC_ERR_CPU;
    *model = &sparsec_the_models[chosen];
    return SPARSEC_OK;
}

void sparsec_model_close(const sparsec_model *model) { (void)model; }

const char *sparsec_manifest(const sparsec_model *model) { return model ? model->program->manifest : ""; }

int32_t sparsec_input_count(const sparsec_model *model) { return model ? model->program->n_inputs : 0; }

int32_t sparsec_output_count(const sparsec_model *model) { return model ? model->program->n_outputs : 0; }

int32_t sparsec_input_description(const sparsec_model *model, int32_t index, sparsec_tensor_description *description) {
    if (!model || !description || index < 0 || index >= model->program->n_inputs) return SPARSEC_ERR_ARGUMENT;
    const sparsec_tensor_info *info = &model->program->inputs[index];
    memset(description, 0, sizeof *description);
    description->name = info->name;
    description->dtype = info->dtype;
    description->ndim = info->ndim;
    for (int32_t i = 0; i < info->ndim; ++i) {
        description->extents[i] = info->axes[i].dim < 0 ? info->axes[i].size : -1;
    }
    return SPARSEC_OK;
}

/* An output's extent is dynamic when it differs between the bounds of the dimensions. */
int32_t sparsec_output_description(const sparsec_model *model, int32_t index, sparsec_tensor_description *description) {
    enum { MAX_DIMS = 64 };
    if (!model || !description || index < 0 || index >= model->program->n_outputs) return SPARSEC_ERR_ARGUMENT;
    const sparsec_program *program = model->program;
    const sparsec_tensor_info *info = &program->outputs[index];
    memset(description, 0, sizeof *description);
    description->name = info->name;
    description->dtype = info->dtype;
    description->ndim = info->ndim;
    int64_t dims[MAX_DIMS] = {0}, at_lower[SPARSEC_MAX_NDIM];
    const int32_t n = program->n_dims + program->n_found_dims;
    if (n > MAX_DIMS) {
        for (int32_t i = 0; i < info->ndim; ++i) description->extents[i] = -1;
        return SPARSEC_OK;
    }
    for (int32_t i = 0; i < n; ++i) dims[i] = program->dims[i].upper;
    info->shape(dims, description->extents);
    for (int32_t d = 0; d < n; ++d) {
        dims[d] = program->dims[d].lower;
        info->shape(dims, at_lower);
        for (int32_t i = 0; i < info->ndim; ++i) {
            if (at_lower[i] != description->extents[i]) description->extents[i] = -1;
        }
        dims[d] = program->dims[d].upper;
    }
    return SPARSEC_OK;
}

size_t sparsec_workspace_bytes(const sparsec_model *model) {
    size_t bytes = model ? model->program->arena_bytes : 0;
    for (int32_t i = 0; model && i < model->n_buckets; ++i) {
        if (model->buckets[i]->arena_bytes > bytes) bytes = model->buckets[i]->arena_bytes;
    }
    return bytes;
}
