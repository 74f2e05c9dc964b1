"""One engine in a process of its own: reads commands from stdin and answers on stdout, one JSON object a line.

{"do": "load", "path", "inputs" (.npz), "batch", "threads", "options"}: seconds of loading and of the first run
{"do": "sample", "seconds", "least"}: seconds of each call, for about that long, at least that many
{"do": "outputs", "path"}: writes the last results there (.npz)
{"do": "memory"}: megabytes at the peak, beyond what the engine's packages take when imported

Every engine runs in such a process, DeepSparse in a Python of its own; this file imports nothing of the project but the
engine asked for.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np


class Sparsec:
    """An artifact."""

    def __init__(self) -> None:
        import sparsec

        self.load_artifact = sparsec.load

    def load(self, path: str, inputs: dict[str, np.ndarray], batch: int, threads: int, options: dict) -> dict[str, Any]:
        self.model = self.load_artifact(path, threads=threads)
        self.inputs = inputs
        return {}

    def run(self) -> list[np.ndarray]:
        return list(self.model.run(self.inputs).values())


class OnnxRuntime:
    def __init__(self) -> None:
        import onnxruntime

        self.api = onnxruntime

    def load(self, path: str, inputs: dict[str, np.ndarray], batch: int, threads: int, options: dict) -> dict[str, Any]:
        settings = self.api.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 3
        self.session = self.api.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self.inputs = inputs
        return {"version": self.api.__version__}

    def run(self) -> list[np.ndarray]:
        return self.session.run(None, self.inputs)


class OpenVino:
    """`options["precision"]` is f32 or bf16, which it takes for float models where the CPU has it unless told."""

    def __init__(self) -> None:
        import openvino

        self.api = openvino

    def load(self, path: str, inputs: dict[str, np.ndarray], batch: int, threads: int, options: dict) -> dict[str, Any]:
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": options["precision"],
        }
        self.compiled = self.api.Core().compile_model(path, "CPU", settings)
        self.request = self.compiled.create_infer_request()
        self.inputs = inputs
        return {"version": self.api.__version__}

    def run(self) -> list[np.ndarray]:
        results = self.request.infer(self.inputs, share_inputs=True, share_outputs=True)
        return [results[o] for o in self.compiled.outputs]


class DeepSparse:
    def __init__(self) -> None:
        import deepsparse

        self.api = deepsparse

    def load(self, path: str, inputs: dict[str, np.ndarray], batch: int, threads: int, options: dict) -> dict[str, Any]:
        self.engine = self.api.Engine(path, batch_size=batch, num_cores=threads)
        self.inputs = [np.ascontiguousarray(inputs[name]) for name in self.engine.input_names]
        return {"version": self.api.__version__, "supported": self.engine.fraction_of_supported_ops}

    def run(self) -> list[np.ndarray]:
        return self.engine.run(self.inputs)


ENGINES = {"sparsec": Sparsec, "onnxruntime": OnnxRuntime, "OpenVINO": OpenVino, "DeepSparse": DeepSparse}


def megabytes(field: str) -> float:
    """VmRSS or VmHWM, the peak. (getrusage's peak counts what the parent held before exec.)"""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print is no answer
    engine: Any = ENGINES[sys.argv[1]]()
    before = megabytes("VmRSS")
    results: list[np.ndarray] = []
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "load":
            with np.load(command["inputs"]) as file:
                inputs = dict(file)
            begin = time.perf_counter()
            answer = engine.load(command["path"], inputs, command["batch"], command["threads"], command["options"])
            loaded = time.perf_counter()
            results = engine.run()
            answer["load_s"], answer["first_s"] = loaded - begin, time.perf_counter() - loaded
        elif command["do"] == "sample":
            times: list[float] = []
            end = time.perf_counter() + command["seconds"]
            while len(times) < command["least"] or time.perf_counter() < end:
                begin = time.perf_counter()
                results = engine.run()
                times.append(time.perf_counter() - begin)
            answer["times"] = times
        elif command["do"] == "outputs":
            np.savez(command["path"], *results)
        elif command["do"] == "memory":
            answer["memory_mb"] = megabytes("VmHWM") - before
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
