"""The `light` architectures of the onnx package, with weights that matter.

The package stores each weight as a `ConstantOfShape`, all elements equal: nearly every error would cancel out. Here
they become random, scaled so that activations keep their size from layer to layer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT_MODELS = {path.stem.removeprefix("light_"): path for path in sorted(FOLDER.glob("light_*.onnx"))}


def light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """The architecture with random weights as initializers."""
    model = onnx.load(str(LIGHT_MODELS[name]))
    graph = model.graph
    shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    norms = {n: k for node in graph.node if node.op_type == "BatchNormalization" for k, n in enumerate(node.input)}
    rng = np.random.default_rng(seed)
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = tuple(int(d) for d in shapes[node.input[0]])
        graph.initializer.append(
            numpy_helper.from_array(_weights(shape, norms.get(node.output[0]), rng), node.output[0])
        )
    if kept[-1].op_type == "Softmax":  # it would hide the differences of large logits
        graph.output[0].name = kept.pop().input[0]
    del graph.node[:]
    graph.node.extend(kept)
    inputs = [i for i in graph.input if i.name not in shapes]
    del graph.input[:]
    graph.input.extend(inputs)
    read = {name for node in kept for name in node.input}
    used = [i for i in graph.initializer if i.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
    model.ir_version = 8  # before 4, initializers had to be inputs too
    return model


def _weights(shape: tuple[int, ...], norm_input: int | None, rng: np.random.Generator) -> np.ndarray:
    """Inputs 1 to 4 of BatchNormalization are scale, bias, mean, variance."""
    if norm_input in (1, 4):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) < 2:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
