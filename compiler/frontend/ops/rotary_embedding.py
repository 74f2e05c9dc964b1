"""onnxruntime's rotary position embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..diagnostics import CannotConvert
from ..registry import expander

if TYPE_CHECKING:
    from ..expansion import Expansion


@expander("RotaryEmbedding", domain="com.microsoft")
def rotary_embedding(e: Expansion) -> None:
    """com.microsoft RotaryEmbedding-1: (input, position_ids, cos_cache, sin_cache).

    The input is [batch, sequence, heads · depth] or [batch, heads, sequence, depth]; a single position is that of the
    first token.
    """
    x, places = e.input(0), e.input(1)
    if e.attr("is_packed_batching", 0):
        raise CannotConvert("packed batches are not supported; pad the sequences")
    if e.attr("scale", 1.0) != 1.0:
        raise CannotConvert("a scale is not supported; scale the caches")
    shape, turned = e.shape(x), e.attr("rotary_embedding_dim", 0) or 2 * e.shape(e.input(2))[1]
    if len(shape) == 4:
        heads, depth = shape[1], shape[3]
        x = e.op("Transpose", [x], perm=[0, 2, 1, 3])
        batch, sequence = shape[0], shape[2]
    else:
        batch, sequence, hidden = shape
        heads = e.attr("num_heads", 0) if e.attr("rotary_embedding_dim", 0) else hidden // turned
        if not heads:
            raise CannotConvert("rotary_embedding_dim needs num_heads")
        depth = hidden // heads
        x = e.op("Reshape", [x, e.ints([batch, sequence, heads, depth])])
    if len(e.shape(places)) == 1:
        places = e.op("Add", [e.range(0, sequence), places])
    result = rotated(e, x, places, (e.input(2), e.input(3)), turned, depth, bool(e.attr("interleaved", 0)))
    if len(shape) == 4:
        e.op("Transpose", [result], e.node.outputs[0], perm=[0, 2, 1, 3])
    else:
        e.op("Reshape", [result, e.ints(shape)], e.node.outputs[0])


def rotated(
    e: Expansion, x: str, places: str, caches: tuple[str, str], turned: int, depth: int, interleaved: bool
) -> str:
    """x[batch, sequence, heads, depth], its first `turned` features rotated by the angles of `places`.

    Places are [sequence] or [batch, sequence]; the caches hold cosines and sines, [positions, turned / 2].
    """
    half = turned // 2
    rows = e.op("Unsqueeze", [e.op("Gather", [caches[0], places]), e.ints([-2])])
    columns = e.op("Unsqueeze", [e.op("Gather", [caches[1], places]), e.ints([-2])])
    head = e.op("Slice", [x, e.ints([0]), e.ints([turned]), e.ints([-1])]) if turned < depth else x
    if interleaved:
        even, odd = (e.op("Slice", [head, e.ints([i]), e.ints([turned]), e.ints([-1]), e.ints([2])]) for i in range(2))
    else:
        even = e.op("Slice", [head, e.ints([0]), e.ints([half]), e.ints([-1])])
        odd = e.op("Slice", [head, e.ints([half]), e.ints([turned]), e.ints([-1])])
    real = e.op("Sub", [e.op("Mul", [even, rows]), e.op("Mul", [odd, columns])])
    other = e.op("Add", [e.op("Mul", [even, columns]), e.op("Mul", [odd, rows])])
    if interleaved:
        pair = [e.op("Unsqueeze", [part, e.ints([-1])]) for part in (real, other)]
        joined = e.op("Concat", pair, axis=-1)
        parts = [e.op("Reshape", [joined, e.ints([0, 0, 0, turned])])]
    else:
        parts = [real, other]
    if turned < depth:
        parts.append(e.op("Slice", [x, e.ints([turned]), e.ints([depth]), e.ints([-1])]))
    return e.op("Concat", parts, axis=-1) if len(parts) > 1 else parts[0]
