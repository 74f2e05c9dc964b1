/* Made by sparsec for target avx2 from model <sha256>. Do not edit. */
#include "model.h"

static inline int64_t sparsec_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t sparsec_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t sparsec_floordiv(int64_t a, int64_t b) { return a / b - ((a % b != 0) && ((a < 0) != (b < 0))); }
static inline int64_t sparsec_floormod(int64_t a, int64_t b) { return a - sparsec_floordiv(a, b) * b; }

extern const unsigned char sparsec_weights_blob[];
extern const char sparsec_manifest_text[];


/* Kernels: pointers, then sizes, then the slice of the range axis. */
int32_t sparsec_k_copy_rows(void *, void *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
int32_t sparsec_k_gemm_f32_r4n24_avx2(void *, void *, void *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
int32_t sparsec_k_pack_panels_n24(void *, void *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

/* Steps */
static int32_t run_0(const sparsec_frame *f, int64_t begin, int64_t end) {
    const int64_t *dims = f->dims;
    return sparsec_k_copy_rows(f->inputs[1], f->caches[0], INT64_C(2), INT64_C(16), INT64_C(16), (dims[0] * INT64_C(16)), INT64_C(0), INT64_C(32), INT64_C(16), begin, end);
}
static int64_t extent_0(const int64_t *dims) {
    (void)dims;
    return dims[0];
}
static int32_t run_1(const sparsec_frame *f, int64_t begin, int64_t end) {
    const int64_t *dims = f->dims;
    return sparsec_k_copy_rows(f->inputs[0], f->caches[0], INT64_C(2), INT64_C(16), INT64_C(16), INT64_C(16), (INT64_C(32) * dims[0]), INT64_C(32), INT64_C(16), begin, end);
}
static int64_t extent_1(const int64_t *dims) {
    (void)dims;
    return INT64_C(1);
}
static int32_t run_2(const sparsec_frame *f, int64_t begin, int64_t end) {
    const int64_t *dims = f->dims;
    return sparsec_k_copy_rows(f->caches[0], f->outputs[1], INT64_C(2), INT64_C(16), INT64_C(32), INT64_C(16), INT64_C(0), INT64_C(16), ((dims[0] + INT64_C(1)) * INT64_C(16)), begin, end);
}
static int64_t extent_2(const int64_t *dims) {
    (void)dims;
    return (dims[0] + INT64_C(1));
}
static int32_t run_3(const sparsec_frame *f, int64_t begin, int64_t end) {
    const int64_t *dims = f->dims;
    return sparsec_k_pack_panels_n24(f->caches[0], (void *)(f->arena + UINT64_C(0)), INT64_C(1), INT64_C(2), INT64_C(0), INT64_C(0), INT64_C(4), INT64_C(1), INT64_C(8), (dims[0] + INT64_C(1)), INT64_C(4), begin, end);
}
static int64_t extent_3(const int64_t *dims) {
    (void)dims;
    return (INT64_C(2) * sparsec_floordiv(((dims[0] + INT64_C(1)) + INT64_C(23)), INT64_C(24)));
}
static int32_t run_4(const sparsec_frame *f, int64_t begin, int64_t end) {
    const int64_t *dims = f->dims;
    return sparsec_k_gemm_f32_r4n24_avx2(f->inputs[0], (void *)(f->arena + UINT64_C(0)), f->outputs[0], INT64_C(1), INT64_C(2), INT64_C(0), INT64_C(0), INT64_C(4), INT64_C(4), INT64_C(0), INT64_C(0), ((sparsec_floordiv(((dims[0] + INT64_C(1)) + INT64_C(23)), INT64_C(24)) * INT64_C(4)) * INT64_C(24)), INT64_C(0), INT64_C(0), (dims[0] + INT64_C(1)), (dims[0] + INT64_C(1)), INT64_C(1), (dims[0] + INT64_C(1)), INT64_C(4), INT64_C(12288), begin, end);
}
static int64_t extent_4(const int64_t *dims) {
    (void)dims;
    return (INT64_C(2) * sparsec_floordiv(((dims[0] + INT64_C(1)) + INT64_C(23)), INT64_C(24)));
}

static const sparsec_step STEPS[] = {
    {run_0, extent_0, 1, 60, "Concat making 'present'"},
    {run_1, extent_1, 1, 36, "Concat making 'present'"},
    {run_2, extent_2, 1, 64, "Concat making 'present'"},
    {run_3, extent_3, 1, 128, "MatMul making 'y'"},
    {run_4, extent_4, 1, 110, "MatMul making 'y'"},
    {0, 0, 1, 0, ""},
};

static const sparsec_walk WALKS[] = {
    {0, 0, 0, 0, 0},
};

/* Inputs and outputs */
static const sparsec_axis INPUT_0_AXES[] = { {-1, 2}, {-1, 1}, {-1, 4} };
static const sparsec_axis INPUT_1_AXES[] = { {-1, 2}, {0, 0}, {-1, 4} };
static const sparsec_tensor_info INPUTS[] = {
    {"x", {2, 32, 1}, 3, INPUT_0_AXES, 0, UINT64_C(1280)},
    {"past", {2, 32, 1}, 3, INPUT_1_AXES, 0, UINT64_C(0)},
    {"", {0, 0, 0}, 0, 0, 0, 0},
};
static void output_0_shape(const int64_t *dims, int64_t *extents) {
    (void)dims, (void)extents;
    extents[0] = INT64_C(2);
    extents[1] = INT64_C(1);
    extents[2] = (dims[0] + INT64_C(1));
    }
static void output_1_shape(const int64_t *dims, int64_t *extents) {
    (void)dims, (void)extents;
    extents[0] = INT64_C(2);
    extents[1] = (dims[0] + INT64_C(1));
    extents[2] = INT64_C(4);
    }
static const sparsec_tensor_info OUTPUTS[] = {
    {"y", {2, 32, 1}, 3, 0, output_0_shape, UINT64_C(768)},
    {"present", {2, 32, 1}, 3, 0, output_1_shape, UINT64_C(1024)},
    {"", {0, 0, 0}, 0, 0, 0, 0},
};
static const sparsec_dim DIMS[] = {
    {"length", 0, 7},
    {"", 0, 0},
};
static const sparsec_cache CACHES[] = {
    {1, 1, 1, 0, 2, UINT64_C(768)},
};

const sparsec_program sparsec_the_program = {
    .manifest = sparsec_manifest_text,
    .n_inputs = 2,
    .n_outputs = 2,
    .n_dims = 1,
    .n_found_dims = 0,
    .n_steps = 5,
    .n_walks = 0,
    .inputs = INPUTS,
    .outputs = OUTPUTS,
    .dims = DIMS,
    .steps = STEPS,
    .walks = WALKS,
    .n_caches = 1,
    .caches = CACHES,
    .arena_bytes = UINT64_C(1344),
    .weights = sparsec_weights_blob,
    .weights_bytes = UINT64_C(0),
};
