"""Engines as the benchmarks use them: which of them are installed, and one process for each that is timed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Engine:
    """`column` is its name in tables. `forms` are those of quantized models that it is given, the one that is
    usually faster first."""

    column: str
    worker: str
    forms: tuple[str, ...]
    precision: str = "f32"

    def python(self) -> str | None:
        """The interpreter that has it, or None."""
        if self.worker == "DeepSparse":
            found = deepsparse_python()
            return str(found) if found.exists() else None
        modules = {"sparsec": "sparsec", "onnxruntime": "onnxruntime", "OpenVINO": "openvino"}
        return sys.executable if importlib.util.find_spec(modules[self.worker]) else None


SPARSEC = Engine("sparsec", "sparsec", ("qdq",))
PEERS = (
    Engine("onnxruntime", "onnxruntime", ("full_qdq", "qdq")),
    Engine("OpenVINO", "OpenVINO", ("qdq",)),
    Engine("OpenVINO bf16", "OpenVINO", ("qdq",), "bf16"),
    Engine("DeepSparse", "DeepSparse", ("integer", "qdq")),
)


def deepsparse_python() -> Path:
    """Where `make peers` puts it, unless DEEPSPARSE_PYTHON says another place."""
    return Path(os.environ.get("DEEPSPARSE_PYTHON") or Path(sys.prefix) / "deepsparse" / "bin" / "python")


def missing() -> list[str]:
    """A sentence for each peer that is not installed."""
    return [f"{e.column} is not installed (make peers): left out" for e in PEERS if e.python() is None]


class EngineError(Exception):
    """An engine ended; the message is the last that it printed."""


class Process:
    """An engine with a model loaded. `times` collects the seconds of all calls."""

    def __init__(self, engine: Engine, model: Path, inputs: Path, batch: int, threads: int, form: str = "qdq") -> None:
        python = engine.python()
        if python is None:
            raise EngineError(f"{engine.column} is not installed")
        self.engine = engine
        self.form = form
        self.times: list[float] = []
        self.printed = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the process
        self.process = subprocess.Popen(
            [python, str(WORKER), engine.worker],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.printed, text=True,
        )  # fmt: skip
        self.info = self.ask(
            do="load", path=str(model), inputs=str(inputs), batch=batch, threads=threads,
            options={"precision": engine.precision},
        )  # fmt: skip

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.printed.seek(0)
            lines = self.printed.read().strip().splitlines() or ["no message"]
            raise EngineError(f"{self.engine.column} ended: {lines[-1]}")
        return json.loads(line)

    def sample(self, seconds: float, least: int = 2) -> list[float]:
        """Seconds of each call; they are collected too."""
        times = self.ask(do="sample", seconds=seconds, least=least)["times"]
        self.times += times
        return times

    def close(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()
        self.printed.close()
