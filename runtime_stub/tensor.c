#include "tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int sparsec_tensor_is_compact(const DLTensor *tensor) {
    if (!tensor->strides) return 1;
    int64_t expected = 1;
    for (int32_t i = tensor->ndim; i-- > 0;) {
        if (tensor->shape[i] == 0) return 1;
        if (tensor->shape[i] != 1 && tensor->strides[i] != expected) return 0;
        expected *= tensor->shape[i];
    }
    return 1;
}

void sparsec_tensor_pack(const DLTensor *tensor, unsigned char *to) {
    const int64_t item = sparsec_item_bytes(tensor->dtype);
    const int32_t ndim = tensor->ndim;
    const unsigned char *from = sparsec_tensor_data(tensor);
    int64_t count = 1;
    for (int32_t i = 0; i < ndim; ++i) count *= tensor->shape[i];
    if (sparsec_tensor_is_compact(tensor)) {
        memcpy(to, from, (size_t)(count * item));
        return;
    }
    int64_t index[SPARSEC_MAX_NDIM] = {0};
    for (int64_t n = 0; n < count; ++n, to += item) {
        int64_t offset = 0;
        for (int32_t i = 0; i < ndim; ++i) offset += index[i] * tensor->strides[i];
        memcpy(to, from + offset * item, (size_t)item);
        for (int32_t i = ndim; i-- > 0 && ++index[i] == tensor->shape[i];) index[i] = 0;
    }
}

void sparsec_dtype_text(DLDataType dtype, char *text) {
    static const char *const kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
    const char *kind = dtype.code < sizeof kinds / sizeof *kinds ? kinds[dtype.code] : "unknown";
    if (dtype.code == 6) {
        snprintf(text, 24, "bool");
    } else {
        snprintf(text, 24, "%s%u", kind, dtype.bits);
    }
}

void sparsec_shape_text(const int64_t *extents, int32_t ndim, char *text, size_t size) {
    size_t length = (size_t)snprintf(text, size, "[");
    for (int32_t i = 0; i < ndim && length < size; ++i) {
        const char *comma = i ? ", " : "";
        int n = extents[i] < 0 ? snprintf(text + length, size - length, "%s?", comma)
                               : snprintf(text + length, size - length, "%s%" PRId64, comma, extents[i]);
        length += n > 0 ? (size_t)n : 0;
    }
    if (length + 1 < size) memcpy(text + length, "]", 2);
}
