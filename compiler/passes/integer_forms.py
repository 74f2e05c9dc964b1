"""Integer products as SparseML and onnxruntime's dynamic quantizer spell them, to the form that DequantizeLinear gives.

    astype(product(x - zx, w - zw) + bias) * factor
        ->  product(dequantize(x, sx, zx), dequantize(w, sw, zw)) + dequantize(bias, sx * sw)

for matmul and convolutions: later passes then see one form of integer product. A factor known at build time belongs to
the weights, and x has the scale 1; a factor of the run is taken apart into a scalar and a constant. Products of two
activations keep their factor behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from ..graph import Dataflow, Graph, constant, op_name

_BYTES = ("uint8", "int8")
_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")


def integer_forms(graph: Graph) -> Graph:
    """Rewrites every chain; what does not fit stays and is computed in int32 as it is written."""
    main = Dataflow.of(graph)
    rewriter = _Rewriter(main)
    bindings: list[tuple[relax.Var, relax.Expr]] = []
    for var, value in main.bindings:
        extra, value = rewriter.rewrite(value)
        bindings += [*extra, (var, value)]
    main.bindings = bindings
    return graph.with_main(main.live())


@dataclass(frozen=True)
class _Centred:
    """data - zero in int32."""

    data: relax.Expr
    zero: relax.Expr
    """Of the type of the data; a scalar, or one value per output channel."""
    array: np.ndarray | None
    """The data where it is constant."""


class _Rewriter:
    def __init__(self, main: Dataflow) -> None:
        self.values = main.values()
        self.count = 0
        self.made: list[tuple[relax.Var, relax.Expr]] = []

    def rewrite(self, value: relax.Expr) -> tuple[list[tuple[relax.Var, relax.Expr]], relax.Expr]:
        """(bindings to put before, new value)."""
        self.made = []
        match = self._chain(value)
        return (self.made, match) if match is not None else ([], value)

    def _value(self, expr: Any) -> Any:
        return self.values.get(expr) if isinstance(expr, relax.Var) else expr

    def _chain(self, value: relax.Expr) -> relax.Expr | None:
        if op_name(value) != "relax.multiply" or str(value.args[0].ty.dtype) != "float32":
            return None
        for side, factor in (value.args, reversed(list(value.args))):
            cast = self.values.get(side) if isinstance(side, relax.Var) else None
            if cast is None or op_name(cast) != "relax.astype":
                continue
            product, bias = self._product(cast.args[0])
            if product is None or str(product.ty.dtype) != "int32":
                continue
            x, w = (self._centred(a) for a in product.args)
            if x is None or w is None:
                return None
            if w.array is not None and x.array is None:
                return self._constant_weights(product, x, w, factor, bias)
            if bias is None and op_name(product) == "relax.matmul" and self._elements(factor) == 1:
                return self._activations(x, w, factor)
        return None

    # --- the two products ---------------------------------------------------------------------------------------------

    def _constant_weights(
        self, product: Any, x: _Centred, w: _Centred, factor: relax.Expr, bias: np.ndarray | None
    ) -> relax.Expr | None:
        assert w.array is not None
        convolution = op_name(product) in _CONVOLUTIONS
        channel = 0 if convolution else w.array.ndim - 1
        channels = w.array.shape[channel]
        rank = len(product.ty.shape)
        out_axis = 1 if convolution else rank - 1
        scales = self._scales(factor, channels, rank - 1 - out_axis)
        if scales is None or (bias is not None and not _along(bias, channels, rank - 1 - out_axis)):
            return None
        x_scale, w_scale = scales
        zero = constant(w.zero, self.values)
        if zero is None or zero.size not in (1, channels) or self._elements(x.zero) != 1:
            return None
        zeros = np.broadcast_to(zero.reshape(-1), (channels,)).astype(w.array.dtype)
        left = self._bind(relax.op.dequantize(x.data, x_scale, x.zero), "x")
        right = self._bind(relax.op.dequantize(w.data, _const(w_scale), _const(zeros), axis=channel), "w")
        if not convolution:
            result = relax.op.matmul(left, right)
        else:
            function = {4: relax.op.nn.conv2d, 3: relax.op.nn.conv1d, 5: relax.op.nn.conv3d}[rank]
            attrs = product.attrs
            result = function(
                left, right, strides=list(attrs.strides), padding=list(attrs.padding), dilation=list(attrs.dilation),
                groups=int(attrs.groups), data_layout=attrs.data_layout, kernel_layout=attrs.kernel_layout,
            )  # fmt: skip
        if bias is None:
            return result
        steps = np.broadcast_to(bias.reshape(-1), (channels,)).astype(np.int32)
        sums = self._bind(result, "product")
        known = constant(x_scale, self.values)
        if known is None:  # without one scale at build time the addition stays one of floats, in the scale of the run
            unit = self._bind(relax.op.multiply(x_scale, _const(w_scale)), "scale")
            added = self._bind(relax.op.multiply(_const(steps.astype(np.float32)), unit), "bias")
        else:
            total = (known.astype(np.float64).reshape(()) * w_scale).astype(np.float32)
            added = self._bind(
                relax.op.dequantize(_const(steps), _const(total), relax.const(0, "int32"), axis=0), "bias"
            )
        if convolution:
            added = self._bind(relax.op.reshape(added, [1, channels, *[1] * (rank - 2)]), "bias")
        return relax.op.add(sums, added)

    def _activations(self, x: _Centred, w: _Centred, factor: relax.Expr) -> relax.Expr | None:
        if self._elements(x.zero) != 1 or self._elements(w.zero) != 1:
            return None
        one = relax.const(np.float32(1))
        a, b = (self._bind(relax.op.dequantize(s.data, one, s.zero), "operand") for s in (x, w))
        return relax.op.multiply(self._bind(relax.op.matmul(a, b), "product"), self._scalar(factor))

    # --- parts --------------------------------------------------------------------------------------------------------

    def _scales(self, factor: relax.Expr, channels: int, behind: int) -> tuple[relax.Expr, np.ndarray] | None:
        """(scalar scale of x, scale[channels] of the weights) whose product is the factor."""
        array = constant(factor, self.values)
        if array is not None:
            if not _along(array, channels, behind):
                return None
            return relax.const(np.float32(1)), _vector(array, channels)
        if self._elements(factor) == 1 and op_name(self._value(factor)) != "relax.multiply":
            return self._scalar(factor), np.ones(channels, np.float32)
        value = self._value(factor)
        if value is None or op_name(value) != "relax.multiply":
            return None
        for scalar, other in (value.args, reversed(list(value.args))):
            scale = constant(other, self.values)
            if scale is not None and self._elements(scalar) == 1 and _along(scale, channels, behind):
                return self._scalar(scalar), _vector(scale, channels)
        return (self._scalar(factor), np.ones(channels, np.float32)) if self._elements(factor) == 1 else None

    def _scalar(self, expr: relax.Expr) -> relax.Expr:
        """With no dimensions."""
        if len(expr.ty.shape) == 0:
            return expr
        array = constant(expr, self.values)
        if array is not None:
            return relax.const(array.reshape(()))
        return self._bind(relax.op.reshape(expr, ()), "scalar")

    def _elements(self, expr: relax.Expr) -> int | None:
        count = 1
        for extent in expr.ty.shape:
            if not hasattr(extent, "value"):
                return None
            count *= int(extent)
        return count

    def _bind(self, expr: relax.Expr, what: str) -> relax.Var:
        self.count += 1
        normal = relax.BlockBuilder().normalize(expr)
        var = relax.Var(f"integer_{what}_{self.count}", normal.ty)
        self.made.append((var, normal))
        self.values[var] = normal
        return var

    def _product(self, expr: Any) -> tuple[Any, np.ndarray | None]:
        """(the int32 product, what is added to it)."""
        value = self._value(expr)
        if value is not None and op_name(value) == "relax.add":
            for side, other in (value.args, reversed(list(value.args))):
                bias, inner = constant(other, self.values), self._value(side)
                if bias is not None and op_name(inner) in ("relax.matmul", *_CONVOLUTIONS):
                    return inner, bias
            return None, None
        return (value, None) if op_name(value) in ("relax.matmul", *_CONVOLUTIONS) else (None, None)

    def _centred(self, expr: Any) -> _Centred | None:
        """What an int32 operand is made of."""
        value = self._value(expr)
        zero: relax.Expr | None = None
        if op_name(value) == "relax.subtract":
            zero = self._uncast(value.args[1])
            value = self._value(value.args[0])
        if op_name(value) != "relax.astype" or str(value.args[0].ty.dtype) not in _BYTES:
            return None
        data = value.args[0]
        dtype = str(data.ty.dtype)
        if zero is None:
            zero = relax.const(np.zeros((), dtype))
        else:
            array = constant(zero, self.values)
            if array is not None:
                zero = relax.const(array.astype(dtype).reshape(() if array.size == 1 else -1))
            elif str(zero.ty.dtype) != dtype or self._elements(zero) != 1:
                return None
            else:
                zero = self._scalar(zero)
        return _Centred(data, zero, constant(data, self.values))

    def _uncast(self, expr: Any) -> relax.Expr:
        """A zero point before it became int32 and was reshaped for broadcasting."""
        value = self._value(expr)
        while str(expr.ty.dtype) == "int32" and op_name(value) in ("relax.astype", "relax.reshape"):
            expr = value.args[0]
            value = self._value(expr)
        return expr


def _const(array: np.ndarray) -> relax.Expr:
    return relax.const(np.ascontiguousarray(array))


def _along(array: np.ndarray, channels: int, behind: int) -> bool:
    """Whether it is one value, or one per channel, with `behind` dimensions of extent 1 after them."""
    if array.size == 1:
        return True
    shape = array.shape[: array.ndim - behind]
    return array.size == channels and array.ndim > behind and shape[-1] == channels


def _vector(array: np.ndarray, channels: int) -> np.ndarray:
    return np.broadcast_to(array.reshape(-1).astype(np.float32), (channels,))
