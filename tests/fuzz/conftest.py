"""The node tests of onnx are read by their suite's reader."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "onnx_suite"))
