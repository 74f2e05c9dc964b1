"""The same input gives the same bytes: in another process and folder, at any number of jobs."""

from __future__ import annotations

import sys
import time

import onnx
import pytest
from c_tools import run
from small_models import CONVNET_DIMS, LOOKUP_DIMS, convnet, lookup

ARTIFACTS = ("convnet.so", "lookup.so", "lookup.a", "lookup.o")
SCRIPT = """
import sys
import sparsec
folder, jobs = sys.argv[1], int(sys.argv[2])
dims = {"convnet": %r, "lookup": %r}
for file in %r:
    name, _, emit = file.partition(".")
    sparsec.build(f"{folder}/{name}.onnx", output=file, emit=emit, dims=dims[name], jobs=jobs)
""" % (CONVNET_DIMS, LOOKUP_DIMS, ARTIFACTS)  # noqa: UP031


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


@pytest.mark.parametrize("name", [*ARTIFACTS, "lookup.h"])
def test_same_bytes(name, builds):
    first, second = builds
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_no_trace_of_the_build_is_left(builds):
    for folder in builds:
        assert list((folder / "temporary").iterdir()) == []
        assert {p.name for p in folder.iterdir()} == {*ARTIFACTS, "lookup.h", "temporary"}
