"""The report of a build, as data: stages, sizes, kernels, layers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..emit.member import Member
    from ..pipeline import Compilation


def _of_member(c: Compilation, member: Member) -> dict[str, Any]:
    return {
        "name": member.target.name,
        "code_bytes": c.emitted.code_bytes.get(member.target.name),
        "arena_bytes": member.plan.arena_bytes,
        "arena_lower_bound": member.plan.lower_bound,
        "kernels": dict(sorted(Counter(step.kernel for step in member.program.steps).items())),
    }


def make_report(c: Compilation) -> dict[str, Any]:
    """What `--report` writes: the manifest, with times and sizes of the build."""
    output = c.options.output
    return {
        "output": str(output),
        "bytes": output.stat().st_size if output.is_file() else None,
        "seconds": {name: round(value, 3) for name, value in c.seconds.items()},
        "arena_bytes": max(member.plan.arena_bytes for member in c.members),
        "targets": [_of_member(c, member) for member in c.members],
        "manifest": c.manifest,
    }
