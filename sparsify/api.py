"""`sparsec.sparsify`: the whole way from a dense model to a sparse and quantized one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SparsecError
from .allocate import allocate
from .data import load_feeds
from .network import Network
from .oneshot import Outcome, Progress, run
from .recipe import Pruning, Quantization, Recipe

if TYPE_CHECKING:
    import onnx

Data = str | os.PathLike[str] | Mapping[str, np.ndarray] | Iterable[Mapping[str, np.ndarray]]


def sparsify(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    data: Data,
    output: str | os.PathLike[str] | None = None,
    sparsity: float | None = None,
    pattern: str | None = None,
    quantize: str | None = None,
    exclude: Sequence[str] = (),
    recipe: Recipe | str | os.PathLike[str] | None = None,
    seed: int = 0,
    on_progress: Progress = lambda *_: None,
) -> Outcome:
    """Makes a dense model sparse and quantizes it, with calibration data and without training.

    Args:
        model: path of an ONNX file, or a `ModelProto`.
        data: inputs to calibrate on: an .npz file, a folder of them, `python:module:function`, or dictionaries of
            arrays.
        output: where to write the model; None to have it only in the result.
        sparsity: share of zeros among the weights of the layers, 0 to 1.
        pattern: `unstructured`, RxC such as `1x4`, or N:M such as `2:4`.
        quantize: `int8` or `none`.
        exclude: names of nodes or weights that stay as they are; `*` matches anything.
        recipe: all of this and more as a `Recipe` or a YAML file; the other arguments override it.
        seed: of every random choice.
        on_progress: called with (what, done, of how many).

    Raises:
        SparsecError: an argument is out of range; ModelError, InputError: see `sparsec.errors`.
    """
    plan = merge(recipe, sparsity, pattern, quantize, exclude, seed)
    network = Network.load(model)
    feeds = load_feeds(data, network)
    with tempfile.TemporaryDirectory(prefix="sparsec-sparsify-") as folder:
        sparsities = allocate(network, plan, feeds, Path(folder), on_progress) if plan.pruning else {}
        outcome = run(network, plan, feeds, Path(folder), sparsities, on_progress)
    if output is not None:
        outcome.network.save(Path(output))
    return outcome


def merge(
    recipe: Recipe | str | os.PathLike[str] | None,
    sparsity: float | None,
    pattern: str | None,
    quantize: str | None,
    exclude: Sequence[str],
    seed: int,
) -> Recipe:
    """The recipe with the single arguments put in; without a recipe int8 is on.

    Raises:
        SparsecError: nothing is asked for, or a value is out of range.
    """
    plan = Recipe(quantization=Quantization()) if recipe is None else recipe
    plan = plan if isinstance(plan, Recipe) else Recipe.read(Path(plan))
    if sparsity is not None or pattern is not None:
        pruning = plan.pruning or Pruning(0.0)
        pruning = pruning if sparsity is None else replace(pruning, sparsity=sparsity)
        plan = replace(plan, pruning=pruning if pattern is None else replace(pruning, pattern=pattern))
    if quantize not in (None, "int8", "none"):
        raise SparsecError(f"unknown --quantize {quantize!r}; it is int8 or none")
    if quantize is not None:
        plan = replace(plan, quantization=None if quantize == "none" else plan.quantization or Quantization())
    if exclude and plan.pruning:
        plan = replace(plan, pruning=replace(plan.pruning, ignore=(*plan.pruning.ignore, *exclude)))
    if exclude and plan.quantization:
        plan = replace(plan, quantization=replace(plan.quantization, ignore=(*plan.quantization.ignore, *exclude)))
    plan = replace(plan, seed=seed or plan.seed)
    plan.check()
    if plan.pruning is None and plan.quantization is None:
        raise SparsecError("nothing to do: give --sparsity, --pattern N:M or --quantize int8")
    return plan
