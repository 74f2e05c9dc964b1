"""Calibration data and metrics as the user names them: an .npz file, a folder of them, or a Python function."""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .network import Network

Feed = dict[str, np.ndarray]
_BATCH = 8
"""Samples per run where the model leaves the number free."""


def load_feeds(data: Any, network: Network) -> list[Feed]:
    """One dictionary of arrays per run of the model.

    Args:
        data: path of an .npz file whose arrays are stacks of samples, one per input; path of a folder of .npz files,
            each the inputs of one run; `python:module:function`, which returns an iterable of dictionaries; or such an
            iterable.
        network: whose inputs they are.

    Raises:
        InputError: it is none of these, or an input is missing or has the wrong type.
    """
    if isinstance(data, str) and data.startswith("python:"):
        feeds = [dict(feed) for feed in python_function(data)()]
    elif isinstance(data, str | Path):
        feeds = _from_path(Path(data), network)
    elif isinstance(data, Mapping):
        feeds = [dict(data)]
    else:
        feeds = [dict(feed) for feed in data]
    if not feeds:
        raise InputError("the calibration data hold no sample")
    return [_checked(feed, network) for feed in feeds]


def python_function(text: str) -> Callable[..., Any]:
    """The function that `python:module:function` names; modules are looked for in the working folder too.

    Raises:
        InputError: there is no such module or function.
    """
    parts = text.split(":")
    if len(parts) != 3 or parts[0] != "python" or not all(parts):
        raise InputError(f"{text!r} is not python:module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(parts[1])
    except ImportError as error:
        raise InputError(f"{text}: {error}") from None
    function = getattr(module, parts[2], None)
    if not callable(function):
        raise InputError(f"{text}: the module has no function {parts[2]}")
    return function


def _from_path(path: Path, network: Network) -> list[Feed]:
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise InputError(f"{path} holds no .npz file")
        return [_archive(file) for file in files]
    return _batches(_archive(path), network, path)


def _archive(path: Path) -> Feed:
    try:
        loaded = np.load(path)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} holds no numpy arrays: {error}") from None
    if isinstance(loaded, np.ndarray):
        raise InputError(f"{path} is a single array; calibration data are an .npz archive with one array per input")
    with loaded:
        return dict(loaded)


def _batches(stacks: Feed, network: Network, path: Path) -> list[Feed]:
    """Stacks of samples cut along their first axis, into the batch that the model is made for."""
    counts = {len(a) if a.ndim else 0 for a in stacks.values()}
    if len(counts) != 1:
        raise InputError(f"{path}: its arrays have different numbers of samples: {sorted(counts)}")
    fixed = {s[0] for s in _shapes(network).values() if s and isinstance(s[0], int)}
    size = fixed.pop() if len(fixed) == 1 else _BATCH
    count = counts.pop()
    if fixed or (size != _BATCH and count % size):
        raise InputError(f"{path}: {count} samples are no multiple of the model's batch of {size}")
    return [{name: a[i : i + size] for name, a in stacks.items()} for i in range(0, count, size)]


def _shapes(network: Network) -> dict[str, Sequence[int | str]]:
    return {
        i.name: [d.dim_value if d.HasField("dim_value") else d.dim_param for d in i.type.tensor_type.shape.dim]
        for i in network.header.graph.input
    }


def _checked(feed: Feed, network: Network) -> Feed:
    from onnx import helper

    given = {}
    for value in network.header.graph.input:
        if value.name not in feed:
            raise InputError(f"the calibration data lack the input {value.name}; they have {', '.join(feed) or 'none'}")
        array = np.asarray(feed[value.name])
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if array.dtype != dtype:
            if not np.can_cast(array.dtype, dtype, "same_kind"):
                raise InputError(f"calibration data: input {value.name} is {dtype}, not {array.dtype}")
            array = array.astype(dtype)
        given[value.name] = array
    return given


def runner(model: bytes) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """What a metric is given: a function from the inputs of a run to its outputs, by name."""
    from .walk import session

    run = session(model)
    names = [o.name for o in run.get_outputs()]
    return lambda feed: dict(zip(names, run.run(names, dict(feed)), strict=True))


def relative_error(outputs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """E|y - d|² / E|d|² over (y, d) of float outputs."""
    wrong = total = 0.0
    for now, dense in outputs:
        if now.dtype.kind == "f":
            wrong += float(np.square(now.astype(np.float64) - dense).sum())
            total += float(np.square(dense, dtype=np.float64).sum())
    return wrong / total if total else 0.0
