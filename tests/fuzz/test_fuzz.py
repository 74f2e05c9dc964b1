"""Two hundred mutated files in every run of the tests; `make fuzz` goes on from there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import case
import pytest

COUNT = 200


def test_mutated_files(tmp_path):
    log = tmp_path / "fuzz.jsonl"
    command = [sys.executable, Path(__file__).with_name("run.py"), "--count", str(COUNT), "--jobs", "1", "--log", log]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = Counter(json.loads(line)["verdict"] for line in log.read_text().splitlines())
    assert sum(verdicts.values()) == COUNT
    assert verdicts["verified"] > COUNT // 5, "too few of the mutated models are still models"


@pytest.mark.parametrize("number", range(40))
def test_a_case_is_its_number(number):
    assert case.make(number) == case.make(number)
