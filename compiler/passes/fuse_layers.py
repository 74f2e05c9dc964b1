"""Forms layers: an operation that the kernel catalogue computes, with the elementwise operations that follow it.

Each anchor below is one decorated function that says whether a call is such an operation; the epilogue is then grown
along single uses. What no anchor takes stays in Relax and is scheduled as TIR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from ...codegen_templates.epilogue import EpilogueOp, fake_quantize_operand
from ..graph import LAYER_PREFIX, Dataflow, Graph, Layer, constant, op_name
from ..lower.sizes import product
from .integer_product import accumulator_bias, integer_product
from .layer_anchor import Anchor, Values
from .recognize_activations import MARKER
from .round_trips import RoundTrip, read_by_products_alone, round_trip

_GATHER = "sparsec.gather.axis"
"""The importer's call for a Gather with run-time indices; the axis follows."""

_SETTLED = ("linear", "matmul", "qlinear", "qgemm", "qmatmul")
"""Layers whose results may go through 8 bits and back in their epilogue."""

_ANCHORS: dict[str, Callable[[relax.Var, tvm.ir.Call, Values], Anchor | None]] = {}


def _anchor(*ops: str) -> Callable[[Any], Any]:
    def register(function: Callable[[relax.Var, tvm.ir.Call, Values], Anchor | None]) -> Any:
        for op in ops:
            _ANCHORS[op] = function
        return function

    return register


def fuse_layers(graph: Graph, *, integer: bool = False) -> Graph:
    """Replaces every anchor and its epilogue by one `sparsec.layer.N` call at the place of the epilogue's end.

    `integer`: the target has kernels for products of int8 in groups of four.
    """
    main = Dataflow.of(graph)
    values, uses = main.values(), main.uses()
    readers = main.readers()
    layers: dict[str, Layer] = dict(graph.layers)
    calls: dict[relax.Var, relax.Expr] = {}
    inside: set[relax.Var] = set()
    again: dict[relax.Var, tuple[relax.Var, RoundTrip]] = {}
    for var, value in main.bindings:
        match = _ANCHORS.get(_GATHER if op_name(value).startswith(_GATHER) else op_name(value))
        anchor = match(var, value, values) if match and var not in inside else None
        if op_name(value) == "relax.matmul" and var not in inside:
            anchor = integer_product(var, value, values, groups_of_four=integer) or anchor
        if anchor is None:
            continue
        last, epilogue, operands = var, [], list(anchor.operands)
        attrs = dict(anchor.attrs)
        if uses[last] == 1 and len(readers.get(last, ())) == 1 and readers[last][0] not in inside:
            bias = accumulator_bias(values[readers[last][0]], last, anchor, values)
            if bias is not None and tvm_ffi.structural_equal(readers[last][0].ty, last.ty):
                attrs["bias"], last = bias, readers[last][0]
                inside.add(last)
        while anchor.channel_axis is not None and uses[last] == 1 and len(readers.get(last, ())) == 1:
            reader = readers[last][0]
            trip = _round_trip(reader, anchor, values, readers)
            if trip is not None:
                last, found = trip
                epilogue.append(EpilogueOp("fake_quantize"))
                numbers = fake_quantize_operand(found.scale, found.zero_point, found.dtype)
                operands.append(relax.const(numbers))
                inside |= {reader, last}
                again[last] = reader, found
                if uses[reader] > 1:  # the integers are read too, and made of what the layer ends with
                    break
                continue
            step = None if reader in inside else epilogue_op(last, values[reader], anchor.channel_axis, values)
            if step is None:
                break
            op, extra = step
            epilogue.append(op)
            operands += extra
            last = reader
            inside.add(reader)
        if anchor.family in ("matmul", "qmatmul"):
            last, attrs["out_axes"] = _permuted_output(last, epilogue, values, uses, readers)
        if anchor.family in ("conv2d", "linear"):
            epilogue, operands = fold_affine(anchor, epilogue, operands)
        name = f"{LAYER_PREFIX}{len(layers)}"
        tensor = graph.tensors.get(last.name, last.name)
        layers[name] = Layer(anchor.family, attrs, tuple(epilogue), tensor, anchor.note)
        calls[last] = relax.op.call_dps_packed(name, relax.Tuple(operands), out_ty=last.ty)
    main.bindings = [(var, calls.get(var, value)) for var, value in main.bindings]
    main.bindings = _quantized_again(main.bindings, again)
    return graph.with_main(main.live(), layers)


def _round_trip(
    reader: relax.Var, anchor: Anchor, values: Values, readers: Mapping[relax.Var, list[relax.Var]]
) -> tuple[relax.Var, RoundTrip] | None:
    """(its end, what it is) of a round trip through 8 bits that begins at `reader`, if floats are read of it."""
    if anchor.family not in _SETTLED or op_name(values[reader]) != "relax.quantize":
        return None
    end = next(iter(readers.get(reader, ())), None)
    found = None if end is None else round_trip(values[end], values)
    if end is None or found is None or read_by_products_alone(end, readers, values):
        return None
    return end, found


def _quantized_again(
    bindings: list[tuple[relax.Var, relax.Expr]], again: Mapping[relax.Var, tuple[relax.Var, RoundTrip]]
) -> list[tuple[relax.Var, relax.Expr]]:
    """Where a layer ends with a round trip, whoever reads the 8 bits in its middle quantizes the end: the same bits."""
    moved = {quantized for quantized, _ in again.values()}
    values = dict(bindings)
    result = []
    for var, value in bindings:
        if var in moved:
            continue
        result.append((var, value))
        if var in again:
            quantized = again[var][0]
            old = values[quantized]
            args = [var, *old.args[1:]]
            result.append((quantized, tvm.ir.Call(old.op, args, old.attrs, old.ty_args)))
    return result


def _permuted_output(
    last: relax.Var,
    epilogue: list[EpilogueOp],
    values: Values,
    uses: Mapping[relax.Var, int],
    readers: Mapping[relax.Var, list[relax.Var]],
) -> tuple[relax.Var, tuple[int, ...] | None]:
    """The transpose that alone reads a product and keeps its rows contiguous: the kernel writes in that order."""
    if uses[last] != 1 or len(readers.get(last, ())) != 1 or any(op.kind in ("add", "mul") for op in epilogue):
        return last, None
    reader = readers[last][0]
    value = values[reader]
    if op_name(value) != "relax.permute_dims" or value.attrs.axes is None:
        return last, None
    axes = _ints(value.attrs.axes)
    return (reader, axes) if axes[-1] == len(axes) - 1 else (last, None)


# --- what may follow an operation -------------------------------------------------------------------------------------


def epilogue_op(
    acc: relax.Var, value: relax.Expr, channel_axis: int, values: Values
) -> tuple[EpilogueOp, list[relax.Expr]] | None:
    """The op that applies `value` to the accumulator, and the tensor it reads beside it."""
    name = op_name(value)
    if name in _UNARY:
        return EpilogueOp(_UNARY[name]), []
    if name.startswith(MARKER):
        return EpilogueOp(name.removeprefix(MARKER)), []
    if name == "relax.clip":
        return EpilogueOp("clip", (float(value.args[1].value), float(value.args[2].value))), []
    if name == "relax.nn.leakyrelu":
        return EpilogueOp("leaky_relu", (float(value.attrs.alpha),)), []
    if name == "relax.nn.prelu":
        slope, rank = constant(value.args[1], values), len(acc.ty.shape)
        if slope is None or int(value.attrs.axis) % rank != channel_axis % rank:
            return None
        along = [-1 if i == channel_axis % rank else 1 for i in range(rank)]
        return _channel_op("prelu", slope.reshape(along), acc, channel_axis)
    if name in ("relax.add", "relax.multiply", "relax.subtract", "relax.divide"):
        return _binary_op(name, acc, value, channel_axis, values)
    return None


_UNARY = {
    "relax.nn.relu": "relu",
    "relax.sigmoid": "sigmoid",
    "relax.tanh": "tanh",
    "relax.nn.silu": "silu",
    "relax.nn.gelu": "gelu_erf",
    "relax.nn.gelu_tanh": "gelu_tanh",
}


def _binary_op(
    name: str, acc: relax.Var, value: relax.Expr, channel_axis: int, values: Values
) -> tuple[EpilogueOp, list[relax.Expr]] | None:
    left = isinstance(value.args[0], relax.Var) and value.args[0].same_as(acc)
    other = value.args[1] if left else value.args[0]
    if name in ("relax.subtract", "relax.divide") and not left:
        return None
    if not tvm_ffi.structural_equal(value.ty, acc.ty):
        return None  # the accumulator itself is broadcast
    array = constant(other, values)
    if array is not None:
        if name == "relax.subtract":
            return _channel_op("bias", -array, acc, channel_axis)
        if name == "relax.add":
            return _channel_op("bias", array, acc, channel_axis)
        if array.size == 1:
            factor = float(array.reshape(())[()])
            return EpilogueOp("scale", (1 / factor if name == "relax.divide" else factor,)), []
        return None
    if name in ("relax.add", "relax.multiply") and tvm_ffi.structural_equal(other.ty, acc.ty):
        return EpilogueOp("add" if name == "relax.add" else "mul"), [other]
    return None


def _channel_op(
    kind: str, array: np.ndarray, acc: relax.Var, channel_axis: int
) -> tuple[EpilogueOp, list[relax.Expr]] | None:
    """An op with one value per channel: `array` must broadcast along every other axis."""
    rank = len(acc.ty.shape)
    channels = acc.ty.shape[channel_axis]
    if not isinstance(channels, tvm.tirx.IntImm) or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(d != 1 for i, d in enumerate(shape) if i != channel_axis % rank):
        return None
    vector = np.broadcast_to(array.reshape(-1), (int(channels),)).astype(np.float32)
    return EpilogueOp(kind), [relax.const(np.ascontiguousarray(vector))]


def fold_affine(
    anchor: Anchor, epilogue: list[EpilogueOp], operands: list[relax.Expr]
) -> tuple[list[EpilogueOp], list[relax.Expr]]:
    """Constant factors and addends right after the product go into the weights and one bias.

    Operands are (data, weights, one per epilogue op with a tensor…).
    """
    factor, bias, taken, extra = 1.0, None, 0, list(operands[2:])
    for op in epilogue:
        if op.kind == "scale":
            factor *= op.params[0]
            bias = None if bias is None else bias * op.params[0]
        elif op.kind == "bias":
            addend = extra.pop(0).value.numpy().astype(np.float64)
            bias = addend if bias is None else bias + addend
        else:
            break
        taken += 1
    if taken == 0 or (taken == 1 and factor == 1.0):
        return epilogue, operands
    weights = (operands[1].value.numpy().astype(np.float64) * factor).astype(np.float32)
    rest = epilogue[taken:]
    if bias is None:
        return rest, [operands[0], relax.const(weights), *extra]
    bias_operand = relax.const(bias.astype(np.float32))
    return [EpilogueOp("bias"), *rest], [operands[0], relax.const(weights), bias_operand, *extra]


# --- anchors ----------------------------------------------------------------------------------------------------------


def _is_f32(*exprs: relax.Expr) -> bool:
    return all(str(e.ty.dtype) == "float32" for e in exprs)


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


@_anchor("relax.nn.conv1d", "relax.nn.conv2d")
def _conv(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    data, weight = call.args
    array = constant(weight, values)
    rank = len(var.ty.shape) - 2
    layouts = ("NCHW", "OIHW") if rank == 2 else ("NCW", "OIW")
    if array is None or not _is_f32(var, data) or (call.attrs.data_layout, call.attrs.kernel_layout) != layouts:
        return None
    strides, dilation, padding = (_ints(x) for x in (call.attrs.strides, call.attrs.dilation, call.attrs.padding))
    if rank == 1:  # a 1-D convolution is a 2-D one of height 1
        array = array[:, :, None, :]
        strides, dilation, padding = (1, *strides), (1, *dilation), (0, padding[0], 0, padding[1])
    attrs = {"strides": strides, "dilation": dilation, "padding": padding, "groups": int(call.attrs.groups)}
    return Anchor("conv2d", attrs, (data, relax.const(array)), 1, _why_float(call, values))


def _why_float(call: tvm.ir.Call, values: Values) -> str:
    """Why a convolution of quantized values is computed in float32; empty where none is."""
    data, weights = (values.get(a) if isinstance(a, relax.Var) else a for a in call.args)
    if op_name(data) != "relax.dequantize":
        return ""
    if len(call.args[0].ty.shape) != 4:
        return "in float: no image"
    if any(not isinstance(d, tvm.tirx.IntImm) for d in list(call.args[0].ty.shape)[1:]):
        return "in float: its size is dynamic"
    if weights is None or op_name(weights) != "relax.dequantize":
        return "in float: its weights are not quantized"
    zero = constant(weights.args[2], values)
    if zero is None or zero.any() or str(weights.args[0].ty.dtype) != "int8":
        return "in float: its weights are not int8 with zero point 0"
    return "in float: no integer kernel for this target and quantization"


@_anchor(_GATHER)
def _gather(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    axis = int(op_name(call).removeprefix(_GATHER))
    return Anchor("gather", {"axis": axis}, tuple(call.args[1].fields), None)


@_anchor("sparsec.dynamic_range", "sparsec.dynamic_quantize")
def _dynamic(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    return Anchor(op_name(call).removeprefix("sparsec."), {}, tuple(call.args[1].fields), None)


@_anchor("relax.matmul")
def _matmul(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    a, b = call.args
    if not _is_f32(var, a, b) or min(len(a.ty.shape), len(b.ty.shape)) < 2 or len(var.ty.shape) > 5:
        return None
    weight = constant(b, values)
    if weight is not None and weight.ndim == 2:
        return Anchor("linear", {}, (a, relax.const(weight)), -1)
    a, a_axes = _strided(a, values, {1})
    b, b_axes = _strided(b, values, {1, 2})
    return Anchor("matmul", {"a_axes": a_axes, "b_axes": b_axes}, (a, b), -1)


def _strided(expr: relax.Expr, values: Values, unit: set[int]) -> tuple[relax.Expr, tuple[int, ...] | None]:
    """(what is in memory, the axes that permute it to the operand), where a kernel can read it as it lies.

    `unit` says which of the operand's axes may have stride 1, counted from the end.
    """
    value = values.get(expr) if isinstance(expr, relax.Var) else None
    if value is None or op_name(value) != "relax.permute_dims" or value.attrs.axes is None:
        return expr, None
    axes = _ints(value.attrs.axes)
    rank = len(axes)
    if rank - axes.index(rank - 1) not in unit or constant(value.args[0], values) is not None:
        return expr, None
    return value.args[0], axes


@_anchor("relax.permute_dims")
def _transpose(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    """A product's image with the channels last: fused with what follows it, it would be read across cache lines."""
    source = call.args[0]
    while op_name(values.get(source)) == "relax.reshape":
        source = values[source].args[0]
    family = op_name(values.get(source))
    if not _is_f32(var) or not (family == "relax.nn.conv2d" or family.startswith(LAYER_PREFIX)):
        return None
    sizes = matrix_transpose(call)
    if sizes is None:
        return None
    return Anchor("transpose", dict(zip(("count", "rows", "columns"), sizes, strict=True)), (call.args[0],), None)


def matrix_transpose(call: tvm.ir.Call) -> tuple[Any, Any, Any] | None:
    """(count, rows, columns) of a permutation that transposes so many matrices, whose sides may be several axes."""
    axes, shape = _ints(call.attrs.axes or ()), list(call.args[0].ty.shape)
    at = next((i for i, axis in enumerate(axes) if axis != i), 0)
    cut = axes.index(at) if at in axes else 0
    middle = len(axes) - cut + at
    if cut <= at or axes != (*range(at), *range(middle, len(axes)), *range(at, middle)):
        return None
    count, rows, columns = (product(tuple(shape[a:b])) for a, b in ((0, at), (at, middle), (middle, len(axes))))
    return count, rows, columns


@_anchor("relax.nn.softmax", "relax.nn.log_softmax")
def _softmax(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    rank = len(var.ty.shape)
    if not _is_f32(var) or int(call.attrs.axis) % rank != rank - 1:
        return None
    return Anchor("softmax", {"log": op_name(call) == "relax.nn.log_softmax"}, (call.args[0],), None)


@_anchor("relax.nn.layer_norm")
def _layer_norm(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    data, gamma, beta = call.args
    rank = len(var.ty.shape)
    if not _is_f32(var, gamma, beta) or [a % rank for a in _ints(call.attrs.axes)] != [rank - 1]:
        return None
    return Anchor("layer_norm", {"epsilon": float(call.attrs.epsilon)}, (data, gamma, beta), None)


@_anchor("relax.nn.max_pool2d", "relax.nn.avg_pool2d")
def _pool(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    attrs = call.attrs
    if not _is_f32(var) or attrs.layout != "NCHW":
        return None
    kind = "max" if op_name(call) == "relax.nn.max_pool2d" else "avg"
    found = {
        "kind": kind,
        "kernel": _ints(attrs.pool_size),
        "strides": _ints(attrs.strides),
        "dilation": _ints(attrs.dilation),
        "padding": _ints(attrs.padding),
        "count_include_pad": bool(attrs.count_include_pad),
    }
    return Anchor("pool2d", found, (call.args[0],), None)


@_anchor("relax.mean")
def _global_average(var: relax.Var, call: tvm.ir.Call, values: Values) -> Anchor | None:
    (data,) = call.args
    rank = len(data.ty.shape)
    axes = None if call.attrs.axis is None else sorted(a % rank for a in _ints(call.attrs.axis))
    if not _is_f32(var) or rank != 4 or axes != [2, 3]:
        return None
    return Anchor("global_average_pool", {}, (data,), None)
