"""Gives every tensor between kernels its layout (codegen_templates/layout.py): no transposes inside of an encoder.

Kernels of some families have a choice: products on panels, layer normalization, and attention. In the mode `rows` a
layer's floats are rows, in the mode `panels` the tensors that it reads and writes are panels, and a quantization that
follows it is part of it, so that readers that quantize differently each get their bytes from the layer itself. Whatever
else reads or writes a tensor has it in rows. Reshapes, and quantizations with one constant scale, are looked through.

The modes are those of least cost: of the layers, and of the conversions where a reader's layout differs from what the
writer has. They are found by local search from both ends, all rows and all panels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from tvm import relax

from ...codegen_templates.attention import AttentionParameters, AttentionShape
from ...codegen_templates.catalogue import LANES, base_isa
from ...codegen_templates.epilogue import FULL_TENSOR
from ...codegen_templates.layout import COLUMNS, GROUP, PANELS, ROWS, Layout, Quantized, panel_shape
from ..graph import LAYER_PREFIX, Dataflow, Graph, Layer, constant, free_vars, op_name
from ..lower.program import Dim, Size
from ..lower.sizes import product, upper

# Cycles per 16 values, AVX-512, one Zen 4 core, data in the L2 cache.
_WRITE: dict[tuple[str, Layout], float] = {
    ("spmm", ROWS): 14.0,
    ("spmm", PANELS): 4.0,
    ("layer_norm", ROWS): 9.5,
    ("layer_norm", PANELS): 8.0,
    ("float_attention", ROWS): 15.0,
    ("float_attention", PANELS): 4.0,
}
_WRITE_AGAIN = 2.0
"""A second layout of the same output."""
_TURN = 4.0
"""Rows of floats to panels, or back."""
_TURN_BYTES = 1.5
_QUANTIZE = 9.0
_ATTENTION_ROWS = 7.0
"""Quantizing and turning one of Q, K, V inside of attention."""


def plan_layouts(graph: Graph, dims: tuple[Dim, ...], isa: str) -> Graph:
    """Operands of products on panels become panels; layers write what their readers read."""
    problem = _Problem(graph, dims, isa)
    return _Rewriter(problem, _best(problem)).run() if problem.nodes else graph


@dataclass(frozen=True)
class _Demand:
    """One tensor in one layout, as a reader has it; `features` is how many values of it belong to a column.

    Bytes are asked for as `panels`, too.
    """

    var: relax.Var
    layout: Layout
    columns: Size
    features: int


@dataclass(frozen=True)
class _Node:
    """A layer with a choice."""

    var: relax.Var
    name: str
    layer: Layer
    operands: tuple[relax.Expr, ...]
    columns: Size
    features: int
    elements: int
    """At the upper bounds."""

    @cached_property
    def demands(self) -> dict[Layout, dict[int, _Demand]]:
        """Mode -> operand -> how it is read; the others are rows or constants."""
        return {mode: dict(self._demands(mode)) for mode in (ROWS, PANELS)}

    def _demands(self, mode: Layout) -> Iterator[tuple[int, _Demand]]:
        def demand(i: int, layout: Layout, columns: Size, features: int) -> tuple[int, _Demand]:
            operand = self.operands[i]
            assert isinstance(operand, relax.Var)
            return i, _Demand(operand, layout, columns, features)

        if self.layer.family == "layer_norm":
            yield demand(0, mode, self.columns, self.features)
        elif self.layer.family == "attention":
            shape: AttentionShape = self.layer.attrs["shape"]
            parameters: AttentionParameters = self.layer.attrs["parameters"]
            for i, how in enumerate((parameters.q, parameters.k, parameters.v)):
                columns = shape.batch * (shape.keys if i else shape.queries)
                yield demand(i, ROWS if mode == ROWS else how, columns, self.features)
        elif self.layer.family == "float_attention":
            of_heads: AttentionShape = self.layer.attrs["shape"]
            for i in range(3):
                yield demand(i, mode, of_heads.batch * (of_heads.keys if i else of_heads.queries), self.features)
        else:
            yield demand(0, PANELS, self.columns, int(self.operands[1].ty.shape[0]))
            at = 4 if self.layer.attrs.get("dynamic") else 2
            for op in self.layer.epilogue:
                if op.kind in FULL_TENSOR:
                    yield demand(at, mode, self.columns, self.features)
                at += op.takes_operand


@dataclass(frozen=True)
class _Source:
    """Where a tensor comes from: the variable behind its reshapes, and the quantization on the way to it."""

    var: relax.Var
    how: Quantized | None


@dataclass
class _Wanted:
    """Layouts of one tensor that readers want, in the order met, each with the first reader that does."""

    layouts: dict[Layout, _Demand] = field(default_factory=dict)


class _Problem:
    """The graph as tensors, layers with a choice, and what everybody wants."""

    def __init__(self, graph: Graph, dims: tuple[Dim, ...], isa: str) -> None:
        self.graph = graph
        self.dims = dims
        self.wide = LANES[base_isa(isa)] == COLUMNS
        """Whether a register holds a row of a panel: attention in float asks for it."""
        self.main = Dataflow.of(graph)
        self.values: Mapping[relax.Var, relax.Expr] = self.main.values()
        self.nodes: dict[relax.Var, _Node] = {}
        self.sources: dict[relax.Var, _Source] = {}
        for var, value in self.main.bindings:
            node = self._node(var, value)
            if node is not None:
                self.nodes[var] = node
        plain = [v for var, value in self.main.bindings if var not in self.nodes and not self._transparent(value)
                 for v in free_vars(value)]  # fmt: skip
        self.rows = {self.source(v).var for v in [*plain, *free_vars(self.main.result)]}
        self.readers: dict[relax.Var, list[relax.Var]] = {}
        for var in self.nodes:
            for source in self.written_for(var):
                self.readers.setdefault(source, []).append(var)

    def written_for(self, var: relax.Var) -> list[relax.Var]:
        """The layers with a choice that a layer reads: what is wanted of them changes with its mode."""
        sources = [self.source(o).var for o in self.nodes[var].operands if isinstance(o, relax.Var)]
        return [source for source in dict.fromkeys(sources) if source in self.nodes]

    def _node(self, var: relax.Var, value: relax.Expr) -> _Node | None:
        layer = self.graph.layers.get(op_name(value))
        if layer is None or layer.family not in ("spmm", "layer_norm", "attention", "float_attention"):
            return None
        if layer.family == "float_attention" and (layer.attrs["shape"] is None or not self.wide):
            return None
        shape = tuple(int(d) if isinstance(d, int) or hasattr(d, "value") else d for d in var.ty.shape)
        kept = 2 if layer.family in ("attention", "float_attention") else 1
        read = value.args[1].fields[: 3 if kept == 2 else 1]
        if not all(isinstance(d, int) for d in shape[-kept:]) or not all(isinstance(r, relax.Var) for r in read):
            return None
        features, columns = int(np.prod(shape[-kept:])), product(shape[:-kept])
        operands = tuple(value.args[1].fields)
        return _Node(var, op_name(value), layer, operands, columns, features, upper(columns, self.dims) * features)

    def _transparent(self, value: relax.Expr) -> bool:
        if op_name(value) == "relax.reshape":
            return isinstance(value.args[0], relax.Var)
        return self._quantization(value) is not None

    def _quantization(self, value: relax.Expr) -> Quantized | None:
        """Of float32 to 8 bits with one constant scale; signed bytes are found 128 higher in panels."""
        if op_name(value) != "relax.quantize":
            return None
        data, scale, zero = value.args
        numbers = [constant(a, self.values) for a in (scale, zero)]
        dtype = str(value.attrs.out_dtype)
        if str(data.ty.dtype) != "float32" or dtype not in ("uint8", "int8") or not isinstance(data, relax.Var):
            return None
        if any(n is None or n.size != 1 for n in numbers):
            return None
        step, point = (n.reshape(())[()].item() for n in numbers)  # type: ignore[union-attr]
        return Quantized(float(step), int(point) + (128 if dtype == "int8" else 0))

    def source(self, var: relax.Var) -> _Source:
        """Behind reshapes and at most one quantization."""
        if var not in self.sources:
            self.sources[var] = self._source(var)
        return self.sources[var]

    def _source(self, var: relax.Var) -> _Source:
        how: Quantized | None = None
        while var in self.values:
            value = self.values[var]
            found = None if how is not None else self._quantization(value)
            if found is not None:
                how = found
            elif op_name(value) != "relax.reshape" or not isinstance(value.args[0], relax.Var):
                break
            var = value.args[0]
        return _Source(var, how)

    def wanted(self, var: relax.Var, modes: Mapping[relax.Var, Layout]) -> _Wanted:
        """What is wanted of a tensor that a layer with a choice writes. Others are rows."""
        node, result = self.nodes[var], _Wanted()
        if var in self.rows:
            result.layouts[ROWS] = _Demand(var, ROWS, node.columns, node.features)
        for reader in self.readers.get(var, ()):
            demands = self.nodes[reader].demands[modes[reader]]
            for i, operand in enumerate(self.nodes[reader].operands):
                source = self.source(operand) if isinstance(operand, relax.Var) else None
                if source is not None and source.var.same_as(var):
                    demand = demands.get(i, _Demand(var, ROWS, node.columns, node.features))
                    result.layouts.setdefault(self.layout_of(source, demand), demand)
        return result

    def layout_of(self, source: _Source, demand: _Demand) -> Layout:
        """The layout of the source that gives a reader what it wants; rows where only a conversion does."""
        node = self.nodes.get(source.var)
        if node is None or node.features != demand.features or demand.layout == ROWS:
            return ROWS
        if source.how is None:
            return demand.layout
        return source.how if demand.layout == PANELS else ROWS

    def written(self, node: _Node, mode: Layout, wanted: _Wanted) -> tuple[Layout, ...]:
        """What a layer writes; what else is wanted is converted from rows."""
        wants = tuple(
            layout for layout in wanted.layouts if node.features % GROUP == 0 or not isinstance(layout, Quantized)
        )
        if node.layer.family == "attention":
            only = wants[0] if len(wants) == len(wanted.layouts) == 1 else ROWS
            return (only,) if isinstance(only, Quantized) else (ROWS,)
        if mode == ROWS or node.layer.family == "float_attention":
            return (mode,)
        native = tuple(layout for layout in wants if layout != ROWS)
        complete = len(native) == len(wanted.layouts)
        return native if complete and native else (*native, PANELS) if PANELS not in native else native

    def cost(self, var: relax.Var, modes: Mapping[relax.Var, Layout]) -> float:
        """Cycles of a layer's writes, of their conversions, and of those of what no layer with a choice wrote."""
        node, mode, wanted, total = self.nodes[var], modes[var], self.wanted(var, modes), 0.0
        written = self.written(node, mode, wanted)
        if node.layer.family != "attention":
            total += _WRITE[node.layer.family, mode] + _WRITE_AGAIN * (len(written) - 1)
        elif mode == ROWS:
            total += 3 * _ATTENTION_ROWS
        from_rows = [layout for layout in wanted.layouts if layout not in written]
        if from_rows and ROWS not in written:
            total += _TURN
        total += sum(_conversion(layout) for layout in from_rows)
        for demand in node.demands[mode].values():
            if self.source(demand.var).var not in self.nodes:
                total += _conversion(demand.layout)
        return total * node.elements / 16


def _conversion(layout: Layout) -> float:
    """From rows of floats."""
    if isinstance(layout, Quantized):
        return _QUANTIZE + _TURN_BYTES
    return _TURN if layout == PANELS else 0.0


def _best(problem: _Problem) -> dict[relax.Var, Layout]:
    """The cheaper of two local optima."""
    found = []
    for start in (PANELS, ROWS):
        modes: dict[relax.Var, Layout] = dict.fromkeys(problem.nodes, start)
        better = True
        while better:
            better = False
            for var, mode in list(modes.items()):
                around = [var, *problem.written_for(var)]
                before = sum(problem.cost(v, modes) for v in around)
                modes[var] = ROWS if mode == PANELS else PANELS
                if sum(problem.cost(v, modes) for v in around) < before:
                    better = True
                else:
                    modes[var] = mode
        found.append((sum(problem.cost(v, modes) for v in modes), modes))
    return min(found, key=lambda pair: pair[0])[1]


class _Rewriter:
    """The graph with the modes carried out."""

    def __init__(self, problem: _Problem, modes: dict[relax.Var, Layout]) -> None:
        self.problem = problem
        self.modes = modes
        self.wanted = {var: problem.wanted(var, modes) for var in problem.nodes}
        self.layers = dict(problem.graph.layers)
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []
        self.have: dict[tuple[relax.Var, Layout], relax.Var] = {}
        self.turned: dict[relax.Var, relax.Var] = {}

    def run(self) -> Graph:
        """Every layer in its mode, conversions before their first reader."""
        main = self.problem.main
        for var, value in main.bindings:
            if var in self.problem.nodes:
                self._layer(self.problem.nodes[var], value)
            else:
                self.bindings.append((var, value))
        rewritten = Dataflow(main.params, self.bindings, main.result, main.attrs)
        return self.problem.graph.with_main(rewritten.live(), self.layers)

    def _layer(self, node: _Node, call: Any) -> None:
        mode = self.modes[node.var]
        operands = list(node.operands)
        for i, demand in node.demands[mode].items():
            operands[i] = self._operand(demand)
        written = self.problem.written(node, mode, self.wanted[node.var])
        attrs = {**node.layer.attrs, **self._attrs(node, mode, written)}
        self.layers[node.name] = replace(node.layer, attrs=attrs)
        types = [self._type(node, layout) for layout in written]
        if len(written) > 1:
            all_of_them = relax.Var(f"{node.var.name}_layouts", relax.TupleType(types))
            self._call(all_of_them, node.name, operands, types)
        for i, (layout, ty) in enumerate(zip(written, types, strict=True)):
            var = node.var if layout == ROWS else relax.Var(f"{node.var.name}_{_suffix(layout)}", ty)
            if len(written) > 1:
                self.bindings.append((var, relax.TupleGetItem(all_of_them, i)))
            else:
                self._call(var, node.name, operands, ty)
            self.have[node.var, layout] = var
        if ROWS not in written and any(layout not in written for layout in self.wanted[node.var].layouts):
            attrs = {"columns": node.columns, "features": node.features}
            self._call(node.var, self._new("rows", attrs, node.var), [self.have[node.var, PANELS]], call.ty)

    @staticmethod
    def _attrs(node: _Node, mode: Layout, written: tuple[Layout, ...]) -> dict[str, Any]:
        if node.layer.family == "attention":
            return {"panels": mode == PANELS, "layout": written[0]}
        if node.layer.family == "float_attention":
            return {"panels": mode == PANELS}
        if node.layer.family == "spmm":
            return {"layouts": written}
        return {} if mode == ROWS else {"layouts": written, "columns": node.columns, "features": node.features}

    @staticmethod
    def _type(node: _Node, layout: Layout) -> Any:
        if layout == ROWS:
            return node.var.ty
        quantized = isinstance(layout, Quantized)
        shape = panel_shape(node.columns, node.features, quantized)
        return relax.TensorType(shape, "uint8" if quantized else "float32")

    def _call(self, var: relax.Var, name: str, operands: list[relax.Expr], ty: Any) -> None:
        self.bindings.append((var, relax.op.call_dps_packed(name, relax.Tuple(operands), out_ty=ty)))

    def _new(self, family: str, attrs: dict[str, Any], var: relax.Var) -> str:
        name = f"{LAYER_PREFIX}{len(self.layers)}"
        self.layers[name] = Layer(family, attrs, (), self.problem.graph.tensors.get(var.name, var.name))
        return name

    def _operand(self, demand: _Demand) -> relax.Var:
        """What a layer reads: from its source as written, or converted from rows, once for all readers."""
        source = self.problem.source(demand.var)
        layout = self.problem.layout_of(source, demand)
        if demand.layout == ROWS:
            return demand.var
        if layout != ROWS and (source.var, layout) in self.have:
            return self.have[source.var, layout]
        rows = demand.var
        if isinstance(demand.layout, Quantized):
            rows = self._quantized(demand.var, demand.layout)
        return self._panels(rows, demand)

    def _panels(self, rows: relax.Var, demand: _Demand) -> relax.Var:
        dtype = str(rows.ty.dtype)
        quantized = dtype != "float32"
        if rows not in self.turned:
            shape = panel_shape(demand.columns, demand.features, quantized)
            ty = relax.TensorType(shape, "uint8" if quantized else dtype)
            attrs = {"columns": demand.columns, "depth": demand.features, "quantized": quantized,
                     "signed": dtype == "int8"}  # fmt: skip
            self.turned[rows] = relax.Var(f"{rows.name}_panels", ty)
            self._call(self.turned[rows], self._new("panels", attrs, rows), [rows], ty)
        return self.turned[rows]

    def _quantized(self, floats: relax.Var, how: Quantized) -> relax.Var:
        """Rows of bytes, by an operation of its own."""
        if (floats, how) not in self.have:
            zero = relax.const(np.uint8(how.zero_point))
            value = relax.op.quantize(floats, relax.const(np.float32(how.scale)), zero, out_dtype="uint8")
            var = relax.Var(f"{floats.name}_u8", relax.TensorType(floats.ty.shape, "uint8"))
            self.bindings.append((var, value))
            self.have[floats, how] = var
        return self.have[floats, how]


def _suffix(layout: Layout) -> str:
    return "u8" if isinstance(layout, Quantized) else layout
