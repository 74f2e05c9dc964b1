"""Writes the tables of this folder from the code: `python docs/generate.py`, or `--check` that they are up to date."""

from __future__ import annotations

import collections
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
EXPECTED = FOLDER.parent / "tests" / "onnx_suite" / "expected.json"
SUITES = {"node": 1884, "simple": 23, "pytorch-converted": 82, "pytorch-operator": 35, "light": 9}
"""What onnx.backend.test holds, with tests of strings and sequences and of types that numpy lacks."""
_NODE = re.compile(r"^\w+Error: .*?(?:cannot be compiled: )?[^(]*\((?:ai\.\S+|\S+) opset \d+; inputs .*?\): ")
_ERROR = re.compile(r"^\w+Error: ")
_QUOTED = re.compile(r" ?\(?'[^']*'\)?")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def operators() -> str:
    """ONNX operators: opsets, node tests, what is refused."""
    import onnx

    from sparsec.compiler.frontend import registry, tvm_converters

    newest = onnx.defs.onnx_opset_version()
    first = {s.name: s.since_version for s in onnx.defs.get_all_schemas_with_history() if not s.domain}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            first[schema.name] = min(first[schema.name], schema.since_version)
    cases = json.loads(EXPECTED.read_text(encoding="utf-8"))
    suites: dict[str, dict[str, list[str]]] = {suite: {} for suite in SUITES}
    for name, row in cases.items():
        suites[name.rpartition("/")[0] or "node"][name] = row
    nodes = suites["node"]
    direct = {name: row for name, row in nodes.items() if "_expanded" not in name}
    by_op = collections.defaultdict(list)
    for op, status in direct.values():
        by_op[op].append(status)
    own = {op for domain, op in registry.registered() if not domain}
    names = sorted(n for n in by_op.keys() | own | set(tvm_converters.STANDARD) if n in first)
    rows = []
    for op in names:
        statuses = by_op[op]
        passed = statuses.count("pass")
        convertible = passed or op in own or op in tvm_converters.STANDARD
        opsets = f"{first[op]}-{newest}" if convertible else "none"
        tests = f"{passed}/{len(statuses)}" if statuses else "-"
        rows.append((op, opsets, tests, "; ".join(_reasons(s for s in statuses if s != "pass"))))
    expanded = [status for name, (_, status) in nodes.items() if name not in direct]
    counts = []
    for suite, rows_of in suites.items():
        passing = sum(status == "pass" for _, status in rows_of.values())
        counts.append((suite, passing, len(rows_of) - passing, SUITES[suite]))
    microsoft = sorted({op for domain, op in registry.registered() if domain == "com.microsoft"})
    done = sum(status == "pass" for _, status in direct.values())
    return (
        f"# Operators\n\nOpsets 1 to {newest} of the default domain; older forms are rewritten to the newest. "
        "An operator without a converter is taken apart by its function body where ONNX defines one.\n\n"
        f"The suites of onnx {onnx.__version__}. The tests that are not run have strings, sequences or numbers of "
        "types that numpy lacks for inputs or outputs.\n\n"
        + _table(("Suite", "Pass", "Refused", "All tests"), counts)
        + f"\nBelow, tests are node tests: {done} of {len(direct)} "
        f"pass, and {expanded.count('pass')} of {len(expanded)} of those of the function bodies. The others are "
        "refused when the model is built, for the reasons given.\n\n"
        + _table(("Operator", "Opsets", "Tests", "Refused"), rows)
        + f"\nOf `com.microsoft`: {', '.join(microsoft)}.\n"
    )


def _reasons(refusals: Iterable[str]) -> list[str]:
    """Each reason once, the frequent ones first, without the names of one test's nodes and tensors."""
    texts = collections.Counter(_QUOTED.sub("", _ERROR.sub("", _NODE.sub("", text))) for text in refusals)
    return [text for text, _ in texts.most_common()]


def kernels() -> str:
    """The kernel catalogue."""
    from sparsec.codegen_templates.catalogue import CATALOGUE

    rows = [
        (f"`{k.name}`", k.isa, f"{k.rows} x {k.columns}" if k.rows * k.vectors > 1 else "", k.summary)
        for k in CATALOGUE
    ]
    return (
        "# Kernels\n\nWhat the catalogue holds (`codegen_templates/catalogue.py`); everything else is TIR.\n\n"
        + _table(("Kernel", "ISA", "Tile", "Computes"), rows)
    )


def targets() -> str:
    """The targets."""
    from sparsec.compiler.target import TARGETS

    rows = [
        (f"`{t.name}`", t.summary, f"`{t.triple}`" if t.triple else "any", f"`{t.cpu}`", " ".join(t.requires) or "-")
        for t in TARGETS.values()
    ]
    return (
        "# Targets\n\n`native` is the first row that fits this machine. The runtime checks the required features "
        "before any kernel runs. `--triple` builds for another C library or system: `aarch64-linux-musl`, "
        "`aarch64-macos`, `x86_64-macos`. `--target avx512,avx2,generic` makes one file with code for each; a CPU gets "
        "the first that it can run.\n\n" + _table(("Target", "Machines", "Triple", "CPU", "Required features"), rows)
    )


PAGES = {"operators.md": operators, "kernels.md": kernels, "targets.md": targets}


def main(arguments: Sequence[str]) -> int:
    """Status 1 when `--check` finds a page that is out of date."""
    stale = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"out of date: {', '.join(stale)}; run python docs/generate.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
