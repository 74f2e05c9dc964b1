"""How long an artifact takes from nothing to its first result: each time in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ..errors import SparsecError

_PROCESSES = 11


@dataclass(frozen=True)
class ColdStart:
    """Medians over `processes` fresh processes, in milliseconds; the file was in the system's page cache.

    `open_ms`: reading the manifest, dlopen, the CPU's check, one context with its workspace. `first_ms`: the first run.
    """

    open_ms: float
    first_ms: float
    total_ms: float
    processes: int


def cold_start(artifact: str | os.PathLike[str], threads: int = 1, processes: int = _PROCESSES) -> ColdStart:
    """Loads and runs the artifact on random inputs of the largest sizes. Starting Python itself is not counted.

    Raises:
        SparsecError: one of the processes failed; its words.
    """
    command = [sys.executable, "-c", f"from {__name__} import measure; measure()", os.fspath(artifact), str(threads)]
    times = []
    for _ in range(processes + 1):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SparsecError(f"{artifact}: a fresh process failed: {done.stderr.strip().rpartition(chr(10))[2]}")
        times.append(json.loads(done.stdout))
    times = times[1:]  # the first one filled the page cache
    opened, first = [row["open"] for row in times], [row["first"] for row in times]
    total = [row["open"] + row["first"] for row in times]
    return ColdStart(1e3 * median(opened), 1e3 * median(first), 1e3 * median(total), processes)


def measure() -> None:
    """What each process does: prints its own times in seconds, as JSON."""
    from .artifact import read_manifest
    from .inputs import random_inputs
    from .loader import load

    path, threads = Path(sys.argv[1]), int(sys.argv[2])
    inputs = random_inputs(read_manifest(path))
    begin = time.perf_counter()
    model = load(path, threads=threads)
    opened = time.perf_counter()
    model.run(inputs)
    print(json.dumps({"open": opened - begin, "first": time.perf_counter() - opened}))
