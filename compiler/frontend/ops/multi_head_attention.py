"""onnxruntime's attention of three tensors, taken apart into products and a softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..expansion import Expansion
    from ..graph import Shape, Size


@expander("MultiHeadAttention", domain="com.microsoft")
def multi_head_attention(e: Expansion) -> None:
    """com.microsoft MultiHeadAttention-1 with query, key and value apart: [batch, sequence, hidden] each.

    Inputs: query, key, value, bias, key_padding_mask, attention_bias; without past and present.
    """
    query, key, value, bias = (e.input(i) for i in range(4))
    if not key or not value or len(e.shape(query)) != 3 or len(e.shape(key)) != 3 or len(e.shape(value)) != 3:
        raise CannotConvert("packed query, key and value are not supported")
    if any(e.node.inputs[6:]):
        raise CannotConvert("a cache of past keys and values is not supported")
    e.without_outputs(1, "outputs present_key, present_value and qk")
    if bias:
        sizes = [e.shape(x)[2] for x in (query, key, value)]
        parts = [e.op("Slice", [bias, e.ints([sum(sizes[:i])]), e.ints([sum(sizes[: i + 1])])]) for i in range(3)]
        query, key, value = (e.op("Add", [x, p]) for x, p in zip((query, key, value), parts, strict=True))
    mask = padding(e, e.input(4), e.input(0))
    shapes = [e.shape(e.input(i)) for i in range(3)]
    attend(e, (query, key, value), shapes, [mask, e.input(5)], e.input(0))


def padding(e: Expansion, mask: str, like: str) -> str:
    """What is added to the scores where keys are masked: an int32 mask[batch, keys], or [batch, queries, keys].

    `like` is a tensor of the floats' type.
    """
    if not mask:
        return ""
    shape = e.shape(mask)
    if len(shape) not in (2, 3):
        raise CannotConvert("masks of lengths are not supported; give a mask of ones and zeros")
    view = [shape[0], 1, *([1] if len(shape) == 2 else [shape[1]]), shape[-1]]
    kept = e.op("Cast", [e.op("Reshape", [mask, e.ints(view)])], to=e.float_type(like))
    gone = e.op("Sub", [e.scalar(1.0, like), kept])
    return e.op("Mul", [gone, e.scalar(e.attr("mask_filter_value", -10000.0), like)])


def attend(
    e: Expansion, operands: tuple[str, str, str], shapes: Sequence[Shape], masks: Sequence[str], like: str
) -> None:
    """softmax(scale·Q·Kᵀ + masks)·V of operands[batch, sequence, heads · depth], to the node's first output."""
    heads = e.node.attrs["num_heads"]
    depth = shapes[0][2] // heads
    scale = e.attr("scale", 0.0) or depth**-0.5
    axes = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (
        e.op("Transpose", [e.op("Reshape", [x, e.ints([*shape[:2], heads, shape[2] // heads])])], perm=perm)
        for x, shape, perm in zip(operands, shapes, axes, strict=True)
    )
    scores = e.op("Mul", [e.op("MatMul", [q, k]), e.scalar(scale, like)])
    for mask in masks:
        if mask:
            scores = e.op("Add", [scores, mask])
    if e.attr("unidirectional", 0):
        scores = e.op("Add", [scores, _causal(e, shapes[0][1], shapes[1][1], like)])
    context = e.op("MatMul", [e.op("Softmax", [scores], axis=-1), v])
    turned = e.op("Transpose", [context], perm=[0, 2, 1, 3])
    e.op("Reshape", [turned, e.ints([*shapes[0][:2], shapes[2][2]])], e.node.outputs[0])


def _causal(e: Expansion, queries: Size, keys: Size, like: str) -> str:
    if not isinstance(queries, int) or not isinstance(keys, int):
        raise CannotConvert("unidirectional attention needs a fixed sequence length: bind it")
    later = np.arange(keys) > np.arange(queries)[:, None] + (keys - queries)
    fill = e.attr("mask_filter_value", -10000.0)
    return e.constant(np.where(later, fill, 0).astype(e.dtype(like))[None, None], "causal")
