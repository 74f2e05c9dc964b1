"""What a small device asks for: few CPUs, quotas, no disk to write on, little memory, a quick start."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from c_tools import COMPILERS, HEADERS, python, run
from click.testing import CliRunner
from onnx import helper, numpy_helper

import sparsec
from sparsec.cli import cli
from sparsec.runtime_stub.artifact import read_manifest
from sparsec.runtime_stub.cold_start import cold_start

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")

# --- CPUs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cpus(tmp_path_factory):
    """cpus.c as a library of its own."""
    folder = tmp_path_factory.mktemp("cpus")
    run([*COMPILERS["zig"], "-std=gnu11", "-shared", "-fPIC", HEADERS / "cpus.c", "-o", "cpus.so"], folder)
    return ctypes.CDLL(str(folder / "cpus.so"))


QUOTAS = [
    ("no control groups", "", {}, 0),
    ("version 2", "0::/", {"cpu.max": "250000 100000"}, 3),
    ("version 2, no limit", "0::/", {"cpu.max": "max 100000"}, 0),
    ("version 2, in a slice", "0::/a.slice/b", {"a.slice/b/cpu.max": "150000 100000"}, 2),
    ("a group around it", "0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1),
    ("the least of all", "0::/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 25000"}, 2),
    ("in a container whose path is the host's", "0::/docker/1234", {"cpu.max": "200000 100000"}, 2),
    (
        "version 1",
        "5:memory:/x\n4:cpu,cpuacct:/\n1:name=systemd:/x",
        {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        3,
    ),
    (
        "version 1, in a group, by the link",
        "4:cpuacct,cpu:/pod/1\n9:cpuset:/pod",
        {"cpu/pod/1/cpu.cfs_quota_us": "100000", "cpu/pod/1/cpu.cfs_period_us": "50000"},
        2,
    ),
    (
        "version 1, no limit",
        "4:cpu,cpuacct:/",
        {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        0,
    ),
    ("cpuset is not cpu", "4:cpuset:/", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, 0),
    ("not a number", "0::/", {"cpu.max": "many"}, 0),
]


@on_linux
@pytest.mark.parametrize(("groups", "files", "expected"), [q[1:] for q in QUOTAS], ids=[q[0] for q in QUOTAS])
def test_quotas(groups, files, expected, cpus, tmp_path):
    (tmp_path / "groups").write_text(f"{groups}\n")
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    found = cpus.sparsec_quota_cpus(str(tmp_path / "groups").encode(), str(tmp_path / "mount").encode())
    assert found == expected


@on_linux
def test_a_path_of_any_length(cpus, tmp_path):
    (tmp_path / "groups").write_text("0::/" + "a/" * 3000 + "\n4:" + "cpu," * 1000 + "\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert cpus.sparsec_quota_cpus(str(tmp_path / "groups").encode(), str(tmp_path).encode()) == 1
    assert cpus.sparsec_quota_cpus(b"/nowhere", b"/nowhere") == 0


@on_linux
def test_affinity_is_honoured(cpus):
    allowed = os.sched_getaffinity(0)
    assert 1 <= cpus.sparsec_available_cpus() <= len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpus.sparsec_available_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@on_linux
def test_all_cpus_of_a_process_that_has_one(convnet_so, tmp_path):
    """No worker is started, and the results are what they are everywhere."""
    script = """
import os, sys
import numpy as np
import sparsec
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
image = np.ones((2, 3, 16, 16), np.float32)
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
with sparsec.load(sys.argv[1], threads=-1) as model:
    started = count() - before
    scores = model.run({"image": image})["scores"].tobytes()
with sparsec.load(sys.argv[1]) as model:
    print(started, scores == model.run({"image": image})["scores"].tobytes())
"""
    assert python(script, convnet_so, cwd=tmp_path) == "0 True\n"


# --- disk and memory --------------------------------------------------------------------------------------------------


@on_linux
def test_no_disk_to_write_on(convnet_so, tmp_path):
    """No home, no place for temporary files, a folder that cannot be written to, and no file may grow."""
    script = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
import numpy as np
import sparsec
with sparsec.load(sys.argv[1], threads=2) as model:
    print(model.run({"image": np.ones((1, 3, 16, 16), np.float32)})["scores"].shape)
"""
    place = tmp_path / "read_only"
    place.mkdir()
    place.chmod(0o555)
    environment = {"TMPDIR": "/nowhere", "HOME": "/nowhere", "XDG_CACHE_HOME": "/nowhere"}
    done = subprocess.run([sys.executable, "-B", "-c", script, str(convnet_so)], cwd=place, capture_output=True,
                          text=True, env={**os.environ, **environment}, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "(1, 10)\n"), done.stderr
    assert not list(place.iterdir())


@pytest.fixture(scope="module")
def heavy_so(tmp_path_factory):
    """8 MB of weights."""
    weights = np.random.default_rng(0).standard_normal((1000, 2000)).astype(np.float32)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [32, 1000])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [32, 2000])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "heavy", [x], [y], [numpy_helper.from_array(weights, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return sparsec.build(model, output=tmp_path_factory.mktemp("heavy") / "heavy.so")


HOLD = """
import sys
import numpy as np
import sparsec
model = sparsec.load(sys.argv[1])
model.run({"x": np.ones((32, 1000), np.float32)})
print("ready", flush=True)
sys.stdin.read()
"""


@on_linux
def test_weights_are_read_only_and_shared_between_processes(heavy_so):
    command = [sys.executable, "-c", HOLD, str(heavy_so)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        maps = mappings(processes[0].pid, str(heavy_so))
    finally:
        for process in processes:
            process.communicate()
    weights = read_manifest(heavy_so)["weights_bytes"]
    # "dirty" while the file system has not written the new file
    shared = sum(m["Shared_Clean"] + m["Shared_Dirty"] for m in maps if "w" not in m["flags"])
    assert shared >= weights / 1024
    assert sum(m["Size"] for m in maps if "w" in m["flags"]) <= 64, "kB: what the linker relocates"
    assert sum(m["Anonymous"] for m in maps) <= 64, "pages of the process's own: written by the linker"
    assert all(m["flags"] != "rwxp" for m in maps)


def mappings(process: int, name: str) -> list[dict]:
    """The parts of /proc/PID/smaps that are mapped from a file; sizes in kB."""
    found: list[dict] = []
    is_mine = False
    with open(f"/proc/{process}/smaps", encoding="utf-8") as file:
        for line in file:
            head = re.match(r"[0-9a-f]+-[0-9a-f]+ (\S+) .*?(/.*)?$", line)
            if head:
                is_mine = head[2] is not None and os.path.samefile(head[2], name) if head[2] else False
                if is_mine:
                    found.append({"flags": head[1]})
                continue
            field = re.match(r"(\w+): +(\d+) kB", line)
            if is_mine and field:
                found[-1][field[1]] = int(field[2])
    assert found
    return found


def test_workspace_is_known_beforehand(heavy_so):
    arena = read_manifest(heavy_so)["arena_bytes"]
    shown = CliRunner().invoke(cli, ["inspect", str(heavy_so)]).output
    assert f"arena    {arena / 1e6:.2f} MB" in shown or f"arena    {arena / 1e3:.2f} kB" in shown
    with sparsec.load(heavy_so) as model:
        assert model.workspace_bytes == arena


# --- start ------------------------------------------------------------------------------------------------------------


def test_cold_start_is_measured_in_fresh_processes(convnet_so):
    times = cold_start(convnet_so, processes=3)
    assert times.processes == 3 and times.open_ms > 0 and times.first_ms > 0
    assert times.total_ms >= max(times.open_ms, times.first_ms) * 0.5
    shown = CliRunner().invoke(cli, ["bench", str(convnet_so), "--cold-start"]).output
    assert "first run ms" in shown and "fresh processes, the file in the page cache" in shown


def test_a_cold_start_that_fails_says_why(tmp_path):
    (tmp_path / "no.so").write_bytes(b"nothing")
    with pytest.raises(sparsec.errors.SparsecError, match=r"no\.so: a fresh process failed: .*not made by sparsec"):
        cold_start(tmp_path / "no.so")
    done = CliRunner().invoke(cli, ["bench", str(tmp_path / "no.so"), "--cold-start", "--per-layer"])
    assert "leave out --against and --per-layer" in str(done.output)
