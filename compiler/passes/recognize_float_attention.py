"""Scaled dot-product attention in float32: one layer for two products and the softmax between them.

    matmul(softmax(scale * matmul(Q, Kᵀ) + mask), V)

Exporters scale the scores, Q, K, or both of these, by a multiplication or a division; they transpose from
[batch, sequence, heads, depth], or not at all, and back; they add a mask, or not. Where a constant mask leaves a query
no key, ONNX's Attention has zeros instead of the softmax's NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from ...codegen_templates.attention import AttentionShape
from ...codegen_templates.float_attention import MAX_DEPTH, AttentionAxes, may_be_panels
from ..graph import LAYER_PREFIX, Dataflow, Graph, Layer, constant, op_name

_HEADS_LAST = (0, 2, 1, 3)


def recognize_float_attention(graph: Graph) -> Graph:
    """Every match becomes a layer `float_attention` of (Q, K, V[, mask])."""
    main = Dataflow.of(graph)
    finder = _Finder(main)
    layers = dict(graph.layers)
    calls: dict[relax.Var, relax.Expr] = {}
    for var, value in main.bindings:
        match = finder.match(var, value)
        if match is None:
            continue
        name = f"{LAYER_PREFIX}{len(layers)}"
        attrs = {"scale": match.scale, "axes": match.axes, "shape": match.shape, "zeros": match.zeros}
        layers[name] = Layer("float_attention", attrs, (), graph.tensors.get(match.last.name, match.last.name))
        calls[match.last] = relax.op.call_dps_packed(name, relax.Tuple(match.operands), out_ty=match.last.ty)
    main.bindings = [(var, calls.get(var, value)) for var, value in main.bindings]
    return graph.with_main(main.live(), layers)


@dataclass(frozen=True)
class _Match:
    operands: list[relax.Expr]
    scale: float
    axes: AttentionAxes
    shape: AttentionShape | None
    """Where panels may be read and written instead."""
    zeros: bool
    """What a query without keys gets; NaN otherwise."""
    last: relax.Var


@dataclass(frozen=True)
class _View:
    """A tensor in memory and the permutation by which the product sees it."""

    tensor: Any
    axes: tuple[int, ...]

    @property
    def shape(self) -> list[Any]:
        return [self.tensor.ty.shape[i] for i in self.axes]

    @property
    def is_contiguous(self) -> bool:
        return self.axes[-1] == len(self.axes) - 1

    def swapped(self) -> _View:
        """With the last two axes exchanged."""
        return _View(self.tensor, (*self.axes[:-2], self.axes[-1], self.axes[-2]))


class _Finder:
    def __init__(self, main: Dataflow) -> None:
        self.values = main.values()
        self.uses = main.uses()
        self.readers: dict[relax.Var, relax.Var] = {}
        for var, value in main.bindings:
            if op_name(value) == "relax.permute_dims" and isinstance(value.args[0], relax.Var):
                self.readers[value.args[0]] = var

    def match(self, var: relax.Var, value: relax.Expr) -> _Match | None:
        """At the product of probabilities and V."""
        if op_name(value) != "relax.matmul" or str(var.ty.dtype) != "float32" or len(var.ty.shape) not in (3, 4):
            return None
        probabilities, values = value.args
        probabilities, no_keys = self._without_queries(probabilities)
        softmax = self._alone(probabilities, "relax.nn.softmax")
        rank = len(var.ty.shape)
        if softmax is None or int(softmax.attrs.axis) not in (-1, rank - 1):
            return None
        scores, mask = self._masked(softmax.args[0], var)
        if no_keys is not None and not self._are_masked_out(no_keys, mask):
            return None
        scale, scores = self._scaled(scores)
        product = self._alone(scores, "relax.matmul")
        if product is None:
            return None
        q, q_scale = self._view(product.args[0], rank)
        k, k_scale = self._view(product.args[1], rank)
        v, v_scale = self._view(values, rank)
        if q is None or k is None or v is None or v_scale != 1.0 or not q.is_contiguous or not v.is_contiguous:
            return None
        if all(op_name(self.values.get(x.tensor)) == "relax.dequantize" for x in (q, k)):
            return None  # an integer product
        k = k.swapped()
        if not self._shapes_fit(q.shape, k.shape, v.shape, mask):
            return None
        last, out = self._turned_back(var, rank)
        axes = AttentionAxes(q.axes, k.axes, v.axes, out)
        operands = [q.tensor, k.tensor, v.tensor, *([] if mask is None else [mask])]
        shape = _panels_shape(axes, q.shape, k.shape, v.shape)
        return _Match(
            operands, scale * q_scale * k_scale, axes, shape, no_keys is not None and bool(no_keys.any()), last
        )

    def _without_queries(self, expr: Any) -> tuple[Any, np.ndarray | None]:
        """(probabilities, the queries for which zeros stand in their place); None: they stand as they are."""
        value = self._alone(expr, "relax.where")
        if value is None:
            return expr, None
        queries, zero = (constant(a, self.values) for a in value.args[:2])
        if queries is None or zero is None or zero.any() or not tvm_ffi.structural_equal(value.args[2].ty, expr.ty):
            return expr, None
        return value.args[2], queries

    def _are_masked_out(self, queries: np.ndarray, mask: Any) -> bool:
        """Whether they are those that a constant mask leaves no key."""
        if mask is None:
            return not queries.any()
        added = constant(mask, self.values)
        if added is None or queries.ndim == 0 or queries.shape[-1] != 1:
            return False
        without = added.max(-1, keepdims=True) == -np.inf
        try:
            return bool((without == queries).all())
        except ValueError:
            return False

    def _alone(self, expr: Any, *names: str) -> Any:
        """The operation of a value that nothing else reads."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        return value if value is not None and op_name(value) in names and self.uses.get(expr) == 1 else None

    def _masked(self, expr: Any, product: relax.Var) -> tuple[Any, Any]:
        """(scores, what is added to them or None)."""
        value = self._alone(expr, "relax.add")
        if value is None:
            return expr, None
        for scores, mask in (value.args, reversed(value.args)):
            inner = self._scaled(scores)[1]
            if self._alone(inner, "relax.matmul") is not None and tvm_ffi.structural_equal(scores.ty, expr.ty):
                return scores, mask
        return expr, None

    def _scaled(self, expr: Any) -> tuple[float, Any]:
        """(factor, tensor) of multiplications and divisions by numbers that nothing else reads."""
        factor = 1.0
        while (value := self._alone(expr, "relax.multiply", "relax.divide")) is not None:
            numbers = [constant(a, self.values) for a in value.args]
            at = 1 if numbers[1] is not None else 0
            number = numbers[at]
            divides = op_name(value) == "relax.divide"
            if number is None or number.size != 1 or (divides and at == 0):
                break
            if not tvm_ffi.structural_equal(value.args[1 - at].ty, expr.ty):
                break
            factor = factor / float(number.item()) if divides else factor * float(number.item())
            expr = value.args[1 - at]
        return factor, expr

    def _view(self, expr: Any, rank: int) -> tuple[_View | None, float]:
        """What a factor of a product reads, through transposes and scales in any order."""
        axes, factor = tuple(range(rank)), 1.0
        if not isinstance(expr, relax.Var) or len(expr.ty.shape) != rank or str(expr.ty.dtype) != "float32":
            return None, factor
        while True:
            scale, expr = self._scaled(expr)
            factor *= scale
            expr = self._unfolded(expr)
            value = self.values.get(expr)
            if value is None or op_name(value) != "relax.permute_dims" or not isinstance(value.args[0], relax.Var):
                return _View(expr, axes), factor
            order = value.attrs.axes
            inner = tuple(reversed(range(rank))) if order is None else tuple(int(a) for a in order)
            axes = tuple(inner[a] for a in axes)
            expr = value.args[0]

    def _unfolded(self, expr: Any) -> Any:
        """Behind reshapes that come back to the same shape."""
        inner = expr
        while (value := self.values.get(inner)) is not None and op_name(value) == "relax.reshape":
            if not isinstance(value.args[0], relax.Var):
                break
            inner = value.args[0]
            if tvm_ffi.structural_equal(inner.ty, expr.ty):
                expr = inner
        return expr

    def _turned_back(self, var: relax.Var, rank: int) -> tuple[relax.Var, tuple[int, ...] | None]:
        """The transpose that alone reads the product, if it leaves the depth last."""
        reader = self.readers.get(var)
        if reader is None or self.uses.get(var) != 1 or self.values[reader].attrs.axes is None:
            return var, None
        axes = tuple(int(a) for a in self.values[reader].attrs.axes)
        return (reader, axes) if axes[-1] == rank - 1 else (var, None)

    @staticmethod
    def _shapes_fit(q: list[Any], k: list[Any], v: list[Any], mask: Any) -> bool:
        """Constant depths that fit; heads of K and V equal to those of Q, or one; a mask that broadcasts."""
        depths = [_number(q[-1]), _number(k[-1]), _number(v[-1])]
        if depths[0] != depths[1] or any(d is None or not 1 <= d <= MAX_DEPTH for d in depths):
            return False
        if not tvm_ffi.structural_equal(k[-2], v[-2]):
            return False
        if not all(_broadcasts(a, b) for x in (k, v) for a, b in zip(x[:-2], q[:-2], strict=True)):
            return False
        if mask is None:
            return True
        if not isinstance(mask, relax.Var | tvm.ir.GenericConst) or str(mask.ty.dtype) != "float32":
            return False
        full = [*q[:-1], k[-2]]
        shape = list(mask.ty.shape)
        if len(shape) > len(full) or not tvm_ffi.structural_equal(shape[-1] if shape else None, full[-1]):
            return False
        return all(_broadcasts(a, b) for a, b in zip(shape, full[len(full) - len(shape) :], strict=True))


def _panels_shape(axes: AttentionAxes, q: list[Any], k: list[Any], v: list[Any]) -> AttentionShape | None:
    """Of tokens with all heads' features side by side, as linear layers write them."""
    if any(tuple(order or ()) != _HEADS_LAST for order in (axes.q, axes.k, axes.v, axes.out)):
        return None
    if _number(v[-1]) != _number(q[-1]) or not tvm_ffi.structural_equal(k[:2], q[:2]):
        return None
    if not tvm_ffi.structural_equal(v[:2], q[:2]):
        return None
    batch, heads, queries, keys, depth = (int(d) if _number(d) is not None else d for d in (*q[:3], k[2], q[3]))
    shape = AttentionShape(batch, queries, keys, heads, int(depth))
    return shape if may_be_panels(shape) else None


def _number(size: Any) -> int | None:
    return int(size) if isinstance(size, tvm.tirx.IntImm) else None


def _broadcasts(size: Any, to: Any) -> bool:
    return _number(size) == 1 or tvm_ffi.structural_equal(size, to)
