"""The same as cost.py for AVX2, by cycles measured on one Zen 4 core (two 256-bit multiply-accumulates a cycle).

Code of a pattern is no faster than the pattern as data: it takes three instructions and more for each unit, and the
second pass over the columns is the first that finds it in the L1 cache. Products of bytes take twice the instructions
of AVX-VNNI's, whose figures are those of its instructions in their AVX-512 form.
"""

from __future__ import annotations

import numpy as np

from ...codegen_templates import indexed
from ...codegen_templates.gemv import MAX_COLUMNS, Storage, stored_bytes
from ...codegen_templates.spmm import units_of
from .prediction import Prediction, Predictor

_TILE = 16
_GEMM = 2.3
"""Cycles per weight and tile of 16 columns, rows that the product is given and gives included."""
_DENSE = {"avx2": 2.65, "avx2-vnni": 1.05}
_PATTERN = {"f32": 2.35, "avx2": 3.3, "avx2-vnni": 1.95}
_INDEXED = {
    "f32": {1: 1.9, 2: 1.45, 4: 1.3},
    "avx2": {1: 2.65, 2: 2.35, 4: 2.3},
    "avx2-vnni": {1: 2.05, 2: 1.95, 4: 1.25},
}
"""Per unit and tile; of bytes by ISA, by how many rows share a list."""
_CODE_BYTES = {"f32": 34, "avx2": 48, "avx2-vnni": 34}
"""Per unit, with its weights and its part of the loads."""
CODE_LIMIT = 3.0
"""As in cost.py: convolutions have no kernel yet that takes the pattern as data."""
_PLANES = 3.0
"""Per tile and row or k of activations turned from rows into panels, or back."""
_GEMV = {"f32": 6.0, "mask": 10.0, "mask4": 6.0, "dense": 4.0}
_COLUMN = 2.0
"""Per unit of 64 bytes of weights for one column, and for each further one."""
_BANDWIDTH = 9.0
_CODE_BANDWIDTH = 3.0
"""Bytes per cycle from memory, of weights and of code."""


def kernels(isa: str, quantized: bool) -> dict[str, Predictor]:
    """Kernel -> what it is predicted to take; the dense one first."""
    if not quantized:
        return {
            "gemm": lambda w, columns: _data(w.size * _GEMM * _tiles(columns), w.nbytes),
            "pattern": lambda w, columns: _code(w, columns, "f32", _turned(w)),
            "gemv_mask": lambda w, columns: _gemv(w, columns, "mask", "f32"),
            **{f"indexed{n}": _indexed(n, "f32") for n in indexed.SHARED},
        }
    return {
        "dense": lambda w, columns: _data(w.size / 4 * _DENSE[isa] * _tiles(columns), w.nbytes),
        "pattern": lambda w, columns: _code(w, columns, isa, 0.0),
        **{f"indexed{n}": _indexed(n, isa) for n in indexed.SHARED},
        "gemv_dense": lambda w, columns: _gemv(w, columns, "dense", "dense"),
        "gemv_mask": lambda w, columns: _gemv(w, columns, "mask", "mask"),
        "gemv_mask4": lambda w, columns: _gemv(w, columns, "mask4", "mask4"),
    }


def _tiles(columns: int) -> int:
    return -(-columns // _TILE)


def _turned(weights: np.ndarray) -> float:
    return sum(weights.shape) * _PLANES


def _data(cycles: float, nbytes: float) -> Prediction:
    return Prediction(max(cycles, nbytes / _BANDWIDTH), nbytes)


def _code(weights: np.ndarray, columns: int, kind: str, turned: float) -> Prediction:
    units = int(np.count_nonzero(units_of(weights)))
    nbytes = units * _CODE_BYTES[kind]
    cycles = (units * _PATTERN[kind] + turned) * _tiles(columns)
    return Prediction(max(cycles, nbytes / _CODE_BANDWIDTH), nbytes, is_code=True)


def _indexed(shared: int, kind: str) -> Predictor:
    def predict(weights: np.ndarray, columns: int) -> Prediction:
        lists = int(np.count_nonzero(indexed.occupied_groups(units_of(weights), shared)))
        turned = _turned(weights) if kind == "f32" else 0.0
        cycles = (lists * shared * _INDEXED[kind][shared] + turned) * _tiles(columns)
        return _data(cycles, lists * (4 * shared + 1))

    return predict


def _gemv(weights: np.ndarray, columns: int, storage: Storage, kind: str) -> Prediction | None:
    if columns > MAX_COLUMNS:
        return None
    units = weights.nbytes / 64
    cycles = units * (_GEMV[kind] + _COLUMN * (columns - 1))
    return _data(cycles, stored_bytes(weights, storage))
