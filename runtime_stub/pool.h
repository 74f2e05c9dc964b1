/* The worker threads of one context. Private to the runtime. */
#ifndef SPARSEC_POOL_H
#define SPARSEC_POOL_H

#include <stdint.h>

#include "sparsec.h"

typedef struct sparsec_pool sparsec_pool;

/* A pool of `threads` - 1 workers beside the caller, or NULL when memory or threads are lacking. */
sparsec_pool *sparsec_pool_create(int32_t threads);

/* Ends the workers and frees the pool. In a child after fork, where the workers do not exist, only frees. */
void sparsec_pool_destroy(sparsec_pool *pool);

/* After a fork: 1 in the child, where the pool has no workers. */
int sparsec_pool_is_orphan(const sparsec_pool *pool);

/* Tells the workers whether jobs follow each other closely, as the steps of a run do. */
void sparsec_pool_set_busy(sparsec_pool *pool, int busy);

/* Runs task(data, part) for every part < parts <= threads; part 0 in the calling thread. */
void sparsec_pool_run(sparsec_pool *pool, sparsec_task task, void *data, int32_t parts);

#endif
