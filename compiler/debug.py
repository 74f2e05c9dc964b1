"""What the compiler shows of itself: the SPARSEC_DEBUG ladder and the text of each stage for --dump-ir.

0 quiet · 1 decisions per layer · 2 memory and sizes · 3 stages and their time · 4 commands of the toolchain
5 everything that TVM says
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import onnx

from .frontend.graph import Graph as FrontendGraph
from .lower.memory import MemoryPlan, root_of
from .lower.program import Buffer, Constant, Program, Step
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


def onnx_text(proto: onnx.ModelProto) -> str:
    """The graph in ONNX's own textual form; initializers by name and shape."""
    return str(onnx.printer.to_text(proto)) + "\n"


def prepared_text(graph: FrontendGraph) -> str:
    """One node per line, with the types of what it makes."""
    rows = [f"input {name}: {graph.types[name]}" for name in graph.inputs]
    for node in graph.nodes:
        made = ", ".join(f"{name}: {graph.types[name].dtype}{graph.types[name].shape}" for name in node.outputs if name)
        rows.append(f"{made} = {node.op_type}({', '.join(node.inputs)}) {node.attrs or ''}")
    return "\n".join([*rows, *(f"output {name} = {tensor}" for name, tensor in graph.outputs)]) + "\n"


def step_text(step: Step) -> str:
    """One line: kernel, range, operands."""

    def show(pointer: Buffer | Constant) -> str:
        if isinstance(pointer, Constant):
            return f"const{list(pointer.data.shape)}"
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
