/* Runs a model on the bytes of standard input, its inputs one after the other, and writes all outputs' bytes.
 *
 *   run SIZE THREADS [RUNS]        SIZE: of every dynamic dimension
 *   run manifest            writes the manifest of what would run
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

enum { MOST = 16 };

static int64_t bytes(const DLTensor *t) {
    int64_t n = t->dtype.bits / 8;
    for (int32_t i = 0; i < t->ndim; ++i) n *= t->shape[i];
    return n;
}

static int fail(const char *message) {
    fprintf(stderr, "%s\n", message);
    return 1;
}

int main(int argc, char **argv) {
    static DLTensor inputs[MOST], outputs[MOST];
    static int64_t shapes[MOST][SPARSEC_MAX_NDIM];
    const DLTensor *in[MOST];
    DLTensor *out[MOST];
    char message[512];
    const sparsec_model *model;
    sparsec_context *context;
    if (argc < 2) return fail("usage: run SIZE THREADS [RUNS], or run manifest");
    if (sparsec_model_open(SPARSEC_ABI_VERSION, &model, message, sizeof message)) return fail(message);
    if (!strcmp(argv[1], "manifest")) return fputs(sparsec_manifest(model), stdout) < 0;
    if (argc < 3) return fail("usage: run SIZE THREADS [RUNS]");
    sparsec_options options = {.size = sizeof options, .threads = atoi(argv[2])};
    if (sparsec_context_create(model, &options, &context, message, sizeof message)) return fail(message);
    const int32_t n_in = sparsec_input_count(model), n_out = sparsec_output_count(model);
    for (int32_t i = 0; i < n_in; ++i) {
        sparsec_tensor_description d;
        sparsec_input_description(model, i, &d);
        for (int32_t k = 0; k < d.ndim; ++k) shapes[i][k] = d.extents[k] < 0 ? atoi(argv[1]) : d.extents[k];
        inputs[i] = (DLTensor){.device = {1, 0}, .ndim = d.ndim, .dtype = d.dtype, .shape = shapes[i]};
        const size_t size = (size_t)bytes(&inputs[i]);
        inputs[i].data = malloc(size + 1);
        if (!inputs[i].data || fread(inputs[i].data, 1, size, stdin) != size) return fail("input is too short");
        in[i] = &inputs[i];
    }
    for (int32_t i = 0; i < n_out; ++i) out[i] = &outputs[i];
    for (int run = argc > 3 ? atoi(argv[3]) : 1; run > 0; --run)
        if (sparsec_run(context, in, n_in, out, n_out)) return fail(sparsec_message(context));
    for (int32_t i = 0; i < n_out; ++i) fwrite(outputs[i].data, 1, (size_t)bytes(&outputs[i]), stdout);
    for (int32_t i = 0; i < n_in; ++i) free(inputs[i].data);
    sparsec_context_destroy(context);
    sparsec_model_close(model);
    return 0;
}
