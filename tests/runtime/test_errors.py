"""What a run refuses, with the sentence that the user reads; and that the context works on afterwards."""

from __future__ import annotations

import re

import numpy as np
import pytest
from raw_context import (
    ERR_ARGUMENT,
    ERR_DTYPE,
    ERR_INDEX,
    ERR_MEMORY,
    ERR_SHAPE,
    ERR_UNPREPARED,
    OK,
    RawContext,
)
from small_models import TABLE_ROWS

import sparsec
from sparsec.errors import InputError

IDS = np.array([[1, 2, 3], [4, 5, 6]])
BIAS = np.zeros((2, 3, 8), np.float32)
GOOD = {"ids": IDS, "bias": BIAS}


@pytest.fixture(scope="module")
def model(lookup_so):
    with sparsec.load(lookup_so) as model:
        yield model


@pytest.fixture(scope="module")
def expected(model):
    return model.run(GOOD)["vectors"]


@pytest.fixture
def context(lookup_so):
    with RawContext(lookup_so) as context:
        assert context.create() == OK
        yield context


# --- in Python --------------------------------------------------------------------------------------------------------

CASES = {
    "missing": ({"ids": IDS}, "input bias is missing. The model's inputs: ids, bias"),
    "unknown": ({**GOOD, "x": IDS}, "there is no input x. The model's inputs: ids, bias"),
    "misspelt": (
        {"ids": IDS, "Bias": BIAS},
        "input bias is missing; there is no input Bias. The model's inputs: ids, bias",
    ),
    "nothing": ({}, "input ids is missing; input bias is missing. The model's inputs: ids, bias"),
    "dtype": ({**GOOD, "ids": IDS.astype(np.int32)}, "input ids is int32, the model has int64: convert it first"),
    "byte order": ({**GOOD, "bias": BIAS.astype(">f4")}, "input bias is >f4, the model has float32: convert it first"),
    "a list of floats": (
        {**GOOD, "bias": BIAS.tolist()},
        "input bias is float64, the model has float32: convert it first",
    ),
    "rank": ({**GOOD, "ids": IDS[0]}, "input ids has shape [3], the model takes [batch, words]"),
    "constant extent": (
        {**GOOD, "bias": np.zeros((2, 3, 7), np.float32)},
        "input bias has shape [2, 3, 7], the model takes [?, ?, 8]",
    ),
    "above the bounds": (
        {"ids": np.zeros((5, 3), np.int64), "bias": np.zeros((5, 3, 8), np.float32)},
        "input ids: dimension batch is 5, but the artifact was built for 1..4",
    ),
    "below the bounds": (
        {"ids": np.zeros((2, 0), np.int64), "bias": np.zeros((2, 0, 8), np.float32)},
        "input ids: dimension words is 0, but the artifact was built for 1..16",
    ),
    "inconsistent": (
        {**GOOD, "bias": np.zeros((2, 4, 8), np.float32)},
        "input bias: dimension words is 4, but 3 in another place",
    ),
    "index above": (
        {**GOOD, "ids": np.full((2, 3), TABLE_ROWS)},
        "Gather 'embed': an index lies outside of the tensor",
    ),
    "index below": (
        {**GOOD, "ids": np.full((2, 3), -TABLE_ROWS - 1)},
        "Gather 'embed': an index lies outside of the tensor",
    ),
    "last index": (
        {**GOOD, "ids": IDS + np.array([[0, 0, 0], [0, 0, 99]])},
        "Gather 'embed': an index lies outside of the tensor",
    ),
    "no array": ({**GOOD, "ids": object()}, "input ids: cannot read a object as an array: "),
    "ragged": ({**GOOD, "ids": [[1], [2, 3]]}, "input ids: cannot read a list as an array: "),
}


@pytest.mark.parametrize("case", CASES)
def test_inputs(case, model, expected):
    inputs, message = CASES[case]
    with pytest.raises(InputError) as error:
        model.run(inputs)
    text = str(error.value)
    assert text.startswith(message) if message.endswith(": ") else text == message
    assert model.run(GOOD)["vectors"].tobytes() == expected.tobytes()


def test_negative_indices_count_from_the_end(model, expected):
    assert model.run({**GOOD, "ids": IDS - TABLE_ROWS})["vectors"].tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "outputs",
    [
        {"vectors": np.zeros((2, 3, 11), np.float32)},
        {"vectors": np.zeros((2, 3, 12), np.float64)},
        {"vectors": np.zeros((2, 3, 24), np.float32)[:, :, ::2]},
        {"vectors": np.zeros((3, 2, 12), np.float32).transpose(1, 0, 2)},
        {"vectors": np.frombuffer(bytes(4 * 72), np.float32).reshape(2, 3, 12)},
        {"vectors": [[0.0]]},
        {"vector": np.zeros((2, 3, 12), np.float32)},
    ],
    ids=["shape", "dtype", "strides", "order", "read-only", "list", "name"],
)
def test_outputs(outputs, model, expected):
    with pytest.raises(InputError) as error:
        model.run(GOOD, outputs)
    if "vector" in outputs:
        assert str(error.value) == "there is no output vector; the model's: vectors"
    else:
        assert re.fullmatch(
            r"output vectors must be a writeable, C-contiguous float32 array of shape \(2, 3, 12\)", str(error.value)
        )
    assert model.run(GOOD)["vectors"].tobytes() == expected.tobytes()


def test_a_misaligned_output(model):
    out = np.zeros(4 * 72 + 1, np.uint8)[1:].view(np.float32).reshape(2, 3, 12)
    with pytest.raises(InputError, match="output vectors must be compact and aligned to its element size"):
        model.run(GOOD, {"vectors": out})


def test_an_output_that_overlaps_an_input(product_so):
    memory = np.ones(100, np.float32)
    x, y = memory[:12].reshape(2, 6), memory[8:16].reshape(2, 4)
    with sparsec.load(product_so) as model:
        with pytest.raises(InputError, match="output y overlaps input x"):
            model.run({"x": x}, {"y": y})
        assert (memory == 1).all()
        beside = memory[12:20].reshape(2, 4)
        expected = model.run({"x": x}, {"y": beside})["y"].copy()
        memory[:] = 1
        # What is not compact is copied first: then the output may lie on top of it.
        apart = memory[:24].reshape(2, 12)[:, ::2]
        assert model.run({"x": apart}, {"y": memory[:8].reshape(2, 4)})["y"].tobytes() == expected.tobytes()


def test_a_closed_model(lookup_so):
    model = sparsec.load(lookup_so)
    other = model.new_context()
    result = model.run(GOOD)["vectors"]
    model.close()
    model.close()
    with pytest.raises(InputError, match=r"lookup\.so: the model has been closed"):
        model.run(GOOD)
    assert other.run(GOOD)["vectors"].tobytes() == result.tobytes()
    other.close()


# --- in C -------------------------------------------------------------------------------------------------------------


def test_counts_and_null_pointers(context):
    out = np.empty((2, 3, 12), np.float32)
    assert context.run([IDS], [out]) == ERR_ARGUMENT
    assert context.message() == "1 inputs and 1 outputs given, the model has 2 and 1"
    assert context.run([IDS, context.ffi.NULL], [out]) == ERR_ARGUMENT
    assert context.message() == "input bias is a null pointer"
    assert context.run([IDS, BIAS], [context.ffi.NULL]) == ERR_ARGUMENT
    assert context.message() == "output vectors is a null pointer"
    empty = context.tensor(BIAS)
    empty.data = context.ffi.NULL
    assert context.run([IDS, empty], [out]) == ERR_ARGUMENT
    assert context.message() == "input bias has no data"
    elsewhere = context.tensor(BIAS)
    elsewhere.device.device_type = 2
    assert context.run([IDS, elsewhere], [out]) == ERR_ARGUMENT
    assert context.message() == "input bias is not in the CPU's memory"
    assert context.call("run", context.ffi.NULL, context.ffi.NULL, 0, context.ffi.NULL, 0) == ERR_ARGUMENT
    assert context.run([IDS, BIAS], [out]) == OK
    assert context.message() == ""


def test_dtypes_and_shapes(context):
    out = np.empty((2, 3, 12), np.float32)
    assert context.run([IDS.astype(np.int8), BIAS], [out]) == ERR_DTYPE
    assert context.message() == "input ids is int8, the model has int64"
    assert context.run([IDS, BIAS.astype(bool)], [out]) == ERR_DTYPE
    assert context.message() == "input bias is bool, the model has float32"
    assert context.run([IDS, BIAS], [out.astype(np.uint16)]) == ERR_DTYPE
    assert context.message() == "output vectors is uint16, the model has float32"
    assert context.run([IDS, BIAS], [out[:1]]) == ERR_SHAPE
    assert context.message() == "output vectors has shape [1, 3, 12], the model gives [2, 3, 12]"
    assert context.run([IDS[0], BIAS], [out]) == ERR_SHAPE
    assert context.message() == "input ids has shape [3], the model takes [?, ?]"
    for ndim in (-1, 0, 17, 2**31 - 1):
        strange = context.tensor(IDS)
        strange.ndim = ndim
        assert context.run([strange, BIAS], [out]) == ERR_SHAPE
        assert context.message() == "input ids has shape [], the model takes [?, ?]"
    shapeless = context.tensor(IDS)
    shapeless.shape = context.ffi.NULL
    assert context.run([shapeless, BIAS], [out]) == ERR_SHAPE
    assert context.run([np.full((2, 3), 99), BIAS], [out]) == ERR_INDEX
    assert context.message() == "Gather 'embed': an index lies outside of the tensor"


def test_prepare_and_output_shapes(context):
    ndim, extents = context.ffi.new("int32_t *"), context.ffi.new("int64_t[16]")

    def output_shape(index=0):
        return context.call("output_shape", context.context, index, ndim, extents)

    assert output_shape() == ERR_UNPREPARED
    assert context.message() == "sparsec_prepare has not been called"
    assert context.prepare([(2, 3), (2, 3, 8)]) == OK
    assert output_shape() == OK and (ndim[0], list(extents)[:3]) == (3, [2, 3, 12])
    assert output_shape(1) == ERR_ARGUMENT and context.message() == "there is no output 1"
    assert output_shape(-1) == ERR_ARGUMENT
    assert context.prepare([(2, 3)]) == ERR_ARGUMENT
    assert context.message() == "1 shapes given, the model has 2 inputs"
    assert context.prepare([(2, 3), (2, 4, 8)]) == ERR_SHAPE
    assert output_shape() == ERR_UNPREPARED
    assert context.run([IDS[:1], BIAS[:1]], [context.ffi.new("DLTensor *")]) == OK
    assert output_shape() == OK and list(extents)[:3] == [1, 3, 12]


def test_descriptions(context):
    ffi = context.ffi
    d = ffi.new("sparsec_tensor_description *")

    def describe(kind: str, index: int):
        assert context.call(f"{kind}_description", context.model, index, d) == OK
        return ffi.string(d.name).decode(), (d.dtype.code, d.dtype.bits, d.dtype.lanes), list(d.extents)[: d.ndim]

    assert context.call("input_count", context.model) == 2 and context.call("output_count", context.model) == 1
    assert describe("input", 0) == ("ids", (0, 64, 1), [-1, -1])
    assert describe("input", 1) == ("bias", (2, 32, 1), [-1, -1, 8])
    assert describe("output", 0) == ("vectors", (2, 32, 1), [-1, -1, 12])
    for kind, index in (("input", 2), ("input", -1), ("output", 1)):
        assert context.call(f"{kind}_description", context.model, index, d) == ERR_ARGUMENT
    assert context.call("input_count", ffi.NULL) == 0
    assert ffi.string(context.call("manifest", ffi.NULL)) == b""
    assert context.call("workspace_bytes", ffi.NULL) == 0


def test_options(lookup_so):
    with RawContext(lookup_so) as context:
        full = context.ffi.sizeof("sparsec_options")
        assert context.create(size=0) == ERR_ARGUMENT
        assert context.created_message() == "options.size must be sizeof(sparsec_options)"
        assert context.create(reserved=1) == ERR_ARGUMENT
        assert context.created_message() == "options has members that this artifact does not know"
        for threads in (-2, 1025):
            assert context.create(threads=threads) == ERR_ARGUMENT
            assert context.created_message() == "options.threads must lie between -1 and 1024"
        # A struct that ends after `size`: the other members count as zero, whatever lies there.
        assert context.create(size=8, threads=-77) == OK
        context.call("context_destroy", context.context)
        longer = context.ffi.new("char[]", full + 16)
        options = context.ffi.cast("sparsec_options *", longer)
        options.size = full + 16
        created = context.ffi.new("sparsec_context **")
        null = context.ffi.NULL
        assert context.call("context_create", context.model, options, created, null, 0) == OK
        context.call("context_destroy", created[0])
        longer[full + 15] = b"\1"
        assert context.call("context_create", context.model, options, created, null, 0) == ERR_ARGUMENT
        assert created[0] == null
        assert context.call("context_create", context.model, null, created, null, 0) == OK
        context.call("context_destroy", created[0])
        assert context.call("context_create", null, null, created, null, 0) == ERR_ARGUMENT
        assert context.call("context_create", context.model, null, null, null, 0) == ERR_ARGUMENT
        context.context = null


def test_the_callers_workspace(lookup_so):
    """Used when it is aligned and long enough; nothing outside of it is written."""
    expected = np.empty((2, 3, 12), np.float32)
    with RawContext(lookup_so) as context:
        assert context.create() == OK
        assert context.run([IDS, BIAS], [expected]) == OK
        size = context.call("workspace_bytes", context.model)
    memory = np.full(size + 256, 0xA5, np.uint8)
    start = -memory.ctypes.data % 64 + 64
    with RawContext(lookup_so) as context:
        at = context.ffi.cast("char *", memory.ctypes.data + start)
        for pointer, length in ((at + 8, size), (at, size - 1), (at, 0)):
            assert context.create(workspace=pointer, workspace_size=length) == ERR_MEMORY
            assert "options.workspace must be aligned to 64 bytes" in context.created_message()
        assert context.create(workspace=at, workspace_size=size) == OK
        out = context.ffi.new("DLTensor *")
        assert context.run([IDS, BIAS], [out]) == OK
        place = int(context.ffi.cast("intptr_t", out.data)) - memory.ctypes.data
        assert start <= place <= start + size - expected.nbytes
        assert memory[place : place + expected.nbytes].tobytes() == expected.tobytes()
    assert (memory[:start] == 0xA5).all() and (memory[start + size :] == 0xA5).all()
    assert (memory[start : start + size] != 0xA5).any()


def test_results_in_the_workspace(context):
    """The struct that a run filled in may be given again, at other shapes too; as an input it may not."""
    out = context.ffi.new("DLTensor *")
    expected = np.empty((2, 3, 12), np.float32)
    assert context.run([IDS, BIAS], [expected]) == OK
    assert context.run([IDS[:1], BIAS[:1]], [out]) == OK
    assert [out.shape[i] for i in range(3)] == [1, 3, 12]
    assert context.run([IDS, BIAS], [out]) == OK
    assert [out.shape[i] for i in range(out.ndim)] == [2, 3, 12]
    assert bytes(context.ffi.buffer(out.data, expected.nbytes)) == expected.tobytes()
    inside = context.tensor(BIAS)
    inside.data = out.data
    assert context.run([IDS, inside], [expected]) == ERR_ARGUMENT
    assert context.message() == "input bias lies in the context's workspace: copy it first"
    moved = context.tensor(expected)
    moved.data = context.ffi.cast("char *", out.data) + 64
    assert context.run([IDS, BIAS], [moved]) == ERR_ARGUMENT
    assert context.message() == "output vectors lies in the workspace, but not in its place"
