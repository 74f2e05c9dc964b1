/* sparsec.h: the C interface of a model that sparsec compiled. C99, version 1 (SPARSEC_ABI_VERSION).
 *
 * Every artifact exports exactly the functions below. In an artifact built with `--symbol-prefix P` all names begin
 * with P instead of `sparsec_`; the header that is written beside `.a` and `.o` artifacts has those names.
 *
 *   const sparsec_model *model;  sparsec_context *context;  char message[256];
 *   sparsec_model_open(SPARSEC_ABI_VERSION, &model, message, sizeof message);   check the CPU
 *   sparsec_context_create(model, NULL, &context, message, sizeof message);     workspace and threads
 *   sparsec_prepare(context, shapes, n_inputs);                                 bind the dynamic dimensions
 *   sparsec_run(context, inputs, n_inputs, outputs, n_outputs);                 compute
 *
 * A model is immutable and shared by all threads. A context belongs to one caller at a time; any number of contexts may
 * run at once. Functions that can fail return a status and leave a sentence that says what is wrong; nothing aborts,
 * prints or reads the environment, and sparsec_run allocates nothing.
 */
#ifndef SPARSEC_H
#define SPARSEC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SPARSEC_API __attribute__((visibility("default")))
#else
#define SPARSEC_API
#endif

#define SPARSEC_ABI_VERSION 1
#define SPARSEC_MAX_NDIM 16

/* Tensors as in DLPack (https://dmlc.github.io/dlpack); the same types when dlpack.h is included first. */
#ifndef DLPACK_DLPACK_H_
#define DLPACK_DLPACK_H_
typedef struct {
    int32_t device_type; /* 1: CPU */
    int32_t device_id;
} DLDevice;

typedef struct {
    uint8_t code; /* 0 int, 1 unsigned int, 2 float, 4 bfloat, 6 bool */
    uint8_t bits;
    uint16_t lanes;
} DLDataType;

typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL: compact and row-major */
    uint64_t byte_offset;
} DLTensor;
#endif

/* What a function returns. */
enum {
    SPARSEC_OK = 0,
    SPARSEC_ERR_ARGUMENT = 1,    /* a null pointer, a wrong count, an option out of range */
    SPARSEC_ERR_ABI = 2,         /* the caller's header is of another version */
    SPARSEC_ERR_CPU = 3,         /* the CPU lacks instructions that the kernels use */
    SPARSEC_ERR_MEMORY = 4,      /* out of memory, or the caller's workspace is too small */
    SPARSEC_ERR_SHAPE = 5,       /* a tensor's shape is not what the model was built for */
    SPARSEC_ERR_DTYPE = 6,       /* a tensor's element type is not the model's */
    SPARSEC_ERR_INDEX = 7,       /* an index in an input lies outside of the tensor that it selects from */
    SPARSEC_ERR_THREADS = 8,     /* a thread could not be created */
    SPARSEC_ERR_BUSY = 9,        /* the context is running already, in another thread */
    SPARSEC_ERR_UNPREPARED = 10, /* output shapes were asked before sparsec_prepare */
    SPARSEC_ERR_DIVISION = 11    /* a division of integers by zero */
};

typedef struct sparsec_model sparsec_model;
typedef struct sparsec_context sparsec_context;

/* One part of a parallel loop; parts may run in any order, in any thread. */
typedef void (*sparsec_task)(void *data, int32_t part);

/* Runs task(data, 0) … task(data, parts - 1) and returns when all are done. */
typedef void (*sparsec_parallel_for)(void *user, sparsec_task task, void *data, int32_t parts);

/* How a context works. Fill `size` with sizeof(sparsec_options) and everything else with zeros, then set what you need:
 * a struct that is shorter than the library's means that the missing members are zero; what a longer one has beyond the
 * library's must be zero. */
typedef struct sparsec_options {
    size_t size;
    int32_t threads;                   /* 0 and 1: the caller's thread alone. n: n - 1 more. -1: all that CPU affinity
                                          and cgroup quota allow. With parallel_for: how many parts it runs at once. */
    int32_t reserved;
    sparsec_parallel_for parallel_for; /* the caller's threads instead of the context's own; may be NULL */
    void *parallel_for_user;           /* passed on to parallel_for */
    void *workspace;                   /* 64-byte aligned memory of the caller, or NULL; must outlive the context */
    size_t workspace_size;             /* at least sparsec_workspace_bytes(model) */
    int64_t *layer_nanoseconds;        /* one number per layer of the manifest, to which every run adds the time that
                                          the layer took; may be NULL */
    const struct sparsec_state *states; /* n_states outputs that are the next run's inputs; read at creation only */
    size_t n_states;
} sparsec_options;

/* An output whose value is an input of the context's next run: the hidden state of a recurrent network, a cache. */
typedef struct sparsec_state {
    int32_t output, input; /* same dtype and rank; no tensor is bound twice */
} sparsec_state;

typedef struct sparsec_shape {
    int32_t ndim;
    const int64_t *extents;
} sparsec_shape;

/* A tensor as the model declares it; extents are -1 where a dimension is dynamic. */
typedef struct sparsec_tensor_description {
    const char *name;
    DLDataType dtype;
    int32_t ndim;
    int64_t extents[16];
} sparsec_tensor_description;

/* The library's SPARSEC_ABI_VERSION. */
SPARSEC_API int32_t sparsec_abi_version(void);

/* Checks that caller and CPU fit the artifact. `abi_version`: the caller's SPARSEC_ABI_VERSION. On failure *model is
 * NULL and `message`, unless it is NULL, holds a sentence of at most message_size - 1 bytes.
 * SPARSEC_ERR_ABI, SPARSEC_ERR_CPU, SPARSEC_ERR_ARGUMENT. */
SPARSEC_API int32_t sparsec_model_open(int32_t abi_version, const sparsec_model **model, char *message,
                                       size_t message_size);

/* Ends the use of a model; its contexts must be destroyed. NULL is allowed. */
SPARSEC_API void sparsec_model_close(const sparsec_model *model);

/* The manifest, NUL-terminated JSON (docs/abi.md); valid while the library is loaded. */
SPARSEC_API const char *sparsec_manifest(const sparsec_model *model);

SPARSEC_API int32_t sparsec_input_count(const sparsec_model *model);
SPARSEC_API int32_t sparsec_output_count(const sparsec_model *model);

/* Describes input or output `index`. SPARSEC_ERR_ARGUMENT. */
SPARSEC_API int32_t sparsec_input_description(const sparsec_model *model, int32_t index,
                                              sparsec_tensor_description *description);
SPARSEC_API int32_t sparsec_output_description(const sparsec_model *model, int32_t index,
                                               sparsec_tensor_description *description);

/* Bytes of workspace that one context needs at the largest shapes. */
SPARSEC_API size_t sparsec_workspace_bytes(const sparsec_model *model);

/* Allocates workspace and starts threads. `options` may be NULL. On failure *context is NULL and `message` as above.
 * SPARSEC_ERR_ARGUMENT, SPARSEC_ERR_MEMORY, SPARSEC_ERR_THREADS. */
SPARSEC_API int32_t sparsec_context_create(const sparsec_model *model, const sparsec_options *options,
                                           sparsec_context **context, char *message, size_t message_size);

/* Ends the threads and frees everything. NULL is allowed. In a child after fork only the memory is freed. */
SPARSEC_API void sparsec_context_destroy(sparsec_context *context);

/* Binds the model's dynamic dimensions. sparsec_run does the same from the tensors it is given: this call is needed
 * only where output shapes are asked for before a run, and after a fork to give a child threads again.
 * SPARSEC_ERR_SHAPE, SPARSEC_ERR_ARGUMENT, SPARSEC_ERR_BUSY, SPARSEC_ERR_THREADS. */
SPARSEC_API int32_t sparsec_prepare(sparsec_context *context, const sparsec_shape *shapes, int32_t n_inputs);

/* Shape of output `index` for the shapes last prepared or run; `extents` has room for SPARSEC_MAX_NDIM. Where a shape
 * depends on the data (NonZero, NonMaxSuppression), sparsec_prepare gives the largest that is possible, sparsec_run the
 * true one: the caller's buffer has the largest, and the run fills its beginning compactly.
 * SPARSEC_ERR_ARGUMENT, SPARSEC_ERR_UNPREPARED. */
SPARSEC_API int32_t sparsec_output_shape(sparsec_context *context, int32_t index, int32_t *ndim, int64_t *extents);

/* Computes. Tensors stand in the order of the manifest. Inputs may have any strides; compact ones whose data is aligned
 * to the element size are read in place. An output whose `data` is NULL, or is what an earlier run filled in, is filled
 * in wholly: it then points into the workspace and is valid until the context's next run, of which it cannot be an
 * input. Otherwise `data` is a compact buffer that overlaps no other tensor, and dtype and shape must be right.
 * SPARSEC_ERR_SHAPE, SPARSEC_ERR_DTYPE, SPARSEC_ERR_INDEX, SPARSEC_ERR_DIVISION, SPARSEC_ERR_ARGUMENT, SPARSEC_ERR_BUSY. */
SPARSEC_API int32_t sparsec_run(sparsec_context *context, const DLTensor *const *inputs, int32_t n_inputs,
                                DLTensor *const *outputs, int32_t n_outputs);

/* States, bound by the options when the context was created. In sparsec_run the tensors of a state's input and output
 * are NULL, in sparsec_prepare the input's shape is not read. A run reads one buffer of the state and writes another;
 * the two change places when it has succeeded: nothing is copied, and a failed run leaves the state as it was. Both
 * buffers have room for the input's largest size; a run whose output would be larger is refused before it begins.
 * A state that the model only appends to (output = Concat(input, new); "caches" of the manifest) has one buffer: a run
 * writes the new rows behind those that are there, and touches no other.
 *
 * A state begins as zeros whose dynamic dimensions are those of the other inputs, or else their lower bounds. */

/* Every state to its beginning. SPARSEC_ERR_ARGUMENT, SPARSEC_ERR_BUSY. */
SPARSEC_API int32_t sparsec_state_reset(sparsec_context *context);

/* Fills in `state` wholly: the present value of the state that is bound to input `input`, valid until the context's
 * next run, reset or set. Of a state that is appended to `strides` are set, for its rows lie in the order in which they
 * came. SPARSEC_ERR_ARGUMENT, SPARSEC_ERR_BUSY. */
SPARSEC_API int32_t sparsec_state_get(sparsec_context *context, int32_t input, DLTensor *state);

/* Copies `state`, of any strides, into the state that is bound to input `input`.
 * SPARSEC_ERR_SHAPE, SPARSEC_ERR_DTYPE, SPARSEC_ERR_ARGUMENT, SPARSEC_ERR_MEMORY, SPARSEC_ERR_BUSY. */
SPARSEC_API int32_t sparsec_state_set(sparsec_context *context, int32_t input, const DLTensor *state);

/* The sentence that goes with the context's last error; empty after a success. */
SPARSEC_API const char *sparsec_message(const sparsec_context *context);

#ifdef __cplusplus
}
#endif

#endif
