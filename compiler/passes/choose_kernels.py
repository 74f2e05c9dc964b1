"""Gives every product with constant weights its kernel, and the panels of activations that this kernel reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax

from ...codegen_templates.epilogue import FULL_TENSOR
from ...codegen_templates.layout import Quantized, panel_shape
from ..graph import LAYER_PREFIX, Dataflow, Graph, Layer, constant, free_vars, op_name
from ..lower.program import Dim, Size
from ..lower.sizes import product, upper
from ..sparsity.cost import Choice, choose_float, choose_integer
from ..target import Target


def choose_kernels(graph: Graph, target: Target, dims: tuple[Dim, ...]) -> Graph:
    """`linear` layers that gain by it become `spmm` layers on panels; every `qlinear` layer does."""
    return _Chooser(graph, target, dims).run()


class _Chooser:
    def __init__(self, graph: Graph, target: Target, dims: tuple[Dim, ...]) -> None:
        self.graph = graph
        self.target = target
        self.dims = dims
        self.main = Dataflow.of(graph)
        self.layers = dict(graph.layers)
        self.panels: dict[relax.Var, relax.Var] = {}
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []
        self.values = self.main.values()
        self.uses = self.main.uses()
        self.chosen: dict[relax.Var, Any] = {}

    def run(self) -> Graph:
        for var, value in self.main.bindings:
            layer = self.layers.get(op_name(value))
            if layer is not None and layer.family in ("linear", "qlinear"):
                value = self._choose(op_name(value), layer, value)
                if self.layers[op_name(value)].family == "spmm":
                    self.chosen[var] = value
            self.bindings.append((var, value))
        main = Dataflow(self.main.params, self.bindings, self.main.result, self.main.attrs)
        return self.graph.with_main(main.live(), self.layers)

    def _choose(self, name: str, layer: Layer, call: Any) -> relax.Expr:
        data, weights, *extra = call.args[1].fields
        array = np.ascontiguousarray(weights.value.numpy().T)
        columns: Size = product(tuple(data.ty.shape)[:-1])
        most = upper(columns, self.dims)
        quantized = layer.family == "qlinear"
        if quantized:
            choice = choose_integer(array, most)
        elif self.target.isa == "avx512":
            choice = choose_float(array, most)
        else:
            return call
        if choice.kernel == "gemm":
            self.layers[name] = replace(layer, attrs={**layer.attrs, "reason": choice.reason})
            return call
        panels = self._panels(data, columns, quantized)
        self.layers[name] = replace(layer, family="spmm", attrs=self._attrs(layer.attrs, choice, columns))
        return relax.op.call_dps_packed(name, relax.Tuple([panels, weights, *extra]), out_ty=call.ty)

    @staticmethod
    def _attrs(attrs: Mapping[str, Any], choice: Choice, columns: Size) -> dict[str, Any]:
        return {
            **attrs,
            "method": choice.kernel,
            "reason": choice.reason,
            "columns": columns,
        }

    def _panels(self, data: relax.Var, columns: Size, quantized: bool) -> relax.Var:
        """The activations in panels, made once for all layers that read them so."""
        if data not in self.panels and quantized:
            self._write_panels(data, columns)
        if data not in self.panels:
            depth, signed = int(data.ty.shape[-1]), str(data.ty.dtype) == "int8"
            name = f"{LAYER_PREFIX}{len(self.layers)}"
            attrs = {"columns": columns, "depth": depth, "quantized": quantized, "signed": signed}
            self.layers[name] = Layer("panels", attrs, (), self.graph.tensors.get(data.name, data.name))
            self._bind(data, columns, quantized, name, relax.Tuple([data]), len(self.bindings))
        return self.panels[data]

    def _bind(self, data: relax.Var, columns: Size, quantized: bool, name: str, operands: relax.Expr, at: int) -> None:
        """A variable for `data` in panels, computed by the layer `name`."""
        shape = panel_shape(columns, int(data.ty.shape[-1]), quantized)
        ty = relax.TensorType(shape, "uint8" if quantized else "float32")
        var = relax.Var(f"{data.name}_panels", ty)
        self.bindings.insert(at, (var, relax.op.call_dps_packed(name, operands, out_ty=ty)))
        self.panels[data] = var

    def _write_panels(self, data: relax.Var, columns: Size) -> None:
        """Lets the layer whose output alone becomes `data`, by a quantization, write the panels itself."""
        quantize = self.values.get(data)
        if quantize is None or op_name(quantize) != "relax.quantize" or str(data.ty.dtype) != "uint8":
            return
        source, scale, zero = quantize.args
        numbers = [constant(a, self.values) for a in (scale, zero)]
        if source not in self.chosen or self.uses[source] != 1 or not self._only_products_read(data):
            return
        name = op_name(self.chosen[source])
        layer = self.layers[name]
        if (
            any(n is None or n.size != 1 for n in numbers)
            or int(data.ty.shape[-1]) % 4
            or any(op.kind in FULL_TENSOR for op in layer.epilogue)
        ):
            return
        how = Quantized(*(n.reshape(())[()].item() for n in numbers))  # type: ignore[union-attr]
        self.layers[name] = replace(layer, attrs={**layer.attrs, "layouts": (how,)})
        at = next(i for i, (v, _) in enumerate(self.bindings) if v.same_as(source))
        self.bindings = [(v, e) for v, e in self.bindings if not v.same_as(data) and not v.same_as(source)]
        self._bind(data, columns, True, name, self.chosen[source].args[1], at)

    def _only_products_read(self, data: relax.Var) -> bool:
        """Whether every reader is a product that reads panels."""
        readers = [value for _, value in self.main.bindings if any(v.same_as(data) for v in free_vars(value))]
        families = [self.graph.layers[op_name(r)].family if op_name(r) in self.graph.layers else "" for r in readers]
        return all(f == "qlinear" for f in families) and data not in free_vars(self.main.result)
