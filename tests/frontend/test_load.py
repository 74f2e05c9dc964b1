import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsec.compiler.frontend.load import load
from sparsec.errors import ModelError


def make_model(nodes, inputs=("x",), outputs=("y",), initializers=(), opset=17):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in inputs]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    graph = helper.make_graph(nodes, "g", values, results, initializer=list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def relu(a, b, name=""):
    return helper.make_node("Relu", [a], [b], name=name)


def test_not_a_model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"GIF89a this is no protobuf at all")
    with pytest.raises(ModelError, match="not an ONNX model"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"\x08\x08"])
def test_no_graph(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        load(path)


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        load(tmp_path / "absent.onnx")


def test_truncated(tmp_path):
    path = tmp_path / "m.onnx"
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    data = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], initializers=[weight]).SerializeToString()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="damaged or cut short"):
        load(path)


def test_opset_too_new():
    with pytest.raises(ModelError, match="opset 99"):
        load(make_model([relu("x", "y")], opset=99))


def test_cycle_is_named():
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], name="first"), relu("a", "b", "second"), relu("b", "y")]
    with pytest.raises(ModelError, match=r"cycle: .*'first' -> Relu 'second'|cycle: .*'second' -> Add 'first'"):
        load(make_model(nodes))


def test_unsorted_is_sorted():
    loaded = load(make_model([relu("b", "y"), relu("a", "b"), relu("x", "a")]))
    assert [n.output[0] for n in loaded.proto.graph.node] == ["a", "b", "y"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([relu("x", "y", "one"), relu("x", "y", "two")], "'y' is made twice: by Relu 'two' and by Relu 'one'"),
        ([relu("x", "x")], "'x' is made twice"),
        ([relu("ghost", "y", "n")], "Relu 'n' reads tensor 'ghost', which nothing makes"),
        ([relu("x", "z")], "Output 'y' is made by no node"),
        ([helper.make_node("Relu", ["x", "x"], ["y"], name="n")], "Relu 'n' breaks the ONNX specification"),
    ],
)
def test_broken_graphs(nodes, message):
    with pytest.raises(ModelError) as caught:
        load(make_model(nodes))
    assert message in str(caught.value)


def test_duplicate_initializer():
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    with pytest.raises(ModelError, match="Two initializers are named 'w'"):
        load(make_model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weight, weight]))


def test_weights_leave_the_proto_and_the_callers_proto_stays(tmp_path):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = make_model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[numpy_helper.from_array(value, "w")])
    before = model.SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(before)
    for loaded in (load(model), load(path)):
        assert not loaded.proto.graph.initializer
        np.testing.assert_array_equal(loaded.weights["w"], value)
    assert model.SerializeToString() == before
    assert load(path).sha256 == hashlib.sha256(before).hexdigest()


def external_model(tmp_path: Path, value: np.ndarray) -> Path:
    weight = numpy_helper.from_array(value, "w")
    model = make_model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weight])
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def test_external_data_is_mapped(tmp_path):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = external_model(tmp_path, value)
    loaded = load(path)
    np.testing.assert_array_equal(loaded.weights["w"], value)
    base = loaded.weights["w"]
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    other = load(external_model(tmp_path, value + 1))
    assert other.sha256 != loaded.sha256


def test_external_data_missing(tmp_path):
    path = external_model(tmp_path, np.ones((2, 3), np.float32))
    (tmp_path / "m.data").unlink()
    with pytest.raises(ModelError, match=r"'w' needs the external data file 'm\.data'"):
        load(path)


def test_external_data_cut_short(tmp_path):
    path = external_model(tmp_path, np.ones((2, 3), np.float32))
    os.truncate(tmp_path / "m.data", 10)
    with pytest.raises(ModelError, match="too short for initializer 'w'"):
        load(path)


def test_external_data_stays_in_the_folder(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = external_model(inner, np.ones((2, 3), np.float32))
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../m.data"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(path)


@pytest.mark.slow
def test_weights_beyond_two_gigabytes_are_shared_with_the_import(tmp_path):
    from sparsec.compiler.frontend.importer import import_model
    from sparsec.compiler.frontend.prepare import prepare

    rows, columns = 3, 200_000_000  # 2.4 GB, sparse on disk
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[rows, columns])
    weight.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "big.data"), ("offset", "0"), ("length", str(rows * columns * 4))):
        weight.external_data.add(key=key, value=text)
    with (tmp_path / "big.data").open("wb") as stream:
        stream.truncate(rows * columns * 4)
    path = tmp_path / "m.onnx"
    path.write_bytes(
        make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], initializers=[weight]).SerializeToString()
    )
    loaded = load(path)
    module = import_model(prepare(loaded)).module
    call = module["main"].body.blocks[0].bindings[0].value
    assert np.shares_memory(np.from_dlpack(call.args[1].value), loaded.weights["w"])
