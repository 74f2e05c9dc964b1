"""Runs an imported module on TVM's own virtual machine: the reference executor of the frontend's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax

from sparsec.compiler.frontend.importer import ImportedModel, import_model
from sparsec.compiler.frontend.load import load
from sparsec.compiler.frontend.prepare import prepare


def _register_gather(axis: int) -> None:
    @tvm.register_global_func(f"sparsec.gather.axis{axis}", override=True)
    def gather(data: Any, indices: Any, out: Any) -> None:
        table, at = data.numpy(), indices.numpy()
        assert at.size == 0 or (at.min() >= -table.shape[axis] and at.max() < table.shape[axis])
        out.copyfrom(np.take(table, at, axis))


for _axis in range(6):
    _register_gather(_axis)


def run_module(imported: ImportedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by ONNX name, from inputs by ONNX name."""
    relax.analysis.well_formed(imported.module)
    executable = tvm.compile(imported.module, target="llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](*[tvm.runtime.tensor(inputs[name]) for name in imported.inputs])
    return {name: value.numpy() for name, value in zip(imported.outputs, result, strict=True)}


def run_model(model: onnx.ModelProto, inputs: dict[str, np.ndarray], **bindings: Any) -> dict[str, np.ndarray]:
    """Load, prepare, import and run; unbound dimensions take the sizes of `inputs`."""
    bindings.setdefault("shapes", {name: value.shape for name, value in inputs.items()})
    return run_module(import_model(prepare(load(model), **bindings)), inputs)


def run_onnxruntime(model: onnx.ModelProto | str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference: onnxruntime with its optimizations off."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    source = model if isinstance(model, str) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))
