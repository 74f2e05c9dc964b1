"""What a family's planner returns: kernel calls, described without knowing who makes them.

Sizes are ints, or expressions that know `+`, `*` and `//`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .blended import BlendCode
from .pattern import PatternCode

Size: TypeAlias = Any
AnyCode: TypeAlias = PatternCode | BlendCode


@dataclass(frozen=True)
class Operand:
    """The layer's i-th operand."""

    index: int


@dataclass(frozen=True)
class Output:
    """The layer's i-th output."""

    index: int = 0


@dataclass(frozen=True)
class Found:
    """Where a run keeps the size of a dimension that this kernel finds: an int64."""

    dim: str


@dataclass(frozen=True)
class Packed:
    """A constant, packed for the kernel."""

    array: np.ndarray


@dataclass(frozen=True)
class Temp:
    """Memory between two calls of one layer; equal keys are the same memory."""

    key: str
    dtype: str
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class Code:
    """Code made for one layer; the pointer is to its table of offsets."""

    pattern: AnyCode


OUT = Output()
Pointer: TypeAlias = Operand | Output | Found | Packed | Temp | Code


@dataclass(frozen=True)
class Source:
    """A C translation unit; the name tells its text."""

    name: str
    text: str


@dataclass(frozen=True)
class KernelUse:
    """One call `symbol(pointers…, scalars…, begin, end)` over [0, extent); the last `n_outputs` are written."""

    kernel: str
    """Name of the catalogue's row."""
    symbol: str
    sources: tuple[Source, ...]
    pointers: tuple[Pointer, ...]
    scalars: tuple[Size, ...]
    extent: Size
    reason: str
    macs: Size = 0
    grain: int = 1
    n_outputs: int = 1
    images: Size = 0
    """Not 0: the range and the first axis of every tensor are so many images, which the call treats one by one."""


@dataclass(frozen=True)
class Tensor:
    """Type of an operand or output; `array` when it is a constant."""

    dtype: str
    shape: tuple[Size, ...]
    array: np.ndarray | None = None


def ceil_div(a: Size, b: int) -> Size:
    """⌈a / b⌉ for a >= 0."""
    return (a + (b - 1)) // b


def product(sizes: tuple[Size, ...]) -> Size:
    """Number of elements."""
    count: Size = 1
    for size in sizes:
        count = count * size
    return count
