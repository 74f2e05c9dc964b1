"""A wheel made from the tree: what is in it, and what works where only the runtime's dependencies are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

import sparsec

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(sparsec.__path__[0])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NO_PACKAGE = {"tests", "benchmarks", "examples", "docs", "build", "dist"}
WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
COMPILER_ONLY = ("onnx", "tvm", "rich", "jinja2", "ziglang", "onnxruntime", "ml_dtypes")


def package_folders():
    """Folders of the tree that hold an `__init__.py`."""
    found = [ROOT]
    for top in ROOT.iterdir():
        if top.is_dir() and top.name not in NO_PACKAGE and not top.name.startswith("."):
            found += [path.parent for path in top.rglob("__init__.py")]
    return found


def dotted(folder):
    return ".".join(("sparsec", *folder.relative_to(ROOT).parts))


def call(*command, cwd, status=0, **environment):
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env={**env, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the tree and nothing old in it gets into the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "tree"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__"))
    call(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, copy, cwd=folder
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", s]) for n, s in (("x", 4), ("y", 3))]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(WEIGHTS, "w")])
    model = folder / "product.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(model))
    return sparsec.build(model, output=folder / "product.so", dims={"rows": (1, 8)})


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """The folder of programs of an environment that holds the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("clean")
    call(sys.executable, "-m", "venv", folder, cwd=folder)
    call(folder / "bin" / "python", "-m", "pip", "install", "-q", wheel, cwd=folder)
    return folder / "bin"


# --- contents ---------------------------------------------------------------------------------------------------------


def test_every_folder_is_listed():
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(dotted(f) for f in package_folders())


def test_files_of_the_wheel(wheel):
    """All Python of the packages, the C, headers and templates beside it, the licence; nothing else."""
    wanted = {"sparsec/py.typed"}
    for folder in package_folders():
        inner = "/".join(dotted(folder).split("."))
        wanted |= {f"{inner}/{p.name}" for p in folder.iterdir() if p.suffix in (".py", ".c", ".h", ".j2")}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert names == wanted
    assert len(licences) == 1


def test_names_of_the_wheel(wheel):
    assert re.fullmatch(rf"sparsec-{re.escape(sparsec.__version__)}-py3-none-any\.whl", wheel.name)
    assert PROJECT["project"]["version"] == sparsec.__version__


def test_the_compiler_in_the_wheel_builds(wheel, artifact, tmp_path):
    """With the compiler's dependencies of this environment, and not a file of the tree."""
    call(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path / "site", wheel, cwd=tmp_path)
    script = "import sparsec, sys; print(sparsec.__file__); sparsec.build(sys.argv[1], output='m.so', dims={'rows': 2})"
    model = artifact.with_suffix(".onnx")
    out = call(sys.executable, "-c", script, model, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site")).stdout
    assert out.startswith(str(tmp_path / "site"))
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(sparsec.load(tmp_path / "m.so").run({"x": x})["y"], x @ WEIGHTS, rtol=1e-6)


# --- a clean environment ----------------------------------------------------------------------------------------------


def test_nothing_of_the_compiler_is_installed(clean, tmp_path):
    script = f"import importlib.util as u; print([n for n in {COMPILER_ONLY} if u.find_spec(n)])"
    assert call(clean / "python", "-c", script, cwd=tmp_path).stdout == "[]\n"
    call(clean / "python", "-m", "pip", "check", cwd=tmp_path)


def test_load(clean, artifact, tmp_path):
    script = (
        "import sys, numpy, sparsec\n"
        "with sparsec.load(sys.argv[1], threads=2) as model:\n"
        "    y = model.run({'x': numpy.ones((3, 4), numpy.float32)})['y']\n"
        "print(sparsec.__file__)\n"
        "print(y.shape, y[0].tolist(), [m for m in sys.modules if 'sparsec.compiler' in m])\n"
    )
    file, result = call(clean / "python", "-c", script, artifact, cwd=tmp_path).stdout.splitlines()
    assert file.startswith(str(clean.parent))
    assert result == f"(3, 3) {WEIGHTS.sum(0).tolist()} []"


@pytest.mark.parametrize("command", ["targets", "inspect", "run", "bench"])
def test_commands_of_the_runtime(command, clean, artifact, tmp_path):
    options = {"targets": (), "inspect": (artifact,), "run": (artifact, "--output", "out"),
               "bench": (artifact, "--seconds", "0.1")}[command]  # fmt: skip
    done = call(clean / "sparsec", command, *options, cwd=tmp_path)
    word = {"targets": "avx2", "inspect": "[rows, 3]", "run": "float32", "bench": "median ms"}[command]
    assert word in done.stdout
    assert done.stderr == ""
    if command == "run":
        assert np.load(tmp_path / "out" / "y.npy").shape == (8, 3)


@pytest.mark.parametrize(
    "options", [("build", "m.onnx"), ("verify", "m.onnx", "m.so"), ("bench", "m.so", "--against", "onnxruntime")]
)
def test_commands_of_the_compiler_say_what_to_install(options, clean, artifact, tmp_path):
    shutil.copy(artifact, tmp_path / "m.so")
    shutil.copy(artifact.with_suffix(".onnx"), tmp_path / "m.onnx")
    extra = ("--model", "m.onnx") if options[0] == "bench" else ()
    done = call(clean / "sparsec", *options, *extra, cwd=tmp_path, status=2)
    assert done.stdout == ""
    assert re.fullmatch(r"error: the package \w+ is not installed; pip install 'sparsec\[compiler\]'\n", done.stderr)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.so"]


def test_python_says_what_to_install(clean, tmp_path):
    script = "import sparsec\ntry: sparsec.build('m.onnx')\nexcept sparsec.SparsecError as e: print(e)"
    assert "pip install 'sparsec[compiler]'" in call(clean / "python", "-c", script, cwd=tmp_path).stdout
