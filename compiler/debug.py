"""What the compiler shows of itself: the SPARSEC_DEBUG ladder and the text of each stage for --dump-ir.

0 quiet · 1 decisions per layer · 2 memory and sizes · 3 stages and their time · 4 commands of the toolchain
5 everything that TVM says
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import onnx

from .frontend.diagnostics import describe
from .frontend.graph import Graph as FrontendGraph
from .frontend.load import LoadedModel
from .lower.memory import MemoryPlan, root_of
from .lower.program import CodeBlob, Constant, FoundSize, Pointer, Program, Step
from .lower.sizes import text


def level() -> int:
    """The value of SPARSEC_DEBUG, 0 where it is unset or no number."""
    value = os.environ.get("SPARSEC_DEBUG", "0")
    return int(value) if value.isdigit() else 0


def say(minimum: int, message: str) -> None:
    """Prints to stderr from the given level upwards."""
    if level() >= minimum:
        print(message, file=sys.stderr)


def after_stage(number: int, name: str, reason: str, seconds: float) -> None:
    """One line per stage at level 3."""
    say(3, f"{number:03d} {name:<12} {seconds:7.2f} s  {reason}")


def onnx_text(loaded: LoadedModel) -> str:
    """One node per line; weights and other tensors by type and shape only."""
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(loaded.opsets.items()))
    rows = [f"opset {opsets}"]
    rows += [f"weight {name}: {value.dtype}{list(value.shape)}" for name, value in loaded.weights.items()]
    for function in loaded.proto.functions:
        heading = f"function {function.domain}.{function.name}({', '.join(function.input)})"
        rows += [f"{heading} -> {', '.join(function.output)}", *_node_rows(function.node, "    ")]
    return "\n".join([*rows, *_graph_rows(loaded.proto.graph, "")]) + "\n"


def _graph_rows(graph: onnx.GraphProto, indent: str) -> list[str]:
    inputs = [f"{indent}input {value.name}: {_type_text(value.type)}" for value in graph.input]
    outputs = [f"{indent}output {value.name}: {_type_text(value.type)}" for value in graph.output]
    return [*inputs, *_node_rows(graph.node, indent), *outputs]


def _node_rows(nodes: Iterable[onnx.NodeProto], indent: str) -> list[str]:
    rows = []
    for node in nodes:
        op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        attributes = ", ".join(f"{a.name}={_attribute_text(a)}" for a in node.attribute if not a.HasField("g"))
        label = f"  # {node.name}" if node.name else ""
        call = f"{', '.join(node.output)} = {op}({', '.join(node.input)})"
        rows.append(indent + call + (f" {{{attributes}}}" if attributes else "") + label)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                rows += [f"{indent}  {attribute.name}:", *_graph_rows(attribute.g, indent + "    ")]
    return rows


def _attribute_text(attribute: onnx.AttributeProto) -> str:
    if attribute.type == onnx.AttributeProto.TENSOR:
        tensor = attribute.t
        return f"{onnx.TensorProto.DataType.Name(tensor.data_type).lower()}{list(tensor.dims)}"
    return repr(onnx.helper.get_attribute_value(attribute)) if not attribute.ref_attr_name else attribute.ref_attr_name


def _type_text(value: onnx.TypeProto) -> str:
    if not value.HasField("tensor_type"):
        return str(value.WhichOneof("value") or "?")
    tensor = value.tensor_type
    dims = [d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in tensor.shape.dim]
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{kind}[{', '.join(dims)}]" if tensor.HasField("shape") else kind


def prepared_text(graph: FrontendGraph) -> str:
    """One node per line, with the types of what it makes."""
    rows = [f"input {name}: {describe(graph.types[name].dtype, graph.types[name].shape)}" for name in graph.inputs]
    for node in graph.nodes:
        made = ", ".join(
            f"{name}: {describe(graph.types[name].dtype, graph.types[name].shape)}" for name in node.outputs if name
        )
        attributes = f" {node.attrs}" if node.attrs else ""
        rows.append(f"{made} = {node.op_type}({', '.join(node.inputs)}){attributes}")
    return "\n".join([*rows, *(f"output {name} = {tensor}" for name, tensor in graph.outputs)]) + "\n"


def step_text(step: Step) -> str:
    """One line: kernel, range, operands."""

    def show(pointer: Pointer) -> str:
        if isinstance(pointer, CodeBlob):
            return f"code {pointer.name}"
        if isinstance(pointer, Constant):
            return f"const{list(pointer.data.shape)}"
        if isinstance(pointer, FoundSize):
            return f"size {pointer.dim}"
        return f"%{pointer.id}:{pointer.dtype}[{','.join(str(text(s)) for s in pointer.shape)}]"

    operands = ", ".join(show(p) for p in step.pointers)
    scalars = "".join(f" {text(s)}" for s in step.scalars)
    call = f"{step.symbol}({operands};{scalars}) over {text(step.extent)} by {step.grain}"
    return f"{call}  # {', '.join(step.nodes)} {step.reason}"


def program_text(program: Program) -> str:
    """All steps in order."""
    aliases = "".join(f"alias %{view} = %{base}\n" for view, base in program.aliases.items())
    return aliases + "\n".join(step_text(s) for s in program.steps) + "\n"


def plan_text(program: Program, plan: MemoryPlan) -> str:
    """Where every buffer lies."""
    rows = [f"arena {plan.arena_bytes} bytes, lower bound {plan.lower_bound}"]
    rows += [f"%{root} at {offset}" for root, offset in sorted(plan.offsets.items(), key=lambda item: item[1])]
    rows += [f"output {b.name} is %{root_of(program, b)}" for b in program.outputs]
    return "\n".join(rows) + "\n"


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest, indented."""
    return json.dumps(manifest, indent=2) + "\n"
