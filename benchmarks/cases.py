"""One row of the benchmark: a network, its variant, batch and threads; every engine timed on it, interleaved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from engines.client import PEERS, SPARSEC, Engine, EngineError, Process
from generators.networks import inputs, network

PAUSE = 0.05
"""Seconds between two engines: idle threads of the one before stop spinning."""


@dataclass(frozen=True)
class Case:
    network: str
    variant: str
    batch: int = 1
    threads: int = 1
    target: str = "native"
    """What sparsec builds for; its peers take what the CPU has."""

    @property
    def quantized(self) -> bool:
        return self.variant.startswith("int8")

    def __str__(self) -> str:
        target = "" if self.target == "native" else f", {self.target}"
        return f"{self.network} {self.variant} batch {self.batch}, {self.threads} thread(s){target}"


@dataclass
class Timing:
    """What one engine did on one form of a case. Times in ms; `difference` is the relative L2 distance to sparsec."""

    engine: str
    form: str
    ms: float
    least_ms: float
    calls: int
    load_ms: float
    first_ms: float
    memory_mb: float
    difference: float = 0.0
    version: str = ""
    supported: float | None = None
    build: dict[str, float] = field(default_factory=dict)


class Store:
    """A folder with the models and artifacts of cases, made when asked for; kept ones are found again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.builds: dict[Path, dict[str, float]] = {}

    def path(self, case: Case, form: str, suffix: str) -> Path:
        """Where a case's model (.onnx) or artifact (.so) is."""
        name = f"{case.network}_{case.variant.replace(':', '')}_b{case.batch}"
        target = f"_{case.target}" if suffix == ".so" and case.target != "native" else ""
        return self.folder / f"{name}{'_' + form if case.quantized else ''}{target}{suffix}"

    def model(self, case: Case, form: str) -> Path:
        path = self.path(case, form, ".onnx")
        if not path.exists():
            onnx.save(network(case.network, case.variant, form, batch=case.batch), str(path))
        return path

    def artifact(self, case: Case, form: str) -> Path:
        """Built once in this run."""
        path = self.path(case, form, ".so")
        if path not in self.builds:
            self.builds[path] = build(self.model(case, form), path, target=case.target)
        return path

    def feeds(self, case: Case) -> Path:
        path = self.folder / f"{case.network}_b{case.batch}.npz"
        if not path.exists():
            np.savez(path, **inputs(case.network, case.batch))
        return path


_BUILD = """
import json, resource, sys, time
import sparsec
begin = time.perf_counter()
dims = {name: size if isinstance(size, int) else tuple(size) for name, size in json.loads(sys.argv[3]).items()}
sparsec.build(sys.argv[1], output=sys.argv[2], dims=dims, target=sys.argv[4])
seconds = time.perf_counter() - begin
own = next(int(row.split()[1]) for row in open("/proc/self/status") if row.startswith("VmHWM"))
peak = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
print(json.dumps({"build_s": seconds, "build_mb": peak / 1024}))
"""


def build(
    model: Path,
    artifact: Path,
    dims: dict[str, int | tuple[int, int]] | None = None,
    environment: dict[str, str] | None = None,
    target: str = "native",
) -> dict[str, float]:
    """Builds in a process of its own: its seconds, the largest process's megabytes, the artifact's size."""
    command = [sys.executable, "-c", _BUILD, str(model), str(artifact), json.dumps(dims or {}), target]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise EngineError(f"sparsec could not build {model.name}: {done.stderr.strip().splitlines()[-1]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "size_mb": artifact.stat().st_size / 1e6}


@dataclass(frozen=True)
class Entrant:
    """An engine, the form it is given, and the variant, where it is another than the case's."""

    engine: Engine
    form: str
    variant: str = ""
    label: str = ""


def entrants(
    case: Case, peers: bool = True, our_forms: tuple[str, ...] = ("qdq",), own: str = "", every_form: bool = True
) -> list[Entrant]:
    """Who is timed on a case; `own` adds sparsec itself on another variant.

    Peers get every form of a quantized model that they are known to like, or the one that is usually faster.
    """
    forms = our_forms if case.quantized else ("qdq",)
    found = [Entrant(SPARSEC, form) for form in forms]
    if own:
        found.append(Entrant(SPARSEC, "qdq", own, f"sparsec {own}"))
    if peers:
        for engine in PEERS:
            if engine.python() is not None:
                given = engine.forms if case.quantized else ("qdq",)
                found += [Entrant(engine, form) for form in (given if every_form else given[:1])]
    return found


def measure(
    case: Case,
    store: Store,
    who: list[Entrant],
    rounds: int,
    seconds: float,
    alone: Callable[[], AbstractContextManager[Any]] = nullcontext,
    note: Callable[[str], None] = print,
) -> list[Timing]:
    """Every entrant's timings, interleaved. `alone` is entered for the time in which calls are timed."""
    with loaded(case, store, who, note) as processes:
        with alone():
            interleave(list(processes.values()), rounds, seconds)
        results = {}
        for entrant, process in processes.items():
            path = store.folder / "outputs.npz"
            process.ask(do="outputs", path=str(path))
            with np.load(path) as file:
                results[entrant] = [file[f"arr_{i}"] for i in range(len(file.files))]
        return [_timing(case, store, e, p, results) for e, p in processes.items()]


def interleave(processes: list[Process], rounds: int, seconds: float) -> None:
    """Each collects its times, after calls that do not count."""
    for process in processes:
        process.sample(seconds / 2)
        process.times.clear()
        time.sleep(PAUSE)
    for _ in range(rounds):
        for process in processes:
            process.sample(seconds)
            time.sleep(PAUSE)


@contextmanager
def loaded(case: Case, store: Store, who: list[Entrant], note: Callable[[str], None]) -> Iterator[dict]:
    """Their processes, the model loaded; one that fails is left out with a sentence."""
    processes: dict[Entrant, Process] = {}
    try:
        for entrant in who:
            of = replace(case, variant=entrant.variant or case.variant)
            ours = entrant.engine is SPARSEC
            try:
                model = store.artifact(of, entrant.form) if ours else store.model(of, entrant.form)
                processes[entrant] = Process(entrant.engine, model, store.feeds(of), of.batch, of.threads)
            except EngineError as error:
                note(f"{case}, {entrant.form}: {error}")
        yield processes
    finally:
        for process in processes.values():
            process.close()


def _timing(case: Case, store: Store, entrant: Entrant, process: Process, results: dict[Entrant, list]) -> Timing:
    reference = next((r for e, r in results.items() if e.engine is SPARSEC and not e.variant), results[entrant])
    pairs = list(zip(results[entrant], reference, strict=True))
    distance = np.sqrt(sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs))
    norm = np.sqrt(sum(float(np.square(b, dtype=np.float64).sum()) for _, b in pairs))
    ours = entrant.engine is SPARSEC
    of = replace(case, variant=entrant.variant or case.variant)
    return Timing(
        engine=entrant.label or entrant.engine.column,
        form=entrant.form if case.quantized else "float",
        ms=1e3 * median(process.times),
        least_ms=1e3 * min(process.times),
        calls=len(process.times),
        load_ms=1e3 * process.info["load_s"],
        first_ms=1e3 * process.info["first_s"],
        memory_mb=process.ask(do="memory")["memory_mb"],
        difference=distance / norm if norm else distance,
        version=process.info.get("version", ""),
        supported=process.info.get("supported"),
        build=store.builds[store.artifact(of, entrant.form)] if ours else {},
    )


def record(case: Case, timings: list[Timing]) -> dict[str, Any]:
    """A case as JSON holds it."""
    return {**asdict(case), "engines": [asdict(t) for t in timings]}


def best(row: dict[str, Any], engine: str) -> dict[str, Any] | None:
    """The faster form of an engine in a recorded row."""
    found = [t for t in row["engines"] if t["engine"] == engine]
    return min(found, key=lambda t: t["ms"]) if found else None
