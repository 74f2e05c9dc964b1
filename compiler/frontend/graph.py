"""The frontend's own graph: ONNX nodes in their newest form, with every dtype and (possibly symbolic) shape known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from .diagnostics import Diagnostics, describe
from .names import label

if TYPE_CHECKING:
    from .symbolic import Algebra

Size: TypeAlias = Any
"""An int, or a `tvm.tirx` integer expression over the dynamic dimensions."""

Shape: TypeAlias = "tuple[Size, ...]"


@dataclass(frozen=True)
class TensorType:
    """dtype as numpy and ml_dtypes name it; shape None where nothing is known of it."""

    dtype: str
    shape: Shape | None

    @property
    def static(self) -> bool:
        """Whether every dimension is a plain int."""
        return self.shape is not None and all(isinstance(d, int) for d in self.shape)

    @property
    def empty(self) -> bool:
        """Whether it surely has no elements."""
        return self.static and 0 in (self.shape or ())

    @property
    def rank(self) -> int:
        """Number of dimensions; the shape must be known."""
        assert self.shape is not None
        return len(self.shape)


MOST_ELEMENTS = 2**31 - 1
"""Of a tensor that is computed: indices fit 32 bits."""


@dataclass
class Node:
    """One operator. An absent optional input or output is ''."""

    op_type: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""
    version: int = 0
    """The opset its form belongs to; NEWEST once canonical."""

    def input(self, index: int) -> str:
        """The name of an input, '' where absent."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True)
class DynamicDim:
    """A dimension that stays open: `lower <= var <= upper`."""

    name: str
    var: Any
    lower: int
    upper: int
    is_found: bool = False
    """Its size is the result of a node, known only when that has run."""
    equals: Size = None
    """Not None: `var` stands nowhere; in its place stands this size of others, which every run must have."""


class Output(NamedTuple):
    """A model output; its name and the tensor's differ where an Identity was removed."""

    name: str
    tensor: str


@dataclass
class Graph:
    """What `prepare` hands to the importer."""

    algebra: Algebra
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    """May be views with zero strides: a filled tensor takes no memory until a converter needs it."""
    symbols: dict[str, np.ndarray] = field(default_factory=dict)
    """Integer tensors known as expressions over the dynamic dimensions: object arrays of int and PrimExpr."""
    dims: dict[str, DynamicDim] = field(default_factory=dict)
    input_ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Integer inputs whose use shows which values make sense, both ends included."""
    sha256: str = ""
    opset: int = 0
    """The model's own; nodes are in the newest form."""

    def known(self, name: str) -> np.ndarray | None:
        """A tensor's value if it is constant or symbolic, else None ('' included)."""
        if name in self.constants:
            return self.constants[name]
        return self.symbols.get(name)

    def type_of(self, name: str) -> TensorType:
        """The type of a tensor that has one."""
        return self.types[name]

    def shape(self, name: str) -> Shape:
        """The shape of a tensor, which must be known."""
        shape = self.types[name].shape
        assert shape is not None, name
        return shape


@dataclass
class PreparedModel(Graph):
    """A graph without shape arithmetic, ready to import; `diagnostics` holds what preparation already found."""

    diagnostics: Diagnostics = field(default_factory=Diagnostics)

    def labels(self) -> dict[str, str]:
        """How messages call the node that makes a tensor."""
        return {name: label(node) for node in self.nodes for name in node.outputs if name}

    def text(self) -> str:
        """A line per input, node and output, for --dump-ir."""
        lines = [f"input {name}: {self._described(name)}" for name in self.inputs]
        for node in self.nodes:
            made = ", ".join(f"{name}: {self._described(name)}" for name in node.outputs if name)
            used = ", ".join(name or "-" for name in node.inputs)
            attrs = "".join(f" {k}={_short(v)}" for k, v in node.attrs.items())
            lines.append(f"{made} = {node.op_type}({used}){attrs}")
        lines += [f"output {o.name} = {o.tensor}" for o in self.outputs]
        return "\n".join(lines) + "\n"

    def _described(self, name: str) -> str:
        known = self.types.get(name)
        return describe(known.dtype, known.shape) if known else "?"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
