"""Masks for those who fine-tune: one boolean array per pruned weight, True where a weight stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SparsecError


def check_suffix(path: Path) -> None:
    """Raises SparsecError where the file's format is not known."""
    if path.suffix not in (".npz", ".safetensors"):
        raise SparsecError(f"masks are written as .npz or .safetensors, not {path.suffix or path.name!r}")


def write_masks(path: Path, masks: Mapping[str, np.ndarray]) -> None:
    """Writes .npz or .safetensors; keys are the weights' names in the ONNX model, shapes those of the weights."""
    if path.suffix == ".npz":
        arrays: dict[str, Any] = dict(masks)
        np.savez_compressed(path, **arrays)
        return
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(mask) for name, mask in masks.items()}, path)
