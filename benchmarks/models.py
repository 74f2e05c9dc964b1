"""The public models against onnxruntime and OpenVINO, one thread, interleaved in one process: `make bench-public`."""

from __future__ import annotations

import argparse
import importlib.util
import math
import tempfile
import time
from collections.abc import Callable
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


Run = Callable[[], object]
"""One run of an engine on the inputs that it was made for."""


def onnxruntime_run(model: PublicModel, inputs: dict[str, np.ndarray], threads: int) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model.path()), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def openvino_run(model: PublicModel, inputs: dict[str, np.ndarray], threads: int) -> Run:
    """Compiled for the inputs' shapes, in float32 also where the CPU has bfloat16."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
    core = openvino.Core()
    read = core.read_model(str(model.path()))
    read.reshape({name: array.shape for name, array in inputs.items()})
    request = core.compile_model(read, "CPU", settings).create_infer_request()
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)


PEERS = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}
"""By the module that has it."""


def compare(model: PublicModel, threads: int, rounds: int, folder: Path, peers: list[str]) -> dict[str, float]:
    """Median milliseconds of each, `sparsec` first; a peer that cannot run the model is left out."""
    path = sparsec.build(model.path(), output=folder / f"{model.name}.so", shapes=model.shapes, dims=model.dims)
    ours = sparsec.load(path, threads=threads)
    inputs = random_inputs(ours.manifest)
    runs: dict[str, Run] = {"sparsec": lambda: ours.run(inputs)}
    for peer in peers:
        try:
            runs[peer] = PEERS[peer](model, inputs, threads)
            runs[peer]()
        except Exception as error:  # whatever a peer raises
            runs.pop(peer, None)
            print(f"{model.name}: {peer} cannot: {str(error).strip().splitlines()[-1]}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        sample(run, 0.1)
    for _ in range(rounds):
        for name, run in runs.items():
            times[name] += sample(run, 0.15)
    return {name: 1e3 * median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(PUBLIC_MODELS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    target = resolve("native")
    peers = [name for name in PEERS if importlib.util.find_spec(name)]
    print(f"target {target.name} ({target.isa}), {options.threads} thread(s), ms; ratio: best of others / sparsec")
    print(f"{'model':<14}{'sparsec':>10}" + "".join(f"{peer:>14}" for peer in peers) + f"{'ratio':>8}")
    logs = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            found = compare(PUBLIC_MODELS[name], options.threads, options.rounds, Path(folder), peers)
            ratio = min(found[peer] for peer in peers if peer in found) / found["sparsec"]
            if not PUBLIC_MODELS[name].quantized:
                logs.append(math.log(ratio))
            cells = "".join(f"{found[peer]:>14.3f}" if peer in found else f"{'-':>14}" for peer in peers)
            print(f"{name:<14}{found['sparsec']:>10.3f}{cells}{ratio:>8.2f}", flush=True)
    if logs:
        print(f"geometric mean of the fp32 models: {math.exp(sum(logs) / len(logs)):.2f}")


if __name__ == "__main__":
    main()
