"""Layers to kernel calls: each family's planner decides, this module places what it asks for.

One decorated function per family translates the layer's attributes into the planner's arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ...codegen_templates import (
    amx,
    append,
    attention,
    conv,
    conv_planes,
    custom,
    dynamic,
    float_attention,
    found,
    gather,
    gemm,
    gemv,
    indexed,
    n_of_m,
    norm,
    pool,
    qconv,
    qgemm,
    qplanes_move,
    spmm,
    transpose,
)
from ...codegen_templates.planes import ConvGeometry
from ...codegen_templates.tile_epilogue import Quantization, constant_quantization, plan_run_quantization
from ...codegen_templates.use import Code, Found, KernelUse, Operand, Packed, Temp, Tensor, product
from ...errors import InternalError
from ..graph import Layer
from ..target import Target
from .program import Buffer, CodeBlob, Constant, FoundSize, KernelSource, Pointer, Size, Step
from .tables import through_tables


class Placer(Protocol):
    """What lowering a layer needs of the program's builder."""

    def temporary(self, name: str, dtype: str, shape: tuple[Size, ...]) -> Buffer:
        """New memory in the arena."""

    def constant(self, array: np.ndarray) -> Constant:
        """A constant of the weights section."""

    def add_source(self, source: KernelSource) -> None:
        """A C unit that the steps call into."""


Planner = Callable[[str, Layer, list[Tensor], Tensor], list[KernelUse]]
_PLANNERS: dict[str, Planner] = {}


def _family(name: str) -> Callable[[Planner], Planner]:
    def register(function: Planner) -> Planner:
        _PLANNERS[name] = function
        return function

    return register


def lower_layer(
    layer: Layer, operands: list[Buffer | Constant], outs: list[Buffer], target: Target, placer: Placer
) -> list[Step]:
    """The steps that compute a layer into `outs`."""
    tensors = [_tensor(o) for o in operands]
    out = outs[0]
    uses = _PLANNERS[layer.family](target.isa, layer, tensors, _tensor(out))
    temps: dict[str, Buffer] = {}
    packed: dict[int, Constant] = {}

    def place(pointer: Any) -> Pointer:
        if isinstance(pointer, Code):
            return CodeBlob(pointer.pattern.digest(), pointer.pattern)
        if isinstance(pointer, Found):
            return FoundSize(pointer.dim)
        if isinstance(pointer, Operand):
            return operands[pointer.index]
        if isinstance(pointer, Packed):
            return packed.setdefault(id(pointer.array), placer.constant(pointer.array))
        if isinstance(pointer, Temp):
            if pointer.key not in temps:
                temps[pointer.key] = placer.temporary(f"{out.name}.{pointer.key}", pointer.dtype, pointer.shape)
            return temps[pointer.key]
        return outs[pointer.index]

    steps = []
    for use in uses:
        for unit in use.sources:
            placer.add_source(KernelSource(unit.name, unit.text))
        pointers = tuple(place(p) for p in use.pointers)
        steps.append(
            Step(use.symbol, pointers, use.n_outputs, use.scalars, use.extent, use.grain, use.kernel, (layer.tensor,),
                 use.reason, use.macs, use.images)
        )  # fmt: skip
    return steps


def _tensor(value: Buffer | Constant) -> Tensor:
    if isinstance(value, Constant):
        return Tensor(str(value.data.dtype), tuple(value.data.shape), value.data)
    return Tensor(value.dtype, value.shape)


def _constant(layer: Layer, tensor: Tensor) -> np.ndarray:
    if tensor.array is None:
        raise InternalError(f"{layer.tensor}: the weights of a {layer.family} layer are no constant")
    return tensor.array


@_family("linear")
def _linear(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    uses = gemm.plan_linear(isa, operands[0], _constant(layer, operands[1]), layer.epilogue)
    return [replace(use, reason=layer.attrs.get("reason", use.reason)) for use in uses]


@_family("matmul")
def _matmul(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    a, b = operands[:2]
    axes = (layer.attrs["a_axes"], layer.attrs["b_axes"], layer.attrs["out_axes"])
    return gemm.plan_matmul(isa, a, b, out, layer.epilogue, *axes)


@_family("conv2d")
def _conv2d(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    attrs = dict(layer.attrs)
    how = {key: attrs.pop(key) for key in ("code", "reason", "layouts", "target") if key in attrs}
    what = operands[0], _constant(layer, operands[1]), out, ConvGeometry(**attrs), layer.epilogue
    uses = conv_planes.plan_conv_planes(isa, *what, **how) if how else conv.plan_conv(isa, *what)
    return [replace(use, reason=f"{use.reason}; {layer.note}") for use in uses] if layer.note else uses


@_family("pool2d")
def _pool2d(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return pool.plan_pool(isa, operands[0], out, **layer.attrs)


@_family("global_average_pool")
def _global_average(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return pool.plan_global_average(isa, operands[0], **layer.attrs)


@_family("softmax")
def _softmax(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return norm.plan_softmax(isa, operands[0], layer.attrs["log"])


@_family("layer_norm")
def _layer_norm(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    if "layouts" in layer.attrs:
        return norm.plan_layer_norm_panels(isa, **layer.attrs)
    return norm.plan_layer_norm(isa, operands[0], layer.attrs["epsilon"])


@_family("gather")
def _gather(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return gather.plan_gather(isa, operands[0], operands[1], layer.attrs["axis"])


@_family("append")
def _append(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return append.plan_append(isa, operands[0], operands[1], layer.attrs["axis"])


@_family("appended")
def _appended(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return append.plan_appended(isa, out, layer.attrs["axis"])


@_family("transpose")
def _transpose(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return transpose.plan_transpose(isa, **layer.attrs)


@_family("panels")
def _panels(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return spmm.plan_panels(isa, **layer.attrs)


@_family("rows")
def _rows(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return spmm.plan_rows(isa, **layer.attrs)


@_family("spmm")
def _spmm(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    attrs = layer.attrs
    weights = np.ascontiguousarray(_constant(layer, operands[1]).T)
    before, quantization = _quantization(isa, layer, weights, operands)
    first_extra = 4 if attrs.get("dynamic") else 2
    tensors = [operand.array for operand in operands[first_extra:]]
    epilogue, layouts = through_tables(layer.epilogue, attrs["layouts"], tensors)
    if attrs["method"] == "n_of_m":
        assert quantization is not None
        return before + n_of_m.plan_n_of_m(
            isa, attrs["columns"], weights, epilogue, quantization, attrs["reason"], layouts, first_extra
        )
    if attrs["method"] in ("tiles", "tile_blocks"):
        assert quantization is not None
        sparse = attrs["method"] == "tile_blocks"
        return before + amx.plan_amx(
            isa, attrs["columns"], weights, epilogue, quantization, attrs["reason"], sparse, layouts, first_extra
        )
    if attrs["method"].startswith("indexed"):
        shared = int(attrs["method"].removeprefix("indexed"))
        return before + indexed.plan_indexed(
            isa, attrs["columns"], weights, epilogue, quantization, attrs["reason"], shared, layouts, first_extra
        )
    return before + spmm.plan_spmm(
        isa,
        attrs["columns"],
        weights,
        epilogue,
        quantization,
        attrs["reason"],
        attrs["method"],
        layouts,
        first_extra,
    )


@_family("nonzero")
def _nonzero(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return found.plan_nonzero(isa, operands[0], **layer.attrs)


@_family("non_max_suppression")
def _non_max_suppression(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return found.plan_non_max_suppression(isa, operands[0], operands[1], **layer.attrs)


@_family("gemv")
def _gemv(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    attrs = layer.attrs
    weights = np.ascontiguousarray(_constant(layer, operands[1]).T)
    before, quantization = _quantization(isa, layer, weights, operands)
    return before + gemv.plan_gemv(
        isa,
        product(operands[0].shape[:-1]),
        weights,
        layer.epilogue,
        quantization,
        attrs["reason"],
        attrs["storage"],
        operands[0].dtype == "int8",
        4 if attrs.get("dynamic") else 2,
    )


def _quantization(
    isa: str, layer: Layer, weights: np.ndarray, operands: list[Tensor]
) -> tuple[list[KernelUse], Quantization | None]:
    """Of a product's sums, with the call that computes it where scale and zero point are those of a run."""
    attrs = layer.attrs
    if attrs.get("dynamic"):
        return plan_run_quantization(isa, weights, attrs["scale"], attrs["bias"], operands[3].dtype)
    if "zero_point" in attrs:
        return [], constant_quantization(weights, attrs["zero_point"], attrs["scale"], attrs["bias"], isa)
    return [], None


@_family("custom")
def _custom(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return custom.plan_custom(operands, **layer.attrs)


@_family("dynamic_range")
def _dynamic_range(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return dynamic.plan_range(isa, operands[0])


@_family("dynamic_quantize")
def _dynamic_quantize(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return dynamic.plan_quantize(isa, operands[0])


@_family("qgemm")
def _qgemm(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    attrs = layer.attrs
    if attrs["dynamic"]:
        how = qgemm.Quantization(Operand(2), Operand(3))
    else:
        raw_zero = attrs["zero_point"] - (128 if operands[0].dtype == "int8" else 0)
        how = qgemm.constant_quantization(1.0, raw_zero, operands[0].dtype)
    first_extra = 4 if attrs["dynamic"] else 2
    weights = _constant(layer, operands[1])
    return qgemm.plan_qlinear(
        isa, operands[0], how, weights, attrs["scale"], attrs["bias"], layer.epilogue, first_extra
    )


@_family("qmatmul")
def _qmatmul(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    how = (qgemm.Quantization(Operand(2), Operand(3)), qgemm.Quantization(Operand(4), Operand(5)))
    axes = (layer.attrs["a_axes"], layer.attrs["b_axes"], layer.attrs["out_axes"])
    return qgemm.plan_qmatmul(isa, operands[0], operands[1], out, how, axes, layer.epilogue, 6)


@_family("attention")
def _attention(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return attention.plan_attention(isa, mask=operands[3] if len(operands) > 3 else None, **layer.attrs)


@_family("qconv")
def _qconv(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return qconv.plan_qconv(isa, operands, layer.epilogue, **layer.attrs)


@_family("unroll_rows")
def _unroll_rows(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return qplanes_move.plan_unroll_rows(isa, operands[0], **layer.attrs)


@_family("to_planes")
def _to_planes(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return qplanes_move.plan_to_planes(isa, operands[0], **layer.attrs)


@_family("from_planes")
def _from_planes(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    return qplanes_move.plan_from_planes(isa, layer.attrs["sources"][0], out)


@_family("copy_planes")
def _copy_planes(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    sources = list(zip(operands, layer.attrs["sources"], strict=True))
    reason = "planes by phases" if layer.attrs["planes"].strides != (1, 1) else "planes of another pitch"
    return qplanes_move.plan_copy_planes(isa, sources, layer.attrs["planes"], layer.attrs["zero_point"], reason)


@_family("qconcat")
def _qconcat(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    sources = list(zip(operands, layer.attrs["sources"], strict=True))
    return qplanes_move.plan_copy_planes(isa, sources, layer.attrs["planes"], layer.attrs["zero_point"], "side by side")


@_family("qrepeat")
def _qrepeat(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    attrs = layer.attrs
    sources, reason = [(operands[0], attrs["sources"][0])], "nearest neighbours"
    return qplanes_move.plan_copy_planes(isa, sources, attrs["planes"], attrs["zero_point"], reason, attrs["repeat"])


@_family("qpool")
def _qpool(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    attrs = layer.attrs
    return qplanes_move.plan_pool_planes(
        isa, operands[0], attrs["sources"][0], attrs["planes"], attrs["window"], attrs["zero_point"]
    )


@_family("float_attention")
def _float_attention(isa: str, layer: Layer, operands: list[Tensor], out: Tensor) -> list[KernelUse]:
    q, k, v, *mask = operands
    attrs, added = layer.attrs, mask[0] if mask else None
    scale, zeros = attrs["scale"], attrs["zeros"]
    if attrs.get("panels"):
        return float_attention.plan_panels_attention(isa, attrs["shape"], scale, added, zeros)
    return float_attention.plan_float_attention(isa, q, k, v, out, scale, added, attrs["axes"], zeros)
