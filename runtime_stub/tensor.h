/* Checks and copies of the caller's tensors. Private to the runtime. */
#ifndef SPARSEC_TENSOR_H
#define SPARSEC_TENSOR_H

#include <stddef.h>

#include "model.h"

/* First byte of a tensor's data. */
static inline unsigned char *sparsec_tensor_data(const DLTensor *t) {
    return (unsigned char *)t->data + t->byte_offset;
}

static inline int64_t sparsec_item_bytes(DLDataType dtype) { return (dtype.bits * dtype.lanes + 7) / 8; }

/* Whether the elements lie row-major without gaps. */
int sparsec_tensor_is_compact(const DLTensor *tensor);

/* Copies any layout to compact row-major. */
void sparsec_tensor_pack(const DLTensor *tensor, unsigned char *to);

/* "float32", "int64", …; `text` has room for 24 bytes. */
void sparsec_dtype_text(DLDataType dtype, char *text);

/* "[1, 3, ?]" with ? for negative extents, cut off at `size` bytes. */
void sparsec_shape_text(const int64_t *extents, int32_t ndim, char *text, size_t size);

#endif
