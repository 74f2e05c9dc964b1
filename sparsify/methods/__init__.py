"""Pruning methods, one per file: each takes a `Problem` and returns weights whose zeros follow the pattern."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .alps import alps
from .magnitude import magnitude
from .problem import Problem
from .sparsegpt import sparsegpt
from .wanda import wanda

Method = Callable[[Problem], np.ndarray]

METHODS: dict[str, Method] = {"magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt, "alps": alps}

__all__ = ["METHODS", "Method", "Problem"]
