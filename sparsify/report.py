"""The report: one HTML file without scripts and without anything from the network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..errors import SparsecError
from .oneshot import Outcome
from .search import Candidate

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: right; }
th:first-child, td:first-child, td:last-child { text-align: left; }
td:first-child { word-break: break-all; }
.bar { background: #e8eef7; height: .8rem; width: 8rem; display: inline-block; }
.bar i { background: #3566b0; height: 100%; display: block; }
svg text { font-size: 12px; fill: #444; }
"""


def write_report(outcome: Outcome, path: Path) -> None:
    """Accuracy against speed where a search was made, each layer's sparsity, error and reasons, and the size."""
    head = f'<html lang="en"><meta charset="utf-8"><title>sparsify</title><style>{_STYLE}</style>'
    parts = ["<!doctype html>", head, "<h1>sparsify</h1>", _summary(outcome)]
    points = [c for c in outcome.candidates if c.metric is not None or c.speedup is not None]
    if points:
        parts += ["<h2>What was tried</h2>", _curve(points), _candidates(points)]
    parts += ["<h2>Layers</h2>", _layers(outcome), "</html>"]
    try:
        path.write_text("\n".join(parts) + "\n", encoding="utf-8")
    except OSError as error:
        raise SparsecError(f"cannot write {path}: {error.strerror}") from None


def _summary(outcome: Outcome) -> str:
    size = sum(a.nbytes for a in outcome.network.constants.values())
    kept = sum(_bytes(row.rows * row.depth, row.sparsity, row.quantized) for row in outcome.layers.values())
    dense = sum(4 * row.rows * row.depth for row in outcome.layers.values())
    facts = [
        f"{outcome.sparsity:.1%} of the layers' weights are zero.",
        f"The layers' weights: {_mb(dense)} dense in float32, {_mb(kept)} without the zeros; constants: {_mb(size)}.",
        f"The outputs differ by {outcome.output_error:.2%} of their energy on the calibration data.",
    ]
    if outcome.metrics is not None:
        facts.append(f"Metric: {outcome.metrics[1]:.4f}; the dense model's: {outcome.metrics[0]:.4f}.")
    return "<ul>" + "".join(f"<li>{escape(fact)}</li>" for fact in facts) + "</ul>"


def _bytes(count: int, sparsity: float, quantized: bool) -> float:
    return count * (1 - sparsity) * (1 if quantized else 4)


def _mb(size: float) -> str:
    return f"{size / 1e6:.2f} MB"


def _layers(outcome: Outcome) -> str:
    head = (
        "<tr><th>layer</th><th>kind</th><th>shape</th><th>zeros</th><th></th><th>pruning error</th><th>int8 error</th>"
    )
    head += "<th>effect on outputs</th><th>type</th><th>stays dense or float because</th></tr>"
    rows = [
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in (
            escape(row.name), row.kind, f"{row.rows} x {row.depth}", f"{row.sparsity:.1%}",
            f'<span class="bar"><i style="width:{100 * row.sparsity:.0f}%"></i></span>',
            f"{row.error:.3%}", f"{row.quantization_error:.3%}",
            "" if row.sensitivity is None else f"{row.sensitivity:.3%}",
            "int8" if row.quantized else "float32",
            escape("; ".join(filter(None, (row.dense_reason, row.float_reason)))),
        )) + "</tr>"
        for row in outcome.layers.values()
    ]  # fmt: skip
    return f"<table>{head}{''.join(rows)}</table>"


def _candidates(points: Sequence[Candidate]) -> str:
    head = "<tr><th>sparsity</th><th>metric</th><th>speedup</th><th>output error</th><th>file</th></tr>"
    rows = [
        f"<tr><td>{c.sparsity:.2%}</td><td>{_number(c.metric)}</td><td>{_number(c.speedup)}</td>"
        f"<td>{c.output_error:.2%}</td><td>{_mb(c.bytes)}</td></tr>"
        for c in points
    ]
    return f"<table>{head}{''.join(rows)}</table>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _curve(points: Sequence[Candidate]) -> str:
    """Accuracy (the metric, else 1 - output error) against speed (measured, else sparsity)."""
    timed = all(c.speedup is not None for c in points)
    scored = all(c.metric is not None for c in points)
    xs = [c.speedup if timed and c.speedup is not None else c.sparsity for c in points]
    ys = [c.metric if scored and c.metric is not None else 1 - c.output_error for c in points]
    width, height, margin = 560, 260, 50
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / ((right - left) or 1) * (width - 2 * margin) + margin
        up = height - margin - (y - low) / ((high - low) or 1) * (height - 2 * margin)
        return across, up

    dots = [place(x, y) for x, y in sorted(zip(xs, ys, strict=True))]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#3566b0"/>' for x, y in dots)
    names = ("times the dense model's speed" if timed else "sparsity", "metric" if scored else "1 - output error")
    labels = [
        (margin, height - margin + 18, f"{left:.3g}"), (width - margin, height - margin + 18, f"{right:.3g}"),
        (width / 2, height - 8, names[0]), (margin, margin - 14, f"{names[1]} {high:.4g}"),
        (margin, height - margin - 4, f"{low:.4g}"),
    ]  # fmt: skip
    texts = "".join(f'<text x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>' for x, y, text in labels)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<polyline points="{line}" fill="none" stroke="#3566b0" stroke-width="2"/>{circles}{texts}</svg>'
    )
