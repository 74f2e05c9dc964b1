"""The compiler's last IR: a straight line of kernel calls over one arena, ready to be written as C.

A `Program` is what `lower` produces and `emit` consumes. It knows nothing of Relax or TIR except that sizes may be TVM
integer expressions over the model's dynamic dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import tvm_ffi
from tvm import tirx

from ...codegen_templates.use import AnyCode

Size: TypeAlias = Any
"""An int, or a `tvm.tirx.PrimExpr` over the dynamic dimensions."""


@dataclass(frozen=True)
class Dim:
    """A dimension whose size is known only at `prepare`: `lower <= size <= upper`."""

    name: str
    lower: int
    upper: int
    is_found: bool = False
    """Found by a kernel during the run, not by `prepare`."""
    equals: Size = None
    """Not None: a size of the other dimensions that a run must have here; the dimension stands nowhere else."""


def axis_of(size: Size, dims: tuple[Dim, ...]) -> int:
    """The number of the dimension that an input has along an axis of this size.

    Raises:
        KeyError: it is the size of none.
    """
    for number, dim in enumerate(dims):
        if dim.equals is None and isinstance(size, tirx.Var) and size.name == dim.name:
            return number
        if dim.equals is not None and tvm_ffi.structural_equal(size, dim.equals):
            return number
    raise KeyError(str(size))


@dataclass(frozen=True)
class Buffer:
    """A tensor that steps read and write; where it lives is decided by the memory plan."""

    id: int
    name: str
    dtype: str
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class Constant:
    """Bytes of the weights section. Equal arrays share one place."""

    data: np.ndarray


@dataclass(frozen=True)
class FoundSize:
    """The place of a dimension's size in the run, for the kernel that finds it."""

    dim: str


@dataclass(frozen=True)
class CodeBlob:
    """Machine code made for one layer; layers of one pattern share it."""

    name: str
    pattern: AnyCode


@dataclass(frozen=True)
class KernelSource:
    """One C translation unit; units with equal text are compiled once."""

    name: str
    text: str


Pointer: TypeAlias = Buffer | Constant | CodeBlob | FoundSize


@dataclass(frozen=True)
class Step:
    """One call `symbol(pointers…, int64 scalars…, int64 begin, int64 end)`, run over [0, extent) by the pool.

    A kernel returns 0 or a `sparsec_status`. Slices begin at multiples of `grain`, and the result may not depend on how
    the range was cut.
    """

    symbol: str
    pointers: tuple[Pointer, ...]
    n_outputs: int
    """The last `n_outputs` buffers among `pointers` are written, the others only read."""
    scalars: tuple[Size, ...]
    extent: Size
    grain: int
    kernel: str
    """The catalogue row's name, or `tir` for a scheduled TIR function."""
    nodes: tuple[str, ...]
    """Names of the ONNX tensors that this step computes or helps to compute."""
    reason: str = ""
    macs: Size = 0
    images: Size = 0
    """Not 0: the range and the first axis of every buffer are so many images, which the step treats one by one."""


@dataclass(frozen=True)
class Walk:
    """Steps [first, last) that a run goes through for a few of the `images`, then for the next few."""

    first: int
    last: int
    images: Size
    per_thread: int
    inside: frozenset[int]
    """Ids of buffers that hold only the images of the moment."""


@dataclass(frozen=True)
class Cache:
    """Rows that outlive the run where output `output` is bound to input `input` as a state."""

    input: int
    output: int
    axis: int
    """Of the two tensors, along which they grow; the outermost of the buffer."""
    buffer: int
    """Id of the buffer of the rows."""
    load: int
    """The step that copies the caller's input into it."""
    store: int
    """The step that copies it to the caller's output."""


@dataclass
class Program:
    """Everything the driver needs, in execution order."""

    dims: tuple[Dim, ...]
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    """Named as in the model; each has memory of its own and is no alias of an input or of another output."""
    steps: list[Step]
    aliases: dict[int, int] = field(default_factory=dict)
    """Buffer id -> id of the buffer whose memory it is (reshapes)."""
    sources: list[KernelSource] = field(default_factory=list)
    walks: list[Walk] = field(default_factory=list)
    caches: tuple[Cache, ...] = ()

    def root(self, buffer: Buffer) -> int:
        """The id of the buffer whose memory `buffer` shares."""
        identity = buffer.id
        while identity in self.aliases:
            identity = self.aliases[identity]
        return identity
