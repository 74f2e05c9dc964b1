"""Every product of a network with the kernel that was chosen for it and with the dense one: `make bench-layers`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from generators.networks import NETWORKS, VARIANTS, network

import sparsec
from sparsec.compiler.target import resolve
from sparsec.runtime_stub.inputs import random_inputs
from sparsec.runtime_stub.loader import Model

SLOWER = 1.03
"""A choice may be so much slower than dense before it is called wrong."""
DENSE = {"u8s8": "dense", "f32": "gemm"}


def chosen_kernels(model: Model) -> dict[str, str]:
    """Tensor -> kernel, of the layers whose reason is a prediction."""
    layers = model.manifest["layers"]
    return {layer["nodes"][-1]: layer["kernel"] for layer in layers if "predicted at" in layer["reason"]}


def layer_times(models: list[Model], rounds: int) -> list[dict[str, float]]:
    """Median seconds per run of each tensor's layers, the models taking turns."""
    inputs = random_inputs(models[0].manifest)
    times: list[dict[str, list[float]]] = [{} for _ in models]
    for _ in range(rounds):
        for model, seen in zip(models, times, strict=True):
            before = model.layer_seconds()
            runs = 0
            end = time.perf_counter() + 0.2
            while not runs or time.perf_counter() < end:
                model.run(inputs)
                runs += 1
            for layer, took in zip(model.manifest["layers"], (model.layer_seconds() - before) / runs, strict=True):
                for node in layer["nodes"]:
                    seen.setdefault(node, []).append(float(took))
    return [{node: median(values) for node, values in seen.items()} for seen in times]


def main() -> None:
    """Prints a row per layer; the exit status says whether a choice was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", default="minilm_l6", choices=list(NETWORKS))
    parser.add_argument("--variant", default="int8_unstructured_90", choices=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(network(options.network, options.variant), str(path))
        chosen = sparsec.load(sparsec.build(path, output=Path(folder) / "chosen.so"), timed=True)
        kernels = chosen_kernels(chosen)
        dense = {tensor: DENSE["u8s8" if "u8s8" in kernel else "f32"] for tensor, kernel in kernels.items()}
        forced = sparsec.load(sparsec.build(path, output=Path(folder) / "dense.so", kernels=dense), timed=True)
        ours, theirs = layer_times([chosen, forced], options.rounds)
    print(f"target {resolve('native').name}, {options.network} {options.variant}, one thread, medians")
    gains = {tensor: theirs[tensor] / ours[tensor] for tensor in kernels}
    for tensor, kernel in kernels.items():
        print(f"{tensor:<24}{kernel:<26}{1e6 * ours[tensor]:>9.0f} us{1e6 * theirs[tensor]:>9.0f} us dense"
              f"{gains[tensor]:>7.2f}x")  # fmt: skip
    wrong = [tensor for tensor, gain in gains.items() if gain * SLOWER < 1]
    print(f"geometric mean {np.exp(np.mean(np.log(list(gains.values())))):.2f}x; slower than dense: {wrong or 'none'}")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
