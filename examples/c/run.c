/* Runs a compiled model once on made-up inputs and prints the first values of every output.
 *
 *   sparsec build model.onnx -o model.a                              writes model.a and model.h
 *   cc -std=c99 -I. -DMODEL_HEADER='"model.h"' run.c model.a -lm -lpthread -o run
 *   ./run [SIZE [THREADS]]                                           SIZE: of every dynamic dimension, 1 if not given
 *
 * With a shared library: sparsec.h from the package sparsec/runtime_stub, and `cc -I… run.c ./model.so -o run`.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef MODEL_HEADER
#define MODEL_HEADER "sparsec.h"
#endif
#include MODEL_HEADER

enum { SHOWN = 8 };

typedef struct {
    DLTensor tensor;
    int64_t shape[SPARSEC_MAX_NDIM];
} tensor;

static void die(const char *doing, const char *message) {
    fprintf(stderr, "%s: %s\n", doing, message);
    exit(1);
}

static int64_t count(const DLTensor *t) {
    int64_t n = 1;
    for (int32_t i = 0; i < t->ndim; ++i) n *= t->shape[i];
    return n;
}

/* One element as a double; types without a C equivalent count as 0. */
static double get(const DLTensor *t, int64_t i) {
    const void *data = t->data;
    switch (t->dtype.code << 8 | t->dtype.bits) {
        case 2 << 8 | 32: return ((const float *)data)[i];
        case 2 << 8 | 64: return ((const double *)data)[i];
        case 0 << 8 | 64: return (double)((const int64_t *)data)[i];
        case 0 << 8 | 32: return ((const int32_t *)data)[i];
        case 0 << 8 | 8: return ((const int8_t *)data)[i];
        case 1 << 8 | 8:
        case 6 << 8 | 8: return ((const uint8_t *)data)[i];
        default: return 0;
    }
}

/* Floats between -1 and 1; integers 0 and 1, which are in range wherever they select something. */
static void fill(const DLTensor *t) {
    for (int64_t i = 0, n = count(t); i < n; ++i) {
        double real = (double)(i * 37 % 101) / 50 - 1;
        int bit = (int)(i % 2);
        switch (t->dtype.code << 8 | t->dtype.bits) {
            case 2 << 8 | 32: ((float *)t->data)[i] = (float)real; break;
            case 2 << 8 | 64: ((double *)t->data)[i] = real; break;
            case 0 << 8 | 64: ((int64_t *)t->data)[i] = bit; break;
            case 0 << 8 | 32: ((int32_t *)t->data)[i] = bit; break;
            case 0 << 8 | 8:
            case 1 << 8 | 8:
            case 6 << 8 | 8: ((uint8_t *)t->data)[i] = (uint8_t)bit; break;
            default: break;
        }
    }
}

static void show(const char *kind, const sparsec_tensor_description *description, const DLTensor *t) {
    printf("%s %s [", kind, description->name);
    for (int32_t i = 0; i < t->ndim; ++i) printf("%s%" PRId64, i ? ", " : "", t->shape[i]);
    printf("]:");
    for (int64_t i = 0, n = count(t); i < n && i < SHOWN; ++i) printf(" %.6g", get(t, i));
    printf("\n");
}

int main(int argc, char **argv) {
    char message[256];
    const int64_t size = argc > 1 ? atoll(argv[1]) : 1;
    const int32_t threads = argc > 2 ? atoi(argv[2]) : 1;

    const sparsec_model *model;
    if (sparsec_model_open(SPARSEC_ABI_VERSION, &model, message, sizeof message)) die("open", message);

    sparsec_options options = {0};
    options.size = sizeof options;
    options.threads = threads;
    sparsec_context *context;
    if (sparsec_context_create(model, &options, &context, message, sizeof message)) die("create", message);

    const int32_t n_inputs = sparsec_input_count(model), n_outputs = sparsec_output_count(model);
    tensor *inputs = calloc((size_t)n_inputs + 1, sizeof *inputs);
    tensor *outputs = calloc((size_t)n_outputs + 1, sizeof *outputs);
    const DLTensor **input_list = calloc((size_t)n_inputs + 1, sizeof *input_list);
    DLTensor **output_list = calloc((size_t)n_outputs + 1, sizeof *output_list);
    if (!inputs || !outputs || !input_list || !output_list) die("allocate", "out of memory");

    sparsec_tensor_description description;
    for (int32_t i = 0; i < n_inputs; ++i) {
        DLTensor *t = &inputs[i].tensor;
        if (sparsec_input_description(model, i, &description)) die("describe", "no such input");
        t->device.device_type = 1;
        t->dtype = description.dtype;
        t->ndim = description.ndim;
        t->shape = inputs[i].shape;
        for (int32_t d = 0; d < t->ndim; ++d) t->shape[d] = description.extents[d] < 0 ? size : description.extents[d];
        t->data = calloc((size_t)count(t) + 1, (size_t)(t->dtype.bits + 7) / 8);
        if (!t->data) die("allocate", "out of memory");
        fill(t);
        show("input", &description, t);
        input_list[i] = t;
    }
    /* Outputs without data: they will lie in the context's workspace until the next run. */
    for (int32_t i = 0; i < n_outputs; ++i) output_list[i] = &outputs[i].tensor;

    if (sparsec_run(context, input_list, n_inputs, output_list, n_outputs)) die("run", sparsec_message(context));

    for (int32_t i = 0; i < n_outputs; ++i) {
        if (sparsec_output_description(model, i, &description)) die("describe", "no such output");
        show("output", &description, output_list[i]);
    }

    for (int32_t i = 0; i < n_inputs; ++i) free(inputs[i].tensor.data);
    free(inputs);
    free(outputs);
    free(input_list);
    free(output_list);
    sparsec_context_destroy(context);
    sparsec_model_close(model);
    return 0;
}
