/* The functions of sparsec.h that make contexts and run them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "context.h"
#include "float_env.h"
#include "pool.h"
#include "tensor.h"

enum {
    MAX_THREADS = 1024,
    /* Below this a step is not worth handing to other threads: a round trip takes 1 to 2 microseconds. */
    SERIAL_NANOSECONDS = 4000,
};

/* One step, cut into parts. */
typedef struct job {
    const sparsec_frame *frame;
    const sparsec_step *step;
    int64_t extent, units;
    int32_t parts;
    _Atomic int32_t status;
} job;

int32_t sparsec_fail(sparsec_context *context, int32_t status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context->message, sizeof context->message, format, arguments);
    va_end(arguments);
    return status;
}

int32_t sparsec_refuse(char *message, size_t size, int32_t status, const char *text) {
    if (message && size) snprintf(message, size, "%s", text);
    return status;
}

/* --- context ----------------------------------------------------------------------------------------------------- */

/* Large arenas ask for large pages: the planes of a layer lie far apart, and each is a page of its own otherwise. */
static void *new_arena(size_t bytes) {
    const size_t large = (size_t)2 << 20;
    void *arena = NULL;
    if (posix_memalign(&arena, bytes < large ? 64 : large, bytes + 64)) return NULL;
    if (bytes >= large) madvise(arena, bytes / large * large, MADV_HUGEPAGE); /* no harm if the system has none */
    return arena;
}

/* What the context must have room for: the most that any program of its model has. */
typedef struct needs {
    int32_t n_dims, n_caches, n_steps;
} needs;

static needs needs_of(const sparsec_model *model) {
    needs n = {0};
    for (int32_t i = 0; i <= model->n_buckets; ++i) {
        const sparsec_program *p = i < model->n_buckets ? model->buckets[i] : model->program;
        if (p->n_dims + p->n_found_dims > n.n_dims) n.n_dims = p->n_dims + p->n_found_dims;
        if (p->n_caches > n.n_caches) n.n_caches = p->n_caches;
        if (p->n_steps > n.n_steps) n.n_steps = p->n_steps;
    }
    return n;
}

/* Where the rows of each cache lie, and which steps that leaves out. */
static void bind_caches(sparsec_context *c) {
    const sparsec_program *program = c->program;
    if (!c->left_out) return;
    memset(c->left_out, 0, (size_t)program->n_steps);
    for (int32_t i = 0; i < program->n_caches; ++i) {
        const sparsec_cache *cache = &program->caches[i];
        const sparsec_slot *slot = sparsec_slot_of_input(&c->states, cache->input);
        if (slot && slot->cache && slot->output == cache->output) {
            c->caches[i] = slot->buffers[0];
            c->left_out[cache->load_step] = c->left_out[cache->store_step] = 1;
        } else {
            c->caches[i] = c->frame.arena + cache->arena_offset;
        }
    }
}

void sparsec_use_program(sparsec_context *c, const sparsec_program *program) {
    c->program = program;
    c->prepared = 0;
    sparsec_forget_dims(c);
    bind_caches(c);
}

int32_t sparsec_context_create(const sparsec_model *model, const sparsec_options *options, sparsec_context **context,
                               char *message, size_t message_size) {
    sparsec_options o = {0};
    if (!model || !context) {
        return sparsec_refuse(message, message_size, SPARSEC_ERR_ARGUMENT, "model or context is a null pointer");
    }
    *context = NULL;
    if (options) {
        if (options->size < sizeof options->size) {
            return sparsec_refuse(message, message_size, SPARSEC_ERR_ARGUMENT,
                                  "options.size must be sizeof(sparsec_options)");
        }
        memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
        unsigned char unknown = 0;
        for (size_t i = sizeof o; i < options->size; ++i) unknown |= ((const unsigned char *)options)[i];
        if (unknown || o.reserved) {
            return sparsec_refuse(message, message_size, SPARSEC_ERR_ARGUMENT,
                                  "options has members that this artifact does not know");
        }
    }
    if (o.threads < -1 || o.threads > MAX_THREADS) {
        return sparsec_refuse(message, message_size, SPARSEC_ERR_ARGUMENT,
                              "options.threads must lie between -1 and 1024");
    }
    if (o.threads == -1) o.threads = sparsec_available_cpus();
    if (o.threads == 0) o.threads = 1;
    const sparsec_program *program = model->program;
    if (o.workspace && (o.workspace_size < sparsec_workspace_bytes(model) || (uintptr_t)o.workspace % 64)) {
        return sparsec_refuse(
            message, message_size, SPARSEC_ERR_MEMORY,
            "options.workspace must be aligned to 64 bytes and as long as sparsec_workspace_bytes says");
    }
    const char *const no_memory = "not enough memory for the context";
    sparsec_context *c = calloc(1, sizeof *c);
    if (!c) return sparsec_refuse(message, message_size, SPARSEC_ERR_MEMORY, no_memory);
    const needs most = needs_of(model);
    c->model = model;
    c->program = program;
    c->arena_bytes = sparsec_workspace_bytes(model);
    c->threads = o.threads;
    c->parallel_for = o.parallel_for;
    c->parallel_for_user = o.parallel_for_user;
    c->layer_nanoseconds = o.layer_nanoseconds;
    atomic_flag_clear(&c->busy);
    c->inputs = calloc((size_t)program->n_inputs + 1, sizeof *c->inputs);
    c->outputs = calloc((size_t)program->n_outputs + 1, sizeof *c->outputs);
    c->dims = calloc((size_t)most.n_dims + 1, sizeof *c->dims);
    if (most.n_caches) {
        c->caches = calloc((size_t)most.n_caches, sizeof *c->caches);
        c->left_out = calloc((size_t)most.n_steps + 1, sizeof *c->left_out);
    }
    c->output_extents = calloc((size_t)program->n_outputs + 1, sizeof *c->output_extents);
    void *arena = o.workspace;
    if (!arena) arena = c->owned_arena = new_arena(c->arena_bytes);
    if ((most.n_caches && (!c->caches || !c->left_out)) || !c->inputs || !c->outputs || !c->dims || !c->output_extents || !arena) {
        sparsec_context_destroy(c);
        return sparsec_refuse(message, message_size, SPARSEC_ERR_MEMORY, no_memory);
    }
    const int32_t states_status =
        sparsec_states_create(&c->states, model, o.states, o.n_states, message, message_size);
    if (states_status) {
        sparsec_context_destroy(c);
        return states_status;
    }
    c->frame = (sparsec_frame){arena, program->weights, c->inputs, c->outputs, c->dims, 0, c->caches};
    sparsec_use_program(c, program);
    if (c->threads > 1 && !c->parallel_for) {
        c->pool = sparsec_pool_create(c->threads);
        if (!c->pool) {
            sparsec_context_destroy(c);
            return sparsec_refuse(message, message_size, SPARSEC_ERR_THREADS,
                                  "the context's threads could not be created");
        }
    }
    *context = c;
    return SPARSEC_OK;
}

void sparsec_context_destroy(sparsec_context *context) {
    if (!context) return;
    sparsec_pool_destroy(context->pool);
    sparsec_states_destroy(&context->states);
    free(context->owned_arena);
    free(context->inputs);
    free(context->outputs);
    free(context->caches);
    free(context->left_out);
    free(context->dims);
    free(context->output_extents);
    free(context);
}

const char *sparsec_message(const sparsec_context *context) { return context ? context->message : "no context"; }

/* --- shapes ------------------------------------------------------------------------------------------------------ */

/* How many extents of a caller's shape can be printed. */
static int32_t printable(int32_t ndim, const int64_t *extents) {
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
    sparsec_shape_text(extents, printable(ndim, extents), have_text, sizeof have_text);
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

/* Begins a call: nothing is bound, and the program is the smallest that takes these sizes, or the one that says why not. */
static void choose_program(sparsec_context *c, const DLTensor *const *tensors, const sparsec_shape *shapes) {
    const sparsec_program *chosen = c->model->program;
    for (int32_t i = c->model->n_buckets - 1; i >= 0; --i) {
        if (takes_all(c, c->model->buckets[i], tensors, shapes)) chosen = c->model->buckets[i];
    }
    if (chosen != c->program) sparsec_use_program(c, chosen);
    c->prepared = 0;
    sparsec_forget_dims(c);
}

static void find_output_shapes(sparsec_context *c) {
    for (int32_t i = 0; i < c->program->n_outputs; ++i) c->program->outputs[i].shape(c->dims, c->output_extents[i]);
    c->prepared = 1;
}

static int32_t prepare(sparsec_context *c, const sparsec_shape *shapes, int32_t n_inputs) {
    if (n_inputs != c->program->n_inputs || (n_inputs && !shapes)) {
        return sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "%d shapes given, the model has %d inputs", n_inputs,
                            c->program->n_inputs);
    }
    choose_program(c, NULL, shapes);
    for (int32_t i = 0; i < n_inputs; ++i) {
        if (sparsec_slot_of_input(&c->states, i)) continue;
        int32_t status = sparsec_bind_shape(c, i, shapes[i].ndim, shapes[i].extents);
        if (status) return status;
    }
    int32_t status = sparsec_states_bind(c);
    if (status) return status;
    find_output_shapes(c);
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

/* --- run --------------------------------------------------------------------------------------------------------- */

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

static int32_t bind_inputs(sparsec_context *c, const DLTensor *const *inputs) {
    choose_program(c, inputs, NULL);
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
    if (status) return status;
    find_output_shapes(c);
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

static int32_t bind_outputs(sparsec_context *c, const DLTensor *const *inputs, DLTensor *const *outputs) {
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
            sparsec_shape_text(t->shape, printable(t->ndim, t->shape), have, sizeof have);
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

static int64_t part_begin(const job *j, int32_t part) {
    int64_t at = j->units * part / j->parts * j->step->grain;
    return at < j->extent ? at : j->extent;
}

static void run_part(void *data, int32_t part) {
    job *j = data;
    int64_t begin = part_begin(j, part), end = part_begin(j, part + 1);
    if (begin >= end) return;
    int32_t status = j->step->run(j->frame, begin, end);
    if (status) atomic_store(&j->status, status);
}

static void run_part_in_default_env(void *data, int32_t part) {
    uint64_t env = sparsec_float_env_default();
    run_part(data, part);
    sparsec_float_env_restore(env);
}

static int64_t nanoseconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The part of a step that is for `count` of `images`; all of it for 1 of 1. */
static int32_t run_step(sparsec_context *c, int32_t i, int64_t count, int64_t images, int32_t threads, int64_t *last) {
    if (c->left_out && c->left_out[i]) return SPARSEC_OK;
    const sparsec_step *step = &c->program->steps[i];
    job j = {.frame = &c->frame, .step = step, .extent = step->extent(c->dims) / images * count, .parts = 1};
    if (j.extent <= 0) return SPARSEC_OK;
    j.units = (j.extent + step->grain - 1) / step->grain;
    if (threads > 1 && step->cost / images * count > SERIAL_NANOSECONDS) {
        j.parts = j.units < threads ? (int32_t)j.units : threads;
    }
    if (j.parts == 1) {
        run_part(&j, 0);
    } else if (c->parallel_for) {
        c->parallel_for(c->parallel_for_user, run_part_in_default_env, &j, j.parts);
    } else {
        sparsec_pool_run(c->pool, run_part, &j, j.parts);
    }
    if (c->layer_nanoseconds) {
        const int64_t now = nanoseconds_now();
        c->layer_nanoseconds[c->program->first_layer + i] += now - *last;
        *last = now;
    }
    int32_t status = atomic_load(&j.status);
    if (status == SPARSEC_ERR_INDEX) {
        return sparsec_fail(c, status, "%s: an index lies outside of the tensor", step->label);
    }
    if (status == SPARSEC_ERR_DIVISION) {
        return sparsec_fail(c, status, "%s: an integer is divided by zero", step->label);
    }
    return status ? sparsec_fail(c, status, "%s failed", step->label) : SPARSEC_OK;
}

/* A few images at once for each thread: what it wrote last is in its caches. */
static int32_t run_walk(sparsec_context *c, const sparsec_walk *walk, int32_t threads, int64_t *last) {
    const int64_t images = walk->images(c->dims), wanted = threads * walk->per_thread;
    const int64_t most = wanted < walk->most ? wanted : walk->most;
    int32_t status = SPARSEC_OK;
    for (int64_t first = 0; first < images && !status; first += most) {
        const int64_t count = images - first < most ? images - first : most;
        c->frame.first_image = first;
        for (int32_t i = walk->first; i < walk->last && !status; ++i) status = run_step(c, i, count, images, threads, last);
    }
    return status;
}

static int32_t run_steps(sparsec_context *c) {
    const int32_t threads = c->pool && sparsec_pool_is_orphan(c->pool) ? 1 : c->threads;
    int64_t last = c->layer_nanoseconds ? nanoseconds_now() : 0;
    const sparsec_walk *walk = c->program->walks, *end = walk + c->program->n_walks;
    int32_t status = SPARSEC_OK;
    if (threads > 1 && c->pool) sparsec_pool_set_busy(c->pool, 1);
    for (int32_t i = 0; i < c->program->n_steps && !status;) {
        if (walk < end && walk->first == i) {
            status = run_walk(c, walk, threads, &last);
            i = walk++->last;
        } else {
            status = run_step(c, i++, 1, 1, threads, &last);
        }
    }
    if (threads > 1 && c->pool) sparsec_pool_set_busy(c->pool, 0);
    return status;
}

int32_t sparsec_prepare(sparsec_context *context, const sparsec_shape *shapes, int32_t n_inputs) {
    if (!context) return SPARSEC_ERR_ARGUMENT;
    if (atomic_flag_test_and_set(&context->busy)) return SPARSEC_ERR_BUSY;
    context->message[0] = 0;
    int32_t status = prepare(context, shapes, n_inputs);
    atomic_flag_clear(&context->busy);
    return status;
}

int32_t sparsec_run(sparsec_context *context, const DLTensor *const *inputs, int32_t n_inputs, DLTensor *const *outputs,
                    int32_t n_outputs) {
    if (!context) return SPARSEC_ERR_ARGUMENT;
    if (atomic_flag_test_and_set(&context->busy)) return SPARSEC_ERR_BUSY;
    sparsec_context *c = context;
    int32_t status = SPARSEC_OK;
    c->message[0] = 0;
    if (n_inputs != c->program->n_inputs || n_outputs != c->program->n_outputs || (n_inputs && !inputs) ||
        (n_outputs && !outputs)) {
        status = sparsec_fail(c, SPARSEC_ERR_ARGUMENT, "%d inputs and %d outputs given, the model has %d and %d",
                              n_inputs, n_outputs, c->program->n_inputs, c->program->n_outputs);
    }
    if (!status) status = bind_inputs(c, inputs);
    if (!status) status = bind_outputs(c, inputs, outputs);
    if (!status) {
        uint64_t env = sparsec_float_env_default();
        status = run_steps(c);
        sparsec_float_env_restore(env);
        if (!status && c->program->n_found_dims) find_output_shapes(c);
        if (!status) sparsec_states_advance(c);
    }
    atomic_flag_clear(&c->busy);
    return status;
}
