"""Random inputs that fit a manifest."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError

_SAFE_INDEX = 2
"""Integers of unknown meaning may be token ids or lengths: 0 and 1 are in range nearly everywhere."""


def random_inputs(
    manifest: Mapping[str, Any], dims: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """One array per input: floats from the standard normal, integers from the manifest's `range`, else from {0, 1}.

    Args:
        manifest: as `read_manifest` returns it.
        dims: sizes of dynamic dimensions; the upper bound where none is given. Dimensions that are sums of others
            follow from these.
        seed: the same seed gives the same array for an input of the same name and shape.
    """
    sizes = {d["name"]: int((dims or {}).get(d["name"], d["upper"])) for d in manifest["dims"]}
    for row in manifest["dims"]:
        if "equals" in row:
            terms, constant = row["equals"]["terms"], row["equals"]["constant"]
            sizes[row["name"]] = constant + sum(factor * sizes[name] for name, factor in terms.items())
    result = {}
    for row in manifest["inputs"]:
        rng = np.random.default_rng([seed, zlib.crc32(row["name"].encode())])
        shape = tuple(s if isinstance(s, int) else sizes[s] for s in row["shape"])
        result[row["name"]] = _array(row, shape, rng)
    return result


def _array(row: Mapping[str, Any], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    dtype = row["dtype"]
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.startswith(("int", "uint")):
        if "range" in row:
            low, high = row["range"]
        elif np.dtype(dtype).itemsize == 1:
            low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        else:
            low, high = 0, _SAFE_INDEX - 1
        return rng.integers(low, high, shape, endpoint=True).astype(dtype)
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    raise InputError(f"no random values for input {row['name']} of type {dtype}: give it a file")
