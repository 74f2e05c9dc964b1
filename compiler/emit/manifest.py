"""The manifest: what an artifact is, as JSON that can be read without running it (docs/abi.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from ..lower.program import Buffer
from ..lower.sizes import text, upper
from .member import Member

ABI_VERSION = 1


def _tensor(buffer: Buffer) -> dict[str, Any]:
    return {"name": buffer.name, "dtype": buffer.dtype, "shape": [text(s) for s in buffer.shape]}


def make_manifests(
    members: Sequence[Member],
    *,
    model_sha256: str,
    weights_bytes: int,
    input_ranges: Mapping[str, tuple[int, int]],
    options: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The manifest of each member, with the same order and content for the same input.

    The first is also the artifact's: under `fallbacks` it has what differs in the others.
    """
    first = members[0].program
    inputs = []
    for buffer in first.inputs:
        row = _tensor(buffer)
        if buffer.name in input_ranges:
            row["range"] = list(input_ranges[buffer.name])
        inputs.append(row)
    common = {
        "abi": ABI_VERSION,
        "sparsec": version("sparsec"),
        "model_sha256": model_sha256,
        "options": dict(options),
        "inputs": inputs,
        "outputs": [_tensor(buffer) for buffer in first.outputs],
        "dims": [{"name": d.name, "lower": d.lower, "upper": d.upper} for d in first.dims if not d.is_found],
        "found_dims": [{"name": d.name, "upper": d.upper} for d in first.dims if d.is_found],
        "caches": [
            {"input": first.inputs[c.input].name, "output": first.outputs[c.output].name, "axis": c.axis}
            for c in first.caches
        ],
        "weights_bytes": weights_bytes,
        "tools": {name: version(package) for name, package in _TOOLS},
    }
    own = [_of_member(member) for member in members]
    manifests = [{**common, **part} for part in own]
    if len(members) > 1:
        manifests[0]["fallbacks"] = own[1:]
    return manifests


def _of_member(member: Member) -> dict[str, Any]:
    target, program = member.target, member.program
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
        "target": {
            "name": target.name,
            "isa": target.isa,
            "triple": target.triple,
            "features": list(target.requires),
        },
        "arena_bytes": member.plan.arena_bytes,
        "layers": layers,
    }


_TOOLS = (("tvm", "apache-tvm"), ("zig", "ziglang"), ("onnx", "onnx"))


def to_json(manifest: Mapping[str, Any]) -> bytes:
    """Compact JSON text."""
    return json.dumps(manifest, separators=(",", ":")).encode()
