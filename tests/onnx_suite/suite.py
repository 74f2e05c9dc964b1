"""The test suites of the onnx package, as a compiler sees them.

`execute(model, inputs) -> outputs` is the caller's: it compiles the model for exactly these inputs and runs it.
"""

from __future__ import annotations

import collections
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

Arrays = dict[str, np.ndarray]
Execute = Callable[[onnx.ModelProto, Arrays], Sequence[np.ndarray]]

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")
"""What `onnx.backend.test` holds."""

SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Clip": (),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "Loop": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
} | dict.fromkeys(
    [
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
        *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
    ],
    (1,),
)
"""Which inputs of an operator say how it is computed, not on what."""


@dataclass(frozen=True)
class Case:
    """One test: a model, its inputs and the outputs to expect."""

    name: str
    op: str
    model: onnx.ModelProto
    inputs: Arrays
    outputs: list[np.ndarray]
    rtol: float
    atol: float


@dataclass
class Result:
    """How one case went: 'pass', or what went wrong in one line."""

    case: str
    op: str
    verdict: str


@dataclass
class Report:
    """All results."""

    results: list[Result] = field(default_factory=list)

    @property
    def passed(self) -> list[str]:
        """Names of the cases that passed."""
        return [r.case for r in self.results if r.verdict == "pass"]

    def failures_by_op(self) -> str:
        """A table of failures, the operators with the most first."""
        failed: dict[str, list[Result]] = collections.defaultdict(list)
        for result in self.results:
            if result.verdict != "pass":
                failed[result.op].append(result)
        lines = [f"{len(self.passed)} of {len(self.results)} pass"]
        for op, results in sorted(failed.items(), key=lambda item: -len(item[1])):
            reasons = collections.Counter(r.verdict for r in results)
            lines.append(f"{len(results):4d} {op}: {reasons.most_common(1)[0][0][:200]}")
        return "\n".join(lines)


def bind_shape_inputs(model: onnx.ModelProto, data: Arrays) -> tuple[onnx.ModelProto, Arrays]:
    """The model with its shape-like inputs turned into initializers, and the inputs that are left."""
    graph = model.graph
    maker = {name: node for node in graph.node for name in node.output}
    queue = [node.input[i] for node in graph.node for i in SHAPE_INPUTS.get(node.op_type, ()) if i < len(node.input)]
    shapelike: set[str] = set()
    while queue:  # operands computed from an input make that input shape-like, unless only its shape is read
        name = queue.pop()
        if name in shapelike:
            continue
        shapelike.add(name)
        if name in maker and maker[name].op_type not in ("Shape", "Size"):
            queue += maker[name].input
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    del bound.graph.input[:]
    rest = {}
    for value in graph.input:
        if value.name in shapelike and value.name in data and data[value.name].ndim <= 1:
            bound.graph.initializer.append(numpy_helper.from_array(data[value.name], value.name))
        else:
            bound.graph.input.append(value)
            if value.name in data:
                rest[value.name] = data[value.name]
    return bound, rest


def keyed_cases() -> dict[str, Case]:
    """The tests of all kinds; those of other kinds than `node` are called `kind/name`."""
    return {case.name if kind == "node" else f"{kind}/{case.name}": case for kind in KINDS for case in cases(kind)}


def cases(kind: str = "node") -> Iterator[Case]:
    """The tests of one kind whose inputs and outputs are tensors of numbers that numpy can hold."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in load_model_tests(kind="real" if kind == "light" else kind):
            case = _light_case(test) if kind == "light" else _case(test)
            if case is not None:
                yield case


def _case(test: Any) -> Case | None:
    if test.model is not None:
        model, data_sets = test.model, test.data_sets
        if not data_sets:
            return None
        inputs, outputs = data_sets[0]
    else:
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        data = folder / "test_data_set_0"
        inputs, outputs = (_read(data, kind, graph) for kind, graph in _sides(model))
    arrays = [_array(v) for v in (*inputs, *outputs)]
    if any(a is None or not _is_number(a.dtype) for a in arrays):
        return None
    names = [value.name for value in model.graph.input]
    taken = dict(zip(names, arrays[: len(inputs)], strict=False))
    op = next((n.op_type for n in reversed(model.graph.node) if n.op_type != "Constant"), "?")
    half = any(a.dtype == np.float16 for a in arrays)  # type: ignore[union-attr]
    rtol, atol = (4e-3, 1e-3) if half else (max(test.rtol, 1e-4), max(test.atol, 1e-5))
    if any(a.dtype.name == "bfloat16" for a in arrays):  # type: ignore[union-attr]
        rtol, atol = 3e-2, 1e-2
    return Case(test.name, op, model, taken, arrays[len(inputs) :], rtol, atol)  # type: ignore[arg-type]


def _light_case(test: Any) -> Case:
    """A model of the `light` folder; its one output is beside it, its input is what the suite's runner makes."""
    from onnx.backend.test import runner

    path = Path(runner.__file__).parents[1] / "data" / "light" / Path(test.url).name
    model = onnx.load(path)
    weights = {i.name for i in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in weights]
    dummy = runner.Runner.generate_dummy_data
    inputs = {v.name: dummy(v, seed=0, name=test.model_name, random=False) for v in values}
    wanted = numpy_helper.to_array(onnx.TensorProto.FromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes()))
    op = next(n.op_type for n in reversed(model.graph.node))
    return Case(test.name, op, model, inputs, [wanted], test.rtol, test.atol)


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" or dtype.name == "bfloat16"


def _sides(model: onnx.ModelProto) -> list[tuple[str, Any]]:
    return [("input", model.graph.input), ("output", model.graph.output)]


def _read(folder: Any, kind: str, values: Any) -> list[Any]:
    result: list[Any] = []
    for i, value in enumerate(values):
        path = folder / f"{kind}_{i}.pb"
        if not path.exists():
            break
        if value.type.WhichOneof("value") != "tensor_type":
            result.append(None)
        else:
            result.append(onnx.TensorProto.FromString(path.read_bytes()))
    return result


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, onnx.TensorProto):
        if value.data_type == onnx.TensorProto.STRING:
            return None
        value = numpy_helper.to_array(value)
    return value if isinstance(value, np.ndarray) else np.asarray(value) if np.isscalar(value) else None


def check(case: Case, execute: Execute) -> str:
    """'pass', or in one line what is wrong."""
    model, inputs = bind_shape_inputs(case.model, case.inputs)
    try:
        outputs = execute(model, inputs)
    except Exception as error:
        lines = str(error).strip().splitlines() or [traceback.format_exc().splitlines()[-1]]
        return f"{type(error).__name__}: {' '.join(line.strip() for line in lines)[:300]}"
    for wanted, found in zip(case.outputs, outputs, strict=True):
        if found.dtype != wanted.dtype or found.shape != wanted.shape:
            return f"gives {found.dtype}{list(found.shape)}, not {wanted.dtype}{list(wanted.shape)}"
        if wanted.dtype.kind != "f" and wanted.dtype.name != "bfloat16":
            if not np.array_equal(found, wanted):
                return "wrong values"
            continue
        try:
            np.testing.assert_allclose(
                found.astype(np.float64), wanted.astype(np.float64), rtol=case.rtol, atol=case.atol
            )
        except AssertionError:
            return "wrong values"
    return "pass"


def run(execute: Execute, kind: str = "node", only: Callable[[Case], bool] = lambda case: True) -> Report:
    """Every selected case, in the suite's order."""
    report = Report()
    for case in cases(kind):
        if only(case):
            report.results.append(Result(case.name, case.op, check(case, execute)))
    return report
