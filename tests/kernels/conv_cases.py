"""Float convolutions in planes: one run against numpy."""

from __future__ import annotations

import numpy as np
from harness import run_uses
from reference import apply_epilogue, conv2d

from sparsec.codegen_templates.conv_planes import plan_conv_planes
from sparsec.codegen_templates.use import Tensor


def normal(rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def check(target, x_shape, w_shape, geometry, density, ops=(), code="pattern", cuts=3):
    rng = np.random.default_rng([*x_shape, *w_shape])
    x, w = normal(rng, *x_shape), normal(rng, *w_shape) * (rng.random(w_shape) < density)
    want = conv2d(x, w, geometry.strides, geometry.dilation, geometry.padding, geometry.groups)
    extra = [
        normal(rng, w_shape[0]) if op.kind == "bias" else normal(rng, *want.shape) for op in ops if op.takes_operand
    ]
    tensors = Tensor("float32", x.shape), Tensor("float32", want.shape)
    uses = plan_conv_planes(target.isa, tensors[0], w, tensors[1], geometry, ops, code, "")
    got, status = run_uses(target, uses, [x, w, *extra], want.shape, cuts=cuts)
    want = apply_epilogue(want, ops, extra, 1)
    assert status == 0
    assert np.abs(got - want).max() <= 5e-6 * max(np.abs(want).max(), 1e-30)
