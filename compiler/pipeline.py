"""The map of the compiler: the stages in order, one line and one reason each.

Data flows one way: ONNX file -> prepared ONNX -> Relax graph -> program of kernel calls -> artifact. Every stage reads
what the stages before it left in the `Compilation` and adds its own result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from ..codegen_templates.catalogue import has
from . import check, debug
from .buckets import Bound, split
from .emit.artifact import Emitted, TooLargeError, emit_artifact
from .emit.member import Member
from .frontend.importer import import_model
from .frontend.load import LoadedModel, load
from .frontend.prepare import PreparedModel, prepare
from .graph import Graph
from .lower.build_program import build_program
from .lower.memory import MemoryPlan, plan_memory
from .lower.program import Dim, Program
from .passes.append_states import append_states
from .passes.choose_convolutions import choose_convolutions
from .passes.choose_kernels import choose_kernels
from .passes.fuse_layers import fuse_layers
from .passes.hoist_activations import hoist_activations
from .passes.integer_forms import integer_forms
from .passes.legalize import fuse_tir, legalize
from .passes.merge_transposes import merge_transposes
from .passes.plan_float_planes import plan_float_planes
from .passes.plan_layouts import plan_layouts
from .passes.plan_planes import plan_planes
from .passes.quantized_convolutions import quantized_convolutions
from .passes.recognize_activations import expand_activations, recognize_activations
from .passes.recognize_attention import recognize_attention
from .passes.recognize_float_attention import recognize_float_attention
from .passes.recognize_layer_norm import recognize_layer_norm
from .passes.round_trips import drop_round_trips
from .passes.unroll_rows import unroll_rows
from .passes.unsigned_activations import unsigned_activations
from .target import Target


@dataclass(frozen=True)
class Options:
    """What the user asked for; see `sparsec.build`."""

    targets: tuple[Target, ...]
    """Best first: what the artifact holds code for."""
    output: Path
    dims: Mapping[str, Bound] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    turns: Mapping[str, int] = field(default_factory=dict)
    emit: str = "so"
    symbol_prefix: str = "sparsec_"
    kernels: Mapping[str, str] = field(default_factory=dict)
    optimize: str = "speed"
    max_size: int | None = None
    jobs: int = 1
    dump_ir: Path | None = None


@dataclass
class Compilation:
    """Everything known about one build, filled in stage by stage."""

    source: str | os.PathLike[str] | onnx.ModelProto
    options: Options
    target: Target
    """The one that graph, program and plan are for, once they depend on it."""
    bucket: int
    """The number of the sizes that graph, program and plan are for."""
    buckets: list[tuple[dict[str, int], dict[str, int | tuple[int, int] | str]]]
    """All sizes, see `buckets.split`."""
    loaded: LoadedModel = field(init=False)
    prepared: PreparedModel = field(init=False)
    graph: Graph = field(init=False)
    program: Program = field(init=False)
    plan: MemoryPlan = field(init=False)
    members: list[Member] = field(default_factory=list)
    """What was made for each target, best first."""
    emitted: Emitted = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)
    max_bytes: int | None = None
    """What weights and code may be predicted to take, for --max-size."""
    predicted_bytes: float = 0.0

    @property
    def manifest(self) -> dict[str, Any]:
        """Of the artifact."""
        return self.emitted.manifest


@dataclass(frozen=True)
class Stage:
    """`run` adds to the compilation; `show` is the text that --dump-ir writes, with the file's suffix."""

    name: str
    reason: str
    run: Callable[[Compilation], None]
    show: Callable[[Compilation], str]
    suffix: str = ".py"


def _load(c: Compilation) -> None:
    c.loaded = load(c.source)


def _prepare(c: Compilation) -> None:
    c.prepared = prepare(
        c.loaded, c.buckets[c.bucket][1], dict(c.options.shapes), dict(c.options.fixed), c.options.turns
    )


def _import(c: Compilation) -> None:
    imported = import_model(c.prepared)
    c.graph = Graph(imported.module, imported.tensors, imported.layers)
    check.check_graph(c.graph)


def _pass(run: Callable[[Graph], Graph]) -> Callable[[Compilation], None]:
    def stage(c: Compilation) -> None:
        c.graph = run(c.graph)
        check.check_graph(c.graph)

    return stage


def _dims(c: Compilation) -> tuple[Dim, ...]:
    dims = [Dim(d.name, d.lower, d.upper, d.is_found, d.equals) for d in c.prepared.dims.values()]
    return tuple(sorted(dims, key=lambda d: d.is_found))


def _attention(c: Compilation) -> None:
    if c.target.has_byte_tiles:
        c.graph = recognize_attention(c.graph)
        check.check_graph(c.graph)


def _quantized_convolutions(c: Compilation) -> None:
    if c.target.has_byte_tiles:
        c.graph = quantized_convolutions(c.graph)
        check.check_graph(c.graph)


def _unroll_rows(c: Compilation) -> None:
    if has("unroll_rows", c.target.isa):
        c.graph = unroll_rows(c.graph)
        check.check_graph(c.graph)


def _plan_planes(c: Compilation) -> None:
    c.graph = plan_planes(c.graph, _dims(c), c.target.isa)
    check.check_graph(c.graph)


def _fuse_layers(c: Compilation) -> None:
    c.graph = fuse_layers(c.graph, integer=c.target.has_byte_tiles)
    check.check_graph(c.graph)


def _choose_products(c: Compilation) -> Graph:
    o = c.options
    small = o.optimize == "size"
    graph, c.predicted_bytes = choose_kernels(c.graph, c.target, _dims(c), o.kernels, small, c.max_bytes)
    return graph


def _choose(c: Compilation) -> None:
    smallest = c.options.optimize == "size" or c.max_bytes is not None
    c.graph = choose_convolutions(_choose_products(c), c.target, smallest)
    check.check_graph(c.graph)


def _layouts(c: Compilation) -> None:
    if c.target.has_tiles:
        c.graph = plan_float_planes(plan_layouts(c.graph, _dims(c), c.target.isa))
        check.check_graph(c.graph)


def _lower(c: Compilation) -> None:
    dims = _dims(c)
    outputs = [name for name, _ in c.prepared.outputs]
    c.program = build_program(c.graph, dims, outputs, c.target)


def _plan(c: Compilation) -> None:
    c.plan = plan_memory(c.program)
    check.check_program(c.program, c.plan)
    suffix = f"__{c.target.name.replace('-', '_')}" if len(c.options.targets) > 1 else ""
    is_largest = c.bucket == len(c.buckets) - 1
    suffix += "" if is_largest else f"__{c.bucket}"
    c.members.append(Member(c.target, c.program, c.plan, suffix, c.buckets[c.bucket][0], is_largest))


def _emit(c: Compilation) -> None:
    c.emitted = emit_artifact(c.members, c.prepared, c.loaded.sha256, c.options)


def _script(c: Compilation) -> str:
    return c.graph.script()


def _loaded_text(c: Compilation) -> str:
    return debug.onnx_text(c.loaded)


def _prepared_text(c: Compilation) -> str:
    return debug.prepared_text(c.prepared)


STAGES: tuple[Stage, ...] = (
    Stage("load", "read and check the ONNX file; weights stay mapped", _load, _loaded_text, ".txt"),
    Stage("prepare", "bind dimensions, fold shape arithmetic and constants", _prepare, _prepared_text, ".txt"),
    Stage("import", "ONNX to Relax, one converter per operator", _import, _script),
    Stage("states", "caches that a run appends to", _pass(append_states), _script),
    Stage("layer_norm", "layer normalization that was spelled out", _pass(recognize_layer_norm), _script),
    Stage("activations", "activations by value, before they are taken apart", _pass(recognize_activations), _script),
    Stage("hoist", "activations from behind data movement to the product before it", _pass(hoist_activations), _script),
    Stage("transposes", "transposes that reshapes hide", _pass(merge_transposes), _script),
    Stage("integer_forms", "integer products in the form of quantize and dequantize", _pass(integer_forms), _script),
    Stage("unsigned", "signed 8-bit activations as unsigned ones", _pass(unsigned_activations), _script),
    Stage("round_trips", "quantizations that a later one repeats", _pass(drop_round_trips), _script),
    Stage("attention", "attention with quantized operands, whole", _attention, _script),
    Stage("qconv", "convolutions of quantized images, and what lies between them", _quantized_convolutions, _script),
    Stage("unroll_rows", "first convolutions of few channels", _unroll_rows, _script),
    Stage("plan_planes", "layouts of quantized images", _plan_planes, _script),
    Stage("float_attention", "attention in float32, whole", _pass(recognize_float_attention), _script),
    Stage("fuse_layers", "operations of the kernel catalogue with their epilogues", _fuse_layers, _script),
    Stage("choose", "the kernel of each product and convolution with constant weights", _choose, _script),
    Stage("layouts", "the layout of each tensor between kernels", _layouts, _script),
    Stage("expand", "activations that no layer took become operators again", _pass(expand_activations), _script),
    Stage("legalize", "everything else to TIR, constants folded", _pass(legalize), _script),
    Stage("fuse_tir", "elementwise neighbours into one TIR function", _pass(fuse_tir), _script),
    Stage("lower", "layers and TIR to kernel calls", _lower, lambda c: debug.program_text(c.program), ".txt"),
    Stage("plan_memory", "one arena for all", _plan, lambda c: debug.plan_text(c.program, c.plan), ".txt"),
    Stage("emit", "driver, kernels, weights, linked", _emit, lambda c: debug.manifest_text(c.manifest), ".json"),
)


_PER_BUCKET, _PER_TARGET, _CHOICE, _EMISSION = "prepare", "attention", "choose", "emit"
"""Where stages begin that depend on the sizes, and on the target; where a smaller artifact begins anew; what is done
once for all."""


def _number(name: str) -> int:
    return [stage.name for stage in STAGES].index(name)


def _begin(source: str | os.PathLike[str] | onnx.ModelProto, options: Options) -> Compilation:
    buckets = split(options.dims)
    return Compilation(source, options, options.targets[0], len(buckets) - 1, buckets, max_bytes=options.max_size)


def run_until(source: str | os.PathLike[str] | onnx.ModelProto, options: Options, last: str) -> Compilation:
    """The compilation for the first target and the largest sizes after the stage `last`: for tools that only look."""
    c = _begin(source, options)
    _run(c, range(_number(last) + 1), None)
    return c


def compile_model(
    source: str | os.PathLike[str] | onnx.ModelProto,
    options: Options,
    on_stage: Callable[[int, str], None] | None = None,
) -> Compilation:
    """Runs every stage; `on_stage` hears of each before it runs. The output file appears whole or not at all.

    What turns out larger than was predicted for `options.max_size` goes back to the choice of kernels.
    """
    c = _begin(source, options)
    begin, fork, choose, emit = map(_number, (_PER_BUCKET, _PER_TARGET, _CHOICE, _EMISSION))
    _run(c, range(begin), on_stage)
    common = []
    for number in range(len(c.buckets)):
        c.bucket = number
        _run(c, range(begin, fork), on_stage)
        common.append((c.prepared, c.graph))
    variants = [(target, bucket) for target in options.targets for bucket in range(len(c.buckets))]
    before = []
    for c.target, c.bucket in variants:
        c.prepared, c.graph = common[c.bucket]
        _run(c, range(fork, choose), on_stage)
        before.append(c.graph)
    budgets = [options.max_size] * len(before)
    too_large, tried = None, None
    while True:
        chosen, predicted = [], []
        for (c.target, c.bucket), c.graph, c.max_bytes in zip(variants, before, budgets, strict=True):
            c.prepared = common[c.bucket][0]
            _run(c, range(choose, choose + 1), on_stage)
            chosen.append(c.graph)
            predicted.append(c.predicted_bytes)
        reasons = [{name: layer.attrs.get("reason") for name, layer in graph.layers.items()} for graph in chosen]
        if too_large is not None and reasons == tried:
            raise too_large
        c.members = []
        for (c.target, c.bucket), c.graph in zip(variants, chosen, strict=True):
            c.prepared = common[c.bucket][0]
            _run(c, range(choose + 1, emit), on_stage)
        try:
            _run(c, range(emit, len(STAGES)), on_stage)
            return c
        except TooLargeError as error:
            too_large, tried = error, reasons
            budgets = _smaller(budgets, predicted, error.excess)


def _smaller(budgets: Sequence[int | None], predicted: Sequence[float], excess: int) -> list[int | None]:
    """What each target may take next, so that all take `excess` bytes less: each gives in proportion to its size."""
    total = sum(predicted) or 1.0
    return [
        int(min(budget if budget is not None else size, size) - excess * size / total)
        for budget, size in zip(budgets, predicted, strict=True)
    ]


def _run(c: Compilation, numbers: range, on_stage: Callable[[int, str], None] | None) -> None:
    for number in numbers:
        stage = STAGES[number]
        if on_stage is not None:
            on_stage(number, stage.name)
        begin = time.perf_counter()
        stage.run(c)
        c.seconds[stage.name] = c.seconds.get(stage.name, 0.0) + time.perf_counter() - begin
        debug.after_stage(number, stage.name, stage.reason, c.seconds[stage.name])
        if c.options.dump_ir is not None:
            c.options.dump_ir.mkdir(parents=True, exist_ok=True)
            forked = len(c.options.targets) > 1 and _number(_PER_TARGET) <= number < _number(_EMISSION)
            which = f".{c.target.name}" if forked else ""
            which += "" if c.bucket == len(c.buckets) - 1 else f".{c.bucket}"
            path = c.options.dump_ir / f"{number:03d}_{stage.name}{which}{stage.suffix}"
            path.write_text(stage.show(c), encoding="utf-8")
