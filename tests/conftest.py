"""What holds for every test: the option that rewrites golden files, and that no module is loaded twice."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest

import sparsec

ROOT = Path(sparsec.__path__[0]).resolve()


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files from what the tests find")


def names_by_file() -> dict[Path, list[str]]:
    """The files of this tree that `sys.modules` holds, with the names they were loaded under.

    Without the root's `__init__.py`, which pytest may import under the checkout's name: it is lazy and holds no state.
    """
    found = defaultdict(list)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if (
            file
            and Path(file).is_relative_to(ROOT)
            and Path(file) != ROOT / "__init__.py"
            and "site-packages" not in file
        ):
            found[Path(file)].append(name)
    return found


@pytest.fixture(autouse=True, scope="module")
def one_name_per_module():
    """Two names would mean two registries, two exception types, two of everything."""
    yield
    found = names_by_file()
    found.pop(
        ROOT / "__init__.py", None
    )  # pytest imports it as the package of the folder it collects; it holds no state
    twice = {str(file.relative_to(ROOT)): names for file, names in found.items() if len(names) > 1}
    assert not twice, f"loaded under two names: {twice}"


def pytest_collection_modifyitems(items):
    """With xdist a file's tests share a process and so its fixtures; the cases of the suite are spread."""
    for item in items:
        if "onnx_suite" not in item.nodeid:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
