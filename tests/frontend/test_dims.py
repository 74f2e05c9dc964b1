import pytest
from onnx import TensorProto, helper

from sparsec.compiler.frontend.load import load
from sparsec.compiler.frontend.prepare import prepare
from sparsec.errors import ShapeError


def model(*inputs):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs]
    nodes = [helper.make_node("Relu", [name], [f"{name}_out"]) for name, _ in inputs]
    outputs = [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None) for name, _ in inputs]
    graph = helper.make_graph(nodes, "g", values, outputs)
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_bound_by_name():
    prepared = prepare(model(("x", ["batch", 3]), ("z", ["batch"])), {"batch": 4})
    assert prepared.types["x"].shape == (4, 3)
    assert prepared.types["z_out"].shape == (4,)
    assert not prepared.dims


def test_range_is_one_variable_for_all_inputs():
    prepared = prepare(model(("x", ["batch", 3]), ("z", ["batch"])), {"batch": (1, 8)})
    dim = prepared.dims["batch"]
    assert (dim.lower, dim.upper, dim.var.name) == (1, 8, "batch")
    assert prepared.types["x"].shape[0].same_as(dim.var)
    assert prepared.types["z_out"].shape[0].same_as(dim.var)


def test_range_of_one_is_a_size():
    prepared = prepare(model(("x", ["batch"])), {"batch": (5, 5)})
    assert prepared.types["x"].shape == (5,)


def test_bound_by_shape_reaches_other_inputs():
    prepared = prepare(model(("x", ["n", None]), ("z", ["n"])), shapes={"x": (2, 7)})
    assert prepared.types["x"].shape == (2, 7)
    assert prepared.types["z"].shape == (2,)


def test_unnamed_range_is_named_after_its_input():
    prepared = prepare(model(("x", [1, None])), shapes={"x": (None, (1, 9))})
    assert prepared.dims["x_1"].upper == 9


def test_every_unbound_dimension_is_listed_with_its_flag():
    with pytest.raises(ShapeError) as caught:
        prepare(model(("x", ["batch", 3, None]), ("z", ["length"])))
    text = str(caught.value)
    assert "--dim batch=1" in text
    assert "--dim length=1" in text
    assert "--shape x=?,3,? " in text


@pytest.mark.parametrize(
    ("dims", "shapes", "message"),
    [
        ({"bach": 1}, {}, r"no dimension named 'bach'; it has 'batch'"),
        ({}, {"y": (1, 3)}, r"no input named 'y'; it has 'x'"),
        ({}, {"x": (1, 4)}, "the model fixes it at 3"),
        ({"batch": 2}, {"x": (1, 3)}, "'batch' is bound to 2 elsewhere"),
        ({}, {"x": (1, 3, 1)}, "the model declares 2"),
        ({"batch": (4, 2)}, {}, "not a size"),
        ({"batch": -1}, {}, "not a size"),
    ],
)
def test_contradictions(dims, shapes, message):
    with pytest.raises(ShapeError, match=message):
        prepare(model(("x", ["batch", 3])), dims, shapes)
