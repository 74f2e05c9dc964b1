"""What sparsify keeps of each task's accuracy, and what speed it buys: `make bench-accuracy`.

Every row is one artifact: dense, pruned by magnitude and as sparsify does it, scored on data that calibration has not
seen. With --speed each is built and timed beside the dense one and onnxruntime, interleaved in one process.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sparsec
from sparsec.sparsify import Pruning, Quantization, Recipe
from sparsec.sparsify.data import runner
from sparsec.sparsify.network import Network


@dataclass(frozen=True)
class Row:
    """One artifact; `drop`: how much less than the dense model it may score."""

    task: str
    sparsity: float
    pattern: str
    int8: bool
    drop: float

    @property
    def name(self) -> str:
        parts = [self.task] + ([f"{self.sparsity:.0%}", self.pattern] if self.sparsity else [])
        return " ".join([*parts, "int8" if self.int8 else "fp32"])


ROWS = (
    Row("sentiment", 0, "", True, 0.005),
    Row("sentiment", 0.7, "unstructured", False, 0.012),
    Row("sentiment", 0.6, "1x4", True, 0.020),
    Row("file_types", 0, "", True, 0.005),
    Row("file_types", 0.7, "unstructured", False, 0.018),
    Row("file_types", 0.8, "unstructured", False, 0.113),
    Row("faces", 0, "", True, 0.005),
    Row("faces", 0.9, "unstructured", True, 0.020),
    Row("text_lines", 0, "", True, 0.005),
    Row("text_lines", 0.3, "unstructured", True, 0.0133),
)
"""The drops are the bars' distance from the dense models' scores where these were first measured."""


def made(row: Row, task, method: str, allocation: str) -> Network:
    """The artifact's model."""
    pruning = None
    if row.sparsity:
        pruning = Pruning(row.sparsity, row.pattern, method, allocation, correct=method != "magnitude")
    recipe = Recipe(pruning, Quantization() if row.int8 else None)
    return sparsec.sparsify(task.model(), data=task.calibration(), recipe=recipe).network


def accuracy(row: Row, allocation: str, folder: Path, magnitude: bool) -> str:
    """One line of the table; the model stays in the folder."""
    task = importlib.import_module(row.task)
    dense = task.metric(runner(task.model().read_bytes()))
    simple = ""
    if row.sparsity and magnitude:
        simple = f"{task.metric(runner(bytes_of(made(row, task, 'magnitude', 'uniform')))):.4f}"
    begin = time.perf_counter()
    network = made(row, task, "alps", allocation)
    seconds = time.perf_counter() - begin
    network.save(folder / f"{row.name.replace(' ', '_')}.onnx")
    score = task.metric(runner(bytes_of(network)))
    verdict = "ok" if score >= dense - row.drop else "SHORT"
    return f"{row.name:<34}{dense:>8.4f}{simple:>11}{score:>11.4f}{dense - row.drop:>9.4f}  {verdict:<6}{seconds:>7.0f}"


def bytes_of(network: Network) -> bytes:
    return network.model().SerializeToString()


def speed(row: Row, folder: Path, threads: int, rounds: int) -> str:
    """Median times of the artifact, the dense one, and onnxruntime on both; artifacts in the folder are built once."""
    from models import sample

    from sparsec.runtime_stub.inputs import random_inputs

    task = importlib.import_module(row.task)
    sparse = folder / f"{row.name.replace(' ', '_')}.onnx"
    runs = {}
    inputs: dict = {}
    for name, path in (("sparse", sparse), ("dense", task.model())):
        artifact = folder / f"{Path(path).stem}.so"
        if not artifact.is_file():
            sparsec.build(path, output=artifact, dims=task.DIMS, shapes=task.SHAPES)
        model = sparsec.load(artifact, threads=threads)
        inputs.update(random_inputs(model.manifest))
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        runs[name] = functools.partial(model.run, inputs)
        runs[f"{name} onnxruntime"] = functools.partial(session.run, None, inputs)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for function in runs.values():
        sample(function, 0.1)
    for _ in range(rounds):
        for name, function in runs.items():
            times[name] += sample(function, 0.1)
    ms = {name: 1e3 * median(t) for name, t in times.items()}
    peer = min(ms["sparse onnxruntime"], ms["dense onnxruntime"])
    cells = "".join(f"{ms[name]:>10.3f}" for name in runs)
    return f"{row.name:<34}{cells}{ms['dense'] / ms['sparse']:>9.2f}{peer / ms['sparse']:>9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="Parts of names of rows; default: all.")
    parser.add_argument("--allocation", default="uniform")
    parser.add_argument("--no-magnitude", action="store_true", help="Leaves the comparison out.")
    parser.add_argument("--speed", action="store_true", help="Times what an earlier run left in --models.")
    parser.add_argument("--models", type=Path, help="Folder for the models; default: a temporary one.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.rows or any(part in row.name for part in options.rows)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.models or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.speed:
            names = ("sparse", "ort", "dense", "ort dense")
            cells = "".join(f"{name:>10}" for name in names)
            print(f"{'milliseconds':<34}{cells}{'x dense':>9}{'x ort':>9}")
        else:
            print(f"{'':<34}{'dense':>8}{'magnitude':>11}{'sparsify':>11}{'must':>9}  {'':<6}{'seconds':>7}")
        for row in rows:
            if options.speed:
                print(speed(row, folder, options.threads, options.rounds), flush=True)
            else:
                print(accuracy(row, options.allocation, folder, not options.no_magnitude), flush=True)


if __name__ == "__main__":
    main()
