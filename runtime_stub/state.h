/* Outputs that become inputs of the next run. Private to the runtime. */
#ifndef SPARSEC_STATE_H
#define SPARSEC_STATE_H

#include "model.h"

/* One state: two buffers that change places; or one that rows are appended to, laid out as its cache says. */
typedef struct sparsec_slot {
    int32_t output, input;
    const sparsec_cache *cache; /* NULL: two buffers */
    int32_t current;  /* which buffer the next run reads */
    int32_t is_begun; /* 0: zeros whose extents are not known yet */
    unsigned char *buffers[2]; /* of a cache both are the same */
    int64_t extents[SPARSEC_MAX_NDIM];
    int64_t strides[SPARSEC_MAX_NDIM]; /* of a cache, as sparsec_state_get last told them */
} sparsec_slot;

typedef struct sparsec_states {
    sparsec_slot *slots;
    int32_t count;
    void *memory;
} sparsec_states;

/* Checks the pairs and allocates. On failure a status and a sentence. */
int32_t sparsec_states_create(sparsec_states *states, const sparsec_model *model, const sparsec_state *pairs,
                              size_t count, char *message, size_t message_size);

void sparsec_states_destroy(sparsec_states *states);

/* The state whose input (or output) is `index`, or NULL. */
sparsec_slot *sparsec_slot_of_input(const sparsec_states *states, int32_t index);
sparsec_slot *sparsec_slot_of_output(const sparsec_states *states, int32_t index);

/* Binds the dimensions of every state's input; all other inputs' are bound already. */
int32_t sparsec_states_bind(sparsec_context *context);

/* Whether every state's new value will fit; the output shapes are known. */
int32_t sparsec_states_check_room(sparsec_context *context);

/* After a run that succeeded: what it wrote is what the next one reads. */
void sparsec_states_advance(sparsec_context *context);

#endif
