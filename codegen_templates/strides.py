"""Shapes and strides of tensors that are read and written where they lie."""

from __future__ import annotations

from collections.abc import Sequence

from .use import Size


def compact(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """Strides of a row-major tensor, in elements."""
    strides: list[Size] = []
    step: Size = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))


def view(shape: tuple[Size, ...], axes: Sequence[int] | None) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    """(shape, strides) of a compact tensor seen through a transpose."""
    strides = compact(shape)
    if axes is None:
        return tuple(shape), strides
    return tuple(shape[i] for i in axes), tuple(strides[i] for i in axes)


def is_one(size: Size) -> bool:
    """Whether an extent is known to be 1."""
    return isinstance(size, int) and size == 1


def padded(shape: tuple[Size, ...], rank: int) -> tuple[Size, ...]:
    """The shape with ones in front."""
    return (1,) * (rank - len(shape)) + tuple(shape)


def padded_strides(strides: tuple[Size, ...], rank: int) -> tuple[Size, ...]:
    """The strides with zeros in front."""
    return (0,) * (rank - len(strides)) + tuple(strides)


def broadcast_strides(shape: tuple[Size, ...], strides: tuple[Size, ...], rank: int) -> tuple[Size, ...]:
    """Strides over `rank` dimensions, 0 where the tensor is broadcast."""
    moved = tuple(0 if is_one(s) else stride for s, stride in zip(shape, strides, strict=True))
    return padded_strides(moved, rank)
