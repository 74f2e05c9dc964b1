"""onnxruntime's attention operators, taken apart into products and a softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
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
    mask = _padding(e, e.input(4), e.shape(e.input(0)), e.shape(e.input(1)))
    _attention(e, (query, key, value), [e.shape(e.input(i)) for i in range(3)], [mask, e.input(5)])


@expander("Attention", domain="com.microsoft")
def attention(e: Expansion) -> None:
    """com.microsoft Attention-1: (input, weights, bias, mask_index, past, attention_bias); without past and present.

    weights[hidden, Q + K + V] make query, key and value of the input.
    """
    if e.input(4) or e.input(6):
        raise CannotConvert("a cache of past keys and values is not supported")
    if e.attr("do_rotary", 0):
        raise CannotConvert("rotary embeddings in Attention are not supported")
    e.without_outputs(1, "output present")
    x, weights = e.input(0), e.input(1)
    batch, sequence, _ = e.shape(x)
    total = e.shape(weights)[1]
    sizes = e.attr("qkv_hidden_sizes", [total // 3] * 3)
    joined = e.op("MatMul", [x, weights])
    if e.input(2):
        joined = e.op("Add", [joined, e.input(2)])
    ends = [(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(3)]
    parts = [e.op("Slice", [joined, e.ints([a]), e.ints([b]), e.ints([2])]) for a, b in ends]
    shapes = [(batch, sequence, size) for size in sizes]
    mask = _padding(e, e.input(3), shapes[0], shapes[1])
    _attention(e, (parts[0], parts[1], parts[2]), shapes, [mask, e.input(5)])


def _padding(e: Expansion, mask: str, query: Shape, key: Shape) -> str:
    """What is added to the scores where keys are masked: an int32 mask[batch, keys], or [batch, queries, keys]."""
    if not mask:
        return ""
    shape = e.shape(mask)
    if len(shape) not in (2, 3):
        raise CannotConvert("masks of lengths are not supported; give a mask of ones and zeros")
    view = [shape[0], 1, *([1] if len(shape) == 2 else [shape[1]]), shape[-1]]
    kept = e.op("Cast", [e.op("Reshape", [mask, e.ints(view)])], to=e.float_type(e.input(0)))
    gone = e.op("Sub", [e.scalar(1.0, e.input(0)), kept])
    return e.op("Mul", [gone, e.scalar(e.attr("mask_filter_value", -10000.0), e.input(0))])


def _attention(e: Expansion, operands: tuple[str, str, str], shapes: list[Shape], masks: list[str]) -> None:
    heads = e.node.attrs["num_heads"]
    depth = shapes[0][2] // heads
    scale = e.attr("scale", 0.0) or depth**-0.5
    axes = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (
        e.op("Transpose", [e.op("Reshape", [x, e.ints([*shape[:2], heads, shape[2] // heads])])], perm=perm)
        for x, shape, perm in zip(operands, shapes, axes, strict=True)
    )
    scores = e.op("Mul", [e.op("MatMul", [q, k]), e.scalar(scale, e.input(0))])
    for mask in masks:
        if mask:
            scores = e.op("Add", [scores, mask])
    if e.attr("unidirectional", 0):
        scores = e.op("Add", [scores, _causal(e, shapes[0][1], shapes[1][1])])
    context = e.op("MatMul", [e.op("Softmax", [scores], axis=-1), v])
    turned = e.op("Transpose", [context], perm=[0, 2, 1, 3])
    e.op("Reshape", [turned, e.ints([*shapes[0][:2], shapes[2][2]])], e.node.outputs[0])


def _causal(e: Expansion, queries: Size, keys: Size) -> str:
    if not isinstance(queries, int) or not isinstance(keys, int):
        raise CannotConvert("unidirectional attention needs a fixed sequence length: bind it")
    later = np.arange(keys) > np.arange(queries)[:, None] + (keys - queries)
    fill = e.attr("mask_filter_value", -10000.0)
    return e.constant(np.where(later, fill, 0).astype(e.dtype(e.input(0)))[None, None], "causal")
