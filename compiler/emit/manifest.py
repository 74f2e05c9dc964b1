"""The manifest: what an artifact is, as JSON that can be read without running it (docs/abi.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from ..lower.program import Buffer, Dim, axis_of
from ..lower.sizes import evaluate, text, upper
from .member import Member, by_target

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
    """The manifest of each target, with the same order and content for the same input.

    The first is also the artifact's: under `fallbacks` it has what differs in the others.
    """
    groups = by_target(members)
    first = groups[0][-1].program
    inputs = []
    for buffer in first.inputs:
        row = _tensor(buffer)
        row["shape"] = [s if isinstance(s, int) else first.dims[axis_of(s, first.dims)].name for s in buffer.shape]
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
        "dims": [_dim(d, first.dims) for d in first.dims if not d.is_found],
        "found_dims": [{"name": d.name, "upper": d.upper} for d in first.dims if d.is_found],
        "caches": [
            {"input": first.inputs[c.input].name, "output": first.outputs[c.output].name, "axis": c.axis}
            for c in first.caches
        ],
        "weights_bytes": weights_bytes,
        "tools": {name: version(package) for name, package in _TOOLS},
    }
    own = [_of_target(group) for group in groups]
    manifests = [{**common, **part} for part in own]
    if len(own) > 1:
        manifests[0]["fallbacks"] = own[1:]
    return manifests


def _dim(dim: Dim, dims: tuple[Dim, ...]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": dim.name, "lower": dim.lower, "upper": dim.upper}
    if dim.equals is not None:
        zeros = dict.fromkeys((d.name for d in dims), 0)
        constant = evaluate(dim.equals, zeros)
        factors = {d.name: evaluate(dim.equals, {**zeros, d.name: 1}) - constant for d in dims}
        row["equals"] = {"terms": {name: factor for name, factor in factors.items() if factor}, "constant": constant}
    return row


def _of_target(group: Sequence[Member]) -> dict[str, Any]:
    target = group[0].target
    part: dict[str, Any] = {
        "target": {
            "name": target.name,
            "isa": target.isa,
            "triple": target.triple,
            "features": list(target.requires),
        },
        "arena_bytes": max(member.plan.arena_bytes for member in group),
        "layers": [row for member in group for row in _layers(member)],
    }
    if len(group) > 1:
        part["buckets"] = [
            {"dims": dict(member.bucket), "arena_bytes": member.plan.arena_bytes, "layers": len(member.program.steps)}
            for member in group
        ]
    return part


def _layers(member: Member) -> list[dict[str, Any]]:
    program = member.program
    return [
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


_TOOLS = (("tvm", "apache-tvm"), ("zig", "ziglang"), ("onnx", "onnx"))


def to_json(manifest: Mapping[str, Any]) -> bytes:
    """Compact JSON text."""
    return json.dumps(manifest, separators=(",", ":")).encode()
