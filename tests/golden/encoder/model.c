/* Made by sparsec for target avx2 from model <sha256>. Do not edit. */
#include "model.h"

extern const unsigned char sparsec_weights_blob[];
extern const char sparsec_manifest_text[];


/* Kernels: pointers, then sizes, then the slice of the range axis. */
int32_t sparsec_k_gemv_f32_mask_avx2_bias_gelu_erf_add_silu(void *, void *, void *, void *, void *, void *, void *, int64_t, int64_t, int64_t, int64_t, int64_t);
int32_t sparsec_k_layer_norm_0a5f9b93(void *, void *, void *, void *, int64_t, int64_t, int64_t);
int32_t sparsec_k_softmax(void *, void *, int64_t, int64_t, int64_t);

/* Steps */
static int32_t run_0(const sparsec_frame *f, int64_t begin, int64_t end) {
    return sparsec_k_layer_norm_0a5f9b93(f->inputs[0], (void *)(f->weights + UINT64_C(0)), (void *)(f->weights + UINT64_C(0)), (void *)(f->arena + UINT64_C(384)), INT64_C(8), begin, end);
}
static int64_t extent_0(const int64_t *dims) {
    (void)dims;
    return (dims[0] * INT64_C(3));
}
static int32_t run_1(const sparsec_frame *f, int64_t begin, int64_t end) {
    const int64_t *dims = f->dims;
    return sparsec_k_gemv_f32_mask_avx2_bias_gelu_erf_add_silu((void *)(f->arena + UINT64_C(384)), (void *)(f->weights + UINT64_C(64)), (void *)(f->weights + UINT64_C(384)), (void *)(f->weights + UINT64_C(448)), (void *)(f->weights + UINT64_C(0)), f->inputs[0], (void *)(f->arena + UINT64_C(768)), INT64_C(8), INT64_C(8), (dims[0] * INT64_C(3)), begin, end);
}
static int64_t extent_1(const int64_t *dims) {
    (void)dims;
    return INT64_C(1);
}
static int32_t run_2(const sparsec_frame *f, int64_t begin, int64_t end) {
    return sparsec_k_softmax((void *)(f->arena + UINT64_C(768)), f->outputs[0], INT64_C(8), begin, end);
}
static int64_t extent_2(const int64_t *dims) {
    (void)dims;
    return (dims[0] * INT64_C(3));
}

static const sparsec_step STEPS[] = {
    {run_0, extent_0, 1, 96, "Add making 'shifted'"},
    {run_1, extent_1, 1, 175, "Mul making 'silu'"},
    {run_2, extent_2, 1, 96, "Softmax making 'y'"},
    {0, 0, 1, 0, ""},
};

static const sparsec_walk WALKS[] = {
    {0, 0, 0, 0, 0},
};

/* Inputs and outputs */
static const sparsec_axis INPUT_0_AXES[] = { {0, 0}, {-1, 3}, {-1, 8} };
static const sparsec_tensor_info INPUTS[] = {
    {"x", {2, 32, 1}, 3, INPUT_0_AXES, 0, UINT64_C(0)},
    {"", {0, 0, 0}, 0, 0, 0, 0},
};
static void output_0_shape(const int64_t *dims, int64_t *extents) {
    (void)dims, (void)extents;
    extents[0] = dims[0];
    extents[1] = INT64_C(3);
    extents[2] = INT64_C(8);
    }
static const sparsec_tensor_info OUTPUTS[] = {
    {"y", {2, 32, 1}, 3, 0, output_0_shape, UINT64_C(0)},
    {"", {0, 0, 0}, 0, 0, 0, 0},
};
static const sparsec_dim DIMS[] = {
    {"batch", 1, 4},
    {"", 0, 0},
};

const sparsec_program sparsec_the_program = {
    .manifest = sparsec_manifest_text,
    .n_inputs = 1,
    .n_outputs = 1,
    .n_dims = 1,
    .n_found_dims = 0,
    .n_steps = 3,
    .n_walks = 0,
    .inputs = INPUTS,
    .outputs = OUTPUTS,
    .dims = DIMS,
    .steps = STEPS,
    .walks = WALKS,
    .arena_bytes = UINT64_C(1152),
    .weights = sparsec_weights_blob,
    .weights_bytes = UINT64_C(456),
};
