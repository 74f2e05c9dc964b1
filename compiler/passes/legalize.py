"""Relax operators to TIR functions, and their fusion: TVM's passes, in our order."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import tvm
from tvm import relax
from tvm.ir.transform import Sequential

from ..graph import Graph

_T = relax.transform


def _run(graph: Graph, passes: list[tvm.ir.transform.Pass]) -> Graph:
    """Applies TVM passes; the names of variables that outputs carry do not matter afterwards."""
    with tvm.target.Target({"kind": "llvm"}), tvm.ir.transform.PassContext(opt_level=3):
        return replace(graph, module=Sequential(passes)(graph.module))


def legalize(graph: Graph) -> Graph:
    """Every operator that is no layer becomes `call_tir`; what depends on constants alone is computed."""
    return _run(
        graph,
        [
            _T.DecomposeOpsForInference(),
            _T.CanonicalizeBindings(),
            _T.LegalizeOps(),
            _T.AnnotateTIROpPattern(),
            _T.FoldConstant(),
            _T.DeadCodeElimination(),
        ],
    )


def fuse_tir(graph: Graph) -> Graph:
    """Injective neighbours and their reductions into one function; reshapes stay visible as views."""
    fused = _run(graph, [_T.FuseOps(), _T.FuseTIR(), _T.DeadCodeElimination()])
    # its analysis gives up on some symbolic sizes: reshapes are copies then
    with contextlib.suppress(tvm.error.InternalError):
        fused = _run(fused, [_T.RewriteDataflowReshape()])
    return _run(fused, [_T.ToNonDataflow(), _T.RemovePurityChecking()])
