#include "scalar_math.h"

int32_t sparsec_k_000_reshape_transpose(float *restrict pool_1, float *restrict T_transpose_intermediate_1, int64_t begin, int64_t end) {
    float *pool_ = (void *)pool_1;
    float *T_transpose_intermediate_ = (void *)T_transpose_intermediate_1;
    for (int64_t ax0_ax1_fused_ = begin; ax0_ax1_fused_ < end; ++ax0_ax1_fused_) {
        for (int32_t ax2_ = 0; ax2_ < 4; ++ax2_) {
            T_transpose_intermediate_[((ax0_ax1_fused_ * 4) + ax2_)] = pool_[((ax2_ * 16) + ax0_ax1_fused_)];
        }
    }
    return 0;
}

int32_t sparsec_k_001_body(float *restrict turned_1, float *restrict reduce_max_1, int64_t begin, int64_t end) {
    float *turned_ = (void *)turned_1;
    float *reduce_max_ = (void *)reduce_max_1;
    for (int64_t i0_i1_i2_fused_ = begin; i0_i1_i2_fused_ < end; ++i0_i1_i2_fused_) {
        reduce_max_[i0_i1_i2_fused_] = ((-__builtin_inff()));
        for (int32_t k2_ = 0; k2_ < 4; ++k2_) {
            reduce_max_[i0_i1_i2_fused_] = sparsec_max_float32(reduce_max_[i0_i1_i2_fused_], turned_[((i0_i1_i2_fused_ * 4) + k2_)]);
        }
    }
    return 0;
}

int32_t sparsec_k_002_subtract_tir_exp_silu_strided_slice(float *restrict turned_1, float *restrict lv1_1, float *restrict T_strided_slice_with_axes_intermediate_1, int64_t begin, int64_t end) {
    float *turned_ = (void *)turned_1;
    float *lv1_ = (void *)lv1_1;
    float *T_strided_slice_with_axes_intermediate_ = (void *)T_strided_slice_with_axes_intermediate_1;
    for (int64_t ax0_ax1_fused_ = begin; ax0_ax1_fused_ < end; ++ax0_ax1_fused_) {
        const int32_t cse_v1_ = (ax0_ax1_fused_ + 1);
        for (int32_t ax2_ = 0; ax2_ < 4; ++ax2_) {
            const int32_t cse_v2_ = ((ax0_ax1_fused_ * 4) + ax2_);
            const int32_t cse_v3_ = (cse_v2_ + 4);
            T_strided_slice_with_axes_intermediate_[cse_v2_] = (sparsec_exp_float32((turned_[cse_v3_] - lv1_[cse_v1_])) * sparsec_sigmoid_float32(sparsec_exp_float32((turned_[cse_v3_] - lv1_[cse_v1_]))));
        }
    }
    return 0;
}

