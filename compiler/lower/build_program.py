"""Relax, legalized and fused, to a `Program`: walks `main` once and turns every call into steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from ...errors import UnsupportedError
from ..graph import LAYER_PREFIX, Dataflow, Graph, op_name
from ..target import Target
from . import sort_scan
from .layers import lower_layer
from .program import Buffer, Cache, Constant, Dim, KernelSource, Program, Size, Step
from .sizes import product, substitute
from .tir import TirFunction, compile_functions
from .walks import find_walks

_COPY = KernelSource(
    "copy_bytes",
    """\
#include <stdint.h>
#include <string.h>

int32_t sparsec_k_copy_bytes(const char *from, char *to, int64_t begin, int64_t end) {
    memmove(to + begin, from + begin, (size_t)(end - begin));
    return 0;
}
""",
)

Value = Buffer | Constant | list[Any]


def build_program(graph: Graph, dims: tuple[Dim, ...], output_names: list[str], target: Target) -> Program:
    """The whole program, TIR functions compiled for `target`.

    Raises:
        UnsupportedError: a construct in `main` that no step can express.
    """
    return _Builder(graph, dims, target).run(output_names)


class _Builder:
    def __init__(self, graph: Graph, dims: tuple[Dim, ...], target: Target) -> None:
        self.graph = graph
        self.dims = dims
        self.target = target
        self.main = Dataflow.of(graph)
        self.values: dict[relax.Var, Value] = {}
        self.aliases: dict[int, int] = {}
        self.steps: list[Step] = []
        self.sources: dict[str, KernelSource] = {}
        self.functions: Mapping[str, TirFunction] = {}
        self.tir: dict[relax.Var, tirx.PrimFunc] = {}
        self.symbols: dict[relax.Var, str] = {}
        self.n_buffers = 0
        self.constants: dict[Any, Constant] = {}
        self.caches: dict[str, list[Any]] = {}
        """By the input's name: the axis, the id of the buffer of rows, the first step, the last, the output."""

    def run(self, output_names: list[str]) -> Program:
        self._compile_tir()
        inputs = []
        for var in self.main.params:
            if isinstance(var.ty, relax.ShapeType):
                continue  # it only defines sizes
            name = self.graph.tensors.get(var.name, var.name)
            inputs.append(self._buffer(name, var.ty))
            self.values[var] = inputs[-1]
        for var, value in self.main.bindings:
            self.values[var] = self._bind(var, value)
        outputs = self._outputs(self._value(self.main.result), inputs, output_names)
        program = Program(
            self.dims, tuple(inputs), tuple(outputs), self.steps, self.aliases, list(self.sources.values())
        )
        program.walks = find_walks(program)
        program.caches = self._caches(inputs, outputs)
        return program

    def _compile_tir(self) -> None:
        """Every TIR function that `main` calls, under the name of its first call's place."""
        functions: dict[str, tirx.PrimFunc] = {}
        names: dict[str, str] = {}
        for var, value in self.main.bindings:
            name = op_name(value)
            if name == "relax.call_tir":
                self.tir[var] = self.graph.module[value.args[0].name_hint]
                name = value.args[0].name_hint
            elif name in sort_scan.BUILDERS:
                self.tir[var] = sort_scan.tir_function(value, name)
                name = f"{name.removeprefix('relax.')}_{var.name}"
            else:
                continue
            if name not in names:
                names[name] = f"{len(names):03d}_{_short(name)}"
                functions[names[name]] = self.tir[var]
            self.symbols[var] = names[name]
        compiled = compile_functions(functions)
        self.functions = compiled.functions
        for source in compiled.sources:
            self.add_source(source)

    # --- values -------------------------------------------------------------------------------------------------------

    def _buffer(self, name: str, ty: relax.TensorType) -> Buffer:
        return self.temporary(name, str(ty.dtype), tuple(_size(d) for d in ty.shape))

    def temporary(self, name: str, dtype: str, shape: tuple[Size, ...]) -> Buffer:
        """A new buffer in the arena."""
        self.n_buffers += 1
        return Buffer(self.n_buffers - 1, name, dtype, shape)

    def constant(self, array: np.ndarray) -> Constant:
        """A constant of the weights section."""
        return Constant(np.ascontiguousarray(array).reshape(array.shape))

    def _value(self, expr: relax.Expr) -> Any:
        if isinstance(expr, relax.Var):
            return self.values[expr]
        if isinstance(expr, tvm.ir.GenericConst):
            if expr not in self.constants:
                self.constants[expr] = self.constant(expr.value.numpy())
            return self.constants[expr]
        if isinstance(expr, tvm.ir.Tuple):
            return [self._value(f) for f in expr.fields]
        if isinstance(expr, tvm.ir.TupleGetItem):
            return self._value(expr.tuple_value)[expr.index]
        raise UnsupportedError(f"cannot place {type(expr).__name__} in a program: {expr}")

    def _bind(self, var: relax.Var, value: relax.Expr) -> Any:
        name = op_name(value)
        if not name:
            return self._value(value)
        if name == "relax.reshape":
            return self._reshape(var, self._value(value.args[0]))
        if name == "relax.call_tir":
            fields = value.args[1].fields if isinstance(value.args[1], tvm.ir.Tuple) else [value.args[1]]
            return self._call_tir(var, fields)
        if name in sort_scan.BUILDERS:
            return self._call_tir(var, value.args)
        if name.startswith(LAYER_PREFIX):
            layer = self.graph.layers[name]
            is_tuple = isinstance(var.ty, relax.TupleType)
            outs = [self._buffer(layer.tensor, ty) for ty in (var.ty.fields if is_tuple else [var.ty])]
            operands = [self._value(f) for f in value.args[1].fields]
            if layer.family == "append":
                self.caches[layer.attrs["state"]] = [layer.attrs["axis"], outs[0].id, len(self.steps)]
            elif layer.family == "appended":
                self.caches[layer.attrs["state"]] += [len(self.steps), outs[0].id]
            self.steps += lower_layer(layer, operands, outs, self.target, self)
            return outs if is_tuple else outs[0]
        raise UnsupportedError(f"{self.graph.tensors.get(var.name, var.name)}: no kernel for {name}")

    def _reshape(self, var: relax.Var, base: Buffer | Constant) -> Buffer | Constant:
        if isinstance(base, Constant):
            return Constant(base.data.reshape([int(d) for d in var.ty.shape]))
        view = self._buffer(base.name, var.ty)
        self.aliases[view.id] = base.id
        return view

    def add_source(self, source: KernelSource) -> None:
        """A C translation unit that steps refer to."""
        self.sources.setdefault(source.name, source)

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call_tir(self, var: relax.Var, fields: Any) -> Any:
        label = self.graph.tensors.get(var.name, "")
        types = list(var.ty.fields) if isinstance(var.ty, relax.TupleType) else [var.ty]
        outputs = [self._buffer(label or f"t{self.n_buffers}", ty) for ty in types]
        arguments = [self._value(f) if _is_tensor(f) else _size(f) for f in fields] + outputs
        function = self.tir[var]
        dims = _unify(function, arguments)
        for scratch in function.params[len(arguments) :]:
            shape = tuple(substitute(_size(d), dims) for d in scratch.ty.shape)
            arguments.append(self.temporary(scratch.name, str(scratch.ty.dtype), shape))
        compiled = self.functions[self.symbols[var]]
        temporaries = [
            self.temporary(t.name, t.dtype, tuple(substitute(s, dims) for s in t.shape))
            for t in compiled.code.temporaries
        ]
        for kernel in compiled.code.kernels:
            pointers = tuple(arguments[p] if kind == "param" else temporaries[p] for kind, p in kernel.pointers)
            self.steps.append(
                Step(
                    symbol=kernel.symbol,
                    pointers=pointers,
                    n_outputs=kernel.n_outputs,
                    scalars=tuple(substitute(s, dims) for s in kernel.scalars),
                    extent=substitute(kernel.extent, dims),
                    grain=kernel.grain,
                    kernel="tir",
                    nodes=(label,) if label else (),
                    reason=compiled.rule,
                )
            )
        return outputs if isinstance(var.ty, relax.TupleType) else outputs[0]

    # --- outputs ------------------------------------------------------------------------------------------------------

    def _outputs(self, result: Any, inputs: list[Buffer], names: list[str]) -> list[Buffer]:
        """The model's outputs, each with memory of its own: copies where it is an input, a constant or a twin."""
        taken = {buffer.id for buffer in inputs}
        outputs = []
        for name, value in zip(names, result if isinstance(result, list) else [result], strict=True):
            root = self._root(value) if isinstance(value, Buffer) else None
            if root is None or root in taken:
                shape = tuple(value.data.shape) if isinstance(value, Constant) else value.shape
                dtype = str(value.data.dtype) if isinstance(value, Constant) else value.dtype
                out = self.temporary(name, dtype, shape)
                self.add_source(_COPY)
                nbytes = product(shape) * np.dtype(dtype).itemsize
                self.steps.append(
                    Step("sparsec_k_copy_bytes", (value, out), 1, (), nbytes, 4096, "copy", (name,))
                )  # fmt: skip
            else:
                out = Buffer(value.id, name, value.dtype, value.shape)
            taken.add(self._root(out))
            outputs.append(out)
        return outputs

    def _caches(self, inputs: list[Buffer], outputs: list[Buffer]) -> tuple[Cache, ...]:
        input_of = {buffer.name: i for i, buffer in enumerate(inputs)}
        output_of = {buffer.id: i for i, buffer in enumerate(outputs)}
        return tuple(
            Cache(input_of[name], output_of[present], axis, rows, load, store)
            for name, (axis, rows, load, store, present) in self.caches.items()
        )

    def _root(self, buffer: Buffer) -> int:
        identity = buffer.id
        while identity in self.aliases:
            identity = self.aliases[identity]
        return identity


def _is_tensor(expr: relax.Expr) -> bool:
    return isinstance(expr.ty, relax.TensorType)


def _size(expr: Any) -> Size:
    return int(expr) if isinstance(expr, int | tirx.IntImm) else expr


def _short(name: str) -> str:
    """A C identifier of bearable length."""
    clean = "".join(c if c.isalnum() else "_" for c in name.removeprefix("fused_"))
    return clean[:48].rstrip("_")


def _unify(function: tirx.PrimFunc, arguments: list[Any]) -> dict[tirx.Var, Size]:
    """Values of the function's own size variables, read off the shapes that it is called with."""
    found: dict[tirx.Var, Size] = {}
    for param, argument in zip(function.params[: len(arguments)], arguments, strict=True):
        if not isinstance(argument, Buffer | Constant):
            found[param] = argument
            continue
        shape = argument.shape if isinstance(argument, Buffer) else argument.data.shape
        for formal, actual in zip(param.ty.shape, shape, strict=True):
            if isinstance(formal, tirx.Var):
                found.setdefault(formal, actual)
    return found
