/* Runs a model at several sizes, with inputs and outputs in every layout that is allowed, and checks that all agree.
 *
 *   many_runs THREADS SIZE...
 *
 * Every buffer is exactly as long as it must be, so that a sanitizer sees what reads or writes past its end. Between
 * `quiet_begin` and `quiet_end` nothing is allowed to be allocated; interpose.c defines them, -DNO_INTERPOSE leaves it out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sparsec.h"

enum { MAX_TENSORS = 4, COMPACT = 0, MISALIGNED, STRIDED, REVERSED, LAYOUTS };

#ifdef NO_INTERPOSE
static void quiet_begin(void) {}
static long quiet_end(void) { return 0; }
#else
void quiet_begin(void);
long quiet_end(void);
#endif

static long allocations;

static void check(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static int32_t quiet_run(sparsec_context *context, const DLTensor *const *inputs, int32_t n_inputs,
                         DLTensor *const *outputs, int32_t n_outputs) {
    quiet_begin();
    int32_t status = sparsec_run(context, inputs, n_inputs, outputs, n_outputs);
    allocations += quiet_end();
    return status;
}

static size_t item_bytes(const DLTensor *t) { return t->dtype.bits / 8; }

static int64_t count(const DLTensor *t) {
    int64_t n = 1;
    for (int32_t i = 0; i < t->ndim; ++i) n *= t->shape[i];
    return n;
}

/* Element i of the pattern that fills inputs. */
static void element(const DLTensor *t, int64_t i, void *to) {
    float real = (float)(i * 37 % 101) / 50 - 1;
    int64_t bit = i % 2;
    if (t->dtype.code == 2) memcpy(to, &real, sizeof real);
    else memcpy(to, &bit, item_bytes(t));
}

/* An input of the pattern; what must be freed is returned. */
static void *make_input(DLTensor *t, int64_t *strides, int layout) {
    const size_t item = item_bytes(t);
    const int64_t n = count(t), gap = layout == STRIDED ? 2 : 1;
    int64_t step = gap;
    for (int32_t i = t->ndim; i-- > 0;) {
        strides[i] = layout == REVERSED ? -step : step;
        step *= t->shape[i];
    }
    const size_t shift = layout == MISALIGNED ? 1 : 0;
    const int64_t extent = n ? (n - 1) * gap + 1 : 0;
    unsigned char *memory = malloc((size_t)extent * item + shift);
    check(memory != NULL, "malloc");
    memset(memory, 0xA5, (size_t)extent * item + shift);
    for (int64_t i = 0; i < n; ++i) {
        int64_t at = layout == REVERSED ? n - 1 - i : i * gap;
        element(t, i, memory + shift + (size_t)at * item);
    }
    t->data = memory;
    t->byte_offset = layout == REVERSED ? (uint64_t)(n - 1) * item : shift;
    t->strides = layout == COMPACT ? NULL : strides;
    return memory;
}

int main(int argc, char **argv) {
    char message[256];
    const sparsec_model *model;
    check(!sparsec_model_open(SPARSEC_ABI_VERSION, &model, message, sizeof message), message);
    sparsec_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.threads = atoi(argv[1]);
    sparsec_context *context;
    quiet_begin();
    check(!sparsec_context_create(model, &options, &context, message, sizeof message), message);
#ifndef NO_INTERPOSE
    check(quiet_end() > 0, "sparsec_context_create allocates, and nobody counts it");
#endif

    const int32_t n_inputs = sparsec_input_count(model), n_outputs = sparsec_output_count(model);
    check(n_inputs <= MAX_TENSORS && n_outputs <= MAX_TENSORS, "MAX_TENSORS");
    sparsec_tensor_description description;
    DLTensor in[MAX_TENSORS], out[MAX_TENSORS];
    int64_t in_shape[MAX_TENSORS][SPARSEC_MAX_NDIM], in_strides[MAX_TENSORS][SPARSEC_MAX_NDIM];
    int64_t out_shape[MAX_TENSORS][SPARSEC_MAX_NDIM];
    const DLTensor *inputs[MAX_TENSORS];
    DLTensor *outputs[MAX_TENSORS];
    void *memory[MAX_TENSORS], *expected[MAX_TENSORS], *found[MAX_TENSORS];

    for (int a = 2; a < argc; ++a) {
        const int64_t size = atoll(argv[a]);
        for (int layout = COMPACT; layout < LAYOUTS; ++layout) {
            sparsec_shape shapes[MAX_TENSORS];
            for (int32_t i = 0; i < n_inputs; ++i) {
                check(!sparsec_input_description(model, i, &description), "input_description");
                in[i] = (DLTensor){NULL, {1, 0}, description.ndim, description.dtype, in_shape[i], NULL, 0};
                for (int32_t d = 0; d < description.ndim; ++d)
                    in_shape[i][d] = description.extents[d] < 0 ? size : description.extents[d];
                memory[i] = make_input(&in[i], in_strides[i], layout);
                inputs[i] = &in[i];
                shapes[i] = (sparsec_shape){description.ndim, in_shape[i]};
            }
            quiet_begin();
            int32_t status = sparsec_prepare(context, shapes, n_inputs);
            allocations += quiet_end();
            check(!status, sparsec_message(context));
            for (int32_t i = 0; i < n_outputs; ++i) {
                int32_t ndim;
                check(!sparsec_output_description(model, i, &description), "output_description");
                check(!sparsec_output_shape(context, i, &ndim, out_shape[i]), "output_shape");
                out[i] = (DLTensor){NULL, {1, 0}, ndim, description.dtype, out_shape[i], NULL, 0};
                found[i] = malloc((size_t)count(&out[i]) * item_bytes(&out[i]));
                out[i].data = found[i];
                outputs[i] = &out[i];
            }
            check(!quiet_run(context, inputs, n_inputs, outputs, n_outputs), sparsec_message(context));
            for (int32_t i = 0; i < n_outputs; ++i) {
                size_t bytes = (size_t)count(&out[i]) * item_bytes(&out[i]);
                if (layout == COMPACT) {
                    expected[i] = found[i];
                } else {
                    check(memcmp(found[i], expected[i], bytes) == 0, "results depend on the layout");
                    free(found[i]);
                }
                memset(&out[i], 0, sizeof out[i]);
            }
            /* The same into the workspace. */
            check(!quiet_run(context, inputs, n_inputs, outputs, n_outputs), sparsec_message(context));
            for (int32_t i = 0; i < n_outputs; ++i) {
                size_t bytes = (size_t)count(&out[i]) * item_bytes(&out[i]);
                check(memcmp(out[i].data, expected[i], bytes) == 0, "results depend on the output's place");
            }
            for (int32_t i = 0; i < n_inputs; ++i) free(memory[i]);
        }
        for (int32_t i = 0; i < n_outputs; ++i) free(expected[i]);
    }

    /* What must fail: a rank, an element type, a null pointer, an index. */
    for (int32_t i = 0; i < n_outputs; ++i) memset(&out[i], 0, sizeof out[i]);
    for (int32_t i = 0; i < n_inputs; ++i) memory[i] = make_input(&in[i], in_strides[i], COMPACT);
    in[0].ndim -= 1;
    check(quiet_run(context, inputs, n_inputs, outputs, n_outputs) == SPARSEC_ERR_SHAPE, "rank");
    in[0].ndim += 1;
    const DLDataType dtype = in[0].dtype;
    in[0].dtype.bits = 16;
    check(quiet_run(context, inputs, n_inputs, outputs, n_outputs) == SPARSEC_ERR_DTYPE, "element type");
    in[0].dtype = dtype;
    if (dtype.code == 0) {
        static const int64_t wrong[] = {-1000, 1000, INT64_MIN, INT64_MAX};
        for (int w = 0; w < 4; ++w) {
            for (int64_t i = 0; i < count(&in[0]); ++i) ((int64_t *)in[0].data)[i] = i ? 1 : wrong[w];
            check(quiet_run(context, inputs, n_inputs, outputs, n_outputs) == SPARSEC_ERR_INDEX, "index");
        }
    }
    inputs[0] = NULL;
    check(quiet_run(context, inputs, n_inputs, outputs, n_outputs) == SPARSEC_ERR_ARGUMENT, "null pointer");
    for (int32_t i = 0; i < n_inputs; ++i) free(memory[i]);

    sparsec_context_destroy(context);
    sparsec_model_close(model);
    check(allocations == 0, "sparsec_run or sparsec_prepare allocated");
    printf("good\n");
    return 0;
}
