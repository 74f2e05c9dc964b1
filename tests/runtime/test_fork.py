"""A child after fork has no worker threads: it must work without them, and may have new ones."""

from __future__ import annotations

from pathlib import Path

from c_tools import python

HELPERS = f"sys.path.insert(0, {str(Path(__file__).parent)!r})"

START = f"""
import os, sys, threading, time
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads come and go around a fork
import numpy as np
import sparsec
{HELPERS}
from raw_context import OK, RawContext

artifact = sys.argv[1]
image = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)

def threads():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("Threads:")).split()[1])

def check_threads(n):
    # A thread that was joined still counts for a moment.
    end = time.monotonic() + 10
    while threads() != n and time.monotonic() < end:
        time.sleep(0.001)
    assert threads() == n

def check_child(pid, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, f"the child ended with {{status}}"
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")
"""


def script(body: str, artifact: Path, cwd: Path) -> None:
    assert python(START + body + "\nprint('end')", artifact, cwd=cwd).splitlines()[-1] == "end"


def test_c_context_in_a_child(convnet_so, tmp_path):
    """Run works at once, with the caller's thread alone; prepare starts threads."""
    script(
        """
raw = RawContext(artifact)
raw.create(threads=2)
expected, found = np.empty((2, 8, 10), np.float32)
assert raw.run([image], [expected]) == OK
alone = threads() - 1
pid = os.fork()
if pid == 0:
    code = 1
    try:
        check_threads(1)
        assert raw.run([image], [found]) == OK and found.tobytes() == expected.tobytes()
        check_threads(1)
        assert raw.prepare([image.shape]) == OK
        check_threads(2)
        found[:] = 0
        assert raw.run([image], [found]) == OK and found.tobytes() == expected.tobytes()
        raw.__exit__()
        check_threads(1)
        code = 0
    finally:
        os._exit(code)
check_child(pid)
found[:] = 0
assert raw.run([image], [found]) == OK and found.tobytes() == expected.tobytes()
check_threads(alone + 1)
raw.__exit__()
check_threads(alone)
""",
        convnet_so,
        tmp_path,
    )


def test_c_context_destroyed_in_a_child_that_never_ran_it(convnet_so, tmp_path):
    script(
        """
raw = RawContext(artifact)
raw.create(threads=3)
pid = os.fork()
if pid == 0:
    raw.__exit__()
    os._exit(0)
check_child(pid)
raw.__exit__()
""",
        convnet_so,
        tmp_path,
    )


def test_model_in_a_child(convnet_so, tmp_path):
    """The same results with as many threads; the child ends in the usual way, destructors included."""
    script(
        """
model = sparsec.load(artifact, threads=2)
expected = model.run({"image": image})["scores"]
pid = os.fork()
if pid == 0:
    check_threads(1)
    for _ in range(3):
        assert model.run({"image": image})["scores"].tobytes() == expected.tobytes()
    check_threads(2)
    grandchild = os.fork()
    if grandchild == 0:
        assert model.run({"image": image})["scores"].tobytes() == expected.tobytes()
        check_threads(2)
        sys.exit(0)
    check_child(grandchild)
    sys.exit(0)
check_child(pid)
assert model.run({"image": image})["scores"].tobytes() == expected.tobytes()
""",
        convnet_so,
        tmp_path,
    )


def test_fork_while_another_thread_runs_the_model(convnet_so, tmp_path):
    """In the child the context is busy for ever and its lock held by nobody: the model has to see to both."""
    script(
        """
model = sparsec.load(artifact, threads=2)
expected = model.run({"image": image})["scores"]
stop = False
def loop():
    while not stop:
        model.run({"image": image})
runner = threading.Thread(target=loop)
runner.start()
try:
    for i in range(20):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert model.run({"image": image})["scores"].tobytes() == expected.tobytes()
                check_threads(2)
                if i % 2:
                    model.close()
                code = 0
            finally:
                os._exit(code)
        check_child(pid)
finally:
    stop = True
    runner.join()
""",
        convnet_so,
        tmp_path,
    )
