"""Where quantized images lie in memory: the pitch and padding of every one, copies where a reader needs another layout.

Images of one width have one pitch, the least that all who read or write them can use, so that most layers read what
another wrote as it lies. Copies remain for strides (one plane per phase) and for convolutions that change the width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from tvm import relax

from ...codegen_templates import qplanes
from ...codegen_templates.qconv import (
    Added,
    FloatOutput,
    Method,
    PlanesOutput,
    QConv,
    matrix_of,
    methods_of,
    takes_tensor,
    units_of,
)
from ...codegen_templates.qplanes import Geometry, Planes
from ..graph import LAYER_PREFIX, Dataflow, Graph, Layer, op_name
from ..lower.program import Dim
from ..lower.sizes import upper
from ..sparsity.cost import Choice, choose_integer

_READERS = ("qconv", "qpool", "qconcat", "qrepeat", "from_planes")
_WRITERS = ("qconv", "qpool", "qconcat", "qrepeat", "to_planes", "unroll_rows")


def plan_planes(graph: Graph, dims: tuple[Dim, ...], isa: str) -> Graph:
    """Gives 8-bit images of these layers their type in memory, and convolutions their kernel."""
    return _Planner(graph, dims, isa).run()


class _Planner:
    def __init__(self, graph: Graph, dims: tuple[Dim, ...], isa: str) -> None:
        self.graph = graph
        self.dims = dims
        self.isa = isa
        self.main = Dataflow.of(graph)
        self.layers: dict[str, Layer] = dict(graph.layers)
        self.parts = {v: e for v, e in self.main.bindings if isinstance(e, relax.TupleGetItem)}
        self.pitch: dict[int, int] = {}
        self.planes: dict[relax.Var, Planes] = {}
        self.shapes: dict[relax.Var, tuple[Any, ...]] = {}
        self.fresh: dict[relax.Var, relax.Var] = {}
        self.copies: dict[tuple[relax.Var, Planes], relax.Var] = {}
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []

    def run(self) -> Graph:
        calls = list(self._calls())
        if not calls:
            return self.graph
        for var, layer, call in calls:
            self._agree_on_pitch(var, layer, call)
        self._place(calls)
        for var, value in self.main.bindings:
            called = self.layers.get(op_name(value))
            if called is not None and called.family in (*_READERS, *_WRITERS):
                self._emit(var, op_name(value), called, value)
            elif var in self.parts and value.tuple_value in self.fresh:
                part = relax.TupleGetItem(self.fresh[value.tuple_value], value.index)
                self.bindings.append((self._renamed(var), part))
            else:
                self.bindings.append((var, value))
        main = Dataflow(self.main.params, self.bindings, self.main.result, self.main.attrs)
        return self.graph.with_main(main.live(), self.layers)

    def _calls(self) -> Iterator[tuple[relax.Var, Layer, Any]]:
        for var, value in self.main.bindings:
            layer = self.layers.get(op_name(value))
            if layer is not None and layer.family in (*_READERS, *_WRITERS):
                yield var, layer, value

    # --- geometry -----------------------------------------------------------------------------------------------------

    def _agree_on_pitch(self, var: relax.Var, layer: Layer, call: Any) -> None:
        out = _out(var, layer)
        least = out[3]
        if layer.family == "qconv":
            for x, window in _read_images(layer, call):
                width = _shape(x)[3]
                least = max(least, qplanes.pitch_for(window, width, out[3]))
        self.pitch[out[3]] = max(self.pitch.get(out[3], 0), least)

    def _place(self, calls: list[tuple[relax.Var, Layer, Any]]) -> None:
        """Padding before and after each image, for those who read it in place."""
        before: dict[relax.Var, int] = {}
        after: dict[relax.Var, int] = {}
        unrolled: dict[relax.Var, tuple[Geometry, tuple[int, int]]] = {}
        rows = {var for var, layer, _ in calls if layer.family == "unroll_rows"}
        for var, layer, call in calls:
            if layer.family != "qconv":
                continue
            out = _out(var, layer)
            pitch = self.pitch[out[3]]
            for x, window in _read_images(layer, call):
                if x in rows:
                    unrolled[x] = window, out[2:]
                if window.strides != (1, 1) or self.pitch[_shape(x)[3]] != pitch:
                    continue
                margins = qplanes.margins(window, pitch)
                below = (qplanes.tiles_of(*out[2:], pitch) - qplanes.tiles_of(*_shape(x)[2:], pitch)) * qplanes.TILE
                before[x] = max(before.get(x, 0), margins[0])
                after[x] = max(after.get(x, 0), margins[1] + below)
        for var in self._images(calls):
            _, _, height, width = _shape(var)
            planes = qplanes.plain(height, width, self.pitch[width], before.get(var, 0), after.get(var, 0))
            if var in unrolled:
                window, size = unrolled[var]
                planes = qplanes.phased(height, width, window, size, self.pitch[size[1]])
            self.planes[var] = planes
            self.shapes[var] = planes.shape(var.ty.shape[0], _shape(var)[1])

    def _images(self, calls: list[tuple[relax.Var, Layer, Any]]) -> Iterator[relax.Var]:
        """Every variable that is an 8-bit image in planes."""
        of_call = {v: layer for v, layer, _ in calls if layer.family in _WRITERS}
        for var, layer in of_call.items():
            if not isinstance(var.ty, relax.TupleType) and not (
                layer.family == "qconv" and isinstance(layer.attrs["outputs"][0], FloatOutput)
            ):
                yield var
        for var, part in self.parts.items():
            several = of_call.get(part.tuple_value)
            if several is not None and not isinstance(several.attrs["outputs"][part.index], FloatOutput):
                yield var

    # --- emitting -----------------------------------------------------------------------------------------------------

    def _renamed(self, var: relax.Var) -> relax.Var:
        """The variable with its type in memory."""
        if var not in self.shapes:
            return var
        self.fresh[var] = relax.Var(var.name, relax.TensorType(self.shapes[var], "uint8"))
        return self.fresh[var]

    def _emit(self, var: relax.Var, name: str, layer: Layer, call: Any) -> None:
        fields = list(call.args[1].fields)
        operands = [self.fresh.get(f, f) if isinstance(f, relax.Var) else f for f in fields]
        attrs: dict[str, Any] = {**layer.attrs, "planes": self.planes.get(var)}
        sources = tuple(self.planes[f] for f in fields if isinstance(f, relax.Var) and f in self.planes)
        if layer.family == "qconv":
            attrs = self._convolution(var, layer, fields, operands)
        elif layer.family in _READERS:
            attrs["sources"] = sources
        self.layers[name] = replace(layer, attrs=attrs)
        types = self._types(var, layer)
        value = relax.op.call_dps_packed(name, relax.Tuple(operands), out_ty=types if len(types) > 1 else types[0])
        if len(types) > 1:
            self.fresh[var] = relax.Var(var.name, relax.TupleType(types))
            self.bindings.append((self.fresh[var], value))
        else:
            self.bindings.append((self._renamed(var), value))

    def _types(self, var: relax.Var, layer: Layer) -> list[Any]:
        if not isinstance(var.ty, relax.TupleType):
            return [relax.TensorType(self.shapes[var], "uint8") if var in self.shapes else var.ty]
        types = list(var.ty.fields)
        for part, value in self.parts.items():
            if value.tuple_value.same_as(var) and part in self.shapes:
                types[value.index] = relax.TensorType(self.shapes[part], "uint8")
        return types

    def _convolution(self, var: relax.Var, layer: Layer, fields: list[Any], operands: list[Any]) -> dict[str, Any]:
        """Its attributes; the planes that it reads become operands."""
        attrs, out = layer.attrs, _out(var, layer)
        outputs = []
        for i, o in enumerate(attrs["outputs"]):
            image = var if len(attrs["outputs"]) == 1 else self._part(var, i)
            outputs.append(o if isinstance(o, FloatOutput) else PlanesOutput(o[0], o[1], self.planes[image]))
        at = _added_at(layer)
        residual = tuple(self.planes[f] for f in fields[2:at] if isinstance(f, relax.Var) and f in self.planes)
        conv, choice = self._product(attrs, out, fields, operands, 0, (tuple(outputs), residual))
        reason, added = choice.reason, None
        if "added" in attrs:
            second, other = self._product(attrs["added"], out, fields, operands, at, ((), ()))
            added = Added(second, attrs["added"]["epilogue"], cast(Method, other.kernel))
            reason = f"{reason}; added: {other.reason}"
        return {"conv": conv, "reason": reason, "method": choice.kernel, "added": added}

    def _product(
        self, attrs: Mapping[str, Any], out: tuple[Any, int, int, int], fields: list[Any], operands: list[Any], at: int,
        ends: tuple[tuple[PlanesOutput | FloatOutput, ...], tuple[Planes, ...]],
    ) -> tuple[QConv, Choice]:  # fmt: skip
        """The convolution of operand `at` by the next one, with `ends` (outputs, residuals), and its kernel."""
        window: Geometry = attrs["window"]
        image, pitch = fields[at], self.pitch[out[3]]
        own = self.planes[image]
        wanted = qplanes.phased(own.height, own.width, window, out[2:], pitch)
        if own != wanted and not qplanes.serves(own, window, out[2:], pitch):
            own = wanted
            operands[at] = self._copy(image, operands[at], own, attrs["zero_point"])
        conv = QConv(window, own, attrs["zero_point"], attrs["scale"], attrs["bias"], out[2:], pitch, *ends)
        units = units_of(fields[at + 1].value.numpy())
        columns = upper(out[0], self.dims) * out[2] * out[3]
        return conv, choose_integer(matrix_of(units), columns, among=methods_of(units, self.isa), isa=self.isa)

    def _part(self, var: relax.Var, index: int) -> relax.Var:
        return next(v for v, e in self.parts.items() if e.tuple_value.same_as(var) and e.index == index)

    def _copy(self, image: relax.Var, data: relax.Var, wanted: Planes, zero: int) -> relax.Var:
        """The image as other planes, made once."""
        if (image, wanted) not in self.copies:
            name = f"{LAYER_PREFIX}{len(self.layers)}"
            attrs = {"sources": (self.planes[image],), "planes": wanted, "zero_point": zero}
            self.layers[name] = Layer("copy_planes", attrs, (), self.graph.tensors.get(image.name, image.name))
            ty = relax.TensorType(wanted.shape(image.ty.shape[0], _shape(image)[1]), "uint8")
            copy = relax.Var(f"{image.name}_phases", ty)
            self.bindings.append((copy, relax.op.call_dps_packed(name, relax.Tuple([data]), out_ty=ty)))
            self.copies[image, wanted] = copy
        return self.copies[image, wanted]


def _added_at(layer: Layer) -> int:
    """The operand with which those of an added convolution begin."""
    return 2 + sum(map(takes_tensor, layer.epilogue))


def _read_images(layer: Layer, call: Any) -> list[tuple[relax.Var, Geometry]]:
    """What a convolution, and one that it adds, read through their windows."""
    fields = call.args[1].fields
    read = [(fields[0], layer.attrs["window"])]
    return [*read, (fields[_added_at(layer)], layer.attrs["added"]["window"])] if "added" in layer.attrs else read


def _images_of(var: relax.Var) -> Any:
    """The batch of a layer's outputs."""
    ty = var.ty.fields[0] if isinstance(var.ty, relax.TupleType) else var.ty
    return ty.shape[0]


def _out(var: relax.Var, layer: Layer) -> tuple[Any, int, int, int]:
    """NCHW of what a layer computes, however its outputs lie in memory."""
    return (_images_of(var), *layer.attrs["out"]) if layer.family == "qconv" else _shape(var)


def _shape(var: relax.Var) -> tuple[Any, int, int, int]:
    """NCHW of an image, or of a layer's outputs."""
    ty = var.ty.fields[0] if isinstance(var.ty, relax.TupleType) else var.ty
    channels, height, width = (int(d) for d in list(ty.shape)[1:])
    return ty.shape[0], channels, height, width
