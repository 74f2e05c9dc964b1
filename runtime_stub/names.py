"""Renames `sparsec_…` for `--symbol-prefix`: in C text, headers and declarations alike."""

from __future__ import annotations

import re

DEFAULT_PREFIX = "sparsec_"


def with_prefix(text: str, prefix: str) -> str:
    """C text in which every identifier begins with `prefix` instead of `sparsec_`, macros likewise in capitals."""
    if prefix == DEFAULT_PREFIX:
        return text
    text = re.sub(r"\bsparsec_(?=\w|##)", prefix, text)
    return re.sub(r"\bSPARSEC_(?=\w|##)", prefix.upper(), text)
