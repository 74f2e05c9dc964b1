"""What a converter works with: the node's inputs as Relax expressions, as numbers and as symbolic sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import ir, relax, te, tirx

from ..graph import LAYER_PREFIX
from .diagnostics import CannotConvert
from .graph import DynamicDim
from .onnx_schema import default_attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Layer
    from .graph import Graph, Node, Shape, Size
    from .symbolic import Algebra

_FILL_BYTES = 1 << 16
"""A constant with zero strides above this size is broadcast at run time instead of being stored."""


class Context:
    """One import in progress."""

    def __init__(self, graph: Graph, builder: relax.BlockBuilder) -> None:
        self.graph = graph
        self.builder = builder
        self.exprs: dict[str, Any] = {}
        """ONNX tensor name -> Relax expression."""
        self.layers: dict[str, Layer] = {}
        """Kernel calls that converters asked for; see `Graph.layers`."""
        self.abstract_above: int | None = None
        """While only types are wanted: larger constants are replaced by variables of their type."""

    @property
    def algebra(self) -> Algebra:
        """Arithmetic on sizes."""
        return self.graph.algebra

    # ---- inputs ------------------------------------------------------------------------------------------------------

    def expr(self, name: str) -> Any:
        """A tensor as a Relax expression; constants and symbolic values become one at their first use."""
        if name not in self.exprs:
            if name in self.graph.constants:
                self.exprs[name] = self._constant(name)
            elif name in self.graph.symbols:
                self.exprs[name] = self._materialized(self.graph.symbols[name], self.dtype(name))
            else:
                raise CannotConvert(f"its input '{name}' could not be compiled")
        return self.exprs[name]

    def weight(self, name: str) -> Any:
        """A tensor as a Relax expression, as a stored constant wherever its value is known."""
        value = self.graph.constants.get(name)
        if value is None or 0 not in value.strides or self.abstract(value):
            return self.expr(name)
        return constant(value)

    def value(self, name: str) -> np.ndarray | None:
        """A constant's elements, None for anything else ('' included)."""
        return self.graph.constants.get(name)

    def ints(self, name: str, what: str) -> list[Size]:
        """A known vector or scalar of sizes as a list.

        Raises:
            CannotConvert: the values are only known at run time; `what` they are is told.
        """
        value = self.graph.known(name)
        if value is None:
            raise CannotConvert(f"its {what} ('{name}') must be known at build time: bind more dimensions or fix it")
        return [int(v) if not isinstance(v, ir.Expr) else v for v in value.reshape(-1).tolist()]

    def number(self, name: str, what: str) -> Any:
        """A known scalar; refusals as in `ints`."""
        value = self.graph.constants.get(name)
        if value is None or value.size != 1:
            raise CannotConvert(f"its {what} ('{name}') must be constant")
        return value.reshape(-1)[0].item()

    def shape(self, name: str) -> Shape:
        """A tensor's shape."""
        return self.graph.shape(name)

    def dtype(self, name: str) -> str:
        """A tensor's dtype."""
        return self.graph.type_of(name).dtype

    def attrs(self, node: Node) -> dict[str, Any]:
        """The node's attributes, completed by the schema's defaults."""
        return default_attrs(node)

    # ---- results -----------------------------------------------------------------------------------------------------

    def normalize(self, expr: Any) -> Any:
        """Have Relax infer the expression's type."""
        return self.builder.normalize(expr) if isinstance(expr, ir.Expr) else expr

    def emit(self, expr: Any) -> Any:
        """Bind an intermediate expression to a variable."""
        return self.builder.emit(expr)

    def found_dim(self, node: Node, most: Size) -> DynamicDim:
        """The dimension of the node's output that only a run can find, from 0 to `most`."""
        name = f"{node.outputs[0]}_count"
        if name not in self.graph.dims:
            upper = self.algebra.largest(most)
            var = self.algebra.new_dim(name, 0, upper)
            self.graph.dims[name] = DynamicDim(name, var, 0, upper, is_found=True)
        return self.graph.dims[name]

    def layer(self, layer: Layer, operands: Sequence[Any], types: Sequence[Any]) -> Any:
        """A call of a kernel of the given output types."""
        name = f"{LAYER_PREFIX}{len(self.layers)}"
        self.layers[name] = layer
        out = types[0] if len(types) == 1 else list(types)
        return relax.op.call_dps_packed(name, relax.Tuple(list(operands)), out_ty=out)

    def reshape(self, expr: Any, shape: Sequence[Size]) -> Any:
        """A reshape with int64 sizes."""
        return relax.op.reshape(expr, sizes(shape))

    def _constant(self, name: str) -> Any:
        value = self.graph.constants[name]
        if value.dtype == object:
            raise CannotConvert("strings are not supported")
        if self.abstract(value):
            return relax.Var("weight", relax.TensorType(sizes(value.shape), str(value.dtype.name)))
        if 0 in value.strides and value.nbytes > _FILL_BYTES:
            base = value[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in value.strides)]
            if base.nbytes * 4 <= value.nbytes:
                return self.builder.emit(relax.op.broadcast_to(constant(base), sizes(value.shape)))
        return constant(value)

    def abstract(self, value: np.ndarray) -> bool:
        """Whether only the type of this constant is wanted."""
        return self.abstract_above is not None and value.nbytes > self.abstract_above

    def _materialized(self, values: np.ndarray, dtype: str) -> Any:
        """A run-time tensor of sizes."""
        flat = [tirx.const(v, "int64") if isinstance(v, int) else v for v in values.reshape(-1).tolist()]
        shape = [tirx.const(d, "int64") for d in values.shape]

        def pick(*entries: Any) -> Any:
            def body(*indices: Any) -> Any:
                at: Any = tirx.const(0, "int64")
                for index, extent in zip(indices, shape, strict=True):
                    at = at * extent + index
                result = entries[-1]
                for k in range(len(entries) - 2, -1, -1):
                    result = tirx.Select(at == k, entries[k], result)
                return result.astype(dtype)

            return te.compute(shape, body, name="sizes")

        return self.builder.emit_te(pick, *flat)


def sizes(shape: Sequence[Size]) -> list[Any]:
    """A shape with int64 entries, as Relax wants them."""
    return [tirx.const(d, "int64") if isinstance(d, int) else d for d in shape]


def constant(value: np.ndarray) -> Any:
    """A Relax constant; it shares the array's memory where alignment and layout allow."""
    if value.flags.c_contiguous and value.flags.writeable and value.nbytes and value.ctypes.data % 64 == 0:
        try:
            return relax.const(tvm.runtime.from_dlpack(value))
        except (BufferError, TypeError, RuntimeError, ValueError):
            pass
    return relax.const(tvm.runtime.tensor(np.ascontiguousarray(value).reshape(value.shape)))


def scalar(value: float | bool, dtype: str) -> Any:
    """A 0-d constant."""
    return relax.const(value, dtype)
