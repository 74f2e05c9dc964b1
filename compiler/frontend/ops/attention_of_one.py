"""onnxruntime's attention of one tensor, with the weights that make query, key and value of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..diagnostics import CannotConvert
from ..registry import expander
from .multi_head_attention import attend, padding

if TYPE_CHECKING:
    from ..expansion import Expansion

_MICROSOFT = "com.microsoft"


@expander("Attention", domain=_MICROSOFT)
def attention(e: Expansion) -> None:
    """com.microsoft Attention-1: (input, weights, bias, mask_index, past, attention_bias); without past and present."""
    _without_cache(e, e.input(4) or e.input(6))
    joined = e.op("MatMul", [e.input(0), e.input(1)])
    if e.input(2):
        joined = e.op("Add", [joined, e.input(2)])
    _split_and_attend(e, joined, e.input(3), e.input(5), e.input(0))


@expander("QAttention", domain=_MICROSOFT)
def quantized_attention(e: Expansion) -> None:
    """com.microsoft QAttention-1: Attention of an 8-bit input and 8-bit weights; what follows them is float.

    (input, weight, bias, input_scale, weight_scale, mask_index, input_zero_point, weight_zero_point, past)
    """
    _without_cache(e, e.input(8))
    operands = [e.input(i) for i in (0, 1, 3, 4, 6, 7, 2)]
    joined = e.op("MatMulIntegerToFloat", operands, domain=_MICROSOFT)
    _split_and_attend(e, joined, e.input(5), "", e.input(2))


def _without_cache(e: Expansion, past: str) -> None:
    if past:
        raise CannotConvert("a cache of past keys and values is not supported")
    if e.attr("do_rotary", 0):
        raise CannotConvert("rotary embeddings are not supported in this operator")
    e.without_outputs(1, "output present")


def _split_and_attend(e: Expansion, joined: str, mask: str, bias: str, like: str) -> None:
    """`joined` is [batch, sequence, Q + K + V]."""
    batch, sequence, _ = e.shape(e.input(0))
    total = e.shape(e.input(1))[1]
    sizes = e.attr("qkv_hidden_sizes", [total // 3] * 3)
    ends = [(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(3)]
    q, k, v = (e.op("Slice", [joined, e.ints([a]), e.ints([b]), e.ints([2])]) for a, b in ends)
    shapes = [(batch, sequence, size) for size in sizes]
    attend(e, (q, k, v), shapes, [padding(e, mask, like), bias], like)
