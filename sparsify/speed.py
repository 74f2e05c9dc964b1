"""How fast a model is, measured: built with the compiler and run here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..compiler import build
from ..compiler.target import resolve
from ..errors import SparsecError
from ..runtime_stub.bench import bench
from ..runtime_stub.cpu import host_features, host_machine

_SECONDS = 1.0


def runs_here(target: str) -> bool:
    """Whether this CPU runs what is built for the target."""
    row = resolve(target)
    return row.machine == host_machine() and set(row.requires) <= set(host_features())


def milliseconds(model: Path, feed: Mapping[str, np.ndarray], target: str, threads: int = 1) -> float:
    """Median time of one run with inputs of `feed`'s shapes.

    Raises:
        SparsecError: the model cannot be built for the target, or this CPU cannot run it.
    """
    if not runs_here(target):
        raise SparsecError(f"--speedup is measured, and this CPU cannot run what is built for {target}")
    with tempfile.TemporaryDirectory(prefix="sparsec-speed-") as folder:
        shapes = {name: tuple(array.shape) for name, array in feed.items()}
        artifact = build(model, target=target, output=Path(folder) / "model.so", shapes=shapes)
        return bench(artifact, threads=threads, seconds=_SECONDS).median_ms
