"""The report of a build, as data: stages, sizes, kernels, layers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipeline import Compilation


def make_report(c: Compilation) -> dict[str, Any]:
    """What `--report` writes: the manifest, with times and sizes of the build."""
    output = c.options.output
    return {
        "output": str(output),
        "bytes": output.stat().st_size if output.is_file() else None,
        "seconds": {name: round(value, 3) for name, value in c.seconds.items()},
        "arena_bytes": c.plan.arena_bytes,
        "arena_lower_bound": c.plan.lower_bound,
        "kernels": dict(sorted(Counter(step.kernel for step in c.program.steps).items())),
        "manifest": c.manifest,
    }
