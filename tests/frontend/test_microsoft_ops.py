"""onnxruntime's own operators against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import floats, node
from microsoft import check, ms

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("trans_a", "trans_b", "alpha"), [(0, 1, 1.0), (1, 0, 0.3), (1, 1, 1.0)])
def test_fused_matmul(trans_a, trans_b, alpha):
    a, b = floats(2, 5, 4) if trans_a else floats(2, 4, 5), floats(2, 3, 5) if trans_b else floats(2, 5, 3)
    check([ms("FusedMatMul", "a b", transA=trans_a, transB=trans_b, alpha=alpha)], {"a": a, "b": b})


@pytest.mark.parametrize("trans_a", [0, 1])
def test_fused_matmul_of_moved_batches(trans_a):
    a = floats(5, 2, 4) if trans_a else floats(4, 2, 5)
    check([ms("FusedMatMul", "a b", transBatchA=1, transA=trans_a)], {"a": a, "b": floats(2, 5, 3)})


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [("Relu", {}), ("LeakyRelu", {"activation_alpha": 0.2}), ("Tanh", {}), ("Sigmoid", {})],
)
def test_fused_gemm(activation, parameters):
    gemm = ms("FusedGemm", "a b c", transB=1, alpha=0.5, beta=2.0, activation=activation, **parameters)
    check([gemm], {"a": floats(4, 5)}, b=floats(3, 5, seed=1), c=floats(3, seed=2))


@pytest.mark.parametrize("addend", [False, True])
@pytest.mark.parametrize(
    ("activation", "parameters"),
    [("Relu", []), ("Clip", [-0.5, 0.5]), ("LeakyRelu", [0.3]), ("HardSigmoid", [0.2, 0.5])],
)
def test_fused_conv(activation, parameters, addend):
    attrs = {"activation_params": parameters} if parameters else {}
    inputs = {"x": floats(1, 3, 6, 7), **({"z": floats(1, 4, 6, 7, seed=3)} if addend else {})}
    conv = ms("FusedConv", "x w b z" if addend else "x w b", activation=activation, pads=[1, 1, 1, 1], **attrs)
    check([conv], inputs, w=floats(4, 3, 3, 3, seed=1), b=floats(4, seed=2))


@pytest.mark.parametrize("op", ["Gelu", "FastGelu", "QuickGelu"])
def test_gelu(op):
    check([ms(op, "x")], {"x": 3 * floats(4, 7)})


@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu"])
def test_gelu_with_bias(op):
    check([ms(op, "x b")], {"x": 3 * floats(4, 7)}, b=floats(7, seed=1))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("outputs", ["y", "y - - s"])
def test_skip_layer_norm(bias, outputs):
    norm = ms("SkipLayerNormalization", "x s0 g b c" if bias else "x s0 g b", outputs.replace("-", ""), epsilon=1e-5)
    norm.output[:] = ["" if name == "-" else name for name in outputs.split()]
    constants = {"g": floats(8, seed=2), "b": floats(8, seed=3), **({"c": floats(8, seed=4)} if bias else {})}
    inputs = {"x": floats(2, 3, 8), "s0": floats(2, 3, 8, seed=1)}
    check([norm], inputs, "y s" if "s" in outputs else "y", **constants)


def test_skip_rms_norm():
    norm = ms("SkipSimplifiedLayerNormalization", "x s g", epsilon=1e-5)
    check([norm], {"x": floats(2, 3, 8), "s": floats(2, 3, 8, seed=1)}, g=floats(8, seed=2))


def test_rms_norm():
    check([node("SimplifiedLayerNormalization", "x g", "y", axis=-1)], {"x": floats(2, 3, 8)}, g=floats(8, seed=2))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("placed", [False, True])
def test_embed_layer_norm(masked, placed):
    inputs = {"ids": RNG.integers(0, 20, (2, 5)).astype(np.int32), "kinds": RNG.integers(0, 2, (2, 5)).astype(np.int32)}
    if masked:
        inputs["mask"] = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    if placed:
        inputs["places"] = np.array([[3, 2, 1, 0, 5]] * 2, np.int32)
    names = f"ids kinds word position segment g b {'mask' if masked else '-'} {'places' if placed else '-'}"
    tables = {"word": floats(20, 8), "position": floats(9, 8, seed=1), "segment": floats(2, 8, seed=2)}
    embed = ms("EmbedLayerNormalization", names, "y m s")
    while not embed.input[-1]:
        del embed.input[-1]
    check([embed], inputs, "y m s", g=floats(8, seed=3), b=floats(8, seed=4), **tables)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mask", ["none", "padding", "attention_bias", "causal"])
def test_multi_head_attention(bias, mask):
    attrs = {"num_heads": 2, **({"unidirectional": 1} if mask == "causal" else {})}
    keys = 5 if mask == "causal" else 7
    inputs = {"q": floats(2, 5, 8), "k": floats(2, keys, 8, seed=1), "v": floats(2, keys, 8, seed=2)}
    names = ["q", "k", "v", "b" if bias else "-"]
    if mask == "padding":
        inputs["m"] = np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32)
        names.append("m")
    if mask == "attention_bias":
        inputs["m"] = floats(1, 2, 5, 7, seed=4)
        names += ["-", "m"]
    constants = {"b": floats(24, seed=3)} if bias else {}
    attention = ms("MultiHeadAttention", " ".join(names), **attrs)
    while not attention.input[-1]:
        del attention.input[-1]
    check([attention], inputs, **constants)


@pytest.mark.parametrize("mask", [False, True])
def test_attention(mask):
    inputs = {"x": floats(2, 5, 8)}
    if mask:
        inputs["m"] = np.array([[1] * 5, [1] * 3 + [0] * 2], np.int32)
    attention = ms("Attention", "x w b m" if mask else "x w b", num_heads=2)
    check([attention], inputs, w=floats(8, 24, seed=1), b=floats(24, seed=2))


@pytest.mark.parametrize("mask", [False, True])
def test_quantized_attention(mask):
    inputs = {"x": RNG.integers(0, 256, (2, 5, 8)).astype(np.uint8)}
    if mask:
        inputs["m"] = np.array([[1] * 5, [1] * 3 + [0] * 2], np.int32)
    constants = {
        "w": RNG.integers(-128, 128, (8, 24)).astype(np.int8),
        "b": floats(24, seed=2),
        "xs": np.array(0.02, np.float32),
        "ws": np.array(0.005, np.float32),
        "xz": np.array(120, np.uint8),
        "wz": np.array(0, np.int8),
    }
    attention = ms("QAttention", f"x w b xs ws {'m' if mask else '-'} xz wz", num_heads=2)
    check([attention], inputs, **constants)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("k", [64, 70])
def test_matmul_nbits(bits, zeros, k):
    n, block = 9, 32
    blocks = -(-k // block)
    packed = RNG.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    constants = {"b": packed, "s": RNG.uniform(0.01, 0.1, n * blocks).astype(np.float32)}
    if zeros:
        constants["z"] = RNG.integers(0, 256, n * -(-blocks * bits // 8)).astype(np.uint8)
    product = ms("MatMulNBits", "x b s z" if zeros else "x b s", K=k, N=n, bits=bits, block_size=block)
    check([product], {"x": floats(3, k)}, **constants)
