"""The closed loop: the sparsest model within a drop of a metric, or the most accurate one that is fast enough.

Both are bisections: more sparsity is taken to be faster and less accurate. Every candidate is kept in the work folder,
so that a search that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import SparsecError

MAX_SPARSITY = 0.97
_ROUNDS = 6


@dataclass(frozen=True)
class Candidate:
    """One point of the curve: what a sparsity gave."""

    sparsity: float
    metric: float | None
    speedup: float | None
    """Over the dense model."""
    output_error: float
    bytes: int
    file: str


class Ledger:
    """Candidates by sparsity, in a JSON file of the work folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "candidates.json"
        rows = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else []
        self.rows = [Candidate(**row) for row in rows]

    def get(self, sparsity: float, make: Callable[[float], Candidate]) -> Candidate:
        """The candidate at a sparsity; made, and written down, if it is not there."""
        for row in self.rows:
            if row.sparsity == sparsity and (self.path.parent / row.file).is_file():
                return row
        row = make(sparsity)
        self.rows = sorted([r for r in self.rows if r.sparsity != sparsity] + [row], key=lambda r: r.sparsity)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps([asdict(r) for r in self.rows], indent=1), encoding="utf-8")
        partial.replace(self.path)
        return row


def within_drop(get: Callable[[float], Candidate], dense_metric: float, max_drop: float) -> Candidate:
    """The candidate of the highest sparsity whose metric is at most `max_drop` below the dense model's.

    Raises:
        SparsecError: not even the least sparse one is.
    """
    floor = dense_metric - max_drop

    def good(candidate: Candidate) -> bool:
        return candidate.metric is not None and candidate.metric >= floor

    first = get(0.0)
    if not good(first):
        raise SparsecError(
            f"even at a sparsity of 0 the metric is {first.metric:.4f}, below {floor:.4f}; "
            "allow a larger --max-drop, leave --quantize out, or --exclude the layers that the report names"
        )
    return get(_bracket(get, good)[0])


def fast_enough(get: Callable[[float], Candidate], speedup: float) -> Candidate:
    """The candidate of the lowest sparsity that is `speedup` times as fast as the dense model.

    Raises:
        SparsecError: none is.
    """

    def slow(candidate: Candidate) -> bool:
        return candidate.speedup is not None and candidate.speedup < speedup

    first = get(0.0)
    if not slow(first):
        return first
    last = get(MAX_SPARSITY)
    if slow(last):
        raise SparsecError(
            f"no sparsity makes it {speedup:g}x as fast: at {MAX_SPARSITY:.0%} it is {last.speedup:.2f}x; "
            "another --pattern or --quantize int8 may"
        )
    return get(_bracket(get, slow)[1])


def _bracket(get: Callable[[float], Candidate], low_side: Callable[[Candidate], bool]) -> tuple[float, float]:
    """Neighbouring sparsities between which `low_side` changes."""
    low, high = 0.0, MAX_SPARSITY
    for _ in range(_ROUNDS):
        middle = round((low + high) / 2, 4)
        low, high = (middle, high) if low_side(get(middle)) else (low, middle)
    return low, high


def key(*parts: Any) -> str:
    """Digest of what a result depends on; names the folder where it is kept."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
