"""What an artifact holds for one of its targets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..lower.memory import MemoryPlan
from ..lower.program import Program
from ..target import Target


@dataclass(frozen=True)
class Member:
    """One program; `suffix` tells its names from those of the other targets' programs."""

    target: Target
    program: Program
    plan: MemoryPlan
    suffix: str = ""

    def own(self, text: str) -> str:
        """C text, or a symbol, with the names of kernels that are this member's."""
        if not self.suffix:
            return text
        return re.sub(r"\bsparsec_(?:k|tile)_\w+", lambda found: found[0] + self.suffix, text)

    @property
    def manifest_file(self) -> str:
        """Where the build folder has its manifest."""
        return f"manifest{self.suffix}.json"

    def unit(self, name: str) -> str:
        """File name of the translation unit `name` of kernels."""
        return f"k_{name}{self.suffix}.c"
