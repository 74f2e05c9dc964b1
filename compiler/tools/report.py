"""The report of a build, as data: stages, sizes, kernels, layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..emit.member import by_target

if TYPE_CHECKING:
    from ..emit.member import Member
    from ..pipeline import Compilation


def _of_target(c: Compilation, members: Sequence[Member]) -> dict[str, Any]:
    name = members[0].target.name
    kernels = Counter(step.kernel for member in members for step in member.program.steps)
    return {
        "name": name,
        "code_bytes": c.emitted.code_bytes.get(name),
        "arena_bytes": max(member.plan.arena_bytes for member in members),
        "arena_lower_bound": max(member.plan.lower_bound for member in members),
        "kernels": dict(sorted(kernels.items())),
    }


def make_report(c: Compilation) -> dict[str, Any]:
    """What `--report` writes: the manifest, with times and sizes of the build."""
    output = c.options.output
    return {
        "output": str(output),
        "bytes": output.stat().st_size if output.is_file() else None,
        "seconds": {name: round(value, 3) for name, value in c.seconds.items()},
        "arena_bytes": max(member.plan.arena_bytes for member in c.members),
        "targets": [_of_target(c, members) for members in by_target(c.members)],
        "manifest": c.manifest,
    }
