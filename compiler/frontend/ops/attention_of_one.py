"""onnxruntime's attention of one tensor, with the weights that make query, key and value of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics import CannotConvert
from ..registry import expander
from .multi_head_attention import attend, causal, padding

if TYPE_CHECKING:
    from ..expansion import Expansion
    from ..graph import Size

_MICROSOFT = "com.microsoft"


@expander("Attention", domain=_MICROSOFT)
def attention(e: Expansion) -> None:
    """com.microsoft Attention-1: (input, weights, bias, mask_index, past, attention_bias).

    Past and present are [2, batch, heads, sequence, depth].
    """
    joined = e.op("MatMul", [e.input(0), e.input(1)])
    if e.input(2):
        joined = e.op("Add", [joined, e.input(2)])
    _split_and_attend(e, joined, e.input(3), e.input(5), e.input(0), e.input(4))


@expander("QAttention", domain=_MICROSOFT)
def quantized_attention(e: Expansion) -> None:
    """com.microsoft QAttention-1: Attention of an 8-bit input and 8-bit weights; what follows them is float.

    (input, weight, bias, input_scale, weight_scale, mask_index, input_zero_point, weight_zero_point, past)
    """
    operands = [e.input(i) for i in (0, 1, 3, 4, 6, 7, 2)]
    joined = e.op("MatMulIntegerToFloat", operands, domain=_MICROSOFT)
    _split_and_attend(e, joined, e.input(5), "", e.input(2), e.input(8))


def _split_and_attend(e: Expansion, joined: str, mask: str, bias: str, like: str, past: str) -> None:
    """`joined` is [batch, sequence, Q + K + V]."""
    if e.attr("do_rotary", 0):
        raise CannotConvert("rotary embeddings are not supported in this operator")
    heads = e.node.attrs["num_heads"]
    batch, sequence, _ = e.shape(e.input(0))
    total = e.shape(e.input(1))[1]
    sizes = e.attr("qkv_hidden_sizes", [total // 3] * 3)
    ends = [(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(3)]
    parts = (e.op("Slice", [joined, e.ints([a]), e.ints([b]), e.ints([2])]) for a, b in ends)
    views = (
        e.op("Reshape", [x, e.ints([batch, sequence, heads, size // heads])])
        for x, size in zip(parts, sizes, strict=True)
    )
    q, k, v = (e.op("Transpose", [x], perm=[0, 2, 1, 3]) for x in views)
    before: Size = 0
    if past:
        before = e.shape(past)[3]
        numbers = [e.constant(np.array(i, np.int64), "number") for i in range(2)]
        k, v = (
            e.op("Concat", [e.op("Gather", [past, number], axis=0), x], axis=2)
            for number, x in zip(numbers, (k, v), strict=True)
        )
    if any(e.node.outputs[1:]):
        pair = [e.op("Unsqueeze", [x, e.ints([0])]) for x in (k, v)]
        e.op("Concat", pair, e.node.outputs[1], axis=0)
    masks = [padding(e, mask, like), bias]
    if e.attr("unidirectional", 0):
        masks.append(causal(e, sequence, before + sequence, before, like))
    scale = e.attr("scale", 0.0) or (sizes[0] // heads) ** -0.5
    turned = e.op("Transpose", [attend(e, (q, k, v), like, scale, masks)], perm=[0, 2, 1, 3])
    e.op("Reshape", [turned, e.ints([batch, sequence, sizes[2]])], e.node.outputs[0])
