"""What a kernel is predicted to take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """`cycles`, or instructions where no cycles were measured; `nbytes` of weights and code together."""

    cycles: float
    nbytes: float
    is_code: bool = False


Predictor = Callable[[np.ndarray, int], "Prediction | None"]
"""(weights[M, K], columns) -> the prediction, or None where the kernel is none for them."""
