"""Integer tensors whose entries are expressions over the dynamic dimensions.

Shape arithmetic (`Shape -> Gather -> Concat -> Reshape`) is evaluated here entry by entry, with TVM's arithmetic
analyzer, which knows the dimensions' bounds. An evaluator returns None where the result is not expressible.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import ir, tirx
from tvm.sym import Analyzer

from .onnx_schema import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .graph import Node, Shape, Size


class Algebra:
    """Arithmetic on sizes: plain ints stay ints, expressions are kept simplified."""

    def __init__(self) -> None:
        self._analyzer = Analyzer()

    def new_dim(self, name: str, lower: int, upper: int) -> Any:
        """A fresh variable with bounds, both included."""
        var = tirx.Var(name, "int64")
        low, extent = tirx.const(lower, "int64"), tirx.const(upper - lower + 1, "int64")
        self._analyzer.bind(var, ir.Range.from_min_extent(low, extent))
        return var

    def size(self, value: Any) -> Size:
        """An int where the value is one, else the simplified int64 expression."""
        if isinstance(value, (int, np.integer)):
            return int(value)
        if not isinstance(value, tirx.IntImm):
            value = self._analyzer.simplify(value)
        return int(value.value) if isinstance(value, tirx.IntImm) else value

    def largest(self, value: Size) -> int:
        """An upper bound of a size."""
        return value if isinstance(value, int) else int(self._analyzer.const_int_bound(value).max_value)

    def equal(self, a: Size, b: Size) -> bool:
        """Whether two sizes are provably equal."""
        if isinstance(a, int) and isinstance(b, int):
            return a == b
        return bool(self._analyzer.can_prove_equal(a, b))

    def same(self, a: Iterable[Size], b: Iterable[Size]) -> bool:
        """Whether two shapes are provably equal."""
        a, b = list(a), list(b)
        return len(a) == len(b) and all(self.equal(x, y) for x, y in zip(a, b, strict=True))

    def decide(self, condition: Any) -> bool | None:
        """A condition's truth, None where it depends on the dimensions."""
        if isinstance(condition, (bool, np.bool_)):
            return bool(condition)
        if self._analyzer.can_prove(condition):
            return True
        return False if self._analyzer.can_prove(tirx.Not(condition)) else None

    def minimum(self, a: Size, b: Size) -> Size:
        """The smaller of two sizes."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self._pick(a, b, operator.le, tirx.min)

    def maximum(self, a: Size, b: Size) -> Size:
        """The larger of two sizes."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self._pick(a, b, operator.ge, tirx.max)

    def _pick(self, a: Size, b: Size, first: Callable[[Any, Any], Any], otherwise: Callable[[Any, Any], Any]) -> Size:
        for one, other in ((a, b), (b, a)):
            if self.decide(first(_wide(one), _wide(other))) is True:
                return one
        return self.size(otherwise(_wide(a), _wide(b)))

    def div(self, a: Size, b: Size) -> Size:
        """a // b, rounding down."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        return self.size(tirx.floordiv(_wide(a), _wide(b)))

    def ceildiv(self, a: Size, b: Size) -> Size:
        """a / b, rounding up."""
        return self.div(a + b - 1, b)

    def divides(self, a: Size, b: Size) -> bool:
        """Whether b divides a, provably."""
        if isinstance(a, int) and isinstance(b, int):
            return b != 0 and a % b == 0
        return self.decide(tirx.floormod(_wide(a), _wide(b)) == 0) is True

    def product(self, sizes: Iterable[Size]) -> Size:
        """The product, 1 for none."""
        result: Size = 1
        for size in sizes:
            result = result * size
        return self.size(result)

    def broadcast(self, shapes: Sequence[Shape]) -> Shape:
        """The shape that numpy broadcasting gives; a dynamic dim beside an unequal one wins only over 1."""
        rank = max((len(s) for s in shapes), default=0)
        result: list[Size] = [1] * rank
        for shape in shapes:
            for i, size in enumerate(shape, rank - len(shape)):
                if self.equal(result[i], 1):
                    result[i] = size
                elif not self.equal(size, 1) and not isinstance(result[i], int):
                    result[i] = size if isinstance(size, int) else result[i]
        return tuple(result)


def _wide(value: Size) -> Any:
    return tirx.const(value, "int64") if isinstance(value, int) else value


def is_symbolic(array: np.ndarray) -> bool:
    """Whether an object array holds anything but plain numbers."""
    return array.dtype == object and any(isinstance(v, ir.Expr) for v in array.reshape(-1))


def object_array(values: Sequence[Any], shape: tuple[int, ...] | None = None) -> np.ndarray:
    """An object array from a flat sequence (numpy would try to iterate expressions)."""
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array if shape is None else array.reshape(shape)


def resolve_reshape(algebra: Algebra, shape: Shape, target: Sequence[Size], allowzero: bool) -> Shape:
    """ONNX Reshape's target with 0 (copy) and -1 (the rest) replaced.

    Raises:
        ValueError: the element counts contradict each other.
    """
    result = list(target)
    if not allowzero:
        for i, size in enumerate(result):
            if isinstance(size, int) and size == 0:
                if i >= len(shape):
                    raise ValueError(f"the target shape copies axis {i}, which the input does not have")
                result[i] = shape[i]
    total = algebra.product(shape)
    holes = [i for i, size in enumerate(result) if isinstance(size, int) and size == -1]
    if holes:
        rest = algebra.product(s for i, s in enumerate(result) if i != holes[0])
        if isinstance(rest, int) and rest == 0:
            raise ValueError("the target shape leaves -1 undetermined")
        if isinstance(total, int) and isinstance(rest, int) and total % rest:
            raise ValueError(f"{total} elements cannot take the shape {tuple(target)}")
        result[holes[0]] = _exact_quotient(algebra, shape, [s for i, s in enumerate(result) if i != holes[0]])
    elif isinstance(total, int) and isinstance(made := algebra.product(result), int) and made != total:
        raise ValueError(f"{total} elements cannot take the shape {tuple(target)}")
    return tuple(algebra.size(s) for s in result)


def _exact_quotient(algebra: Algebra, above: Sequence[Size], below: Sequence[Size]) -> Size:
    """prod(above) / prod(below), known to be exact: equal factors cancel before the analyzer is asked."""
    rest = list(above)
    left: list[Size] = []
    for factor in below:
        for i, other in enumerate(rest):
            if not isinstance(other, int) and not isinstance(factor, int) and algebra.equal(other, factor):
                del rest[i]
                break
        else:
            left.append(factor)
    return algebra.div(algebra.product(rest), algebra.product(left))


# ---- evaluation of nodes ---------------------------------------------------------------------------------------------

_MOVES: dict[str, tuple[int, ...] | None] = {
    "Concat": None,
    "CenterCropPad": (0,),
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Identity": (0,),
    "Reshape": (0,),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Slice": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Unsqueeze": (0,),
}
"""Operators that only move elements, and which inputs are the moved data (None: all)."""


def evaluate_symbolic(
    algebra: Algebra, node: Node, inputs: list[np.ndarray | None], dtype: str
) -> list[np.ndarray] | None:
    """A node's outputs as object arrays, from arrays of numbers or expressions; `dtype` is the first output's."""
    if node.op_type in _MOVES:
        return _move(node, inputs)
    if node.op_type in _POINTWISE:
        if any(a is None for a in inputs):
            return None
        try:
            return [_pointwise(algebra, node, [a for a in inputs if a is not None], dtype)]
        except _Inexpressible:
            return None
    if node.op_type in _REDUCTIONS:
        return _reduce(algebra, node, inputs)
    return None


class _Inexpressible(Exception):  # noqa: N818 - a verdict, caught in this module
    pass


def _move(node: Node, inputs: list[np.ndarray | None]) -> list[np.ndarray] | None:
    """Run the node on element numbers instead of elements, then put the elements back."""
    moved = _MOVES[node.op_type] or range(len(inputs))
    pool: list[Any] = []
    numbered: list[np.ndarray | None] = list(inputs)
    for k in moved:
        array = inputs[k] if k < len(inputs) else None
        if array is None:
            return None
        numbered[k] = np.arange(len(pool), len(pool) + array.size, dtype=np.int64).reshape(array.shape)
        pool.extend(array.reshape(-1).tolist())
    if any(a is not None and a.dtype == object for a in numbered):
        return None
    if node.attrs.get("reduction", "none") != "none":
        return None
    outputs = evaluate(node, numbered)
    if outputs is None:
        return None
    return [object_array([pool[i] for i in o.reshape(-1)], o.shape) for o in outputs]


def _pointwise(algebra: Algebra, node: Node, inputs: list[np.ndarray], dtype: str) -> np.ndarray:
    function = _POINTWISE[node.op_type]
    if node.op_type == "Mod" and node.attrs.get("fmod"):
        raise _Inexpressible
    arrays = np.broadcast_arrays(*[np.asarray(a, dtype=object) for a in inputs])
    values = [function(algebra, *entries) for entries in zip(*[a.reshape(-1) for a in arrays], strict=True)]
    if node.op_type == "Cast":
        if dtype == "bool":
            values = [_decided(algebra, v != 0) for v in values]
        elif dtype.startswith(("int", "uint")):
            values = [int(v) if isinstance(v, float) else v for v in values]
    return object_array(values, arrays[0].shape)


def _exact(value: Any) -> Any:
    """A float that is a whole number as an int; fractions next to an expression are not expressible."""
    if isinstance(value, float):
        if not value.is_integer():
            raise _Inexpressible
        return int(value)
    return value


def _arithmetic(function: Callable[[Any, Any], Any]) -> Callable[[Algebra, Any, Any], Any]:
    def run(algebra: Algebra, a: Any, b: Any) -> Any:
        if isinstance(a, ir.Expr) or isinstance(b, ir.Expr):
            return algebra.size(function(_exact(a), _exact(b)))
        return function(a, b)

    return run


def _divide(algebra: Algebra, a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float):
        if not isinstance(a, ir.Expr) and not isinstance(b, ir.Expr):
            return a / b
        a, b = _exact(a), _exact(b)
        if not algebra.divides(a, b):
            raise _Inexpressible
        return algebra.div(a, b)
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise _Inexpressible
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    if algebra.decide(_wide(a) >= 0) is True and algebra.decide(_wide(b) > 0) is True:
        return algebra.div(a, b)
    return algebra.size(tirx.truncdiv(_wide(a), _wide(b)))


def _modulo(algebra: Algebra, a: Any, b: Any) -> Any:
    if isinstance(a, ir.Expr) or isinstance(b, ir.Expr):
        return algebra.size(tirx.floormod(_wide(_exact(a)), _wide(_exact(b))))
    return a % b


def _decided(algebra: Algebra, condition: Any) -> bool:
    result = algebra.decide(condition)
    if result is None:
        raise _Inexpressible
    return result


def _comparison(function: Callable[[Any, Any], Any]) -> Callable[[Algebra, Any, Any], bool]:
    def run(algebra: Algebra, a: Any, b: Any) -> bool:
        if isinstance(a, ir.Expr) or isinstance(b, ir.Expr):
            if function is operator.eq and algebra.equal(_exact(a), _exact(b)):
                return True
            return _decided(algebra, function(_wide(_exact(a)), _wide(_exact(b))))
        return bool(function(a, b))

    return run


def _where(algebra: Algebra, condition: Any, a: Any, b: Any) -> Any:
    return a if _decided(algebra, condition) else b


def _fold(function: Callable[[Algebra, Any, Any], Any]) -> Callable[..., Any]:
    def run(algebra: Algebra, first: Any, *others: Any) -> Any:
        for other in others:
            first = function(algebra, first, other)
        return first

    return run


def _extreme(pick: str, plain: Callable[[Any, Any], Any]) -> Callable[[Algebra, Any, Any], Any]:
    def run(algebra: Algebra, a: Any, b: Any) -> Any:
        if isinstance(a, ir.Expr) or isinstance(b, ir.Expr):
            return getattr(algebra, pick)(_exact(a), _exact(b))
        return plain(a, b)

    return run


def _rounding(function: Callable[[Any], Any]) -> Callable[[Algebra, Any], Any]:
    return lambda algebra, a: a if isinstance(a, ir.Expr) else float(function(a))


_minimum, _maximum = _extreme("minimum", min), _extreme("maximum", max)

_POINTWISE: dict[str, Callable[..., Any]] = {
    "Abs": lambda algebra, a: _maximum(algebra, a, -a) if isinstance(a, ir.Expr) else abs(a),
    "Add": _arithmetic(operator.add),
    "And": lambda algebra, a, b: bool(a) and bool(b),
    "Cast": lambda algebra, a: a,
    "Ceil": _rounding(math.ceil),
    "Div": _divide,
    "Equal": _comparison(operator.eq),
    "Floor": _rounding(math.floor),
    "Greater": _comparison(operator.gt),
    "GreaterOrEqual": _comparison(operator.ge),
    "Less": _comparison(operator.lt),
    "LessOrEqual": _comparison(operator.le),
    "Max": _fold(_maximum),
    "Min": _fold(_minimum),
    "Mod": _modulo,
    "Mul": _arithmetic(operator.mul),
    "Neg": lambda algebra, a: algebra.size(-a) if isinstance(a, ir.Expr) else -a,
    "Not": lambda algebra, a: not a,
    "Or": lambda algebra, a, b: bool(a) or bool(b),
    "Round": _rounding(round),
    "Sub": _arithmetic(operator.sub),
    "Sum": _fold(_arithmetic(operator.add)),
    "Where": _where,
}

_REDUCTIONS: dict[str, Callable[[Algebra, Any, Any], Any]] = {
    "ReduceMax": _maximum,
    "ReduceMin": _minimum,
    "ReduceProd": _arithmetic(operator.mul),
    "ReduceSum": _arithmetic(operator.add),
}


def _reduce(algebra: Algebra, node: Node, inputs: list[np.ndarray | None]) -> list[np.ndarray] | None:
    """Reductions of whole vectors, the only form in shape arithmetic."""
    data = inputs[0]
    if data is None or data.ndim != 1 or data.size == 0:
        return None
    try:
        total = _fold(_REDUCTIONS[node.op_type])(algebra, *data.tolist())
    except _Inexpressible:
        return None
    return [object_array([total], (1,) if node.attrs.get("keepdims", 1) else ())]
