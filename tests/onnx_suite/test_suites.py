"""The test suites of the onnx package, compiled for this machine and run."""

from __future__ import annotations

import functools

import golden
import pytest
import suite

EXPECTED = golden.read()
QUICK = golden.default_cases(EXPECTED)


@functools.cache
def all_cases():
    return suite.keyed_cases()


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        names = all_cases() if metafunc.config.option.update_golden else EXPECTED
        marks = {True: (), False: pytest.mark.slow}
        metafunc.parametrize("name", [pytest.param(n, marks=marks[n in QUICK]) for n in sorted(names)])


def compile_and_run(folder):
    def execute(model, inputs):
        import sparsec

        shapes = {name: value.shape for name, value in inputs.items()}
        path = sparsec.build(model, output=folder / "model.so", shapes=shapes, jobs=1)
        with sparsec.load(path) as loaded:
            return list(loaded.run(inputs).values())

    return execute


def test_case(name, tmp_path, record_property, request):
    case = all_cases().get(name)
    assert case is not None, "the onnx package no longer has this case: --update-golden"
    verdict = suite.check(case, compile_and_run(tmp_path))
    if request.config.option.update_golden:
        for key, value in (("onnx_case", name), ("onnx_op", case.op), ("onnx_verdict", verdict)):
            record_property(key, value)
        assert golden.acceptable(verdict), verdict
        return
    if EXPECTED[name].status == golden.PASS:
        assert verdict == golden.PASS
    else:
        assert verdict != golden.PASS, "this case now passes: --update-golden"
        assert golden.acceptable(verdict), verdict


@pytest.mark.slow
def test_every_case_is_expected():
    assert set(EXPECTED) == set(all_cases()), "--update-golden"


def test_wrong_answers_are_not_accepted():
    for verdict in ("wrong values", "gives float32[2], not float32[3]", "InternalError: x", "AttributeError: x"):
        assert not golden.acceptable(verdict)
    assert all(golden.acceptable(row.status) for row in EXPECTED.values())
