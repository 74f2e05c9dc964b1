"""400 MB of weights: loading maps them, and reads none."""

from __future__ import annotations

import numpy as np
import pytest
from c_tools import python
from small_models import matrix, product

import sparsec

SIDE = 10_000

SCRIPT = """
import sys, time
import numpy as np
import sparsec

def resident_mb():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024

small, large = sys.argv[1:]
sparsec.load(small).close()  # the imports are paid for
before, times = resident_mb(), []
for _ in range(5):
    begin = time.perf_counter()
    model = sparsec.load(large)
    times.append(1e3 * (time.perf_counter() - begin))
grown = resident_mb() - before
x = np.eye(1, model.inputs[0].shape[1], dtype=np.float32)
print(f"{min(times):.2f} {max(times):.2f} {grown:.1f} {model.run({'x': x})['y'].sum():.6f}")
"""


@pytest.mark.slow
def test_loading_reads_no_weights(product_so, tmp_path, record_property):
    big = product(0, SIDE, SIDE)
    artifact = sparsec.build(big, output=tmp_path / "big.so", dims={"rows": 1})
    assert artifact.stat().st_size > 4 * SIDE * SIDE
    fastest, slowest, grown, total = map(float, python(SCRIPT, product_so, artifact, cwd=tmp_path).split())
    record_property("load_ms", fastest)
    print(
        f"sparsec.load of {artifact.stat().st_size / 1e6:.0f} MB: {fastest} ms, at most {slowest} ms, {grown} MB read"
    )
    assert grown < 8
    np.testing.assert_allclose(total, matrix(big)[0].sum(), rtol=1e-4)
