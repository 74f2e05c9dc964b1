"""Convolutions of quantized planes (qplanes.py) by int8 weights, sparse or dense, with their epilogue."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from . import integer, n_of_m
from .blended import BlendCode, blend_blocks, blend_stream, rows_per_blend
from .catalogue import find, has, kept_lower, source
from .epilogue import FULL_TENSOR, VECTOR_STATEMENTS, EpilogueOp
from .pattern import MAX_ROWS, PatternCode, dense_blocks, keeps_sums, rows_per_block
from .qplanes import GROUP, TILE, Geometry, Planes, groups, tap_offsets, tiles_of, valid_positions
from .row_code import dense_code, sparse_code, sparse_rows
from .use import AnyCode, Code, KernelUse, Operand, Output, Packed, Pointer, Size, Tensor

Method: TypeAlias = Literal["dense", "pattern", "blend", "n_of_m"]
_FAMILIES: dict[Method, str] = {
    "dense": "qconv_dense",
    "pattern": "qconv",
    "blend": "qconv_blend",
    "n_of_m": "qconv_n_of_m",
}
METHODS = tuple(_FAMILIES)
_LOW_BLOCKS = ("blend", "n_of_m")
"""Those whose blocks have fewer rows."""
_RUN_BYTES = 512 << 10
"""Of planes that should stay in the L2 cache while the blocks of rows pass by."""
_MIN_UNITS = 8
"""Parts of an image's work, for several threads to share."""
_PAIRED = 32
"""Tiles from which on there is an even number of runs."""
_MIN_RUN = 4
"""Tiles: with fewer the code of a block is fetched for too little."""

STATEMENTS = {
    **VECTOR_STATEMENTS,
    "relu": "x = (vf)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x);",
    "clip": "x = (vf)_mm512_min_ps(_mm512_set1_ps({1}), _mm512_max_ps(_mm512_set1_ps({0}), (__m512)x));",
    "sigmoid": "x = vlogistic(x);",
    "silu": "x = vsilu(x, {0});",
    # an 8-bit image; scale and zero point
    "add_quantized": "x += sparsec_dequantized({t}, j, {1}, {0});",
    "add_convolution": "x += *(const vf *)(added + row * SPARSEC_TILE);",
    # to u8 and back: inverse of the scale, scale, zero point
    "round_trip": "x = (vf)_mm512_cvtepi32_ps(sparsec_steps(x, {0}, -{2}, 255.0f - {2})) * {1};",
}
"""Operation -> C statements on the vector x of 16 positions of a channel; NaN stays NaN."""

_VECTORS = ("bias", "prelu")
_HOMOGENEOUS = ("bias", "relu", "clip", "leaky_relu", "silu")
"""f(x / s) = f(x) / s, with numbers that depend on s."""
_SURELY_INT32 = 2.0**30
_SILU_STEPS = 1 / 0.86
"""Of the table in vector_activations.h, per unit of x."""


@dataclass(frozen=True)
class PlanesOutput:
    """One u8 output: round(x / scale) + zero point, in planes."""

    scale: float
    zero_point: int
    planes: Planes


@dataclass(frozen=True)
class FloatOutput:
    """A float output: NCHW, or with `inner` the channels in groups of so many, [N, C / inner, H, W, inner]."""

    inner: int = 0


@dataclass(frozen=True)
class QConv:
    """A convolution of planes. `scale`[O] multiplies the exact sums; `bias`[O] is added to them (int32)."""

    window: Geometry
    x: Planes
    zero_point: int
    scale: np.ndarray
    bias: np.ndarray
    out: tuple[int, int]
    """Height and width."""
    pitch: int
    """Of the output."""
    outputs: tuple[PlanesOutput | FloatOutput, ...]
    residual: tuple[Planes, ...] = ()
    """Of the operands of `add_quantized`, in order."""


@dataclass(frozen=True)
class Added:
    """A second convolution with results of the same shape: the epilogue's `add_convolution` adds them.

    Its operands are the layer's last: planes, weights, and one for each operation of its own epilogue with a vector.
    """

    conv: QConv
    """Without outputs."""
    epilogue: tuple[EpilogueOp, ...]
    method: Method


def can_follow_added(op: EpilogueOp) -> bool:
    """Whether an operation may be in the epilogue of a convolution that is added."""
    return op.kind in _VECTORS or not takes_tensor(op)


def units_of(weights: np.ndarray) -> np.ndarray:
    """int8 [O, C, KH, KW] -> int32 [O', C' / 4, KH * KW], O and C filled up to multiples of 4 with zeros."""
    O, C = weights.shape[:2]  # noqa: E741
    padded = np.zeros((groups(O) * GROUP, groups(C) * GROUP, weights.shape[2] * weights.shape[3]), np.int8)
    padded[:O, :C] = weights.reshape(O, C, -1)
    by_group = padded.reshape(padded.shape[0], groups(C), GROUP, -1).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(by_group).view(np.int32)[..., 0]


def matrix_of(units: np.ndarray) -> np.ndarray:
    """int8 [O', k] of `units_of`; eight channels of a tap are consecutive where channels come in eights."""
    if units.shape[1] % 2 == 0:
        units = units.reshape(len(units), -1, 2, units.shape[2]).swapaxes(2, 3)
    return np.ascontiguousarray(units.reshape(len(units), -1)).view(np.int8)


def methods_of(units: np.ndarray, isa: str) -> tuple[Method, ...]:
    """Those that can compute a convolution."""
    fitting = units.shape[1] % 2 == 0 and n_of_m.fits(matrix_of(units))
    return tuple(method for method in methods_for(isa) if fitting or method != "n_of_m")


def methods_for(isa: str) -> tuple[Method, ...]:
    """Those that an ISA has."""
    return tuple(method for method, family in _FAMILIES.items() if has(family, isa))


def takes_tensor(op: EpilogueOp) -> bool:
    """Whether an operation reads a tensor beside the sums."""
    return "{t}" in STATEMENTS[op.kind]


def plan_qconv(
    isa: str,
    operands: list[Tensor],
    epilogue: tuple[EpilogueOp, ...],
    conv: QConv,
    reason: str,
    method: Method,
    added: Added | None = None,
) -> list[KernelUse]:
    """Operands are the planes, the constant weights[O, C, KH, KW] and one for each epilogue op with a tensor.

    `dense` takes every weight, by a loop instead of straight-line code; `pattern` is for zeros in blocks of 1x4,
    `blend` for zeros that lie anywhere, `n_of_m` where `methods_of` has it. `added` has further operands.
    """
    row = find(_FAMILIES[method], isa)
    images, weights = operands[0].shape[0], operands[1].array
    assert weights is not None
    M, tiles = groups(len(weights)) * GROUP, tiles_of(*conv.out, conv.pitch)
    at = 2 + sum(map(takes_tensor, epilogue))
    second = operands[at + 1].array if added else None
    low = method in _LOW_BLOCKS or (added is not None and added.method in _LOW_BLOCKS)
    products = [(weights, method), *([] if added is None or second is None else [(second, added.method)])]
    rows = rows_per_blend(M) if low else min(_rows_of(isa, *product) for product in products)
    depth = groups(weights.shape[1]) + (0 if second is None else groups(second.shape[1]))
    run, blocks = run_of(tiles, depth, -(-M // rows)), -(-M // rows)
    steps = _steps(epilogue, operands, 2)
    factor = _common_factor(steps, conv)
    if factor is not None:
        steps = _divided(steps, factor, conv)
    elif steps and steps[-1].op.kind == "relu" and all(_begins_at_zero(o) for o in conv.outputs):
        steps = steps[:-1]  # packing saturates there
    multiplier = integer.multiplier(1.0, conv.scale, 1.0 if factor is None else factor)
    bound, added_steps, added_narrow = 0.0, list[_Step](), False
    product, narrow = _product(isa, weights, conv, method, rows, run, multiplier)
    pointers: list[Pointer] = [Operand(0), *product]
    masks, before = valid_positions(*conv.out, conv.pitch)
    pointers += [Packed(masks), Packed(before)]
    scalars: list[Size] = [M, len(weights), *_image_of(conv, weights), tiles, run, conv.out[0] * conv.out[1]]
    macs = _macs(weights, method)
    if added is not None and second is not None:
        added_multiplier = integer.multiplier(1.0, added.conv.scale, 1.0)
        product, added_narrow = _product(isa, second, added.conv, added.method, rows, run, added_multiplier)
        pointers += [Operand(at), *product]
        added_steps = _steps(added.epilogue, operands, at + 2)
        bound = _bound(added_steps, added_multiplier)
        scalars += _image_of(added.conv, second)
        macs += _macs(second, added.method)
    text = _Text(steps, conv, factor is not None, _bound(steps, multiplier, bound), added_steps)
    kinds = "_".join(step.op.kind for step in steps)[:40]
    values = {**text.values(), "adds": added is not None, "in_registers": keeps_sums(isa)}
    values |= {"changed": rows if low else MAX_ROWS, "narrow": narrow, "added_narrow": added_narrow}
    signature = hashlib.sha256(repr((rows, sorted(values.items()))).encode()).hexdigest()[:8]
    name = f"{row.name}_{kinds}_{signature}"
    symbol = f"sparsec_k_{name}"
    unit = source(row.template, name, symbol=symbol, rows=rows, **values)
    for step in (*steps, *added_steps):
        if step.array is not None:
            pointers.append(Packed(_filled(step.array, M)))
        elif step.operand:
            pointers.append(Operand(step.operand))
    pointers.append(Packed(np.asarray([*text.numbers, 0], np.float32)))
    pointers += [Output(i) for i in range(len(conv.outputs))]
    for planes in conv.residual:
        scalars += [planes.plane, planes.lead]
    for o in conv.outputs:
        scalars += [o.planes.plane, o.planes.lead, o.zero_point] if isinstance(o, PlanesOutput) else []
    scalars += [o.inner for o in conv.outputs if isinstance(o, FloatOutput) and o.inner]
    extent, macs = images * (-(-tiles // run) * blocks), images * (conv.out[0] * conv.out[1] * macs)
    return [
        KernelUse(row.name, symbol, (unit,), tuple(pointers), tuple(scalars), extent, reason, macs,
                  n_outputs=len(conv.outputs), images=images)
    ]  # fmt: skip


def _macs(weights: np.ndarray, method: Method) -> int:
    """Of one position."""
    return weights.size if method == "dense" else int(np.count_nonzero(weights))


def _image_of(conv: QConv, weights: np.ndarray) -> list[Size]:
    """Bytes from one image that is read to the next, and before its first row."""
    return [4 * groups(weights.shape[1]) * conv.x.plane, 4 * conv.x.lead]


def _rows_of(isa: str, weights: np.ndarray, method: Method) -> int:
    """Of a block, for the products of one convolution."""
    units = units_of(weights)
    return (
        sparse_rows(isa, "u8s8", units.reshape(len(units), -1)) if method == "pattern" else rows_per_block(len(units))
    )


def run_of(tiles: int, depth: int, blocks: int) -> int:
    """Tiles that one unit of the range takes; `depth` vectors of each stay in the cache from block to block.

    They are groups of channels that are read, and lines of channels, to which every block adds its part.
    """
    cached = max(_MIN_RUN, _RUN_BYTES // (depth * GROUP * TILE))
    shared = max(_MIN_RUN, -(-tiles * blocks // _MIN_UNITS))
    runs = -(-tiles // min(tiles, cached, shared))
    if tiles >= _PAIRED:
        runs += runs % 2  # two threads get the same number of positions, however many blocks there are
    return -(-tiles // runs)


def _product(
    isa: str,
    weights: np.ndarray,
    conv: QConv,
    method: Method,
    rows: int,
    run: int,
    multiplier: np.ndarray,
) -> tuple[list[Pointer], bool]:
    """The stream of weights, where each block's begins, the code, what sums begin with, and their multipliers.

    Where the last tile is at most half one, loops have further code for it. Straight-line code would double.
    """
    units = units_of(weights)
    code, values, starts = _compiled(isa, units, conv, method, rows, run)
    start = integer.wrapped((kept_lower(isa) - conv.zero_point) * weights.sum((1, 2, 3), dtype=np.int64) + conv.bias)
    filled = Packed(_filled(start, len(units))), Packed(_filled(multiplier, len(units)))
    pointers: list[Pointer] = [Packed(values), Packed(starts), Code(code), *filled]
    left = (-((conv.out[0] - 1) * conv.pitch + conv.out[1])) % TILE
    narrow = isa in ("avx512", "avx512-amx") and left >= TILE // 2 and method == "dense"
    if narrow:
        assert isinstance(code, PatternCode)
        pointers.append(Code(replace(code, narrow=True)))
    return pointers, narrow


def _compiled(
    isa: str, units: np.ndarray, conv: QConv, method: Method, rows: int, run: int
) -> tuple[AnyCode, np.ndarray, np.ndarray]:
    """(code of the blocks of rows, the stream of weights, where each block's begins)."""
    taps = 4 * tap_offsets(conv.x, conv.window)
    depth = units.shape[1]
    flat = units.reshape(len(units), -1)
    if method == "dense":
        return dense_code(isa, "u8s8", flat, taps, 4 * conv.x.plane, rows, tiles=run, in_registers=keeps_sums(isa))
    if method == "n_of_m":
        both = (taps[:, None] + np.array([0, 4 * conv.x.plane])).reshape(-1)
        blocks = dense_blocks(len(units), len(taps), rows)
        code = PatternCode("n_of_m", both, blocks, depth // 2, 8 * conv.x.plane, run, in_registers=True)
        return code, *n_of_m.code_stream(matrix_of(units), rows)
    offsets = (4 * conv.x.plane * np.arange(depth)[:, None] + taps).reshape(-1)
    if method == "blend":
        weights = np.ascontiguousarray(flat).view(np.int8)
        blended = blend_blocks(weights != 0)
        return BlendCode(offsets, blended, run, in_registers=keeps_sums(isa)), *blend_stream(weights, blended)
    return sparse_code(isa, "u8s8", flat, offsets, rows, tiles=run, in_registers=keeps_sums(isa))


def _filled(array: np.ndarray, length: int) -> np.ndarray:
    """With zeros at its end."""
    return np.concatenate([array, np.zeros(length - len(array), array.dtype)])


# --- epilogue ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """An operation with its constant vector, or the index of its operand (0: none)."""

    op: EpilogueOp
    array: np.ndarray | None = None
    operand: int = 0


def _steps(epilogue: tuple[EpilogueOp, ...], operands: list[Tensor], at: int) -> list[_Step]:
    """Those with a tensor take operand `at` and the following ones."""
    steps = []
    for op in epilogue:
        if not takes_tensor(op):
            steps.append(_Step(op))
            continue
        steps.append(_Step(op, operands[at].array if op.kind in _VECTORS else None, at))
        at += 1
    return steps


def _common_factor(steps: list[_Step], conv: QConv) -> float | None:
    """The output's scale, where the whole epilogue may be divided by it."""
    only = conv.outputs[0] if len(conv.outputs) == 1 else None
    return only.scale if isinstance(only, PlanesOutput) and all(s.op.kind in _HOMOGENEOUS for s in steps) else None


def _begins_at_zero(output: PlanesOutput | FloatOutput) -> bool:
    """Whether an output holds no negative number."""
    return isinstance(output, PlanesOutput) and output.zero_point == 0


def _divided(steps: list[_Step], factor: float, conv: QConv) -> list[_Step]:
    """The steps on x / factor, without bounds at the end that lie outside of what the output can hold."""
    changed = []
    for step in steps:
        params = step.op.params
        if step.op.kind == "clip":
            params = tuple(float(np.float32(p / factor)) for p in params)
        elif step.op.kind == "silu":
            params = (factor,)
        array = None if step.array is None else (step.array.astype(np.float64) / factor).astype(np.float32)
        changed.append(_Step(EpilogueOp(step.op.kind, params), array, step.operand))
    (output,) = conv.outputs
    assert isinstance(output, PlanesOutput)
    bottom, top = -output.zero_point, 255 - output.zero_point
    while changed and changed[-1].op.kind in ("relu", "clip"):
        low, high = changed[-1].op.params or (0.0, np.inf)
        if np.rint(low) > bottom or np.rint(high) < top:
            break
        changed.pop()
    return changed


def _bound(steps: list[_Step], multiplier: np.ndarray, added: float = 0.0) -> float:
    """No result is larger than this; infinite where a tensor may hold anything. `added`: the same of what is added."""
    bound = float(multiplier.max(initial=0)) * 2.0**31
    for step in steps:
        kind, params = step.op.kind, step.op.params
        if kind == "bias" and step.array is not None:
            bound += float(np.abs(step.array).max(initial=0))
        elif kind == "add_quantized":
            bound += 255 * params[0]
        elif kind == "add_convolution":
            bound += added
        elif kind == "scale":
            bound *= abs(params[0])
        elif kind not in ("relu", "silu", "sigmoid", "hard_swish", "round_trip", "clip"):
            return np.inf
    return bound


class _Text:
    """The epilogue in C, and the numbers that it reads: one unit serves layers that differ in them alone."""

    def __init__(self, steps: list[_Step], conv: QConv, folded: bool, bound: float, added_steps: list[_Step]) -> None:
        self.numbers: list[float] = []
        self.outputs = []
        for i, o in enumerate(conv.outputs):
            output: dict[str, object] = {"name": f"y{i}", "planes": False, "rows": False, "type": "float"}
            if isinstance(o, PlanesOutput):
                inverse = "1.0f" if folded else self._number(float(integer.inverse(o.scale)))
                clamped = bound / (1.0 if folded else o.scale) >= _SURELY_INT32
                output |= {"planes": True, "type": "uint32_t", "inverse": inverse, "clamped": clamped}
                output["moved"] = o.zero_point != 0
            else:
                output["rows"] = o.inner > 0
            self.outputs.append(output)
        self.parameters: list[dict[str, object]] = []
        self.body, self.added = self._lines(steps, "e"), self._lines(added_steps, "a")
        self.counts = FloatOutput() in conv.outputs or any(step.op.kind in FULL_TENSOR for step in steps)

    def _lines(self, steps: list[_Step], letter: str) -> str:
        lines = []
        for number, step in enumerate(steps):
            name = f"{letter}{number}_{step.op.kind}"
            if takes_tensor(step.op):
                planes = step.op.kind == "add_quantized"
                self.parameters.append({"name": name, "type": "uint32_t" if planes else "float", "planes": planes})
            numbers = [self._number(p) for p in self._params(step.op)]
            if step.op.kind == "add_quantized":
                numbers[1] = f"(int32_t){numbers[1]}" if step.op.params[1] else "0"
            lines.append(STATEMENTS[step.op.kind].format(*numbers, t=self._tensor(step.op.kind, name)))
        return "\n".join(lines)

    @staticmethod
    def _params(op: EpilogueOp) -> tuple[float, ...]:
        if op.kind == "silu":
            return (_SILU_STEPS * (op.params[0] if op.params else 1.0),)
        return (float(integer.inverse(op.params[0])), *op.params) if op.kind == "round_trip" else op.params

    @staticmethod
    def _tensor(kind: str, name: str) -> str:
        """What an operation reads of its tensor for x."""
        if kind in _VECTORS:
            return f"vset({name}[channel])"
        if kind in FULL_TENSOR:
            return f"(vf)_mm512_maskz_expand_ps(valid, _mm512_maskz_loadu_ps(part, {name} + element))"
        return f"{name}_bytes"

    def _number(self, value: float) -> str:
        self.numbers.append(value)
        return f"numbers[{len(self.numbers) - 1}]"

    def values(self) -> dict[str, object]:
        """For the template."""
        return {
            "body": self.body,
            "added": self.added,
            "parameters": self.parameters,
            "outputs": self.outputs,
            "needs_count": self.counts,
        }
