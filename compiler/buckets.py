"""Dimensions that are given several sizes: for each a program of its own, which takes all sizes up to it.

A run takes the first program that its sizes fit. All are exact, and share the weights; a smaller one has kernels, plan
and workspace that are chosen for its bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TypeAlias

from ..errors import ShapeError

Bound: TypeAlias = "int | tuple[int, int] | str | list[int | tuple[int, int]]"
"""A size; the lowest and highest size of a dimension that stays open; a sum of other dimensions, as text; or upper
bounds, of which a run takes the smallest that fits: the first may be a pair with the lowest size, else that is 1."""

_MOST = 16
"""Programs in an artifact, for each target."""


def split(dims: Mapping[str, Bound]) -> list[tuple[dict[str, int], dict[str, int | tuple[int, int] | str]]]:
    """(upper bounds of the bucketed dimensions, what to bind) of every program, the largest last.

    Raises:
        ShapeError: a list that is no list of sizes, or too many combinations.
    """
    plain = {name: bound for name, bound in dims.items() if not isinstance(bound, list)}
    listed = {name: _sizes(name, bound) for name, bound in dims.items() if isinstance(bound, list)}
    bounds = [sizes for _, sizes in listed.values()]
    combinations = [dict(zip(listed, sizes, strict=True)) for sizes in itertools.product(*bounds)]
    if len(combinations) > _MOST:
        raise ShapeError(
            f"--dim: {len(combinations)} combinations of sizes; at most {_MOST} programs fit one artifact."
        )
    combinations.sort(key=lambda sizes: (_volume(sizes), list(sizes.values())))
    return [
        (sizes, {**plain, **{name: (listed[name][0], size) for name, size in sizes.items()}}) for sizes in combinations
    ]


def _volume(sizes: Mapping[str, int]) -> int:
    volume = 1
    for size in sizes.values():
        volume *= size
    return volume


def _sizes(name: str, bounds: list[int | tuple[int, int]]) -> tuple[int, list[int]]:
    """(the lowest size, the upper bounds)."""
    first, *rest = bounds or [0]
    lower, upper = first if isinstance(first, tuple) else (1, first)
    sizes = [upper, *(size for size in rest if isinstance(size, int))]
    if len(sizes) != len(bounds) or lower < 0 or upper < max(lower, 1) or sorted(set(sizes)) != sizes:
        raise ShapeError(f"--dim {name}: {bounds} are no sizes in ascending order; the first may be LOW..HIGH.")
    return lower, sizes
