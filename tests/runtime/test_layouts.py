"""Inputs of every layout and kind, results in place, and nothing copied or imported that need not be."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest
from c_tools import python
from raw_context import OK, RawContext
from small_models import matrix, product

import sparsec
from sparsec.errors import InputError

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 11, (3, 4))
BIAS = RNG.standard_normal((3, 4, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def model(lookup_so):
    with sparsec.load(lookup_so) as model:
        yield model


@pytest.fixture(scope="module")
def expected(model):
    return model.run({"ids": IDS, "bias": BIAS})["vectors"].tobytes()


class OnlyDlpack:
    """An array of another library."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class OnAnotherDevice(OnlyDlpack):
    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("the array is on a device of its own")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def misaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    memory[1:] = array.reshape(-1).view(np.uint8)
    result = memory[1:].view(array.dtype).reshape(array.shape)
    assert not result.flags.aligned
    return result


def field(array: np.ndarray) -> np.ndarray:
    """A column of records whose size is no multiple of the element's."""
    records = np.zeros(array.shape, np.dtype([("a", np.uint8), ("value", array.dtype)]))
    records["value"] = array
    assert records["value"].strides[-1] % array.itemsize
    return records["value"]


def spread(array: np.ndarray) -> np.ndarray:
    wide = np.full((*array.shape[:-1], 3 * array.shape[-1]), 7, array.dtype)
    wide[..., ::3] = array
    return wide[..., ::3]


def read_only(array: np.ndarray) -> np.ndarray:
    result = array.copy()
    result.flags.writeable = False
    return result


LAYOUTS = {
    "compact": np.copy,
    "fortran": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "spread": spread,
    "misaligned": misaligned,
    "record": field,
    "read-only": read_only,
    "part": lambda a: np.concatenate([a, a], axis=1)[:, : a.shape[1]],
    "dlpack": OnlyDlpack,
    "dlpack, fortran": lambda a: OnlyDlpack(np.asfortranarray(a)),
    "memoryview": memoryview,
    "memoryview, strided": lambda a: memoryview(spread(a)),
    "array.array": lambda a: memoryview(array.array("q" if a.dtype == np.int64 else "f", a.ravel())).cast("B").cast(
        "q" if a.dtype == np.int64 else "f", a.shape
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, model, expected):
    change = LAYOUTS[layout]
    assert model.run({"ids": change(IDS), "bias": change(BIAS)})["vectors"].tobytes() == expected
    assert model.run({"ids": change(IDS), "bias": BIAS})["vectors"].tobytes() == expected


def test_broadcast(model):
    row = BIAS[:1, :1]
    found = model.run({"ids": IDS, "bias": np.broadcast_to(row, BIAS.shape)})["vectors"]
    assert found.tobytes() == model.run({"ids": IDS, "bias": np.ascontiguousarray(np.broadcast_to(row, BIAS.shape))})[
        "vectors"
    ].tobytes()  # fmt: skip


def test_lists_of_integers(model, expected):
    assert model.run({"ids": IDS.tolist(), "bias": BIAS})["vectors"].tobytes() == expected


def test_bytes_are_a_buffer_of_bytes(model):
    for value in (b"abc", bytearray(b"abc")):
        with pytest.raises(InputError, match="input ids is uint8, the model has int64"):
            model.run({"ids": value, "bias": BIAS})


def test_another_device(model):
    with pytest.raises(InputError, match="input bias: cannot read a OnAnotherDevice as an array: the array is on"):
        model.run({"ids": IDS, "bias": OnAnotherDevice(BIAS)})


def test_inputs_are_never_written(model):
    ids, bias = IDS.copy(), BIAS.copy()
    model.run({"ids": ids, "bias": bias})
    assert ids.tobytes() == IDS.tobytes() and bias.tobytes() == BIAS.tobytes()


def test_outputs_in_place(model, expected):
    memory = np.full(12 * 12 + 32, 7, np.float32)
    out = memory[16:-16].reshape(3, 4, 12)
    results = model.run({"ids": IDS, "bias": BIAS}, {"vectors": out})
    assert results["vectors"] is out and out.tobytes() == expected
    assert (memory[:16] == 7).all() and (memory[-16:] == 7).all()


def test_results_outlive_the_next_run_and_the_model(lookup_so, expected):
    model = sparsec.load(lookup_so)
    first = model.run({"ids": IDS, "bias": BIAS})["vectors"]
    model.run({"ids": IDS, "bias": BIAS + 1})
    model.close()
    del model
    assert first.tobytes() == expected


@pytest.mark.parametrize("layout", ["compact", "fortran", "reversed", "spread", "misaligned", "dlpack", "memoryview"])
def test_python_makes_no_copy(layout, model):
    """The runtime is given the caller's own memory."""
    given = LAYOUTS[layout](BIAS)
    array = (
        given if isinstance(given, np.ndarray) else np.from_dlpack(given) if layout == "dlpack" else np.asarray(given)
    )
    model.run({"ids": IDS, "bias": given})
    pointer = int(model._library.ffi.cast("intptr_t", model._input_tensors[1].struct.data))
    assert pointer == array.__array_interface__["data"][0]


@pytest.mark.parametrize("copied", [False, True])
def test_c_makes_no_copy(copied, product_so):
    """A run of compact, aligned tensors leaves the workspace alone; an input that is not aligned is copied there."""
    x = RNG.standard_normal((5, 6)).astype(np.float32)
    y = np.empty((5, 4), np.float32)
    with RawContext(product_so) as context:
        size = context.call("workspace_bytes", context.model)
        memory = np.full(size + 64, 0xA5, np.uint8)
        start = -memory.ctypes.data % 64
        workspace = context.ffi.cast("void *", memory.ctypes.data + start)
        assert context.create(workspace=workspace, workspace_size=size) == OK
        assert context.run([misaligned(x) if copied else x], [y]) == OK
    np.testing.assert_allclose(y, x @ matrix(product(0)), rtol=1e-5, atol=1e-6)
    assert (memory != 0xA5).any() == copied


def test_byte_offset(product_so):
    x = RNG.standard_normal((5, 6)).astype(np.float32)
    expected, found = np.empty((2, 5, 4), np.float32)
    with RawContext(product_so) as context:
        assert context.create() == OK
        assert context.run([x], [expected]) == OK
        for offset in (4, 64, 3):
            memory = np.zeros(x.nbytes + offset, np.uint8)
            memory[offset:] = x.reshape(-1).view(np.uint8)
            inside, out = context.tensor(x), context.tensor(found)
            inside.data, inside.byte_offset = context.ffi.cast("void *", memory.ctypes.data), offset
            out.data, out.byte_offset = context.ffi.cast("char *", out.data) - 16, 16
            assert context.run([inside], [out]) == OK
            assert found.tobytes() == expected.tobytes()


def test_loading_and_running_import_no_compiler(lookup_so, tmp_path):
    script = """
import sys
import numpy as np
import sparsec
with sparsec.load(sys.argv[1], threads=2) as model:
    model.run({"ids": np.zeros((1, 2), np.int64), "bias": np.zeros((1, 2, 8), np.float32)})
names = {name.partition(".")[0] for name in sys.modules}
print(sorted(names & {"tvm", "onnx", "onnxruntime", "jinja2", "ml_dtypes", "rich", "click", "ziglang"}))
print(sorted(name for name in sys.modules if name.startswith("sparsec.compiler")))
"""
    assert python(script, lookup_so, cwd=tmp_path) == "[]\n[]\n"


def test_a_prefixed_library(tmp_path):
    path = sparsec.build(product(3), output=tmp_path / "p.so", dims={"rows": (1, 8)}, symbol_prefix="Other_2")
    x = np.ones((2, 6), np.float32)
    with sparsec.load(path, threads=2) as model:
        np.testing.assert_allclose(model.run({"x": x})["y"], x @ matrix(product(3)), rtol=1e-5)
