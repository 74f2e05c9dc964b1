"""onnxruntime's attention of three tensors, taken apart into products and a softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..expansion import Expansion
    from ..graph import Size


@expander("MultiHeadAttention", domain="com.microsoft")
def multi_head_attention(e: Expansion) -> None:
    """com.microsoft MultiHeadAttention-1.

    Inputs: (query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value). Query is
    [batch, sequence, hidden]; key and value too, or [batch, heads, sequence, depth] as another run's cache.
    """
    query, key, value = (e.input(i) for i in range(3))
    if not key or not value or len(e.shape(query)) != 3:
        raise CannotConvert("packed query, key and value are not supported")
    e.without_outputs(3, "output qk")
    heads = e.node.attrs["num_heads"]
    bias = e.input(3)
    parts = [""] * 3
    if bias:
        sizes = [e.shape(x)[2] if len(e.shape(x)) == 3 else e.shape(query)[2] for x in (query, key, value)]
        parts = [e.op("Slice", [bias, e.ints([sum(sizes[:i])]), e.ints([sum(sizes[: i + 1])])]) for i in range(3)]
    q, k, v = (by_heads(e, x, heads, part) for x, part in zip((query, key, value), parts, strict=True))
    batch, sequence = e.shape(query)[:2]
    new = e.shape(key)[1 if len(e.shape(key)) == 3 else 2]
    past: Size = 0
    outputs = [*e.node.outputs, "", ""]
    if e.input(6):
        past = e.shape(e.input(6))[2]
        k = e.op("Concat", [e.input(6), k], outputs[1], axis=2)
        v = e.op("Concat", [e.input(7), v], outputs[2], axis=2)
    else:
        for name, made in zip(outputs[1:3], (k, v), strict=True):
            if name:
                e.op("Identity", [made], name)
    masks = [padding(e, e.input(4), query), e.input(5)]
    if e.attr("unidirectional", 0):
        masks.append(causal(e, sequence, past + new, past, query))
    context = attend(e, (q, k, v), query, e.attr("scale", 0.0) or _root(e, query, heads), masks)
    depth = e.shape(value)[2] // heads if len(e.shape(value)) == 3 else e.shape(value)[3]
    turned = e.op("Transpose", [context], perm=[0, 2, 1, 3])
    e.op("Reshape", [turned, e.ints([batch, sequence, heads * depth])], e.node.outputs[0])


def _root(e: Expansion, query: str, heads: int) -> float:
    return float((e.shape(query)[2] // heads) ** -0.5)


def by_heads(e: Expansion, x: str, heads: int, bias: str = "") -> str:
    """x[batch, sequence, heads · depth] plus a bias as [batch, heads, sequence, depth]; what has four axes is that."""
    shape = e.shape(x)
    if len(shape) == 4:
        return x
    if bias:
        x = e.op("Add", [x, bias])
    split = e.op("Reshape", [x, e.ints([*shape[:2], heads, shape[2] // heads])])
    return e.op("Transpose", [split], perm=[0, 2, 1, 3])


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


def causal(
    e: Expansion, queries: Size, keys: Size, past: Size, like: str, *, window: int = 0, repeat: int = 1,
    fill: float | None = None,
) -> str:  # fmt: skip
    """What is added to scores[…, repeat · queries, keys] of keys after the query, and more than `window` before it.

    Query i is at position past + i. '' where that is none.
    """
    fill = e.attr("mask_filter_value", -10000.0) if fill is None else fill
    if isinstance(queries, int) and queries == 1 and not window:
        return ""
    if all(isinstance(size, int) for size in (queries, keys, past)):
        at, places = np.arange(queries)[:, None] + past, np.arange(keys)
        hidden = (places > at) | ((places <= at - window) if window else False)
        filled = np.where(np.tile(hidden, (repeat, 1)), fill, 0)
        return e.constant(filled.astype(e.dtype(like))[None, None], "causal")
    column = e.op("Reshape", [e.range(0, keys), e.ints([1, keys])])
    row = e.op("Reshape", [e.range(past, past + queries), e.ints([queries, 1])])
    gone = e.op("Greater", [column, row])
    if window:
        before = e.op("LessOrEqual", [column, e.op("Sub", [row, e.constant(np.array(window, np.int64), "window")])])
        gone = e.op("Or", [gone, before])
    mask = e.op("Where", [gone, e.scalar(fill, like), e.scalar(0.0, like)])
    if repeat == 1:
        return e.op("Reshape", [mask, e.ints([1, 1, queries, keys])])
    whole = e.op("Expand", [e.op("Reshape", [mask, e.ints([1, 1, 1, queries, keys])]),
                            e.ints([1, 1, repeat, queries, keys])])  # fmt: skip
    return e.op("Reshape", [whole, e.ints([1, 1, repeat * queries, keys])])


def attend(
    e: Expansion, operands: tuple[str, str, str], like: str, scale: float, masks: Sequence[str], softcap: float = 0.0
) -> str:
    """softmax(scale·Q·Kᵀ + masks)·V of operands[batch, heads, sequence, depth]; the name of the same."""
    q, k, v = operands
    scores = e.op("MatMul", [q, e.op("Transpose", [k], perm=[0, 1, 3, 2])])
    scores = e.op("Mul", [scores, e.scalar(scale, like)])
    if softcap:
        bound = e.scalar(softcap, like)
        scores = e.op("Mul", [e.op("Tanh", [e.op("Div", [scores, bound])]), bound])
    for mask in masks:
        if mask:
            scores = e.op("Add", [scores, mask])
    return e.op("MatMul", [e.op("Softmax", [scores], axis=-1), v])
