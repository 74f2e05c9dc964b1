import numpy as np
import onnx
import pytest
from graphs import floats, ints, model, node
from onnx import helper

from sparsec.compiler.frontend.importer import import_model
from sparsec.compiler.frontend.load import load
from sparsec.compiler.frontend.prepare import prepare
from sparsec.compiler.lower.sizes import evaluate
from sparsec.errors import ModelError


def ops(prepared):
    return [n.op_type for n in prepared.nodes]


def reshape_by_shape_arithmetic(shape):
    """x -> [x.shape[0], -1] as exporters write it, next to a mask of ones with x's shape."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axis0", "nv"),
        node("Concat", "nv minus", "target", axis=0),
        node("Reshape", "x target", "flat"),
        node("ConstantOfShape", "s", "ones", value=onnx.numpy_helper.from_array(np.ones(1, np.float32))),
        node("Add", "x ones", "added"),
    ]
    weights = {"zero": np.array(0, np.int64), "axis0": ints(0), "minus": ints(-1)}
    return model(nodes, {"x": ("float32", shape)}, "flat added", **weights)


def test_static_shape_arithmetic_disappears():
    prepared = prepare(load(reshape_by_shape_arithmetic([2, 3, 4])))
    assert ops(prepared) == ["Reshape", "Add"]
    np.testing.assert_array_equal(prepared.constants["target"], [2, -1])
    assert prepared.types["flat"].shape == (2, 12)
    assert "s" not in prepared.types


def test_symbolic_shape_arithmetic_becomes_expressions():
    prepared = prepare(load(reshape_by_shape_arithmetic(["n", 3, "m"])), {"n": (1, 8), "m": (2, 5)})
    assert ops(prepared) == ["Reshape", "ConstantOfShape", "Add"]
    n, m = prepared.dims["n"].var, prepared.dims["m"].var
    assert prepared.algebra.same(prepared.types["flat"].shape, (n, 3 * m))
    assert prepared.algebra.same(prepared.types["ones"].shape, (n, 3, m))


@pytest.mark.parametrize(
    ("op", "b", "wanted"),
    [
        ("Add", 3, lambda n: n + 3),
        ("Sub", 1, lambda n: n - 1),
        ("Mul", 4, lambda n: n * 4),
        ("Div", 2, lambda n: n // 2),
        ("Mod", 3, lambda n: n % 3),
        ("Min", 100, lambda n: n),
        ("Max", 100, lambda n: 100),
        ("Max", 1, lambda n: n),
    ],
)
def test_arithmetic_on_a_dimension(op, b, wanted):
    nodes = [node("Shape", "x", "s"), node(op, "s b", "r"), node("Expand", "one r", "y")]
    built = model(nodes, {"x": ("float32", ["n"])}, "y", b=ints(b), one=floats(1))
    prepared = prepare(load(built), {"n": (2, 9)})
    for value in (2, 9):
        expr = prepared.types["y"].shape[0]
        assert evaluate(expr, {"n": value}) == wanted(value)


def test_where_and_equal_are_decided_by_bounds():
    """`Where(shape == -1, ones, shape)`, the export of torch's expand."""
    nodes = [
        node("Shape", "x", "s"),
        node("Equal", "s minus", "unset"),
        node("Where", "unset ones s", "target"),
        node("Expand", "w target", "y"),
    ]
    built = model(nodes, {"x": ("float32", ["n", 3])}, "y", minus=ints(-1, -1), ones=ints(1, 1), w=floats(1, 3))
    prepared = prepare(load(built), {"n": (1, 8)})
    assert ops(prepared) == ["Expand"]
    assert prepared.algebra.same(prepared.types["y"].shape, (prepared.dims["n"].var, 3))


def test_identities_dropout_and_casts_to_the_same_type_are_removed():
    nodes = [
        node("Identity", "x", "a"),
        node("Dropout", "a", "b"),
        node("Cast", "b", "c", to=1),
        node("Relu", "c", "d"),
        node("Identity", "d", "y"),
    ]
    prepared = prepare(load(model(nodes, {"x": ("float32", [2])}, "y")))
    assert [(n.op_type, n.inputs, n.outputs) for n in prepared.nodes] == [("Relu", ["x"], ["d"])]
    assert [(o.name, o.tensor) for o in prepared.outputs] == [("y", "d")]


def test_dead_nodes_are_removed():
    nodes = [node("Relu", "x", "y"), node("Sigmoid", "x", "unused"), node("Add", "unused w", "unused2")]
    prepared = prepare(load(model(nodes, {"x": ("float32", [2])}, "y", w=floats(2))))
    assert ops(prepared) == ["Relu"]
    assert not prepared.constants


def test_constants_are_folded_but_integer_weights_stay():
    nodes = [
        node("Transpose", "w", "wt"),
        node("MatMul", "x wt", "a"),
        node("DequantizeLinear", "q scale", "dq"),
        node("Add", "a dq", "y"),
    ]
    weights = {"w": floats(4, 3), "q": np.array([1, 2, 3, 4], np.int8), "scale": np.float32(0.5)}
    prepared = prepare(load(model(nodes, {"x": ("float32", [2, 3])}, "y", **weights)))
    assert ops(prepared) == ["MatMul", "DequantizeLinear", "Add"]
    np.testing.assert_array_equal(prepared.constants["wt"], weights["w"].T)


def test_huge_results_of_small_constants_are_not_computed():
    nodes = [node("Expand", "one shape", "big"), node("Tile", "row reps", "tiled"), node("Add", "big tiled", "y")]
    weights = {"one": floats(1, 1), "shape": ints(2048, 1024), "row": floats(1, 1024), "reps": ints(2048, 1)}
    prepared = prepare(load(model(nodes, {}, "y", **weights)))
    assert prepared.constants["big"].strides == (0, 0)
    assert "Tile" in ops(prepared)


def test_if_with_a_constant_condition_is_inlined():
    then = helper.make_graph([node("Relu", "x", "r")], "t", [], [helper.make_empty_tensor_value_info("r")])
    other = helper.make_graph([node("Neg", "x", "r")], "e", [], [helper.make_empty_tensor_value_info("r")])
    nodes = [
        node("Shape", "x", "s"),
        node("Size", "s", "rank"),
        node("Equal", "rank two", "c"),
        node("If", "c", "y", then_branch=then, else_branch=other),
    ]
    prepared = prepare(load(model(nodes, {"x": ("float32", [2, 3])}, "y", two=np.array(2, np.int64))))
    assert ops(prepared) == ["Relu"]


def test_functions_are_inlined():
    body = [node("Mul", "a a", "sq"), node("Add", "sq b", "out")]
    function = helper.make_function("mine", "SquareAdd", ["a", "b"], ["out"], body, [helper.make_opsetid("", 17)])
    nodes = [
        node("SquareAdd", "x x", "h", domain="mine"),
        node("SquareAdd", "h x", "y", domain="mine"),
        node("Celu", "y", "z", alpha=2.0),
        node("MeanVarianceNormalization", "z", "m", axes=[0]),
    ]
    prepared = prepare(load(model(nodes, {"x": ("float32", [2])}, "m", functions=(function,))))
    assert ops(prepared)[:4] == ["Mul", "Add", "Mul", "Add"]
    assert "MeanVarianceNormalization" not in ops(prepared)


@pytest.mark.parametrize(
    ("layer", "shape", "weight", "attrs"),
    [
        ("Conv", [1, 4, 5, 5], (6, 2, 3, 3), {"group": 2}),
        ("ConvTranspose", [1, 4, 5, 5], (4, 3, 2, 2), {"group": 2, "strides": [2, 2]}),
        ("Gemm", [2, 4], (4, 6), {}),
        ("Gemm", [2, 4], (6, 4), {"transB": 1}),
    ],
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_batch_norm_is_folded(layer, shape, weight, attrs, with_bias):
    from relax_vm import run_module, run_onnxruntime

    weights = {"w": floats(*weight), "scale": floats(6, seed=1), "shift": floats(6, seed=2), "mean": floats(6, seed=3)}
    weights["var"] = np.abs(floats(6, seed=4)) + 0.5
    if with_bias:
        weights["b"] = floats(6, seed=5)
    nodes = [
        node(layer, "x w b" if with_bias else "x w", "h", **attrs),
        node("BatchNormalization", "h scale shift mean var", "y", epsilon=1e-3),
    ]
    built = model(nodes, {"x": ("float32", shape)}, "y", **weights)
    prepared = prepare(load(built))
    assert ops(prepared) == [layer]
    x = {"x": floats(*shape, seed=6)}
    found, wanted = run_module(import_model(prepared), x), run_onnxruntime(built, x)
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-4, atol=1e-5)


def test_batch_norm_stays_where_the_layer_has_another_user():
    weights = {"w": floats(3, 2, 1, 1), "v": np.ones(3, np.float32)}
    nodes = [node("Conv", "x w", "h"), node("BatchNormalization", "h v v v v", "y"), node("Relu", "h", "z")]
    prepared = prepare(load(model(nodes, {"x": ("float32", [1, 2, 4, 4])}, "y z", **weights)))
    assert "BatchNormalization" in ops(prepared)


def test_contradicting_node_is_named():
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    with pytest.raises(ModelError, match=r"MatMul 'product' contradicts its inputs \(float32\[2,3\], float32\[4,5\]\)"):
        prepare(load(model(nodes, {"x": ("float32", [2, 3])}, "y", w=floats(4, 5))))


def test_input_ranges():
    nodes = [
        node("Gather", "table ids", "e"),
        node("Cast", "mask", "m", to=1),
        node("Unsqueeze", "m axes", "mu"),
        node("Mul", "e mu", "y"),
        node("Cast", "free", "z", to=6),
    ]
    inputs = {"ids": ("int64", [2, 4]), "mask": ("int64", [2, 4]), "free": ("int64", [2])}
    prepared = prepare(load(model(nodes, inputs, "y z", table=floats(100, 8), axes=ints(2))))
    assert prepared.input_ranges == {"ids": (0, 99), "mask": (0, 1)}
