"""What an artifact holds for one of its targets, and for one of the sizes that it was built for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from ..lower.memory import MemoryPlan
from ..lower.program import Program
from ..target import Target

_KERNEL = re.compile(r"\bsparsec_(?:k|tile)_\w+")


@dataclass(frozen=True)
class Member:
    """One program; `suffix` tells its names from those of the other programs."""

    target: Target
    program: Program
    plan: MemoryPlan
    suffix: str = ""
    bucket: Mapping[str, int] = field(default_factory=dict)
    """Dimension -> the size up to which this program is meant, of dimensions that were given several."""
    is_largest: bool = True
    """Whether it takes all sizes that its target's programs take."""

    alike: frozenset[str] = frozenset()
    """Translation units of kernels that all buckets of the target have alike, and the symbols in them."""
    alike_suffix: str = ""
    """Tells their names from those of other targets."""

    def own(self, text: str) -> str:
        """C text, or a symbol, with the names of kernels that are this member's."""
        if not self.suffix and not self.alike_suffix:
            return text
        return _KERNEL.sub(lambda found: found[0] + self._suffix_of(found[0]), text)

    @property
    def manifest_file(self) -> str:
        """Where the build folder has its manifest."""
        return f"manifest{self.suffix}.json"

    def unit(self, name: str) -> str:
        """File name of the translation unit `name` of kernels."""
        return f"k_{name}{self._suffix_of(name)}.c"

    def _suffix_of(self, name: str) -> str:
        return self.alike_suffix if name in self.alike else self.suffix


def with_shared_kernels(members: Sequence[Member]) -> list[Member]:
    """The members, each with what is alike in all buckets of its target: that is compiled once."""
    return [
        replace(member, alike=alike, alike_suffix=group[-1].suffix)
        for group in by_target(members)
        for alike in [_alike(group)]
        for member in group
    ]


def _alike(group: Sequence[Member]) -> frozenset[str]:
    texts: dict[str, list[str]] = {}
    for member in group:
        for source in member.program.sources:
            texts.setdefault(source.name, []).append(source.text)
    differ = {name for name, found in texts.items() if len(set(found)) > 1}
    while True:  # what reads a symbol that is not alike is not alike itself
        symbols = {symbol for name in differ for text in texts[name] for symbol in _KERNEL.findall(text)}
        also = {name for name in texts.keys() - differ if symbols.intersection(_KERNEL.findall(texts[name][0]))}
        if not also:
            break
        differ |= also
    alike = texts.keys() - differ
    return frozenset(alike) | {symbol for name in alike for symbol in _KERNEL.findall(texts[name][0])}


def by_target(members: Sequence[Member]) -> list[list[Member]]:
    """The members of each target, the largest bucket last."""
    return [list(group) for _, group in groupby(members, lambda member: member.target.name)]
