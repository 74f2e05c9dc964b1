"""The same input gives the same bytes: in another process and folder, at any number of jobs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import onnx
import pytest
from c_tools import run
from small_models import CONVNET_DIMS, LOOKUP_DIMS, convnet, lookup

SCRIPT = """
import sys
import sparsec
folder, jobs = sys.argv[1], int(sys.argv[2])
for name, dims in (("convnet", %r), ("lookup", %r)):
    for emit in ("so", "a", "o"):
        sparsec.build(f"{folder}/{name}.onnx", output=f"{name}.{emit}", emit=emit, dims=dims, jobs=jobs)
""" % (CONVNET_DIMS, LOOKUP_DIMS)  # noqa: UP031


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """Two folders with the artifacts of two processes, each at its own time."""
    models = tmp_path_factory.mktemp("models")
    onnx.save(convnet(), str(models / "convnet.onnx"))
    onnx.save(lookup(), str(models / "lookup.onnx"))
    folders = []
    for jobs, name in ((1, "here"), (2, "at/some/other place")):
        cwd = tmp_path_factory.mktemp("build") / name
        temporary = cwd / "temporary"
        temporary.mkdir(parents=True)
        environment = {
            "SPARSEC_CACHE": "off",
            "PYTHONHASHSEED": str(jobs),
            "TMPDIR": str(temporary),
            "TZ": f"UTC{jobs}",
        }
        run([sys.executable, "-c", SCRIPT, models, jobs], cwd, environment)
        folders.append(cwd)
        time.sleep(1.1)  # archives and headers count time in seconds
    return folders


@pytest.mark.parametrize("name", ["convnet", "lookup"])
@pytest.mark.parametrize("kind", ["so", "a", "o", "h"])
def test_same_bytes(name, kind, builds):
    first, second = (Path(folder) / f"{name}.{kind}" for folder in builds)
    assert first.read_bytes() == second.read_bytes()


def test_no_trace_of_the_build_is_left(builds):
    for folder in builds:
        assert list((folder / "temporary").iterdir()) == []
        names = {f"{name}.{kind}" for name in ("convnet", "lookup") for kind in ("so", "a", "o", "h")}
        assert {p.name for p in folder.iterdir()} == {*names, "temporary"}
