/* The functions of sparsec.h that make contexts. */
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
#include "cpus.h"
#include "float_env.h"
#include "pool.h"
#include "tensor.h"

enum { MAX_THREADS = 1024 };

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

/* Large arenas ask for large pages: the planes of a layer lie far apart, and each is a page of its own otherwise. */
static void *new_arena(size_t bytes) {
    const size_t large = (size_t)2 << 20;
    void *arena = NULL;
    if (posix_memalign(&arena, bytes < large ? 64 : large, bytes + 64)) return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= large) madvise(arena, bytes / large * large, MADV_HUGEPAGE); /* no harm if the system has none */
#endif
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
    if ((most.n_caches && (!c->caches || !c->left_out)) || !c->inputs || !c->outputs || !c->dims ||
        !c->output_extents || !arena) {
        sparsec_context_destroy(c);
        return sparsec_refuse(message, message_size, SPARSEC_ERR_MEMORY, no_memory);
    }
    const int32_t states_status = sparsec_states_create(&c->states, model, o.states, o.n_states, message, message_size);
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
