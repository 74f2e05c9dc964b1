"""One fuzzing case: a mutated model is built, run and compared; the verdict is one word.

refused     one sentence said why, and nothing was left where the output goes
verified    equal to a reference within the tolerance of `sparsec verify`
unjudged    built and run, but no reference takes the model, or the references contradict each other

and the findings:

wrong       the artifact contradicts every reference
traceback   an exception that is no SparsecError, or one that reports a defect of sparsec
left        a refusal that left files behind
crash, hang as `run.py` sees them
"""

from __future__ import annotations

import logging
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import mutate
import numpy as np
import onnx
import tiny_networks

import sparsec
from sparsec.compiler.tools.verify import FLOAT_TOLERANCE, QUANTIZED_TOLERANCE, compare, is_quantized, reference
from sparsec.errors import InternalError, SparsecError, ToolchainError
from sparsec.runtime_stub.inputs import random_inputs

FINDINGS = ("wrong", "traceback", "left", "crash", "hang")
DEFECTS = (InternalError, ToolchainError)
"""Their texts say that sparsec is at fault."""
_NEWEST_OF_ONNXRUNTIME = 26
TINY = 1 << 16
"""Bytes; larger node tests take longer and show no more."""


@cache
def node_tests() -> list[onnx.ModelProto]:
    """The small models among onnx's node tests, their shape-like inputs as constants."""
    import suite

    found = []
    for test in suite.cases():
        model, _ = suite.bind_shape_inputs(test.model, test.inputs)
        if model.ByteSize() < TINY:
            found.append(model)
    return found


def warm_up() -> None:
    """Imports and reads what every case needs; a fork then has it."""
    for module in ("onnx.reference", "onnxruntime", "sparsec.compiler.pipeline"):
        import_module(module)
    node_tests()


def make(number: int) -> tuple[str, bytes]:
    """How the case came about, and the file: the same for the same number and version of onnx."""
    rng = np.random.default_rng([20, number])
    if rng.random() < 0.5:
        source: onnx.ModelProto = mutate.pick(rng, node_tests())
        what = source.graph.name
    else:
        network = mutate.pick(rng, tiny_networks.NETWORKS)
        source, what = network(rng), network.__name__
    if rng.random() < 0.2:
        return f"{what}: bytes", mutate.mutate_bytes(source.SerializeToString(), rng)
    model = onnx.ModelProto()
    model.CopyFrom(source)
    how = mutate.mutate_graph(model, rng)
    return f"{what}: {how}", model.SerializeToString()


def run(number: int, on_judging: Callable[[], None] = lambda: None) -> tuple[str, str]:
    """The verdict and its reason. What happens after `on_judging` is the reference's doing."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    rng = np.random.default_rng([21, number])
    _, data = make(number)
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "model.onnx", Path(folder) / "out" / "model.so"
        output.parent.mkdir()
        source.write_bytes(data)
        try:
            sparsec.build(source, output=output, jobs=1, **_bounds(data, rng))
            with sparsec.load(output) as loaded:
                inputs = random_inputs(loaded.manifest, seed=number)
                results = {name: np.array(value) for name, value in loaded.run(inputs).items()}
        except DEFECTS:
            return "traceback", traceback.format_exc()
        except SparsecError as error:
            left = [p.name for p in output.parent.iterdir() if p != output]
            return ("left", f"{left}: {error}") if left else ("refused", str(error))
        except Exception:
            return "traceback", traceback.format_exc()
        on_judging()
        return _judge(onnx.load(source, load_external_data=False), inputs, results)


def _bounds(data: bytes, rng: np.random.Generator) -> dict[str, Any]:
    """Sizes for the free dimensions, as a user would give them."""
    try:
        inputs = onnx.ModelProto.FromString(data).graph.input
    except Exception:
        return {}
    dims: dict[str, int | tuple[int, int]] = {}
    shapes = {}
    for value in inputs:
        shape = value.type.tensor_type.shape.dim
        named = [d.dim_param for d in shape if d.dim_param]
        dims |= {name: (1, 4) if rng.random() < 0.5 else 3 for name in named}
        if any(not d.HasField("dim_value") and not d.dim_param for d in shape):
            shapes[value.name] = tuple(d.dim_value or 3 for d in shape)
    return {"dims": dims, "shapes": shapes}


def _judge(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], results: Mapping[str, np.ndarray]
) -> tuple[str, str]:  # fmt: skip
    """Right is what one of the references says."""
    tolerance = QUANTIZED_TOLERANCE if is_quantized(model) else FLOAT_TOLERANCE
    names, answers = list(results), []
    for evaluate in (_onnxruntime, _onnx_reference):
        try:
            answers.append(evaluate(model, dict(inputs), names))
        except Exception:
            continue
        wrong = _difference(results, answers[-1], tolerance)
        if wrong is None:
            return "verified", ""
    if not answers:
        return "unjudged", "no reference takes the model"
    if len(answers) == 2 and _difference(answers[0], answers[1], tolerance) is not None:
        return "unjudged", "the references contradict each other"
    if any(n.op_type == "BitCast" for n in model.graph.node):
        return "unjudged", "the bits of an inexact value"
    return "wrong", f"{wrong} ({len(answers)} references)"


def _difference(
    results: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], tolerance: float
) -> str | None:  # fmt: skip
    for name, want in wanted.items():
        try:
            row = compare(name, results[name], np.asarray(want), tolerance)
        except SparsecError as error:
            return str(error)
        if not row.ok:
            return f"{name} is off by {row.max_abs}"
    return None


def _onnxruntime(model: onnx.ModelProto, inputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """onnxruntime refuses opsets that it does not know, whatever the nodes are."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    for opset in known.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = min(opset.version, _NEWEST_OF_ONNXRUNTIME)
    return reference(known, inputs, names)


def _onnx_reference(
    model: onnx.ModelProto, inputs: dict[str, np.ndarray], names: list[str]
) -> dict[str, np.ndarray]:  # fmt: skip
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        values = ReferenceEvaluator(model).run(names, inputs)
    return dict(zip(names, values, strict=True))
