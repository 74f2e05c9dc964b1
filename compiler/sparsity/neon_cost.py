"""The same as cost.py for AArch64: by instructions, which follow from the encodings; no cycles were measured.

Of straight-line code (emit/code/aarch64.py) they are exact but for the tails of rows and streams. The cores that it is
meant for start four instructions a cycle, two of them multiply-accumulates.
"""

from __future__ import annotations

import numpy as np

from ...codegen_templates.pattern import rows_per_block
from ...codegen_templates.spmm import units_of
from .prediction import Prediction, Predictor

COLUMNS = 4
"""Of a register of sums."""
_WEIGHT_LOADS = 1 / 8
"""Per unit: eight of them to a load."""
_SMMLA = 1.25
"""Instructions for a row and two units: a product of two rows by two units and two columns, half a load of weights."""
_GEMM = 36 / 24
"""Instructions per multiply-accumulate of 8 rows by 3 registers: 3 loads of activations, 8 weights, the loop."""
_PLANES = 3.0
"""Per register of float activations turned from rows into panels, or back."""


def pattern_cost(units: np.ndarray) -> tuple[float, float]:
    """Of the code of `units`[M, units along k]: (instructions per register of columns, bytes of code and weights)."""
    occupied = units != 0
    macs = int(np.count_nonzero(occupied))
    height = rows_per_block(len(units))
    loads = sum(int(occupied[first : first + height].any(0).sum()) for first in range(0, len(units), height))
    instructions = macs * (1 + _WEIGHT_LOADS) + loads
    return instructions, 4 * instructions + 4 * macs


def dense_cost(shape: tuple[int, ...]) -> float:
    """Of loops over all of [M, units along k], per register of columns."""
    M, depth = shape
    return M * depth * (1 + _WEIGHT_LOADS) + -(-M // rows_per_block(M)) * depth


def matrix_cost(shape: tuple[int, ...]) -> float:
    """The same by `smmla`: one for two rows by two units, a load for two of them, and two loads and permutations."""
    M, depth = shape
    return (-(-M // 4) * 4 * _SMMLA + -(-M // rows_per_block(M)) * 4) * -(-depth // 2)


def _registers(columns: int) -> int:
    return -(-columns // COLUMNS)


def _gemm(weights: np.ndarray, columns: int) -> Prediction:
    return Prediction(weights.size * _registers(columns) * _GEMM, weights.nbytes)


def _pattern_f32(weights: np.ndarray, columns: int) -> Prediction:
    instructions, nbytes = pattern_cost(units_of(weights))
    turned = sum(weights.shape) * _PLANES
    return Prediction((instructions + turned) * _registers(columns), nbytes, is_code=True)


def _dense_u8s8(weights: np.ndarray, columns: int) -> Prediction:
    return Prediction(dense_cost(units_of(weights).shape) * _registers(columns), weights.nbytes)


def _matrix_u8s8(weights: np.ndarray, columns: int) -> Prediction:
    return Prediction(matrix_cost(units_of(weights).shape) * _registers(columns), weights.nbytes)


def _pattern_u8s8(weights: np.ndarray, columns: int) -> Prediction:
    instructions, nbytes = pattern_cost(units_of(weights))
    return Prediction(instructions * _registers(columns), nbytes, is_code=True)


FLOAT: dict[str, Predictor] = {"gemm": _gemm, "pattern": _pattern_f32}
INTEGER: dict[str, Predictor] = {"dense": _dense_u8s8, "pattern": _pattern_u8s8}
MATRIX_INTEGER: dict[str, Predictor] = {"dense": _matrix_u8s8, "pattern": _pattern_u8s8}
"""Where there are matrix products of bytes."""
