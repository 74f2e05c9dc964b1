"""The manifest: what an artifact is, as JSON that can be read without running it (docs/abi.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from ..lower.memory import MemoryPlan
from ..lower.program import Buffer, Program
from ..lower.sizes import text, upper
from ..target import Target

ABI_VERSION = 1


def _tensor(buffer: Buffer) -> dict[str, Any]:
    return {"name": buffer.name, "dtype": buffer.dtype, "shape": [text(s) for s in buffer.shape]}


def make_manifest(
    program: Program,
    plan: MemoryPlan,
    target: Target,
    *,
    model_sha256: str,
    weights_bytes: int,
    input_ranges: Mapping[str, tuple[int, int]],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """A plain dictionary, with the same order and content for the same input."""
    inputs = []
    for buffer in program.inputs:
        row = _tensor(buffer)
        if buffer.name in input_ranges:
            row["range"] = list(input_ranges[buffer.name])
        inputs.append(row)
    layers = [
        {
            "name": step.symbol,
            "kernel": step.kernel,
            "nodes": list(step.nodes),
            "reason": step.reason,
            "shape": [text(s) for s in output.shape] if isinstance(output := step.pointers[-1], Buffer) else [],
            "macs": upper(step.macs, program.dims),
        }
        for step in program.steps
    ]
    return {
        "abi": ABI_VERSION,
        "sparsec": version("sparsec"),
        "model_sha256": model_sha256,
        "target": {
            "name": target.name,
            "isa": target.isa,
            "triple": target.triple,
            "features": list(target.requires),
        },
        "options": dict(options),
        "inputs": inputs,
        "outputs": [_tensor(buffer) for buffer in program.outputs],
        "dims": [{"name": d.name, "lower": d.lower, "upper": d.upper} for d in program.dims if not d.is_found],
        "found_dims": [{"name": d.name, "upper": d.upper} for d in program.dims if d.is_found],
        "arena_bytes": plan.arena_bytes,
        "weights_bytes": weights_bytes,
        "layers": layers,
        "tools": {name: version(package) for name, package in _TOOLS},
    }


_TOOLS = (("tvm", "apache-tvm"), ("zig", "ziglang"), ("onnx", "onnx"))


def to_json(manifest: Mapping[str, Any]) -> bytes:
    """Compact JSON text."""
    return json.dumps(manifest, separators=(",", ":")).encode()
