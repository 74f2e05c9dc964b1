/* Made by sparsec for target avx2 from model <sha256>. Do not edit. */
#include "model.h"

static inline int64_t sparsec_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t sparsec_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t sparsec_floordiv(int64_t a, int64_t b) { return a / b - ((a % b != 0) && ((a < 0) != (b < 0))); }
static inline int64_t sparsec_floormod(int64_t a, int64_t b) { return a - sparsec_floordiv(a, b) * b; }

extern const unsigned char sparsec_weights_blob[];
extern const char sparsec_manifest_text[];

extern const unsigned char sparsec_code_c17887a28521d16f[];

/* Kernels: pointers, then sizes, then the slice of the range axis. */
int32_t sparsec_k_000_reshape_transpose(void *, void *, int64_t, int64_t);
int32_t sparsec_k_001_body(void *, void *, int64_t, int64_t);
int32_t sparsec_k_002_subtract_tir_exp_silu_strided_slice(void *, void *, void *, int64_t, int64_t);
int32_t sparsec_k_conv_pattern_avx2_bias_relu(void *, void *, void *, void *, void *, void *, void *, void *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
int32_t sparsec_k_pad_planes(void *, void *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
int32_t sparsec_k_pool2d_max(void *, void *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

/* Steps */
static int32_t run_0(const sparsec_frame *f, int64_t begin, int64_t end) {
    return sparsec_k_pad_planes(f->inputs[0], (void *)(f->arena + UINT64_C(1280)), INT64_C(64), INT64_C(0), INT64_C(8), INT64_C(8), INT64_C(8), INT64_C(1), INT64_C(1), INT64_C(1), INT64_C(1), INT64_C(1), INT64_C(1), INT64_C(112), INT64_C(112), INT64_C(9), begin, end);
}
static int64_t extent_0(const int64_t *dims) {
    (void)dims;
    return INT64_C(2);
}
static int32_t run_1(const sparsec_frame *f, int64_t begin, int64_t end) {
    return sparsec_k_conv_pattern_avx2_bias_relu((void *)(f->arena + UINT64_C(1280)), (void *)(f->weights + UINT64_C(0)), (void *)(f->weights + UINT64_C(320)), (void *)sparsec_code_c17887a28521d16f, (void *)(f->weights + UINT64_C(384)), (void *)(f->weights + UINT64_C(512)), (void *)(f->weights + UINT64_C(640)), (void *)(f->arena + UINT64_C(0)), INT64_C(4), INT64_C(224), INT64_C(320), INT64_C(4), INT64_C(5), INT64_C(5), INT64_C(4611686018427387904), INT64_C(4), begin, end);
}
static int64_t extent_1(const int64_t *dims) {
    (void)dims;
    return INT64_C(5);
}
static int32_t run_2(const sparsec_frame *f, int64_t begin, int64_t end) {
    return sparsec_k_pool2d_max((void *)(f->arena + UINT64_C(0)), (void *)(f->arena + UINT64_C(1280)), INT64_C(8), INT64_C(8), INT64_C(80), INT64_C(0), INT64_C(8), INT64_C(4), INT64_C(4), INT64_C(16), INT64_C(0), INT64_C(4), INT64_C(16), INT64_C(2), INT64_C(2), INT64_C(2), INT64_C(2), INT64_C(1), INT64_C(1), INT64_C(0), INT64_C(0), INT64_C(0), INT64_C(0), INT64_C(0), begin, end);
}
static int64_t extent_2(const int64_t *dims) {
    (void)dims;
    return INT64_C(4);
}
static int32_t run_3(const sparsec_frame *f, int64_t begin, int64_t end) {
    return sparsec_k_000_reshape_transpose((void *)(f->arena + UINT64_C(1280)), (void *)(f->arena + UINT64_C(0)), begin, end);
}
static int64_t extent_3(const int64_t *dims) {
    (void)dims;
    return INT64_C(16);
}
static int32_t run_4(const sparsec_frame *f, int64_t begin, int64_t end) {
    return sparsec_k_001_body((void *)(f->arena + UINT64_C(0)), (void *)(f->arena + UINT64_C(384)), begin, end);
}
static int64_t extent_4(const int64_t *dims) {
    (void)dims;
    return INT64_C(16);
}
static int32_t run_5(const sparsec_frame *f, int64_t begin, int64_t end) {
    return sparsec_k_002_subtract_tir_exp_silu_strided_slice((void *)(f->arena + UINT64_C(0)), (void *)(f->arena + UINT64_C(384)), f->outputs[0], begin, end);
}
static int64_t extent_5(const int64_t *dims) {
    (void)dims;
    return INT64_C(8);
}

static const sparsec_step STEPS[] = {
    {run_0, extent_0, 1, 176, "Relu making 'relu'"},
    {run_1, extent_1, 1, 464, "Relu making 'relu'"},
    {run_2, extent_2, 1, 192, "MaxPool making 'pool'"},
    {run_3, extent_3, 1, 64, "sparsec_k_000_reshape_transpose"},
    {run_4, extent_4, 1, 40, "ReduceMax making 'largest'"},
    {run_5, extent_5, 1, 56, "ReduceMax making 'largest'"},
    {0, 0, 1, 0, ""},
};

static const sparsec_walk WALKS[] = {
    {0, 0, 0, 0, 0},
};

/* Inputs and outputs */
static const sparsec_axis INPUT_0_AXES[] = { {-1, 1}, {-1, 2}, {-1, 8}, {-1, 8} };
static const sparsec_tensor_info INPUTS[] = {
    {"x", {2, 32, 1}, 4, INPUT_0_AXES, 0, UINT64_C(0)},
    {"", {0, 0, 0}, 0, 0, 0, 0},
};
static void output_0_shape(const int64_t *dims, int64_t *extents) {
    (void)dims, (void)extents;
    extents[0] = INT64_C(1);
    extents[1] = INT64_C(8);
    extents[2] = INT64_C(4);
    }
static const sparsec_tensor_info OUTPUTS[] = {
    {"y", {2, 32, 1}, 3, 0, output_0_shape, UINT64_C(256)},
    {"", {0, 0, 0}, 0, 0, 0, 0},
};
static const sparsec_dim DIMS[] = {
    {"", 0, 0},
};

const sparsec_program sparsec_the_program = {
    .manifest = sparsec_manifest_text,
    .n_inputs = 1,
    .n_outputs = 1,
    .n_dims = 0,
    .n_found_dims = 0,
    .n_steps = 6,
    .n_walks = 0,
    .inputs = INPUTS,
    .outputs = OUTPUTS,
    .dims = DIMS,
    .steps = STEPS,
    .walks = WALKS,
    .arena_bytes = UINT64_C(2176),
    .weights = sparsec_weights_blob,
    .weights_bytes = UINT64_C(656),
};
