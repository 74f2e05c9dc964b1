"""The public models against onnxruntime, one thread, interleaved in one process: `make bench-public`."""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort
from public_models import PUBLIC_MODELS, PublicModel

import sparsec
from sparsec.compiler.target import resolve
from sparsec.runtime_stub.inputs import random_inputs


def sample(function, seconds: float) -> list[float]:
    """Seconds of each call, for about that long, at least three."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return times


def compare(model: PublicModel, threads: int, rounds: int, folder: Path) -> tuple[float, float]:
    """Median milliseconds (ours, onnxruntime's)."""
    path = sparsec.build(model.path(), output=folder / f"{model.name}.so", shapes=model.shapes, dims=model.dims)
    ours = sparsec.load(path, threads=threads)
    inputs = random_inputs(ours.manifest)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model.path()), options, providers=["CPUExecutionProvider"])

    def theirs() -> list[np.ndarray]:
        return session.run(None, inputs)

    mine: list[float] = []
    peer: list[float] = []
    for function in (lambda: ours.run(inputs), theirs):
        sample(function, 0.1)
    for _ in range(rounds):
        mine += sample(lambda: ours.run(inputs), 0.15)
        peer += sample(theirs, 0.15)
    return 1e3 * median(mine), 1e3 * median(peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(PUBLIC_MODELS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    target = resolve("native")
    print(f"target {target.name} ({target.isa}), {options.threads} thread(s), medians; ratio = onnxruntime / sparsec")
    print(f"{'model':<14}{'sparsec ms':>12}{'onnxruntime ms':>16}{'ratio':>8}")
    logs = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            ours, theirs = compare(PUBLIC_MODELS[name], options.threads, options.rounds, Path(folder))
            if not PUBLIC_MODELS[name].quantized:
                logs.append(math.log(theirs / ours))
            print(f"{name:<14}{ours:>12.3f}{theirs:>16.3f}{theirs / ours:>8.2f}", flush=True)
    if logs:
        print(f"geometric mean of the fp32 models: {math.exp(sum(logs) / len(logs)):.2f}")


if __name__ == "__main__":
    main()
