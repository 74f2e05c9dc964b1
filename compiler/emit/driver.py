"""Writes model.c: the step table, the thunks that hand each kernel its pointers, and the description of the tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2

from ..lower.memory import itemsize, root_of
from ..lower.program import Buffer, CodeBlob, Constant, Dim, FoundSize, Pointer, Size, Step, Walk, axis_of
from ..lower.sizes import product, text, to_c, upper
from ..lower.walks import MOST
from .member import Member, by_target
from .weights import WeightsWriter

_VECTORS_PER_NANOSECOND = 3.0
_BYTES_PER_NANOSECOND = 8.0

_DL_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "bool": 6}


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("sparsec.compiler.emit", ".")
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


def c_string(value: str) -> str:
    """A C string literal in ASCII; every other byte becomes an octal escape."""
    out = []
    for byte in value.encode():
        char = chr(byte)
        if char in '"\\?':
            out.append("\\" + char)
        else:
            out.append(char if 32 <= byte < 127 else f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def dl_dtype(dtype: str) -> str:
    """Initializer of a DLDataType, e.g. float32 -> {2, 32, 1}."""
    if dtype == "bool":
        return "{6, 8, 1}"
    kind = dtype.rstrip("0123456789")
    return f"{{{_DL_CODES[kind]}, {dtype[len(kind) :]}, 1}}"


@dataclass(frozen=True)
class _StepText:
    symbol: str
    arguments: list[str]
    extent: str
    grain: int
    cost: int
    label: str
    uses_dims: bool


@dataclass(frozen=True)
class _TensorText:
    name: str
    dtype: str
    ndim: int
    offset: int
    axes: list[str]
    axes_name: str
    shape: list[str]


class DriverWriter:
    """One program's driver. `place` decides what each pointer means; the template only arranges text."""

    def __init__(
        self, member: Member, weights: WeightsWriter, labels: Mapping[str, str] | None = None, first_layer: int = 0
    ) -> None:
        """`labels`: by tensor, how messages call the node that makes it.

        `first_layer`: how many layers of the manifest are those of smaller buckets.
        """
        self.labels = labels or {}
        self.first_layer = first_layer
        self.member = member
        self.program = program = member.program
        self.plan = member.plan
        self.weights = weights
        self.target = member.target
        self._inputs = {buffer.id: i for i, buffer in enumerate(program.inputs)}
        self._outputs = {root_of(program, buffer): i for i, buffer in enumerate(program.outputs)}
        self._caches = {cache.buffer: i for i, cache in enumerate(program.caches)}

    def place(self, pointer: Pointer, walk: Walk | None = None) -> str:
        """C expression for a pointer's address inside a frame `f`, in a walk for the images of the moment."""
        at = self._address(pointer)
        if walk is None or not isinstance(pointer, Buffer) or root_of(self.program, pointer) in walk.inside:
            return at
        nbytes = self._size(product(pointer.shape[1:]) * itemsize(pointer.dtype))
        return f"(void *)((char *){at} + f->first_image * {nbytes})"

    def _address(self, pointer: Pointer) -> str:
        if isinstance(pointer, CodeBlob):
            return f"(void *)sparsec_code_{pointer.name}"
        if isinstance(pointer, FoundSize):
            index = [d.name for d in self.program.dims].index(pointer.dim)
            return f"(void *)(f->dims + {index})"
        if isinstance(pointer, Constant):
            return f"(void *)(f->weights + UINT64_C({self.weights.offset(pointer)}))"
        root = root_of(self.program, pointer)
        if root in self._inputs:
            return f"f->inputs[{self._inputs[root]}]"
        if root in self._outputs:
            return f"f->outputs[{self._outputs[root]}]"
        if root in self._caches:
            return f"f->caches[{self._caches[root]}]"
        return f"(void *)(f->arena + UINT64_C({self.plan.offsets[root]}))"

    def _size(self, size: Size) -> str:
        return to_c(size, self.program.dims)

    def _cost(self, step: Step) -> int:
        """Nanoseconds in one thread, roughly: what the runtime weighs against the price of waking another thread."""
        lanes = self.target.vector_bits // 32
        nbytes = sum(
            upper(product(p.shape), self.program.dims) * itemsize(p.dtype)
            for p in step.pointers
            if isinstance(p, Buffer)
        )
        return int(
            upper(step.macs, self.program.dims) / (lanes * _VECTORS_PER_NANOSECOND) + nbytes / _BYTES_PER_NANOSECOND
        )

    def _step(self, step: Step, walk: Walk | None) -> _StepText:
        scalars = [self._size(s) for s in step.scalars]
        arguments = [self.place(p, walk) for p in step.pointers] + scalars + ["begin", "end"]
        return _StepText(
            self.member.own(step.symbol),
            arguments,
            self._size(step.extent),
            step.grain,
            self._cost(step),
            c_string(", ".join(self.labels.get(name, name) for name in step.nodes) or step.symbol),
            any("dims[" in a for a in arguments),
        )

    def _tensor(self, buffer: Buffer, axes_name: str | None) -> _TensorText:
        axes = []
        for size in buffer.shape if axes_name else ():
            number = -1 if isinstance(size, int) else axis_of(size, self.program.dims)
            axes.append(f"{{-1, {size}}}" if number < 0 else f"{{{number}, 0}}")
        return _TensorText(
            c_string(buffer.name),
            dl_dtype(buffer.dtype),
            len(buffer.shape),
            self.plan.offsets[root_of(self.program, buffer)],
            axes,
            axes_name if axes and axes_name else "0",
            [self._size(s) for s in buffer.shape],
        )

    def _dim(self, dim: Dim) -> dict[str, Any]:
        row: dict[str, Any] = {"name": c_string(dim.name), "lower": dim.lower, "upper": dim.upper, "equals": ""}
        if dim.equals is not None:
            row |= {"equals": self._size(dim.equals), "text": c_string(str(text(dim.equals)))}
        return row

    def text(self, version: str, model_sha256: str) -> str:
        """The whole translation unit."""
        program = self.program
        prototypes: dict[str, tuple[int, int]] = {}
        for step in program.steps:
            prototypes[self.member.own(step.symbol)] = (len(step.pointers), len(step.scalars))
        walk_of = {i: walk for walk in program.walks for i in range(walk.first, walk.last)}
        steps = [self._step(s, walk_of.get(i)) for i, s in enumerate(program.steps)]
        # Input AXES arrays are numbered in the order the template meets them: inputs that have axes.
        inputs, numbered = [], 0
        for buffer in program.inputs:
            inputs.append(self._tensor(buffer, f"INPUT_{numbered}_AXES"))
            numbered += bool(inputs[-1].axes)
        outputs = [self._tensor(buffer, None) for buffer in program.outputs]
        expressions = [a for s in steps for a in (*s.arguments, s.extent)] + [x for t in outputs for x in t.shape]
        return _environment().get_template("model.c.j2").render(
            version=version,
            target=self.target,
            model_sha256=model_sha256,
            prototypes=[(name, *counts) for name, counts in sorted(prototypes.items())],
            steps=steps,
            walks=[(w.first, w.last, w.per_thread, self._size(w.images)) for w in program.walks],
            most_images=MOST,
            codes=sorted({p.name for s in program.steps for p in s.pointers if isinstance(p, CodeBlob)}),
            inputs=inputs,
            outputs=outputs,
            caches=[
                (c.input, c.output, c.axis, c.load, c.store, self.plan.offsets[c.buffer]) for c in program.caches
            ],
            n_found_dims=sum(d.is_found for d in program.dims),
            dims=[self._dim(dim) for dim in program.dims],
            suffix=self.member.suffix,
            is_largest=self.member.is_largest,
            first_layer=self.first_layer,
            arena_bytes=self.plan.arena_bytes,
            weights_bytes=self.weights.size,
            uses_size_functions=any("sparsec_" in e for e in expressions),
        )  # fmt: skip


def models_text(members: Sequence[Member]) -> str:
    """The translation unit that lists the members' programs and what they need of the CPU, best first."""
    groups = by_target(members)
    needs = []
    for target in (group[0].target for group in groups):
        needs.append((target.name, [f"SPARSEC_CPU_{name.upper()}" for name in target.requires]))
    return (
        _environment()
        .get_template("models.c.j2")
        .render(programs=[[f"sparsec_the_program{member.suffix}" for member in group] for group in groups], needs=needs)
    )
