"""Gives every product with constant weights its kernel, and the planes of activations that this kernel reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax

from ...codegen_templates.attention import Quantized
from ...codegen_templates.spmm import may_requantize, stride_for
from ..graph import Dataflow, Graph, Layer, constant, free_vars, op_name
from ..lower.program import Dim, Size
from ..lower.sizes import product, upper
from ..sparsity.cost import Choice, choose_float, choose_integer
from ..target import Target


def choose_kernels(graph: Graph, target: Target, dims: tuple[Dim, ...]) -> Graph:
    """`linear` layers that gain by it become `spmm` layers on planes; every `qlinear` layer does."""
    return _Chooser(graph, target, dims).run()


class _Chooser:
    def __init__(self, graph: Graph, target: Target, dims: tuple[Dim, ...]) -> None:
        self.graph = graph
        self.target = target
        self.dims = dims
        self.main = Dataflow.of(graph)
        self.layers = dict(graph.layers)
        self.planes: dict[tuple[Any, ...], relax.Var] = {}
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
        stride = stride_for(most)
        planes = self._planes(data, layer, columns, stride, quantized)
        self.layers[name] = replace(layer, family="spmm", attrs=self._attrs(layer.attrs, choice, columns, stride))
        return relax.op.call_dps_packed(name, relax.Tuple([planes, weights, *extra]), out_ty=call.ty)

    @staticmethod
    def _attrs(attrs: Mapping[str, Any], choice: Choice, columns: Size, stride: int) -> dict[str, Any]:
        return {
            **attrs,
            "dense": choice.kernel == "dense",
            "reason": choice.reason,
            "columns": columns,
            "stride": stride,
        }

    def _planes(self, data: relax.Var, layer: Layer, columns: Size, stride: int, quantized: bool) -> relax.Var:
        """The activations in planes, made once for all layers that read them so."""
        signed = str(data.ty.dtype) == "int8"
        key = (data, stride)
        if key not in self.planes and quantized:
            self._write_planes(data, stride, key)
        if key not in self.planes:
            depth = int(data.ty.shape[-1])
            name = f"sparsec.layer.{len(self.layers)}"
            attrs = {"columns": columns, "depth": depth, "stride": stride, "quantized": quantized, "signed": signed}
            self.layers[name] = Layer("planes", attrs, (), self.graph.tensors.get(data.name, data.name))
            shape, dtype = ((depth // 4, stride, 4), "uint8") if quantized else ((depth, stride), "float32")
            ty = relax.TensorType(shape, dtype)
            var = relax.Var(f"{data.name}_planes", ty)
            self.bindings.append((var, relax.op.call_dps_packed(name, relax.Tuple([data]), out_ty=ty)))
            self.planes[key] = var
        return self.planes[key]

    def _write_planes(self, data: relax.Var, stride: int, key: tuple[Any, ...]) -> None:
        """Lets the layer whose output alone becomes `data`, by a quantization, write the planes itself."""
        quantize = self.values.get(data)
        if quantize is None or op_name(quantize) != "relax.quantize" or str(data.ty.dtype) != "uint8":
            return
        source, scale, zero = quantize.args
        name = op_name(self.chosen[source]) if source in self.chosen else ""
        numbers = [constant(a, self.values) for a in (scale, zero)]
        if (
            not name
            or self.uses[source] != 1
            or not self._only_products_read(data)
            or any(n is None or n.size != 1 for n in numbers)
        ):
            return
        layer, depth = self.layers[name], int(data.ty.shape[-1])
        if layer.attrs["stride"] != stride or not may_requantize(depth, layer.epilogue):
            return
        how = Quantized(*(n.reshape(())[()].item() for n in numbers))  # type: ignore[union-attr]
        self.layers[name] = replace(layer, attrs={**layer.attrs, "requantized": how})
        ty = relax.TensorType((depth // 4, stride, 4), "uint8")
        var = relax.Var(f"{data.name}_planes", ty)
        call = self.chosen[source]
        at = next(i for i, (v, _) in enumerate(self.bindings) if v.same_as(source))
        self.bindings[at] = (var, relax.op.call_dps_packed(name, call.args[1], out_ty=ty))
        self.bindings = [(v, e) for v, e in self.bindings if not v.same_as(data)]
        self.planes[key] = var

    def _only_products_read(self, data: relax.Var) -> bool:
        """Whether every reader is a product that reads planes."""
        readers = [value for _, value in self.main.bindings if any(v.same_as(data) for v in free_vars(value))]
        families = [self.graph.layers[op_name(r)].family if op_name(r) in self.graph.layers else "" for r in readers]
        return all(f == "qlinear" for f in families) and data not in free_vars(self.main.result)
