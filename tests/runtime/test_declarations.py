"""The parsed form of sparsec.h that is checked in."""

from __future__ import annotations

from pathlib import Path

from c_tools import HEADERS, python
from raw_context import RawContext

from sparsec.runtime_stub.declarations import declarations, python_text


def test_in_step_with_the_header():
    """If this fails: python -m sparsec.runtime_stub.declarations."""
    assert (HEADERS / "_declarations.py").read_text(encoding="utf-8") == python_text()


def test_every_function_of_the_header(prefixed_archives, convnet_so):
    text = (HEADERS / "sparsec.h").read_text(encoding="utf-8")
    names = {part.split("(")[0].split()[-1].lstrip("*") for part in text.split("SPARSEC_API ")[1:] if "(" in part}
    names = {name for name in names if name.startswith("sparsec_")}
    assert "sparsec_run" in names and len(names) == 18
    with RawContext(convnet_so) as context:
        assert names <= set(dir(context.lib))


def test_prefixes_do_not_mix():
    ours, theirs = declarations("sparsec_"), declarations("theirs_")
    assert ours is declarations("sparsec_") and theirs is declarations("theirs_")
    assert ours.sizeof("sparsec_options") == theirs.sizeof("theirs_options")


def test_loading_parses_no_c(convnet_so, tmp_path):
    script = "import sys, sparsec; sparsec.load(sys.argv[1]); print('pycparser' in sys.modules, 'cffi' in sys.modules)"
    assert python(script, Path(convnet_so), cwd=tmp_path) == "False False\n"
