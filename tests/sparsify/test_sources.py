"""Checkpoints in each format that compressed-tensors writes, put into an ONNX export; what is refused says why."""

import json

import numpy as np
import pytest
from networks import correlated, model, perceptron
from onnx import helper, numpy_helper
from safetensors.numpy import save_file

import sparsec
from sparsec.errors import InputError
from sparsec.sparsify import Quantization, Recipe

DATA = [{"x": correlated(64, 32)}]


def exported():
    """Two layers as PyTorch's exporters name them: MatMul with an anonymous weight, Gemm with a named one."""
    rng = np.random.default_rng(0)
    constants = {
        "onnx::MatMul_7": rng.standard_normal((32, 24)) / 6, "encoder.dense.bias": rng.standard_normal(24),
        "head.weight": rng.standard_normal((8, 24)) / 5, "head.bias": np.zeros(8),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["p"], name="/encoder/dense/MatMul"),
        helper.make_node("Add", ["encoder.dense.bias", "p"], ["s"], name="/encoder/dense/Add"),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Gemm", ["r", "head.weight", "head.bias"], ["scores"], name="/head/Gemm", transB=1),
    ]
    return model(nodes, constants, ["n", 32], ["n", 8])


def checkpoint(folder, tensors, config=None):
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"quantization_config": config}))
    return folder


def result(folder, **options):
    """Constants of the finished model."""
    done = sparsec.sparsify(exported(), data=DATA, weights=folder, **options)
    return {i.name: numpy_helper.to_array(i) for i in done.network.model().graph.initializer}


def integers(seed=1):
    rng = np.random.default_rng(seed)
    q = rng.integers(-127, 128, (24, 32)).astype(np.int8)
    q[rng.random(q.shape) < 0.5] = 0
    return q, (0.001 + 0.01 * rng.random((24, 1))).astype(np.float32)


def pack(values, bits):
    """Two's complement plus half the range, densely into 32-bit words."""
    digits = (values.astype(np.int64) + (1 << (bits - 1)))[..., None] >> np.arange(bits) & 1
    stream = digits.reshape(len(values), -1).astype(np.uint8)
    stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    return np.packbits(stream, axis=1, bitorder="little").view("<i4")


def test_float(tmp_path):
    rng = np.random.default_rng(1)
    tensors = {"model.encoder.dense.weight": rng.standard_normal((24, 32)), "model.encoder.dense.bias": rng.random(24),
               "model.head.weight": rng.standard_normal((8, 24))}  # fmt: skip
    tensors = {n: a.astype(np.float32) for n, a in tensors.items()}
    found = result(checkpoint(tmp_path, tensors), recipe=Recipe(None, Quantization(tolerance=0)))
    np.testing.assert_array_equal(found["onnx::MatMul_7"], tensors["model.encoder.dense.weight"].T)
    np.testing.assert_array_equal(found["head.weight"], tensors["model.head.weight"])
    np.testing.assert_array_equal(found["encoder.dense.bias"], tensors["model.encoder.dense.bias"])


def test_int8_is_kept_exactly(tmp_path):
    q, scale = integers()
    found = result(checkpoint(tmp_path, {"encoder.dense.weight": q, "encoder.dense.weight_scale": scale}))
    np.testing.assert_array_equal(found["onnx::MatMul_7_quantized"], q.T)
    np.testing.assert_array_equal(found["onnx::MatMul_7_scale"], scale[:, 0])


@pytest.mark.parametrize("bits", [4, 8])
def test_packed(tmp_path, bits):
    """4 bits with a scale per 16 inputs become float first, 8 bits per output stay as they are."""
    q, scale = integers()
    q = np.clip(q, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    scale = np.hstack([scale, 2 * scale]) if bits == 4 else scale
    tensors = {"encoder.dense.weight_packed": pack(q, bits), "encoder.dense.weight_shape": np.array([24, 32]),
               "encoder.dense.weight_scale": scale}  # fmt: skip
    config = {"config_groups": {"group_0": {"weights": {"num_bits": bits, "type": "int"}}}}
    found = result(checkpoint(tmp_path, tensors, config))
    values = found["onnx::MatMul_7_quantized"].T * found["onnx::MatMul_7_scale"][:, None]
    expected = q * np.repeat(scale, 32 // scale.shape[1], 1)
    np.testing.assert_allclose(values, expected, atol=0 if bits == 8 else 0.02 * np.abs(expected).max())
    assert np.all(values[q == 0] == 0)


def test_bitmask(tmp_path):
    rng = np.random.default_rng(2)
    values = rng.standard_normal((24, 32)).astype(np.float32) * (rng.random((24, 32)) < 0.3)
    tensors = {
        "encoder.dense.weight.compressed": values[values != 0],
        "encoder.dense.weight.bitmask": np.packbits(values != 0, axis=1, bitorder="little"),
        "encoder.dense.weight.shape": np.array([24, 32]),
    }
    found = result(checkpoint(tmp_path, tensors), recipe=Recipe(None, Quantization(tolerance=0)))
    np.testing.assert_array_equal(found["onnx::MatMul_7"], values.T)


def test_refusals(tmp_path):
    q, scale = integers()
    cases = [
        ({"decoder.weight": q, "decoder.weight_scale": scale}, None, "no layer of the model is named as decoder"),
        ({"encoder.dense.weight": q, "encoder.dense.weight_scale": scale,
          "encoder.dense.weight_zero_point": np.ones((24, 1), np.int8)}, None, "asymmetric"),
        ({"encoder.dense.weight": q}, None, "weights of type int8"),
        ({"encoder.dense.weight": np.zeros((3, 4), np.float32)}, None, r"is \(3, 4\), but layer /encoder/dense/MatMul"),
        ({"a": np.zeros(3)}, {"config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}}}, "type float"),
    ]  # fmt: skip
    for i, (tensors, config, message) in enumerate(cases):
        (tmp_path / str(i)).mkdir()
        with pytest.raises(InputError, match=message):
            result(checkpoint(tmp_path / str(i), tensors, config))
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        result(tmp_path / "bad.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.safetensors file"):
        result(tmp_path / "empty")


@pytest.mark.parametrize("names", [("a.head", "b.head"), ("dense",)])
def test_names_that_fit_twice_are_refused(tmp_path, names):
    """Two modules for one layer, and one module for two layers."""
    source = exported()
    if names == ("dense",):
        source.graph.node[3].name = "/other/dense/Gemm"
        source.graph.node[3].input[1] = source.graph.initializer[2].name = "onnx::Gemm_9"
    tensors = {f"{name}.weight": np.zeros((8, 24), np.float32) for name in names}
    if names == ("dense",):
        tensors = {"dense.weight": np.zeros((24, 32), np.float32)}
    with pytest.raises(InputError, match=" may be "):
        sparsec.sparsify(source, data=DATA, weights=checkpoint(tmp_path, tensors))


def test_a_quantized_model_is_refused():
    done = sparsec.sparsify(perceptron(), data=DATA)
    with pytest.raises(InputError, match="quantized already"):
        sparsec.sparsify(done.network.model(), data=DATA, sparsity=0.5)


def test_zeros_of_a_pruned_source_survive():
    """A model that was pruned before is quantized under its own mask."""
    once = sparsec.sparsify(perceptron(), data=DATA, sparsity=0.7, quantize="none")
    twice = sparsec.sparsify(once.network.model(), data=DATA)
    found = {i.name: numpy_helper.to_array(i) for i in twice.network.model().graph.initializer}
    for weight, mask in once.masks.items():
        assert not found[f"{weight}_quantized"][~mask].any()
