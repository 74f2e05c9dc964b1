"""Bad input on the command line: one message, exit status 2, no traceback, and nothing left where the output goes.

The same errors by their Python class are tested where they are raised: tests/frontend and tests/runtime.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec import errors
from sparsec.cli import cli
from sparsec.compiler.emit.toolchain import Toolchain

RNG = np.random.default_rng(0)


def model(nodes, inputs=(("x", ("batch", 4)),), outputs=("y",), **weights):
    """A model of (op, inputs, outputs) with float tensors."""
    made = [helper.make_node(op, i.split(), o.split(), name=f"node_{o.split()[0]}") for op, i, o in nodes]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs]
    results = [helper.make_empty_tensor_value_info(n) for n in outputs]
    tensors = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = helper.make_graph(made, "g", values, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def product():
    return model([("MatMul", "x w", "y")], w=RNG.standard_normal((4, 3)).astype(np.float32))


BOUND = ("--dim", "batch=1..4")


@pytest.fixture
def place(tmp_path):
    """An empty folder for outputs, with models beside it."""
    (tmp_path / "out").mkdir()
    onnx.save(product(), str(tmp_path / "product.onnx"))
    return tmp_path


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return sparsec.build(product(), output=tmp_path_factory.mktemp("artifact") / "m.so", dims={"batch": (1, 4)})


def refused(*args):
    """What stands behind `error: `; the message is all that the command writes."""
    result = CliRunner().invoke(cli, [str(a) for a in args])
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    return result.stderr.removeprefix("error: ")


def build(place, source, *options):
    """The message of a build that must fail and leave nothing behind."""
    path = place / "model.onnx"
    if isinstance(source, onnx.ModelProto):
        onnx.save(source, str(path))
    else:
        path.write_bytes(source)
    text = refused("build", path, "-o", place / "out" / "m.so", "--report", place / "out" / "r.json", *options)
    assert not list((place / "out").iterdir())
    return text


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"GIF89a, a picture", b"\x7fELF\x02\x01\x01", bytes(1000), b"{}" * 50])
def test_no_onnx_file(content, place):
    assert "is not an ONNX model" in build(place, content)


def test_a_folder_as_model(place):
    assert "Is a directory" in refused("build", place, "-o", place / "out" / "m.so")


def test_truncated_at_any_place(place):
    """Wherever the file ends; where the rest is a model by chance, it is found to lack something."""
    data = model([("MatMul", "x w", "y")], w=np.ones((4, 300), np.float32)).SerializeToString()
    for length in (1, 10, 60, len(data) // 2, len(data) - 10, len(data) - 1):
        assert "model.onnx" in build(place, data[:length], *BOUND) or length > len(data) // 2


def test_cycle(place):
    text = build(place, model([("Add", "x b", "a"), ("Relu", "a", "b"), ("Relu", "b", "y")]), *BOUND)
    assert "cycle" in text and "node_a" in text and "node_b" in text


def test_all_unknown_operators_at_once(place):
    nodes = [("Det", "x", "a"), ("Relu", "x", "b"), ("RandomNormalLike", "b", "c"), ("RandomUniformLike", "c", "d")]
    source = model([*nodes, ("Add", "b d", "y")], outputs=("y", "a"))
    text = build(place, source, "--dim", "batch=2")
    assert text.startswith("3 nodes cannot be compiled:") and text.count("\n") == 4
    for part in ("Det 'node_a'", "RandomNormalLike 'node_c'", "RandomUniformLike 'node_d'", "float32[2,4]",
                 "no converter", "random numbers are not supported"):  # fmt: skip
        assert part in text


def test_an_operator_of_another_domain(place):
    source = model([("Relu", "x", "a"), ("Frobnicate", "a", "y")])
    source.graph.node[1].domain = "com.example"
    source.opset_import.append(helper.make_opsetid("com.example", 3))
    text = build(place, source, "--dim", "batch=2")
    assert "Frobnicate 'node_y'" in text and "com.example opset 3" in text and "no converter" in text


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ((), ("batch", "--dim batch=1")),
        (("--dim", "bach=1"), ("bach", "batch")),
        (("--dim", "batch=-1..3"), ("batch",)),
        (("--dim", "batch=3..1"), ("batch",)),
        (("--shape", "x=2,5"), ("4",)),
        (("--shape", "x=2"), ("x",)),
        (("--shape", "z=2,4"), ("z", "x")),
        ((*BOUND, "--target", "z80"), ("z80", "avx2")),
        ((*BOUND, "--symbol-prefix", "9-"), ("9-",)),
    ],
)
def test_wrong_options(options, parts, place):
    text = build(place, product(), *options)
    assert all(part in text for part in parts)


# --- outputs that cannot be written -----------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--output", "--report", "--dump-ir"])
@pytest.mark.parametrize("where", ["product.onnx/inner/file", "out"])
def test_outputs_are_checked_before_the_build(option, where, place, monkeypatch):
    monkeypatch.setattr("sparsec.compiler.pipeline.compile_model", lambda *a, **k: pytest.fail("it was built"))
    if option == "--dump-ir" and where == "out":
        where = "product.onnx"
    options = {"--output": place / "out" / "m.so", option: place / where}
    text = refused("build", place / "product.onnx", *BOUND, *(part for row in options.items() for part in row))
    assert str(place / where) in text and "cannot write" in text
    assert not list((place / "out").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(place):
    (place / "out").chmod(0o500)
    assert "permission" in refused("build", place / "product.onnx", *BOUND, "-o", place / "out" / "m.so")


def test_a_folder_without_permission_is_asked_for(place, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert "no permission" in refused("build", place / "product.onnx", *BOUND, "-o", place / "out" / "m.so")


@pytest.mark.parametrize("emit", ["so", "a", "o"])
@pytest.mark.parametrize("existing", [False, True])
def test_disk_full_while_the_output_is_copied(emit, existing, place, monkeypatch):
    def copy(source, destination, **_):
        Path(destination).write_bytes(Path(source).read_bytes()[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination))

    output = place / "out" / f"m.{emit}"
    if existing:
        output.write_bytes(b"an older one")
    monkeypatch.setattr("sparsec.compiler.emit.artifact.shutil.copyfile", copy)
    text = refused("build", place / "product.onnx", *BOUND, "-o", output, "--emit", emit)
    assert "No space left on device" in text
    assert [p.read_bytes() for p in (place / "out").iterdir()] == [b"an older one"] * existing


def test_disk_full_while_sources_are_copied(place, monkeypatch):
    def copy(source, destination, **_):
        Path(destination).mkdir()
        (Path(destination) / "model.c").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination))

    monkeypatch.setattr("sparsec.compiler.emit.artifact.shutil.copytree", copy)
    text = refused("build", place / "product.onnx", *BOUND, "-o", place / "out" / "m_c", "--emit", "c")
    assert "No space left on device" in text
    assert not list((place / "out").iterdir())


def test_an_existing_folder_of_sources_stays(place):
    (place / "out" / "mine").write_text("keep")
    text = refused("build", place / "product.onnx", *BOUND, "-o", place / "out", "--emit", "c")
    assert "exists already" in text
    assert [p.read_text() for p in (place / "out").iterdir()] == ["keep"]


def test_a_report_that_does_not_fit(place, monkeypatch):
    original = Path.write_text

    def write(path, data, *args, **kwargs):
        if "r.json" in path.name:
            original(path, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return original(path, data, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", write)
    report = place / "out" / "r.json"
    assert "No space left" in refused("build", place / "product.onnx", *BOUND, "-o", place / "out" / "m.so", "--report",
                                      report)  # fmt: skip
    assert [p.name for p in (place / "out").iterdir()] == ["m.so"]


LIMITED = """
import resource, sys
from sparsec.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
main()
"""


@pytest.mark.parametrize("kilobytes", [1, 60, 3000])
def test_files_may_not_grow(kilobytes, place):
    """A limit of the system stands for a full disk: weights, objects, archive or copy, whichever meets it first."""
    big = model([("MatMul", "x w", "y")], w=RNG.standard_normal((4, 200_000)).astype(np.float32))
    onnx.save(big, str(place / "big.onnx"))
    (place / "temporary").mkdir()
    command = ["build", place / "big.onnx", *BOUND, "-o", place / "out" / "m.so", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(kilobytes << 10), *map(str, command)],
        capture_output=True, text=True, check=False, cwd=place,
        env={**os.environ, "TMPDIR": str(place / "temporary"), "SPARSEC_CACHE": "off"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert not list((place / "out").iterdir())
    assert not list((place / "temporary").iterdir())


# --- the toolchain ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["cc", "ar", "ld.lld"])
def test_the_toolchain_fails(tool, place, monkeypatch):
    original = Toolchain.run

    def run(self, *args):
        original(self, *(("cc", "--no-such-option") if args[0] == tool else args))

    monkeypatch.setattr(Toolchain, "run", run)
    monkeypatch.setenv("SPARSEC_CACHE", "off")
    emit = {"cc": "so", "ar": "a", "ld.lld": "o"}[tool]
    text = refused("build", place / "product.onnx", *BOUND, "-o", place / "out" / f"m.{emit}", "--emit", emit)
    assert text.startswith("zig cc failed") and "no-such-option" in text
    assert not list((place / "out").iterdir())


def test_the_toolchain_is_not_installed(place, monkeypatch):
    monkeypatch.setattr("sparsec.compiler.emit.toolchain.sys.executable", str(place / "python"))
    monkeypatch.setenv("SPARSEC_CACHE", "off")
    assert "zig cannot be started" in refused("build", place / "product.onnx", *BOUND, "-o", place / "out" / "m.so")
    assert not list((place / "out").iterdir())


# --- artifacts --------------------------------------------------------------------------------------------------------


READERS = ("run", "bench", "inspect")


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_cut_short(command, share, artifact, place):
    data = artifact.read_bytes()
    (place / "short.so").write_bytes(data[: int(share * len(data))])
    text = refused(command, place / "short.so")
    assert "short.so" in text and ("cut short" in text or "not made by sparsec" in text)


@pytest.mark.parametrize("command", READERS)
def test_another_library(command, place):
    (place / "other.so").write_bytes(Path(sys.executable).resolve().read_bytes())
    assert "not made by sparsec" in refused(command, place / "other.so")


@pytest.mark.parametrize("command", ["run", "bench"])
def test_another_abi(command, artifact, place):
    data = artifact.read_bytes()
    changed = re.sub(rb'("abi": ?)1\b', rb"\g<1>7", data)
    assert changed != data
    (place / "old.so").write_bytes(changed)
    text = refused(command, place / "old.so")
    assert "ABI version 7" in text and "version 1" in text and "build it again" in text


def test_another_machine(place):
    output = place / "arm.so"
    name = "x86-64" if os.uname().machine == "aarch64" else "aarch64"
    sparsec.build(product(), output=output, target=name, dims={"batch": 1})
    for command in ("run", "bench"):
        assert "was built for" in refused(command, output)
    assert CliRunner().invoke(cli, ["inspect", str(output)]).exit_code == 0
    with pytest.raises(errors.CpuError):
        sparsec.load(output)


@pytest.mark.parametrize("emit", ["a", "o"])
def test_no_shared_library(emit, place):
    output = sparsec.build(product(), output=place / f"m.{emit}", emit=emit, dims={"batch": 1})
    assert "only a .so can be loaded" in refused("run", output)


@pytest.mark.parametrize(
    ("name", "array", "parts"),
    [
        ("z", np.zeros((1, 4), np.float32), ("z", "x")),
        ("x", np.zeros((1, 4)), ("float64", "float32")),
        ("x", np.zeros((1, 5), np.float32), ("5", "4")),
        ("x", np.zeros(4, np.float32), ("[4]", "[batch, 4]")),
        ("x", np.zeros((5, 4), np.float32), ("5", "batch", "4")),
        ("x", np.array([{}]), ("x.npy",)),
    ],
)
def test_wrong_inputs(name, array, parts, artifact, place):
    np.save(place / "x.npy", array, allow_pickle=True)
    text = refused("run", artifact, "--input", f"{name}={place / 'x.npy'}", "--output", place / "out" / "results")
    assert all(part in text for part in parts)
    assert not list((place / "out").iterdir())


def test_results_that_cannot_be_written(artifact, place):
    assert "product.onnx" in refused("run", artifact, "--output", place / "product.onnx")


def test_results_that_do_not_fit(artifact, place, monkeypatch):
    def save(file, array):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", save)
    text = refused("run", artifact, "--output", place / "out")
    assert "y.npy" in text and "No space left" in text
    assert not list((place / "out").iterdir())


def test_every_class_is_a_sparsec_error():
    """So that `except sparsec.SparsecError` catches all of the above."""
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(classes) > 8 and all(issubclass(c, sparsec.SparsecError) for c in classes)
