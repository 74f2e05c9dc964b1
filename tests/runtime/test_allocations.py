"""sparsec_run and sparsec_prepare allocate nothing, whatever they are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from c_tools import COMPILERS, HEADERS, compiler_parameters, run

HERE = Path(__file__).parent


@pytest.mark.parametrize("compiler", compiler_parameters(COMPILERS))
@pytest.mark.parametrize("name", ["convnet_so", "lookup_so"])
def test_run_allocates_nothing(compiler, name, request, tmp_path):
    artifact = request.getfixturevalue(name)
    sources = (HERE / "many_runs.c", HERE / "interpose.c")
    run([*compiler, "-std=gnu11", "-O1", f"-I{HEADERS}", *sources, artifact, "-o", "many_runs"], tmp_path)
    for threads in (1, 2):
        assert run(["./many_runs", threads, 1, 2, 3, 4], tmp_path) == "good\n"
