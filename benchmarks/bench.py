"""sparsec and every installed peer on the benchmark networks, interleaved, medians: `make bench`.

Each engine runs in a process of its own and is given every form of a quantized model that suits it; the faster counts.
Weights are random and seeded. Ratios are the peer's time over ours.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from cases import Case, Store, best, entrants, measure, record
from engines.client import PEERS, missing
from generators.graph import FORMS
from generators.networks import NETWORKS, VARIANTS

from sparsec.compiler.target import resolve

COLUMNS = [engine.column for engine in PEERS]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `bench.py` and `bars.py` share."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each engine in each round; two calls at least")
    parser.add_argument("--no-peers", action="store_true", help="sparsec alone")
    parser.add_argument("--one-form", action="store_true", help="peers get the form that is usually faster only")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="adds the rows to this file; an older row of the same case goes"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="models are kept there and found again")


@contextmanager
def store(options: argparse.Namespace) -> Iterator[Store]:
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        yield Store(options.keep)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Store(Path(folder))


def fit() -> str | None:
    """Why nothing can be compared on this machine, or None."""
    target = resolve("native")
    if target.isa != "avx512":
        return f"skipped: the figures are of AVX-512 VNNI, which this CPU lacks (it runs {target.name})"
    return None


def save(path: Path | None, rows: list[dict[str, Any]]) -> None:
    """Adds rows; an older one of the same case is replaced."""
    if path is None:
        return
    old = json.loads(path.read_text()) if path.exists() else []
    key = ("network", "variant", "batch", "threads", "target", "kind")
    new = {tuple(r.get(k) for k in key): r for r in [*old, *rows]}
    lines = ",\n".join(json.dumps(_rounded(r)) for r in new.values())
    path.write_text(f"[\n{lines}\n]\n")


def _rounded(value: Any) -> Any:
    """Floats to five digits, which is more than any clock here is worth."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def stamp(name: str = "native") -> dict[str, str]:
    """When a row was measured, and the target that sparsec was built for."""
    target = resolve(name)
    return {"date": date.today().isoformat(), "target": target.name, "isa": target.isa}


def line(row: dict[str, Any]) -> str:
    """A row of the table: sparsec's time, each peer's and its ratio."""
    ours = best(row, "sparsec")
    cells = [f"{row['network']:<14}{row['variant']:<21}{row['batch']:>3}{row['threads']:>3}"]
    cells.append(f"{ours['ms']:>9.2f}" if ours else f"{'-':>9}")
    for column in COLUMNS:
        peer = best(row, column)
        cells.append(f"{peer['ms']:>10.2f} {peer['ms'] / ours['ms']:>5.2f}" if peer and ours else f"{'-':>16}")
    return "".join(cells)


def heading() -> str:
    return f"{'network':<14}{'weights':<21}{'b':>3}{'t':>3}{'sparsec':>9}" + "".join(f"{c:>16}" for c in COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["bert_base", "resnet50"], help=", ".join(NETWORKS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["qdq"], help="of quantized models, for sparsec")
    arguments(parser)
    options = parser.parse_args()
    unknown = [n for n in options.networks if n not in NETWORKS]
    if unknown:
        parser.error(f"no network {unknown[0]}; there are {', '.join(NETWORKS)}")
    reason = fit()
    if reason:
        print(reason)
        return
    target = resolve("native")
    print(f"target {target.name} ({target.isa}); medians in ms, and the peer's time over ours; b batch, t threads")
    print("\n".join([*([] if options.no_peers else missing()), heading()]))
    with store(options) as folder:
        for name in options.networks:
            for variant in options.variants:
                for batch in options.batch:
                    for threads in options.threads:
                        case = Case(name, variant, batch, threads)
                        who = entrants(
                            case, not options.no_peers, tuple(options.forms), every_form=not options.one_form
                        )
                        row = record(case, measure(case, folder, who, options.rounds, options.seconds)) | stamp()
                        save(options.json, [row])
                        print(line(row), flush=True)


if __name__ == "__main__":
    main()
