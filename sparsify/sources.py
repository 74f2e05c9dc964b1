"""Weights from elsewhere: checkpoints of PyTorch and of llm-compressor (compressed-tensors), put into the ONNX export.

A checkpoint holds no graph, so that the ONNX export of the dense model is needed too. Modules find their layers by
name: PyTorch's exporters keep `encoder.layer.0.query` as the node `/encoder/layer.0/query/MatMul`, or as `….weight`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .layers import Layer, find_layers
from .network import Network

_QUANTIZED_OPS = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", "QGemm", "MatMulNBits",
)  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """A module's weight in float, and the scale per output that its int8 form had, if it had one."""

    values: np.ndarray
    scale: np.ndarray | None = None


def refuse_quantized(network: Network) -> None:
    """Raises InputError for a model that is quantized already, such as a SparseML export after quantization."""
    found = [node for node in network.nodes if node.op_type in _QUANTIZED_OPS]
    if found:
        raise InputError(
            f"the model is quantized already ({len(found)} nodes such as {found[0].op_type} {found[0].name}): "
            "`sparsec build` takes it as it is; sparsify starts from a model in float32"
        )


def load_weights(network: Network, path: Path) -> dict[str, np.ndarray]:
    """Puts a checkpoint's weights and biases into the network.

    Returns:
        stored weight's name -> scale per output [M], for weights that are int8 in the checkpoint: they are kept so.

    Raises:
        InputError: the file is no checkpoint, its format is not known, or a module has no layer.
    """
    tensors, bits = _read(path)
    weights = _modules(tensors, bits, path)
    layers = find_layers(network)
    scales: dict[str, np.ndarray] = {}
    used: dict[str, str] = {}
    for layer in layers:
        module = _match(layer, weights, path)
        if module is None:
            continue
        if module in used:
            raise InputError(f"{path}: {module} may be layer {used[module]} or {layer.name}; give it its full name")
        weight = weights[module]
        values = weight.values if layer.kind == "Conv" else layer.stored(weight.values)
        if values.shape != layer.shape:
            raise InputError(f"{path}: {module} is {weight.values.shape}, but layer {layer.name} is {layer.shape}")
        network.constants[layer.weight] = np.ascontiguousarray(values, np.float32)
        if weight.scale is not None:
            scales[layer.weight] = weight.scale
        bias = tensors.get(f"{module}.bias")
        if bias is not None and layer.bias is not None:
            network.constants[layer.bias] = bias.astype(np.float32).reshape(layer.rows)
        used[module] = layer.name
    _others(network, tensors, {layer.weight for layer in layers})
    lost = [m for m, w in weights.items() if m not in used and w.scale is not None]
    if lost or not used:
        raise InputError(
            f"{path}: no layer of the model is named as {(lost or list(weights) or ['its modules'])[0]}; export the "
            "ONNX model from the module that was compressed"
        )
    return scales


def _others(network: Network, tensors: dict[str, np.ndarray], layers: set[str]) -> None:
    """Embeddings, norms: constants that the export calls as the checkpoint does."""
    for name, array in tensors.items():
        old = network.constants.get(name)
        if old is not None and name not in layers and old.shape == array.shape and array.dtype.kind == "f":
            network.constants[name] = array.astype(old.dtype)


def _match(layer: Layer, weights: dict[str, Weight], where: Path) -> str | None:
    """The module whose name ends the layer's, the longest of them; else the one whose name the layer's ends."""
    names = [layer.weight.removesuffix(".weight")]
    names += [node.name.strip("/").rpartition("/")[0].replace("/", ".") for node in layer.nodes]
    names = [name for name in names if name]
    inside = [module for module in weights for name in names if f".{name}".endswith(f".{module}")]
    if inside:
        return max(inside, key=len)
    around = {module for module in weights for name in names if f".{module}".endswith(f".{name}")}
    if len(around) > 1:
        raise InputError(f"{where}: layer {layer.name} may be {' or '.join(sorted(around))}; export it with full names")
    return around.pop() if around else None


def _read(path: Path) -> tuple[dict[str, np.ndarray], int | None]:
    """(all tensors, bits of packed weights as the config says)."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no .safetensors file")
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, TypeError, KeyError) as error:
            raise InputError(f"{file} cannot be read as safetensors: {error}") from None
    config = path / "config.json" if path.is_dir() else path.with_name("config.json")
    bits = None
    if config.is_file():
        found = json.loads(config.read_text(encoding="utf-8")).get("quantization_config") or {}
        groups = (found.get("config_groups") or {}).values()
        kinds = {((g.get("weights") or {}).get("type"), (g.get("weights") or {}).get("num_bits")) for g in groups}
        if any(kind not in ("int", None) for kind, _ in kinds):
            raise InputError(f"{path}: weights of type {sorted(str(k) for k, _ in kinds)[0]} are not known, only int")
        bits = next(iter(kinds))[1] if len(kinds) == 1 else None
    return tensors, bits


def _modules(tensors: dict[str, np.ndarray], bits: int | None, path: Path) -> dict[str, Weight]:
    """Module's name -> weight, of every tensor that is a matrix or more."""
    parts: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, array in tensors.items():
        module, dot, part = name.rpartition(".weight")
        if dot and part[:1] in ("", ".", "_"):
            parts[module][part[1:]] = array
    found = {}
    for module, pieces in parts.items():
        weight = _weight(pieces, bits, f"{path}: {module}")
        if weight is not None and weight.values.ndim >= 2:
            found[module] = weight
    return found


def _weight(part: dict[str, np.ndarray], bits: int | None, where: str) -> Weight | None:
    """One module's weight out of the parts that its format splits it into."""
    if np.any(part.get("zero_point", 0)):
        raise InputError(f"{where}: asymmetric weights are not known, only those with zero point 0")
    if "packed" in part:
        return _scaled(_unpacked(part["packed"], part["shape"], bits or _bits(part)), part["scale"], where)
    if "bitmask" in part:
        mask = np.unpackbits(part["bitmask"], axis=-1, bitorder="little").astype(bool)
        rows, columns = (int(n) for n in part["shape"])
        values = np.zeros((rows, columns), np.float32)
        values[mask[:, :columns]] = part["compressed"].astype(np.float32)
        return Weight(values)
    array = part.get("")
    if array is None:
        return None
    if array.dtype == np.int8 and "scale" in part:
        return _scaled(array, part["scale"], where)
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise InputError(f"{where}: weights of type {array.dtype} are not known")
    return Weight(array.astype(np.float32))


def _scaled(integers: np.ndarray, scale: np.ndarray, where: str) -> Weight:
    """With a scale per tensor, per output, or per group of inputs; only the first two stay int8 exactly."""
    rows, columns = integers.shape
    scale = scale.astype(np.float32).reshape(rows if scale.size != 1 else 1, -1)
    if columns % scale.shape[1]:
        raise InputError(f"{where}: {scale.shape[1]} groups of {columns} inputs")
    values = integers * np.repeat(scale, columns // scale.shape[1], 1)
    return Weight(values.astype(np.float32), np.broadcast_to(scale[:, 0], rows) if scale.shape[1] == 1 else None)


def _bits(part: dict[str, Any]) -> int:
    """Of packed weights without a config: as many as their words hold."""
    return int(32 * part["packed"].shape[1] // part["shape"][1])


def _unpacked(words: np.ndarray, shape: np.ndarray, bits: int) -> np.ndarray:
    """Integers that lie densely in 32-bit words along each row, offset by half their range."""
    rows, columns = (int(n) for n in shape)
    stream = np.unpackbits(np.ascontiguousarray(words.astype("<u4")).view(np.uint8), axis=1, bitorder="little")
    digits = stream[:, : columns * bits].reshape(rows, columns, bits).astype(np.int32)
    return (digits @ (1 << np.arange(bits)) - (1 << (bits - 1))).astype(np.int8)
