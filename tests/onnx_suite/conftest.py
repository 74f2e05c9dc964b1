import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import golden

_found = {}


def pytest_runtest_logreport(report):
    """Sees the reports of all workers."""
    properties = dict(report.user_properties)
    if report.when == "call" and "onnx_case" in properties:
        _found[properties["onnx_case"]] = golden.Expected(properties["onnx_op"], properties["onnx_verdict"])


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    """Writes what was found; a case that is wrong, or that no longer exists, has no line."""
    if not _found or not session.config.option.update_golden or hasattr(session.config, "workerinput"):
        return
    rows = golden.read() | _found
    golden.write({name: row for name, row in rows.items() if golden.acceptable(row.status)})
