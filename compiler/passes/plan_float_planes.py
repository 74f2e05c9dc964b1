"""Where float32 images lie in memory: a layer writes the padding and the phases that its readers want.

An image that only layers of known layouts read gets planes (codegen_templates/planes.py); every other stays NCHW, and
a convolution that needs padding copies it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm import relax, tirx

from ...codegen_templates.conv_pattern import whole_tensors
from ...codegen_templates.conv_planes import WINOGRAD
from ...codegen_templates.planes import ConvGeometry, Planes, Reader, planes_for
from ..graph import Dataflow, Graph, Layer, free_vars, op_name


def plan_float_planes(graph: Graph) -> Graph:
    """Adds `layouts` of operands and the output's `target` to the layers' attributes; the variables get their type."""
    return _Planner(graph).run()


class _Planner:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.main = Dataflow.of(graph)
        self.layers = dict(graph.layers)
        self.readers: dict[relax.Var, list[relax.Expr]] = {}
        for _, value in self.main.bindings:
            for var in set(free_vars(value)):
                self.readers.setdefault(var, []).append(value)
        self.fresh: dict[relax.Var, relax.Var] = {}
        self.planes: dict[relax.Var, Planes] = {}

    def run(self) -> Graph:
        bindings = []
        for var, value in self.main.bindings:
            name = op_name(value)
            if name in self.layers:
                var, value = self._emit(var, name, value)
            bindings.append((var, value))
        main = Dataflow(self.main.params, bindings, self.main.result, self.main.attrs)
        return self.graph.with_main(main, self.layers) if self.planes else self.graph

    def _emit(self, var: relax.Var, name: str, call: Any) -> tuple[relax.Var, relax.Expr]:
        """The layer with the planes of its operands and of its output."""
        layer, fields = self.layers[name], list(call.args[1].fields)
        layouts = {i: self.planes[f] for i, f in enumerate(fields) if isinstance(f, relax.Var) and f in self.planes}
        planes = self._planes(var) if _writes(layer) else None
        if not layouts and planes is None:
            return var, call
        attrs = {**layer.attrs, "layouts": layouts}
        ty = call.ty
        if planes is not None:
            attrs["target"] = planes
            ty = relax.TensorType([*list(var.ty.shape)[:2], planes.plane], "float32")
            self.planes[var] = planes
            self.fresh[var] = relax.Var(var.name, ty)
        self.layers[name] = replace(layer, attrs=attrs)
        operands = relax.Tuple([self.fresh.get(f, f) if isinstance(f, relax.Var) else f for f in fields])
        return self.fresh.get(var, var), relax.op.call_dps_packed(name, operands, out_ty=ty)

    def _planes(self, var: relax.Var) -> Planes | None:
        """The layout of an image, by those who read it; None where it must be NCHW."""
        shape = list(var.ty.shape)[1:]
        known = all(isinstance(d, int | tirx.IntImm) for d in shape)
        if not known or var in free_vars(self.main.result) or not self.readers.get(var):
            return None
        convolutions: list[Reader] = []
        others = False
        for value in self.readers[var]:
            layer = self.layers.get(op_name(value))
            if layer is None:
                return None
            fields = value.args[1].fields
            for index in (i for i, f in enumerate(fields) if isinstance(f, relax.Var) and f.same_as(var)):
                if not _reads(layer, index):
                    return None
                if layer.family == "conv2d" and index == 0 and layer.attrs["code"] not in ("depthwise", *WINOGRAD):
                    convolutions.append((_taps(fields[1]), _geometry(layer)))
                else:
                    others = True
        strides = {geometry.strides for _, geometry in convolutions}
        phases = len(strides) == 1 and not others and _writes_phases(self.layers[op_name(self._value(var))])
        served = convolutions if phases else [r for r in convolutions if r[1].strides == (1, 1)]
        _, *size = (int(d) for d in shape)
        return planes_for((size[0], size[1]) if len(size) == 2 else (1, size[0]), served)

    def _value(self, var: relax.Var) -> relax.Expr:
        return next(value for v, value in self.main.bindings if v.same_as(var))


def _reads(layer: Layer, index: int) -> bool:
    """Whether a layer can read an operand in planes."""
    if layer.family == "conv2d":
        return "code" in layer.attrs and (index == 0 or index in whole_tensors(layer.epilogue).values())
    return layer.family in ("pool2d", "global_average_pool")


def _writes(layer: Layer) -> bool:
    return _writes_phases(layer) or layer.family == "pool2d"


def _writes_phases(layer: Layer) -> bool:
    return layer.family == "conv2d" and "code" in layer.attrs


def _taps(weights: relax.Expr) -> tuple[int, int]:
    height, width = (int(d) for d in list(weights.ty.shape)[2:])
    return height, width


def _geometry(layer: Layer) -> ConvGeometry:
    attrs = layer.attrs
    return ConvGeometry(attrs["strides"], attrs["dilation"], attrs["padding"], attrs["groups"])
