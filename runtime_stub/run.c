/* The functions of sparsec.h that run a context: its program's steps, each cut into parts for the threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdatomic.h>
#include <time.h>

#include "context.h"
#include "float_env.h"
#include "pool.h"

/* Below this a step is not worth handing to other threads: a round trip takes 1 to 2 microseconds. */
enum { SERIAL_NANOSECONDS = 4000 };

/* One step, cut into parts. */
typedef struct job {
    const sparsec_frame *frame;
    const sparsec_step *step;
    int64_t extent, units;
    int32_t parts;
    _Atomic int32_t status;
} job;

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
        for (int32_t i = walk->first; i < walk->last && !status; ++i)
            status = run_step(c, i, count, images, threads, last);
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
    if (!status) status = sparsec_bind_inputs(c, inputs);
    if (!status) status = sparsec_bind_outputs(c, inputs, outputs);
    if (!status) {
        uint64_t env = sparsec_float_env_default();
        status = run_steps(c);
        sparsec_float_env_restore(env);
        if (!status && c->program->n_found_dims) sparsec_find_output_shapes(c);
        if (!status) sparsec_states_advance(c);
    }
    atomic_flag_clear(&c->busy);
    return status;
}
