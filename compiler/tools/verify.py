"""`sparsec verify`: the artifact against onnxruntime with its optimizations off.

Layer by layer, each layer is given the reference's own inputs: the model is cut at every tensor that a kernel of the
artifact writes, so that errors cannot add up and the wrong layer is named.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from ...errors import InputError, ModelError, VerifyError
from ...runtime_stub.inputs import random_inputs
from ...runtime_stub.loader import load

FLOAT_TOLERANCE = 1e-4
"""Of the reference's largest magnitude, for models without quantized tensors."""
HALF_TOLERANCE = 4e-3
"""The same for tensors of float16: four units in the last place."""
QUANTIZED_TOLERANCE = 5e-2
"""End to end, where one quantum of difference in an early layer is amplified by the later ones."""
QUANTUM_SHARE = 1e-3
"""Share of the elements of a quantized tensor that may differ, by one quantum."""
REFERENCE_ERROR = {"Sigmoid": 3e-7, "Tanh": 3e-7, "Erf": 3e-7}
"""Absolute error of onnxruntime's own polynomials (measured against float64), whatever the size of the result."""
_CUT_SUFFIX = "__reference"


@dataclass(frozen=True)
class Row:
    """One compared tensor: relative error is to the reference's largest magnitude, ULPs are of the float type."""

    name: str
    max_abs: float
    max_rel: float
    max_ulp: float
    ok: bool


@dataclass(frozen=True)
class VerifyReport:
    """What was compared, and whether all of it is within tolerance."""

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """True when every row is."""
        return all(row.ok for row in self.rows)

    def table(self) -> list[tuple[str, float, float, float, bool]]:
        """Rows as plain tuples."""
        return [(r.name, r.max_abs, r.max_rel, r.max_ulp, r.ok) for r in self.rows]


def verify(
    model: str | os.PathLike[str],
    artifact: str | os.PathLike[str],
    inputs: Mapping[str, np.ndarray] | None = None,
    per_layer: bool = False,
    seed: int = 0,
) -> VerifyReport:
    """Runs both on the same inputs: the given ones, or random ones at the largest and at a middling size.

    Raises:
        ArtifactError, InputError: the artifact cannot be loaded, or the inputs do not fit.
    """
    proto = _read(model)
    with load(artifact) as loaded:
        manifest = loaded.manifest
        _fix_inputs(proto, manifest["options"].get("fixed", {}))
        cases = [dict(inputs)] if inputs is not None else _random_cases(manifest, seed)
        rows = []
        for case in cases:
            if per_layer:
                rows += _compare_layers(proto, manifest, case)
            else:
                want = reference(proto, case, [o["name"] for o in manifest["outputs"]])
                got = loaded.run(case)
                tolerance = QUANTIZED_TOLERANCE if is_quantized(proto) else FLOAT_TOLERANCE
                floor = _reference_errors(proto)
                rows += [compare(name, got[name], want[name], tolerance, floor.get(name, 0.0)) for name in want]
    return VerifyReport(tuple(rows))


def _read(model: str | os.PathLike[str]) -> onnx.ModelProto:
    try:
        return onnx.load(os.fspath(model))
    except DecodeError as error:
        raise ModelError(f"{os.fspath(model)} is not an ONNX model, or is cut short") from error


def _fix_inputs(proto: onnx.ModelProto, fixed: Mapping[str, Any]) -> None:
    """Makes initializers of the inputs that the build fixed."""
    declared = {i.name: i for i in proto.graph.input}
    for name, value in fixed.items():
        kind = declared[name].type.tensor_type
        shape = [d.dim_value or 1 for d in kind.shape.dim] if np.ndim(value) == 0 else np.shape(value)
        array = np.asarray(value).astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).reshape(shape)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        proto.graph.input.remove(declared[name])


def is_quantized(proto: onnx.ModelProto) -> bool:
    """Whether the model rounds activations to integers somewhere."""
    return any(n.op_type in _QUANTIZED_OPS for n in proto.graph.node)


_QUANTIZING_OPS = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul", "QGemm"}
"""Their outputs are integers: the next layer gets the reference's own, whatever kernel wrote them."""
_QUANTIZED_OPS = {
    *_QUANTIZING_OPS, "QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
    "QAttention",
}  # fmt: skip


def _reference_errors(proto: onnx.ModelProto) -> dict[str, float]:
    """Tensor -> what the reference itself may be off by."""
    return {
        n: REFERENCE_ERROR[node.op_type]
        for node in proto.graph.node
        for n in node.output
        if node.op_type in REFERENCE_ERROR
    }


def compare(name: str, got: np.ndarray, want: np.ndarray, tolerance: float, floor: float = 0.0) -> Row:
    """One tensor. Integers must be equal, 8-bit ones but for one quantum in a thousandth of the elements.

    `tolerance` is relative to the largest magnitude, `floor` absolute.
    """
    if got.shape != want.shape or got.dtype != want.dtype:
        raise InputError(f"{name}: the artifact gives {got.dtype}{got.shape}, the reference {want.dtype}{want.shape}")
    if got.size == 0:
        return Row(name, 0.0, 0.0, 0.0, True)
    if not np.issubdtype(want.dtype, np.floating):
        difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
        worst, share = float(difference.max()), float((difference > 0).mean())
        peak = max(float(np.abs(want.astype(np.float64)).max()), 1.0)
        ok = worst == 0 or (want.dtype.itemsize == 1 and worst <= 1 and share <= QUANTUM_SHARE)
        return Row(name, worst, worst / peak, worst, ok)
    tolerance = max(tolerance, HALF_TOLERANCE) if want.dtype == np.float16 else tolerance
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    finite = np.isfinite(got) & np.isfinite(want)
    difference = np.where(finite, np.abs(got.astype(np.float64) - want.astype(np.float64)), np.inf)
    worst = float(np.where(same, 0.0, difference).max())
    peak = float(np.abs(np.where(np.isfinite(want), want, 0)).max())
    relative = worst / peak if peak else worst
    return Row(name, worst, relative, _ulps(got, want, same), relative <= tolerance or worst <= floor)


def _ulps(got: np.ndarray, want: np.ndarray, same: np.ndarray) -> float:
    """The largest distance in representable numbers; infinity where one side is not finite."""
    finite = np.isfinite(got) & np.isfinite(want)
    if not bool((finite | same).all()):
        return float("inf")
    spacing = np.spacing(np.maximum(np.abs(got), np.abs(want)), where=finite, out=np.ones_like(want))
    distance = np.where(same | ~finite, 0, np.abs(got - want) / spacing)
    return float(distance.max())


def reference(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """The named tensors as onnxruntime computes them with its optimizations off.

    Raises:
        VerifyError: onnxruntime refuses the model or the inputs.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.onnx"
        onnx.save(proto, str(path), save_as_external_data=proto.ByteSize() > 1 << 30, location="weights.bin")
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            values = session.run(names, dict(inputs))
        except Exception as error:  # onnxruntime has an exception type for each of its status codes
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise VerifyError(f"onnxruntime cannot run the model, so there is no reference: {reason}") from None
    return dict(zip(names, (np.asarray(v) for v in values), strict=True))


def _random_cases(manifest: Mapping[str, Any], seed: int) -> list[dict[str, np.ndarray]]:
    dims = manifest["dims"]
    largest = {d["name"]: d["upper"] for d in dims}
    middling = {d["name"]: (d["lower"] + d["upper"]) // 2 for d in dims}
    sizes = [largest] if middling == largest else [largest, middling]
    return [random_inputs(manifest, dims=size, seed=seed) for size in sizes]


# --- layer by layer ---------------------------------------------------------------------------------------------------


def _compare_layers(
    proto: onnx.ModelProto, manifest: Mapping[str, Any], case: Mapping[str, np.ndarray]
) -> list[Row]:  # fmt: skip
    from .. import build

    produced = {name for node in proto.graph.node for name in node.output if name}
    written = {name for layer in manifest["layers"] for name in layer["nodes"]}
    written |= {o for n in proto.graph.node if n.op_type in _QUANTIZING_OPS for o in n.output}
    written |= {o["name"] for o in manifest["outputs"]}
    wanted = [n for node in proto.graph.node for n in node.output if n in produced & written]
    values = reference(with_outputs(proto, wanted), case, wanted)
    cut = cut_at(proto, values)
    with tempfile.TemporaryDirectory() as folder:
        options = manifest["options"]
        shapes = {name: tuple(array.shape) for name, array in case.items()}
        path = build(cut, target=manifest["target"]["name"], output=Path(folder) / "cut.so", shapes=shapes,
                     symbol_prefix=options["symbol_prefix"])  # fmt: skip
        with load(path) as loaded:
            names = {i.name for i in loaded.inputs}
            feeds = {**case, **{name + _CUT_SUFFIX: value for name, value in values.items()}}
            got = loaded.run({name: value for name, value in feeds.items() if name in names})
    kinds = {name: node.op_type for node in proto.graph.node for name in node.output}
    floor = _reference_errors(proto)
    rows = [compare(name, got[name], want, FLOAT_TOLERANCE, floor.get(name, 0.0)) for name, want in values.items()]
    return [Row(f"{r.name} ({kinds[r.name]})", r.max_abs, r.max_rel, r.max_ulp, r.ok) for r in rows]


def with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The model with inner tensors as further outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    present = {o.name for o in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    return copy


def cut_at(proto: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Every named tensor becomes an output; whoever read it reads a new input of that type and shape instead."""
    cut = with_outputs(proto, [])
    for node in cut.graph.node:
        for i, name in enumerate(node.input):
            if name in values:
                node.input[i] = name + _CUT_SUFFIX
    read = {name for node in cut.graph.node for name in node.input}
    del cut.graph.output[:]
    for name, value in values.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        cut.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
        if name + _CUT_SUFFIX in read:
            cut.graph.input.append(onnx.helper.make_tensor_value_info(name + _CUT_SUFFIX, kind, value.shape))
    return cut
