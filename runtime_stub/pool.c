#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "float_env.h"
#include "wait.h"

enum { STACK_BYTES = 2 << 20, LINE = 64 };

typedef struct worker {
    struct sparsec_pool *pool;
    int32_t part;
    pthread_t thread;
} worker;

struct sparsec_pool {
    _Alignas(LINE) _Atomic uint32_t generation; /* changes when there is a job, or when the pool ends */
    _Atomic uint32_t sleepers;                  /* workers in, or on their way into, the futex of `generation` */
    _Alignas(LINE) _Atomic uint32_t pending;    /* workers that have not finished the job */
    _Atomic uint32_t caller_sleeps;
    _Alignas(LINE) _Atomic uint32_t busy; /* whether a run is under way, so that another job is near */
    _Alignas(LINE) sparsec_task task;
    void *data;
    int32_t parts, workers, stop;
    pid_t owner;
    worker worker[];
};

static void await_job(sparsec_pool *pool, uint32_t seen) {
    if (sparsec_spin_while(&pool->generation, seen, &pool->busy)) return;
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->generation) == seen) sparsec_sleep_while(&pool->generation, seen);
    atomic_fetch_sub(&pool->sleepers, 1);
}

static void *work(void *argument) {
    worker *self = argument;
    sparsec_pool *pool = self->pool;
    uint32_t seen = 0;
    sparsec_float_env_default();
    for (;;) {
        await_job(pool, seen);
        ++seen;
        if (pool->stop) return NULL;
        if (self->part < pool->parts) pool->task(pool->data, self->part);
        if (atomic_fetch_sub(&pool->pending, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
            sparsec_wake_all(&pool->pending);
        }
    }
}

static void announce(sparsec_pool *pool) {
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers)) sparsec_wake_all(&pool->generation);
}

static void end_workers(sparsec_pool *pool) {
    pool->stop = 1;
    announce(pool);
    for (int32_t i = 0; i < pool->workers; ++i) pthread_join(pool->worker[i].thread, NULL);
}

sparsec_pool *sparsec_pool_create(int32_t threads) {
    void *memory = NULL;
    size_t size = sizeof(sparsec_pool) + (size_t)threads * sizeof(worker);
    if (posix_memalign(&memory, LINE, size)) return NULL;
    memset(memory, 0, size);
    sparsec_pool *pool = memory;
    pool->owner = getpid();
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes)) {
        free(pool);
        return NULL;
    }
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (int32_t i = 0; i + 1 < threads; ++i) {
        worker *w = &pool->worker[i];
        w->pool = pool;
        w->part = i + 1;
        if (pthread_create(&w->thread, &attributes, work, w)) break;
        pool->workers = i + 1;
    }
    pthread_attr_destroy(&attributes);
    if (pool->workers == threads - 1) return pool;
    sparsec_pool_destroy(pool);
    return NULL;
}

int sparsec_pool_is_orphan(const sparsec_pool *pool) { return pool->owner != getpid(); }

void sparsec_pool_destroy(sparsec_pool *pool) {
    if (!pool) return;
    if (!sparsec_pool_is_orphan(pool)) end_workers(pool);
    free(pool);
}

void sparsec_pool_set_busy(sparsec_pool *pool, int busy) { atomic_store(&pool->busy, busy != 0); }

void sparsec_pool_run(sparsec_pool *pool, sparsec_task task, void *data, int32_t parts) {
    pool->task = task;
    pool->data = data;
    pool->parts = parts;
    atomic_store(&pool->caller_sleeps, 0);
    atomic_store(&pool->pending, (uint32_t)pool->workers);
    announce(pool);
    task(data, 0);
    for (;;) {
        uint32_t left = atomic_load_explicit(&pool->pending, memory_order_acquire);
        if (left == 0) return;
        if (sparsec_spin_while(&pool->pending, left, &pool->busy)) continue;
        atomic_store(&pool->caller_sleeps, 1);
        left = atomic_load(&pool->pending);
        if (left) sparsec_sleep_while(&pool->pending, left);
    }
}
