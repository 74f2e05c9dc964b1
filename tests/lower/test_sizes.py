import ctypes
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

from sparsec.compiler.lower.program import Dim
from sparsec.compiler.lower.sizes import bounds, evaluate, product, text, to_c, upper

DIMS = (Dim("batch", 1, 8), Dim("seq", 3, 40))
BATCH, SEQ = tirx.Var("batch", "int64"), tirx.Var("seq", "int64")
EXPRESSIONS = [
    7,
    BATCH,
    BATCH * SEQ * 12,
    (SEQ + 1) // 2,
    SEQ % 4 + BATCH,
    tirx.max(BATCH, SEQ - 5),
    tirx.min(BATCH * 3, SEQ),
    (SEQ - BATCH) // 3,
    (BATCH - SEQ) % 7,
    tirx.Select(BATCH > 3, SEQ, BATCH),
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    texts = [to_c(e, DIMS) for e in EXPRESSIONS]
    rows = "".join(f"int64_t e{i}(const int64_t *dims) {{ return {t}; }}\n" for i, t in enumerate(texts))
    helpers = """#include <stdint.h>
static inline int64_t sparsec_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t sparsec_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t sparsec_floordiv(int64_t a, int64_t b) { return a / b - ((a % b != 0) && ((a < 0) != (b < 0))); }
static inline int64_t sparsec_floormod(int64_t a, int64_t b) { return a - sparsec_floordiv(a, b) * b; }
"""
    (folder / "e.c").write_text(helpers + rows)
    subprocess.run([sys.executable, "-m", "ziglang", "cc", "-shared", "e.c", "-o", "e.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "e.so"))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(1, 8), st.integers(3, 40), st.sampled_from(range(len(EXPRESSIONS))))
def test_c_text_value_and_bounds_agree(compiled, batch, seq, index):
    size = EXPRESSIONS[index]
    value = evaluate(size, {"batch": batch, "seq": seq})
    function = getattr(compiled, f"e{index}")
    function.restype = ctypes.c_int64
    assert function((ctypes.c_int64 * 2)(batch, seq)) == value
    low, high = bounds(size, DIMS)
    assert low <= value <= high


def test_upper_is_reached():
    assert upper(BATCH * SEQ * 12, DIMS) == 8 * 40 * 12


def test_text_reads_like_source():
    assert text(BATCH * SEQ) == "batch * seq"
    assert text(5) == 5
    assert text((SEQ + 1) // 2) == "((seq + 1) // 2)" or text((SEQ + 1) // 2) == "(seq + 1) // 2"


def test_product_of_nothing_is_one():
    assert product(()) == 1
