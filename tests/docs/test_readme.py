"""Runs what the README shows. A block is found by the comment before it: `<!-- test: NAME -->`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from public_models import PUBLIC_MODELS

import sparsec

ROOT = Path(sparsec.__path__[0])
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- test: (\w+) -->\n```\w*\n(.*?)```", TEXT, re.DOTALL))


def commands(name):
    """The lines of a block, without the remarks behind them."""
    return [line.partition(" #")[0].strip() for line in BLOCKS[name].splitlines() if line.strip()]


@pytest.fixture
def place(tmp_path, fill):
    fill(tmp_path)
    return tmp_path


def run(script, place, cwd=None):
    """What the lines print; the first that fails ends them."""
    path = os.pathsep.join([str(place / "bin"), os.environ["PATH"]])
    modules = os.pathsep.join([str(place / "bin"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        ["bash", "-euxc", script],
        cwd=cwd or place, env={**os.environ, "PATH": path, "PYTHONPATH": modules},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_block_is_run():
    assert set(BLOCKS) == {"make", "sparsify", "sh", "python", "kernels", "c", "report", "install"}
    assert TEXT.count("```") == 2 * len(BLOCKS)


def test_the_two_commands_come_first():
    assert commands("make") == ["make demo", "make test"]
    assert TEXT.startswith("# sparsec\n\n<!-- test: make -->")


def test_make(place):
    """What they run once `.venv` is there; the demo is run, the tests are running."""
    printed = run("\n".join(c.replace("make", "make -n") for c in commands("make")), place, cwd=ROOT)
    assert "python examples/demo.py" in printed and "python -m pytest" in printed
    assert "within tolerance" in run("python examples/demo.py", place, cwd=ROOT)


def test_commands(place):
    printed = run("\n".join(commands("sh")), place)
    for word in ("conv2d", "scores", "ok", "ratio", "avx2"):
        assert word in printed
    assert np.load(place / "results" / "scores.npy").shape == (8, 8)


def test_sparsify(place):
    image = np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32)
    np.savez(place / "calib.npz", image=image)
    printed = run("\n".join(commands("sparsify")), place)
    assert "70" in printed and "int8" in printed
    assert (place / "report.html").is_file() and (place / "sparse.so").is_file()


def test_python(place):
    (place / "use.py").write_text(BLOCKS["python"] + "print(scores.shape)\n")
    assert run("python use.py", place).endswith("(4, 8)\n")


def test_kernels(place):
    printed = run("\n".join(commands("kernels")), place)
    for word in ("gain", "conv2d", "global_average_pool"):
        assert word in printed


def test_c(place):
    assert "output scores [4, 8]" in run("\n".join(commands("c")), place)


def test_install(place):
    """Everything but the download: the metadata are made and the extra is known."""
    tree = place / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "build", "tests", "*.egg-info", "__pycache__"))
    for command in commands("install"):
        printed = run(f"{command} --dry-run --no-deps --no-build-isolation --ignore-installed", place, cwd=tree)
        assert f"Would install sparsec-{sparsec.__version__}" in printed
        assert "does not provide the extra" not in printed


def test_report(place, request):
    """The table is what the command prints; `make golden` rewrites it."""
    first = BLOCKS["report"].splitlines()[0]
    shutil.copy(PUBLIC_MODELS["mtcnn_pnet"].path(), place / "pnet.onnx")
    printed = run(first.removeprefix("$ ") + " 2>/dev/null", place).splitlines()
    begin = next(i for i, line in enumerate(printed) if "MMACs" in line)
    block = "\n".join([first, "", *(line.rstrip() for line in printed[begin:])]) + "\n"
    if request.config.getoption("--update-golden"):
        README.write_text(TEXT.replace(BLOCKS["report"], block), encoding="utf-8")
        return
    assert without_time(block) == without_time(BLOCKS["report"])


def without_time(text):
    """The seconds and the file's size belong to one build on one machine."""
    return re.sub(r"so: .*, weights", "so: weights", re.sub(r"\d+\.\d s$", "", text, flags=re.MULTILINE))


def test_links():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).exists(), target
