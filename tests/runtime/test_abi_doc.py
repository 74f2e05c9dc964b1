"""docs/abi.md says what is the case."""

from __future__ import annotations

import re

import numpy as np
from c_tools import COMPILERS, HEADERS, ROOT, STRICT_C99, run
from small_models import matrix, product

from sparsec.runtime_stub.artifact import ABI_VERSION, read_manifest

TEXT = (ROOT / "docs" / "abi.md").read_text(encoding="utf-8")
HEADER = (HEADERS / "sparsec.h").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_four_steps_compile_and_compute(product_so, tmp_path):
    (code,) = re.findall(r"```c\n(.*?)```", section("The four steps"), re.DOTALL)
    main = """
#include <stdio.h>
int main(void) {
    float x[30], y[20];
    for (int i = 0; i < 30; ++i) x[i] = (float)i;
    if (compute(x, y)) return 1;
    for (int i = 0; i < 20; ++i) printf("%.7g ", y[i]);
    return 0;
}
"""
    (tmp_path / "steps.c").write_text(code + main)
    run([*COMPILERS["zig"], *STRICT_C99, f"-I{HEADERS}", "steps.c", product_so, "-o", "steps"], tmp_path)
    found = [float(v) for v in run(["./steps"], tmp_path).split()]
    expected = np.arange(30, dtype=np.float32).reshape(5, 6) @ matrix(product(0))
    np.testing.assert_allclose(found, expected.ravel(), rtol=1e-4, atol=1e-5)


def test_error_codes():
    documented = dict(re.findall(r"\| (\d+) \| `(SPARSEC_ERR_\w+)` \|", section("Errors")))
    assert documented == {n: name for name, n in re.findall(r"(SPARSEC_ERR_\w+) = (\d+)", HEADER)}


def test_manifest_fields(lookup_so):
    manifest = read_manifest(lookup_so)
    rows = dict(re.findall(r"\| (`.*?) \| (.*) \|", section("The manifest")))
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == set(manifest) | {"fallbacks", "buckets"}  # of several targets, of several sizes
    for field in ("target", "options"):
        assert set(re.findall(r"`(\w+)`", rows[f"`{field}`"])) == set(manifest[field])
    for field, row in (("dims", "`dims`"), ("layers", "`layers`"), ("inputs", "`inputs`, `outputs`")):
        assert set().union(*manifest[field]) <= set(re.findall(r"`(\w+)`", rows[row]))
    assert manifest["abi"] == ABI_VERSION == int(re.search(r"ABI_VERSION (\d+)", HEADER)[1])


def test_number_of_functions():
    n = len(re.findall(r"^SPARSEC_API .*?\bsparsec_\w+\(", HEADER, re.MULTILINE))
    assert f"Exports the {n} functions" in section("The file")
