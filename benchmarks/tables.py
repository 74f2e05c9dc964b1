"""Writes README's tables of speed from recorded rows: `python benchmarks/tables.py`; with `--check` it only compares.

The rows are those that `bench.py --json benchmarks/results.json` has written.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from cases import best

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
NETWORKS = {
    "bert_base": "BERT-base, 128 tokens",
    "bert_base_384": "BERT-base, 384 tokens",
    "minilm_l6": "MiniLM-L6, 128 tokens",
    "mlp": "MLP 1024-4096-4096-1024",
    "resnet50": "ResNet-50",
    "yolov5s": "YOLOv5s, 640 x 640",
    "mobilenetv2": "MobileNetV2",
}
WEIGHTS = {
    "fp32_dense": "fp32",
    "fp32_2:4": "fp32, 2:4",
    "fp32_unstructured_90": "fp32, 90 % zero",
    "int8_dense": "int8",
    "int8_2:4": "int8, 2:4",
    "int8_unstructured_90": "int8, 90 % zero",
    "int8_1x4_80": "int8, 80 % zero in blocks of 1x4",
}
PEERS = ("onnxruntime", "OpenVINO", "DeepSparse")


def speed(rows: list[dict[str, Any]]) -> str:
    """ms of every engine on one thread, the ratio of the best peer to sparsec, and that ratio on two threads."""
    measured = (r for r in rows if "kind" not in r and r["isa"] == "avx512")
    by_case = {(r["network"], r["variant"], r["batch"], r["threads"]): r for r in measured}
    lines = [
        f"| network | weights | sparsec ms | {' | '.join(PEERS)} | best / sparsec | 2 threads |",
        f"| --- | --- | ---: | {'---: | ' * len(PEERS)}---: | ---: |",
    ]
    for network, title in NETWORKS.items():
        for variant, weights in WEIGHTS.items():
            batches = sorted({b for n, v, b, _ in by_case if (n, v) == (network, variant)})
            for batch in batches:
                row = by_case.get((network, variant, batch, 1))
                if row is None:
                    continue
                peers = [best(row, name) for name in PEERS]
                cells = [f"{t['ms']:.3g}" if t else "" for t in (best(row, "sparsec"), *peers)]
                name = title if batch == 1 else f"{title}, batch {batch}"
                ratios = [_ratio(row), _ratio(by_case.get((network, variant, batch, 2)))]
                lines.append(f"| {' | '.join([name, weights, *cells, *ratios])} |")
    return "\n".join(lines)


def other_targets(rows: list[dict[str, Any]]) -> str:
    """What is built for less than the CPU has, on one thread, beside onnxruntime on all of it."""
    lines = [
        "| network | weights | target | sparsec ms | onnxruntime | ratio |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        ours, peer = (best(row, name) for name in ("sparsec", PEERS[0])) if "kind" not in row else (None, None)
        if ours and peer and row["isa"] != "avx512":
            cells = (NETWORKS[row["network"]], WEIGHTS[row["variant"]], f"`{row['target']}`", f"{ours['ms']:.3g}",
                     f"{peer['ms']:.3g}", f"{peer['ms'] / ours['ms']:.2f}")  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(row: dict[str, Any] | None) -> str:
    ours = best(row, "sparsec") if row else None
    peers = [t["ms"] for t in (best(row, name) for name in PEERS) if t] if row else []
    return f"{min(peers) / ours['ms']:.2f}" if ours and peers else ""


def circumstances(rows: list[dict[str, Any]]) -> str:
    """Versions and date, in a sentence."""
    versions = {t["engine"]: t["version"].split("-")[0] for r in rows for t in r.get("engines", []) if t.get("version")}
    peers = ", ".join(f"{name} {versions[name]}" for name in PEERS if name in versions)
    dates = sorted({r["date"] for r in rows})
    return f"{peers}; {dates[-1]}." if dates else ""


def filled(text: str, rows: list[dict[str, Any]]) -> str:
    """The text with what stands between its markers made anew."""
    parts = {"speed": speed(rows), "targets": other_targets(rows), "circumstances": circumstances(rows)}
    for name, body in parts.items():
        pattern = rf"(<!-- made: {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, body=body: f"{m[1]}{body}\n{m[2]}", text, flags=re.DOTALL)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = filled(old, json.loads(RESULTS.read_text()))
    if options.check:
        sys.exit("README's tables are not what the results say: make docs" if new != old else 0)
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
