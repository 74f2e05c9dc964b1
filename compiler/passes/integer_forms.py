"""`MatMulInteger`, int32 bias, Cast and Mul, as SparseML exports them, to the form that quantize and dequantize give.

    astype(matmul(x - zx, w) + bias) * factor  ->  matmul(dequantize(x), dequantize(w, factor)) + bias * factor

with scale 1 for x: later passes then see one form of integer product. Products of two activations keep the factor
behind them, so that their sums stay exact in float32 as long as they are below 2^24.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from ..graph import Dataflow, Graph, constant, op_name

_UNIT = 4


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

    def _chain(self, value: relax.Expr) -> relax.Expr | None:
        if op_name(value) != "relax.multiply":
            return None
        cast, factor = self.values.get(value.args[0]), constant(value.args[1], self.values)
        if cast is None or op_name(cast) != "relax.astype" or factor is None or str(value.ty.dtype) != "float32":
            return None
        product, bias = self._product(cast.args[0])
        if product is None or str(product.ty.dtype) != "int32":
            return None
        left, right = (self._centred(a) for a in product.args)
        if left is None or right is None or isinstance(left[0], tvm.ir.GenericConst):
            return None
        if isinstance(right[0], tvm.ir.GenericConst):
            return self._linear(value, left, right, factor, bias)
        return self._activations(value, left, right, factor) if bias is None else None

    def _linear(
        self, value: Any, left: tuple[Any, int], right: tuple[Any, int], factor: np.ndarray, bias: np.ndarray | None
    ) -> relax.Expr | None:
        weights = right[0].value.numpy()
        if weights.dtype != np.int8 or weights.ndim != 2 or right[1] or len(weights) % _UNIT:
            return None
        columns = weights.shape[1]
        if factor.size not in (1, columns) or (factor.size > 1 and factor.shape[-1] != columns):
            return None
        scale = np.broadcast_to(factor.reshape(-1).astype(np.float32), (columns,))
        x = self._bind(relax.op.dequantize(left[0], _f32(1.0), _zero(left)), "x")
        zeros = relax.const(np.zeros(columns, np.int8))
        w = self._bind(relax.op.dequantize(right[0], relax.const(np.ascontiguousarray(scale)), zeros, axis=1), "w")
        product = relax.op.matmul(x, w)
        if bias is None:
            return product
        if bias.size not in (1, columns):
            return None
        added = np.broadcast_to(bias.reshape(-1), (columns,)).astype(np.float64) * scale
        return relax.op.add(self._bind(product, "product"), relax.const(added.astype(np.float32)))

    def _activations(
        self, value: Any, left: tuple[Any, int], right: tuple[Any, int], factor: np.ndarray
    ) -> relax.Expr | None:
        if factor.size != 1 or any(str(side[0].ty.dtype) not in ("uint8", "int8") for side in (left, right)):
            return None
        a, b = (self._bind(relax.op.dequantize(s[0], _f32(1.0), _zero(s)), "operand") for s in (left, right))
        return relax.op.multiply(self._bind(relax.op.matmul(a, b), "product"), _f32(float(factor.reshape(()))))

    def _bind(self, expr: relax.Expr, what: str) -> relax.Var:
        self.count += 1
        normal = relax.BlockBuilder().normalize(expr)
        var = relax.Var(f"integer_{what}_{self.count}", normal.ty)
        self.made.append((var, normal))
        return var

    def _product(self, expr: Any) -> tuple[Any, np.ndarray | None]:
        """(the int32 product, what is added to it)."""
        value = self.values.get(expr)
        if value is not None and op_name(value) == "relax.add":
            for side, other in (value.args, reversed(list(value.args))):
                bias = constant(other, self.values)
                inner = self.values.get(side)
                if bias is not None and inner is not None and op_name(inner) == "relax.matmul":
                    return inner, bias
            return None, None
        return (value, None) if value is not None and op_name(value) == "relax.matmul" else (None, None)

    def _centred(self, expr: Any) -> tuple[Any, int] | None:
        """(8-bit tensor, zero point) of an int32 operand."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        if value is None:
            return None
        zero = 0
        if op_name(value) == "relax.subtract":
            point = self._integer(value.args[1])
            if point is None or point.size != 1:
                return None
            zero = int(point.reshape(()))
            value = self.values.get(value.args[0])
        if value is None or op_name(value) != "relax.astype" or str(value.args[0].ty.dtype) not in ("uint8", "int8"):
            return None
        return value.args[0], zero

    def _integer(self, expr: Any) -> np.ndarray | None:
        """A constant, through a cast."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else expr
        if value is not None and op_name(value) == "relax.astype":
            value = value.args[0]
        return constant(value, self.values) if value is not None else None


def _f32(value: float) -> relax.Expr:
    return relax.const(np.float32(value))


def _zero(side: tuple[Any, int]) -> relax.Expr:
    return relax.const(np.asarray(side[1], str(side[0].ty.dtype)))
