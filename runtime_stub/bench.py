"""Times an artifact, on its own or taking turns with another runtime in the same process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SparsecError
from .artifact import read_manifest
from .inputs import random_inputs
from .loader import load

Run = Callable[[], object]
Load = Callable[[], Run]

_ROUNDS = 10
_LEAST_RUNS = 3
_PAUSE = 0.02
"""Seconds between two turns, in which the last one's waiting threads fall asleep."""


@dataclass(frozen=True)
class BenchResult:
    """Times of one side. `peak_rss_mb` is what loading and the first run added to resident memory at its highest."""

    median_ms: float
    p90_ms: float
    load_ms: float
    first_ms: float
    per_second: float
    peak_rss_mb: float
    peer: BenchResult | None = None
    ratio: float | None = None
    """The peer's median over ours: above 1, ours is faster."""


def bench(
    artifact: str | os.PathLike[str],
    threads: int = 1,
    against: str | None = None,
    model: str | os.PathLike[str] | None = None,
    seconds: float = 3.0,
    seed: int = 0,
) -> BenchResult:
    """Measures runs on random inputs at the largest sizes.

    Args:
        artifact: what `sparsec build` made.
        threads: of both sides, at least 1.
        against: a name in `PEERS`.
        model: the ONNX file that the peer runs.
        seconds: how long each side is measured.
        seed: of the inputs.

    Raises:
        ArtifactError, CpuError: the artifact cannot be loaded.
        SparsecError: the peer is unknown, has no model or fails on it.
    """
    if against is not None and against not in PEERS:
        raise SparsecError(f"unknown peer {against!r}; known: {', '.join(PEERS)}")
    if against is not None and model is None:
        raise SparsecError(f"--against {against} needs the ONNX file: --model MODEL.onnx")
    inputs = random_inputs(read_manifest(artifact), seed=seed)
    _warm(Path(artifact))
    ours = _Side(_sparsec(Path(artifact), threads, inputs))
    if against is None or model is None:
        _take_turns([ours], seconds)
        return ours.result()
    _warm(Path(model))
    load_peer = PEERS[against](Path(model), threads, inputs, read_manifest(artifact)["options"].get("fixed", {}))
    try:
        theirs = _Side(load_peer)
    except Exception as error:
        raise SparsecError(f"{against} cannot run {model}: {str(error).strip()}") from error
    _take_turns([ours, theirs], seconds)
    peer = theirs.result()
    result = ours.result()
    return replace(result, peer=peer, ratio=peer.median_ms / result.median_ms)


@dataclass(frozen=True)
class LayerTime:
    """Mean time of one layer of the manifest. `gmacs`: 10^9 multiply-accumulates a second at the largest sizes."""

    name: str
    kernel: str
    ms: float
    share: float
    gmacs: float


def bench_layers(
    artifact: str | os.PathLike[str], threads: int = 1, seconds: float = 3.0, seed: int = 0
) -> list[LayerTime]:
    """Where the time of a run goes, in the order of execution; arguments and errors as for `bench`.

    Of an artifact with buckets only the largest is run and shown.
    """
    inputs = random_inputs(read_manifest(artifact), seed=seed)
    model = load(artifact, threads=threads, timed=True)
    model.run(inputs)
    before, runs = model.layer_seconds(), 0
    end = time.perf_counter() + seconds
    while runs < _LEAST_RUNS or time.perf_counter() < end:
        model.run(inputs)
        runs += 1
    took = (model.layer_seconds() - before) / runs
    whole = float(took.sum()) or 1.0
    return [
        LayerTime(", ".join(row["nodes"]) or row["name"], row["kernel"], 1e3 * t, t / whole, 1e-9 * row["macs"] / t)
        for row, t in zip(model.manifest["layers"], np.maximum(took, 1e-9).tolist(), strict=True)
        if t > 1e-9 or "buckets" not in model.manifest
    ]


def _sparsec(artifact: Path, threads: int, inputs: Mapping[str, np.ndarray]) -> Load:
    def open_model() -> Run:
        model = load(artifact, threads=threads)
        return lambda: model.run(inputs)

    return open_model


# --- peers: import outside of the returned function, which is timed ---------------------------------------------------


_ORT_DTYPES = {
    **{f"tensor({name})": name for name in ("bool", "float16", "int8", "int16", "int32", "int64", "uint8")},
    **{"tensor(float)": "float32", "tensor(double)": "float64"},
}


def _onnxruntime(model: Path, threads: int, inputs: Mapping[str, np.ndarray], fixed: Mapping[str, Any]) -> Load:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3

    def open_model() -> Run:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        feeds = dict(inputs)
        for row in session.get_inputs():
            if row.name in fixed:
                array = np.asarray(fixed[row.name], _ORT_DTYPES[row.type])
                feeds[row.name] = array if array.ndim else array.reshape([1] * len(row.shape))
        return lambda: session.run(None, feeds)

    return open_model


PEERS: dict[str, Callable[[Path, int, Mapping[str, np.ndarray], Mapping[str, Any]], Load]] = {
    "onnxruntime": _onnxruntime
}
"""Name -> function of (model, threads, inputs, inputs that the build fixed); its result loads the model and returns
what runs it once."""


# --- measuring --------------------------------------------------------------------------------------------------------


class _Side:
    """One runtime: loaded and run once by the constructor, sampled by `turn`."""

    def __init__(self, open_model: Load) -> None:
        _reset_peak()
        before = _status_kb("VmRSS")
        begin = time.perf_counter()
        self._run = open_model()
        loaded = time.perf_counter()
        self._run()
        self._load, self._first = loaded - begin, time.perf_counter() - loaded
        self._peak_mb = max(_status_kb("VmHWM") - before, 0) / 1024
        self.times: list[float] = []

    def turn(self, seconds: float) -> None:
        """Runs for about that long, at least once; a first short run brings the caches back and is not counted."""
        if (self.times[-1] if self.times else self._first) < seconds:
            self._run()
        end = time.perf_counter() + seconds
        while True:
            begin = time.perf_counter()
            self._run()
            now = time.perf_counter()
            self.times.append(now - begin)
            if now >= end:
                return

    def result(self) -> BenchResult:
        """What the turns so far say."""
        median, p90 = np.percentile(self.times, (50, 90)) * 1e3
        per_second = len(self.times) / sum(self.times)
        return BenchResult(
            float(median), float(p90), self._load * 1e3, self._first * 1e3, per_second, self._peak_mb
        )  # fmt: skip


def _take_turns(sides: Sequence[_Side], seconds: float) -> None:
    """Interleaved, so that a change of the machine's clock or load meets all sides alike."""
    for number in range(_ROUNDS):
        if all(len(side.times) >= _LEAST_RUNS and sum(side.times) >= seconds for side in sides):
            return  # slow models fill their time in fewer rounds
        for side in sides if number % 2 == 0 else reversed(sides):
            side.turn(seconds / _ROUNDS)
            if len(sides) > 1:
                time.sleep(_PAUSE)


def _warm(path: Path) -> None:
    """Reads the file, so that every side loads its own from the page cache."""
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


def _reset_peak() -> None:
    """Lets the peak start from what is resident now; where that is not allowed, the result is an upper bound."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status_kb(key: str) -> int:
    """A field of this process's status; 0 where the system has no such file."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1])
    return 0
