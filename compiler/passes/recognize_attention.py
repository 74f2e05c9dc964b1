"""Scaled dot-product attention whose operands are quantized: one layer for two products and a softmax.

    matmul(qdq(softmax(scale(matmul(qdq(Qᵀ), qdq(Kᵀ))) + mask)), qdq(Vᵀ))ᵀ

where ᵀ swaps heads and sequence, and the outer transpose is undone at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from ...codegen_templates.attention import MAX_DEPTH, AttentionParameters, AttentionShape
from ...codegen_templates.layout import Quantized
from ..graph import LAYER_PREFIX, Dataflow, Graph, Layer, constant, op_name

_HEADS_FIRST = [0, 2, 1, 3]
_KEYS_LAST = [0, 2, 3, 1]


def recognize_attention(graph: Graph) -> Graph:
    """Every match becomes a layer `attention` of (Q, K, V[, mask]), Q, K, V as [batch, sequence, heads, depth]."""
    main = Dataflow.of(graph)
    finder = _Finder(main)
    layers = dict(graph.layers)
    bindings = []
    for var, value in main.bindings:
        match = finder.match(var, value)
        if match is not None:
            name = f"{LAYER_PREFIX}{len(layers)}"
            layers[name] = Layer(
                "attention",
                {"parameters": match.parameters, "shape": _shape(match)},
                (),
                graph.tensors.get(var.name, var.name),
            )
            value = relax.op.call_dps_packed(name, relax.Tuple(match.operands), out_ty=var.ty)
        bindings.append((var, value))
    main.bindings = bindings
    return graph.with_main(main.live(), layers)


@dataclass(frozen=True)
class _Match:
    operands: list[relax.Expr]
    parameters: AttentionParameters


@dataclass(frozen=True)
class _Product:
    """after * settled(before * var): the matmul of Q and K, up to its mask."""

    var: relax.Var
    before: float
    settled: Quantized | None
    after: float


def _shape(match: _Match) -> AttentionShape:
    batch, queries, heads, depth = (int(d) if _number(d) is not None else d for d in match.operands[0].ty.shape)
    keys = match.operands[1].ty.shape[1]
    return AttentionShape(batch, queries, int(keys) if _number(keys) is not None else keys, heads, depth)


class _Finder:
    def __init__(self, main: Dataflow) -> None:
        self.values: Mapping[relax.Var, relax.Expr] = main.values()
        self.uses = main.uses()

    def value(self, expr: Any) -> Any:
        return self.values.get(expr) if isinstance(expr, relax.Var) else None

    def is_op(self, expr: Any, *names: str) -> bool:
        value = self.value(expr)
        return value is not None and op_name(value) in names

    def match(self, var: relax.Var, value: relax.Expr) -> _Match | None:
        """At the transpose that puts the sequence before the heads again."""
        transposed = self._transposed(value, _HEADS_FIRST)
        out_scale, product = self._scaled(transposed)
        if transposed is None or not self._once(transposed, product) or not self.is_op(product, "relax.matmul"):
            return None
        left, right = self.value(product).args
        p, v = self._quantized(left), self._quantized(right)
        if p is None or v is None or not self.is_op(p[0], "relax.nn.softmax") or not self._once(left, p[0]):
            return None
        softmax = self.value(p[0])
        if int(softmax.attrs.axis) not in (-1, 3):
            return None
        scores, mask = self._masked(softmax.args[0])
        product = self._product(scores)
        if product is None or not self._once(softmax.args[0], scores, product.var):
            return None
        q, k = (self._quantized(a) for a in self.value(product.var).args)
        if q is None or k is None:
            return None
        q, k = self._unscaled(q), self._unscaled(k)
        sources = [
            self._transposed(self.value(q[0]), _HEADS_FIRST),
            self._transposed(self.value(k[0]), _KEYS_LAST),
            self._transposed(self.value(v[0]), _HEADS_FIRST),
        ]
        if any(s is None for s in sources) or not self._shapes_fit(sources, mask):
            return None
        scale, steps = product.before * q[2] * k[2], 1.0
        if product.settled is not None:
            scale, steps = product.settled.scale, scale
        parameters = AttentionParameters(
            q[1], k[1], p[1], v[1], scale * product.after, out_scale * p[2] * v[2], steps, product.settled
        )
        return _Match([*sources, *([] if mask is None else [mask])], parameters)

    def _once(self, *variables: Any) -> bool:
        return all(self.uses.get(v) == 1 for v in variables)

    def _transposed(self, value: Any, axes: list[int]) -> Any:
        """What a transpose by `axes` reads."""
        if value is None or op_name(value) != "relax.permute_dims" or value.attrs.axes is None:
            return None
        return value.args[0] if [int(a) for a in value.attrs.axes] == axes else None

    def _quantized(self, expr: Any) -> tuple[Any, Quantized, float] | None:
        """(tensor, how it is quantized, scale that it is given back) of a round trip through u8."""
        outer = self.value(expr)
        if outer is None or op_name(outer) != "relax.dequantize" or str(outer.args[0].ty.dtype) != "uint8":
            return None
        inner = self.value(outer.args[0])
        if inner is None or op_name(inner) != "relax.quantize":
            return None
        numbers = [constant(a, self.values) for a in (*outer.args[1:], *inner.args[1:])]
        if any(n is None or n.size != 1 for n in numbers):
            return None
        back, zero, scale, same_zero = (n.reshape(())[()] for n in numbers)  # type: ignore[union-attr]
        if zero != same_zero:
            return None
        return inner.args[0], Quantized(float(scale), int(zero)), float(back)

    def _unscaled(self, operand: tuple[Any, Quantized, float]) -> tuple[Any, Quantized, float]:
        """Before a multiplication by a number: what steps of s are of c * x, are steps of s / c of x."""
        tensor, how, back = operand
        factor, source = self._scaled(tensor)
        if factor <= 0 or not self._once(tensor):
            return operand
        return source, Quantized(float(np.float32(how.scale / factor)), how.zero_point), back

    def _masked(self, expr: Any) -> tuple[Any, Any]:
        """(scores, what is added to them or None)."""
        if not self.is_op(expr, "relax.add"):
            return expr, None
        left, right = self.value(expr).args
        return (left, right) if self._product(left) is not None else (right, left)

    def _product(self, expr: Any) -> _Product | None:
        """A product of activations, scaled, and perhaps rounded to 8 bits on the way."""
        after, inner = self._scaled(expr)
        settled = self._quantized(inner)
        if settled is None:
            return _Product(inner, 1.0, None, after) if self.is_op(inner, "relax.matmul") else None
        source, how, back = settled
        before, product = self._scaled(source)
        if back != how.scale or not self.is_op(product, "relax.matmul"):
            return None
        if not self._once(inner, self.value(inner).args[0], source):
            return None
        return _Product(product, before, how, after)

    def _scaled(self, expr: Any) -> tuple[float, Any]:
        """(factor, tensor) of multiplications and divisions by constants."""
        value, number = self.value(expr), None
        if value is not None and op_name(value) in ("relax.multiply", "relax.divide"):
            number = constant(value.args[1], self.values)
        if value is None or number is None or number.size != 1:
            return 1.0, expr
        factor = float(number.reshape(()))
        inner, rest = self._scaled(value.args[0])
        return inner * (1 / factor if op_name(value) == "relax.divide" else factor), rest

    def _shapes_fit(self, sources: list[Any], mask: Any) -> bool:
        """Constant depth that the registers hold; equal heads; a mask over keys alone."""
        shapes = [list(s.ty.shape) for s in sources]
        depths, heads = {_number(s[3]) for s in shapes}, {_number(s[2]) for s in shapes}
        depth = next(iter(depths))
        if len(depths) > 1 or len(heads) > 1 or depth is None or depth % 4 or depth > MAX_DEPTH:
            return False
        if not all(tvm_ffi.structural_equal(a, b) for a, b in zip(shapes[1], shapes[2], strict=True)):
            return False
        if mask is None:
            return True
        if not isinstance(mask, relax.Var) or str(mask.ty.dtype) != "float32" or len(mask.ty.shape) != 4:
            return False
        batch, one, other, keys = mask.ty.shape
        fits = _number(one) == 1 and _number(other) == 1 and tvm_ffi.structural_equal(keys, shapes[1][1])
        return fits and (_number(batch) == 1 or tvm_ffi.structural_equal(batch, shapes[0][0]))


def _number(size: Any) -> int | None:
    return int(size) if isinstance(size, tvm.tirx.IntImm) else None
