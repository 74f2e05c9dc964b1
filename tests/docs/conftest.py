"""Where the blocks of a document are run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]


def _fill(folder: Path) -> None:
    """A small model, the examples, and programs: `sparsec`, `python`, `pip`, and `cc`, which is zig's."""
    weights = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 8])
    graph = helper.make_graph(nodes, "small", [image], [scores], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "bin").mkdir()
    programs = {"cc": "-m ziglang cc", "sparsec": "-m sparsec_main", "python": "", "pip": "-m pip"}
    for name, module in programs.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    (folder / "bin" / "sparsec_main.py").write_text("from sparsec.cli import main\nmain()\n")


@pytest.fixture(scope="session")
def fill() -> Callable[[Path], None]:
    return _fill
