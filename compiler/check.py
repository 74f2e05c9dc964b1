"""Validators of the IR: what must hold after every stage.

They raise `InternalError`, for a failure here is a defect of sparsec, not of the model.
"""

from __future__ import annotations

import tvm
from tvm import relax

from ..errors import InternalError
from .graph import LAYER_PREFIX, Dataflow, Graph, children, free_vars, op_name
from .lower.memory import MemoryPlan, itemsize, root_of
from .lower.program import Buffer, Program
from .lower.sizes import bounds, product, upper


def check_graph(graph: Graph) -> None:
    """Well-formed Relax in one block, every layer call described, variables defined before they are read."""
    try:
        relax.analysis.well_formed(graph.module)
    except Exception as error:
        raise InternalError(f"the Relax module is not well-formed: {error}") from error
    main = Dataflow.of(graph)
    if len(graph.module["main"].body.blocks) > 1:
        raise InternalError("main has more than one block")
    defined = set(main.params)
    for var, value in main.bindings:
        missing = [v.name for v in free_vars(value) if v not in defined]
        if missing:
            raise InternalError(f"{var.name} reads {missing} before their definition")
        name = op_name(value)
        if name.startswith(LAYER_PREFIX) and name not in graph.layers:
            raise InternalError(f"{var.name} calls {name}, which is not described")
        if any(isinstance(child, relax.If) for child in children(value)):
            raise InternalError(f"{var.name} holds control flow")
        defined.add(var)
    if not isinstance(main.result, tvm.ir.Expr):
        raise InternalError("main returns nothing")


def check_program(program: Program, plan: MemoryPlan) -> None:
    """Everything is written before it is read, and no two living buffers overlap."""
    written = {root_of(program, b) for b in program.inputs}
    for step in program.steps:
        buffers = [p for p in step.pointers if isinstance(p, Buffer)]
        for pointer in step.pointers[: len(step.pointers) - step.n_outputs]:
            if isinstance(pointer, Buffer) and root_of(program, pointer) not in written:
                raise InternalError(f"{step.symbol} reads %{pointer.id} before anything wrote it")
        written.update(root_of(program, b) for b in buffers)
        if step.grain < 1 or bounds(step.extent, program.dims)[0] < 0:
            raise InternalError(f"{step.symbol} has a bad range: {step.extent} by {step.grain}")
    for output in program.outputs:
        if root_of(program, output) not in written:
            raise InternalError(f"output {output.name} is never written")
        end = plan.offsets[root_of(program, output)] + upper(product(output.shape), program.dims) * itemsize(
            output.dtype
        )
        if end > plan.arena_bytes:
            raise InternalError(f"output {output.name} ends outside the arena")
