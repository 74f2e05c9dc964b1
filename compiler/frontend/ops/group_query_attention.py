"""onnxruntime's attention whose keys and values have fewer heads than the queries, with its caches."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from ..diagnostics import CannotConvert
from ..registry import expander
from .multi_head_attention import attend, causal
from .rotary_embedding import rotated

if TYPE_CHECKING:
    from ..expansion import Expansion
    from ..graph import Size

_REFUSED = {
    "smooth_softmax": "a smooth softmax",
    "sliding_window_cache": "a cache of the window's size",
    "qk_output": "output_qk",
}


@expander("GroupQueryAttention", domain="com.microsoft")
def group_query_attention(e: Expansion) -> None:
    """com.microsoft GroupQueryAttention-1.

    Inputs: (query, key, value, past_key, past_value, seqlens_k, total_sequence_length, cos_cache, sin_cache,
    position_ids, attention_bias). Key and value may lie packed in query. The caches hold what earlier runs made and
    nothing else: present is past with the new rows behind it, so that all sequences of a batch must be of one length
    once there is a past; a run whose seqlens_k say otherwise is refused.
    """
    for name, what in _REFUSED.items():
        if e.attr(name, 0):
            raise CannotConvert(f"{what} is not supported")
    if any(e.node.inputs[11:]) or e.attr("k_quant_type", "NONE") != "NONE":
        raise CannotConvert("head sinks, quantized caches and norms of queries and keys are not supported")
    e.without_outputs(3, "output output_qk")
    heads, kv_heads = e.node.attrs["num_heads"], e.node.attrs["kv_num_heads"]
    query, key, value = (e.input(i) for i in range(3))
    batch, queries, width = e.shape(query)
    if not key:
        depth = width // (heads + 2 * kv_heads)
        ends = [0, heads * depth, (heads + kv_heads) * depth, (heads + 2 * kv_heads) * depth]
        cuts = [(query, e.ints([a]), e.ints([b]), e.ints([2])) for a, b in pairwise(ends)]
        query, key, value = (e.op("Slice", list(cut)) for cut in cuts)
    else:
        depth = width // heads
    past: Size = e.shape(e.input(3))[2] if e.input(3) else 0
    keys = past + queries
    q, k = (e.op("Reshape", [x, e.ints([batch, queries, n, depth])]) for x, n in ((query, heads), (key, kv_heads)))
    if e.attr("do_rotary", 0):
        places = e.input(9) or e.range(past, keys)
        turned, interleaved = 2 * e.shape(e.input(7))[1], bool(e.attr("rotary_interleaved", 0))
        q, k = (rotated(e, x, places, (e.input(7), e.input(8)), turned, depth, interleaved) for x in (q, k))
    k = e.op("Transpose", [k], perm=[0, 2, 1, 3])
    v = e.op("Transpose", [e.op("Reshape", [value, e.ints([batch, queries, kv_heads, depth])])], perm=[0, 2, 1, 3])
    outputs = [*e.node.outputs, "", ""]
    if e.input(3):
        q = _checked(e, q, e.input(5), past, batch)
        k = e.op("Concat", [e.input(3), k], outputs[1], axis=2)
        v = e.op("Concat", [e.input(4), v], outputs[2], axis=2)
    else:
        k, v = e.op("Identity", [k], outputs[1]), e.op("Identity", [v], outputs[2])
    group = heads // kv_heads
    q = _grouped(e, q, (batch, queries, kv_heads, group, depth))
    masks = [_bias(e, e.input(10), (kv_heads, group, queries, keys))]
    if e.attr("causal", 1):
        window = max(e.attr("local_window_size", -1), 0)
        masks.append(causal(e, queries, keys, past, e.input(0), window=window, repeat=group, fill=-np.inf))
    scale = e.attr("scale", 0.0) or depth**-0.5
    context = attend(e, (q, k, v), e.input(0), scale, masks, e.attr("softcap", 0.0))
    if not (isinstance(queries, int) and queries == 1):
        split = e.op("Reshape", [context, e.ints([batch, kv_heads, group, queries, depth])])
        context = e.op("Transpose", [split], perm=[0, 3, 1, 2, 4])
    e.op("Reshape", [context, e.ints([batch, queries, heads * depth])], e.node.outputs[0])


def _grouped(e: Expansion, q: str, shape: tuple[Size, Size, int, int, int]) -> str:
    """[batch, queries, heads, depth] as [batch, kv heads, group · queries, depth]: one product for each kv head."""
    batch, queries, kv_heads, group, depth = shape
    if not (isinstance(queries, int) and queries == 1):
        q = e.op("Transpose", [e.op("Reshape", [q, e.ints(shape)])], perm=[0, 2, 3, 1, 4])
    return e.op("Reshape", [q, e.ints([batch, kv_heads, group * queries, depth])])


def _bias(e: Expansion, bias: str, shape: tuple[int, int, Size, Size]) -> str:
    """An attention_bias[batch or 1, heads or 1, queries, keys] for grouped queries."""
    if not bias:
        return ""
    kv_heads, group, queries, keys = shape
    batch, heads = e.shape(bias)[:2]
    if isinstance(heads, int) and heads == 1 and kv_heads * group > 1:
        wide = e.op("Reshape", [bias, e.ints([batch, 1, 1, queries, keys])])
        bias = e.op("Expand", [wide, e.ints([batch, 1, group, queries, keys])])
        kv_heads = 1
    return e.op("Reshape", [bias, e.ints([batch, kv_heads, group * queries, keys])])


def _checked(e: Expansion, q: str, lengths: str, past: Size, batch: Size) -> str:
    """q times a one for each sequence, looked up so that a run fails where seqlens_k + 1 is not the number of keys.

    Without a past, keys behind the end of a sequence are seen by no query of it.
    """
    queries = e.shape(e.input(0))[1]
    last = e.ints([past + queries - 1])
    apart = e.op("Abs", [e.op("Sub", [e.op("Cast", [lengths], to=TensorProto.INT64), last])])
    there = e.op("Min", [e.ints([past]), e.constant(np.ones(1, np.int64), "one")])
    place = e.op("Reshape", [e.op("Mul", [apart, there]), e.ints([batch, 1, 1, 1])])
    ones = e.constant(np.ones(1, e.dtype(e.input(0))), "seqlens_k")
    return e.op("Mul", [q, e.op("Gather", [ones, place], what="seqlens_k")])
