"""The speeds that sparsec is meant to reach, as data, each measured and called met or missed: `make bench-bars`.

A ratio is the time of what has to be beaten over ours, of one interleaved run on one Zen 4 core or two.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx
from bench import arguments, fit, save, stamp, store
from cases import Case, EngineError, Store, best, build, entrants, interleave, measure, record
from engines.client import SPARSEC, Process, missing
from generators.graph import FORMS
from generators.networks import network

DEEPSPARSE = ("DeepSparse",)
THREE = ("DeepSparse", "OpenVINO", "onnxruntime")


@dataclass(frozen=True)
class Bar:
    """At least `ratio` against the best of `against`; with `own`, against sparsec itself on that variant."""

    network: str
    variant: str
    batch: int
    threads: int
    ratio: float
    against: tuple[str, ...] = THREE
    own: str = ""
    target: str = "native"

    @property
    def case(self) -> Case:
        return Case(self.network, self.variant, self.batch, self.threads, self.target)

    @property
    def name(self) -> str:
        """By which it is selected."""
        target = "" if self.target == "native" else f":{self.target}"
        return f"{self.network}:{self.variant}:{self.batch}:{self.threads}{target}"


def _bars(
    network: str, variant: str, one: float, two: float | None, against: tuple[str, ...] = THREE, batch: int = 1
) -> list[Bar]:
    """On one thread, and on two where a ratio is given."""
    ratios = {1: one, 2: two}
    return [Bar(network, variant, batch, t, ratio, against) for t, ratio in ratios.items() if ratio is not None]


BARS = [
    *_bars("bert_base", "int8_1x4_80", 1.9, 1.75, DEEPSPARSE),
    *_bars("bert_base_384", "int8_1x4_80", 2.1, 1.9, DEEPSPARSE),
    *_bars("bert_base", "int8_unstructured_90", 1.4, 1.3, DEEPSPARSE),
    *_bars("bert_base", "fp32_unstructured_90", 1.55, 1.5, DEEPSPARSE),
    *_bars("bert_base", "fp32_2:4", 1.3, 1.2, DEEPSPARSE),
    Bar("bert_base", "int8_2:4", 1, 1, 1.25, (), "int8_dense"),
    *_bars("bert_base", "int8_dense", 1.1, 1.0),
    *_bars("bert_base", "fp32_dense", 0.95, 0.95),
    *_bars("minilm_l6", "int8_1x4_80", 1.7, 1.5, DEEPSPARSE),
    *_bars("mlp", "int8_1x4_80", 1.5, None),
    *_bars("mlp", "fp32_unstructured_90", 1.8, None),
    *_bars("bert_base", "int8_1x4_80", 1.6, None, batch=16),
    *_bars("bert_base", "int8_unstructured_90", 1.6, None, batch=16),
    *_bars("resnet50", "int8_1x4_80", 2.6, 2.2, DEEPSPARSE),
    *_bars("resnet50", "int8_unstructured_90", 1.6, 1.5, DEEPSPARSE),
    *_bars("resnet50", "fp32_unstructured_90", 2.5, 2.0, DEEPSPARSE),
    *_bars("resnet50", "int8_dense", 1.03, 1.03),
    *_bars("resnet50", "fp32_dense", 0.95, 0.95),
    Bar("resnet50", "int8_2:4", 1, 1, 1.2, (), "int8_dense"),
    *_bars("yolov5s", "int8_1x4_80", 3.0, 2.5, DEEPSPARSE),
    *_bars("yolov5s", "fp32_unstructured_90", 2.0, 1.8, DEEPSPARSE),
    *_bars("yolov5s", "int8_dense", 1.1, 1.1),
    *_bars("yolov5s", "fp32_dense", 0.95, 0.95),
    *_bars("mobilenetv2", "fp32_unstructured_90", 1.8, 1.8),
    *_bars("mobilenetv2", "int8_1x4_80", 1.3, 1.3),
    *_bars("mobilenetv2", "int8_dense", 1.1, 1.1),
    *_bars("mobilenetv2", "fp32_dense", 0.95, 0.95),
    *_bars("resnet50", "int8_1x4_80", 1.5, 1.5, batch=32),
    *_bars("resnet50", "fp32_unstructured_90", 1.2, 1.2, batch=32),
    *_bars("resnet50", "int8_dense", 1.0, 1.0, batch=32),
    # built for AVX2 alone, against onnxruntime on all that the CPU has: int8 is compared with its dense kernels on VNNI
    *(
        Bar(network, variant, 1, 1, ratio, ("onnxruntime",), target="avx2")
        for network, variant, ratio in (
            ("bert_base", "int8_1x4_80", 1.2),
            ("resnet50", "int8_1x4_80", 1.0),
            ("bert_base", "fp32_unstructured_90", 1.5),
            ("resnet50", "fp32_unstructured_90", 1.5),
        )
    ),
]


@dataclass(frozen=True)
class Cost:
    """Bounds of a build without a cache, and of loading: `faster_load` times as fast as onnxruntime, or in `load_ms`.

    Loading includes the first inference for `faster_load`.
    """

    network: str
    variant: str
    build_s: float
    build_mb: float
    size_mb: float
    faster_load: float = 0.0
    load_ms: float = 0.0


COSTS = [
    Cost("bert_base", "int8_1x4_80", 90, 4096, 90, faster_load=10),
    Cost("resnet50", "int8_1x4_80", 60, 4096, 25, load_ms=20),
]


def judged(bar: Bar, row: dict[str, Any]) -> str:
    """A line: both times, the ratio, the bar, met or missed."""
    ours = best(row, "sparsec")
    names = [f"sparsec {bar.own}"] if bar.own else list(bar.against)
    found = [t for t in (best(row, name) for name in names) if t]
    name = f"{bar.network:<14}{bar.variant:<21}{bar.batch:>3}{bar.threads:>3}"
    if not ours or not found:
        return f"{name}  not measured: {', '.join(names)}"
    peer = min(found, key=lambda t: t["ms"])
    ratio = peer["ms"] / ours["ms"]
    verdict = "met" if ratio >= bar.ratio else "missed"
    against = f"{peer['engine']} ({peer['form']})"
    against += f", --target {bar.target}" * (bar.target != "native")
    return f"{name}{ours['ms']:>10.2f}{peer['ms']:>10.2f}{ratio:>7.2f}{bar.ratio:>6.2f}  {verdict:<7} {against}"


def _case(row: dict[str, Any]) -> Case:
    target = "native" if row["isa"] == "avx512" else row["target"]
    return Case(row["network"], row["variant"], row["batch"], row["threads"], target)


def heading() -> str:
    return f"{'network':<14}{'weights':<21}{'b':>3}{'t':>3}{'sparsec':>10}{'peer':>10}{'ratio':>7}{'bar':>6}"


def costs(cost: Cost, folder: Store, rounds: int = 3) -> tuple[dict[str, Any], list[str]]:
    """Builds without a cache, and loads in fresh processes; the best of some rounds each."""
    case = Case(cost.network, cost.variant)
    made = build(folder.model(case, "qdq"), folder.artifact(case, "qdq"), environment={"SPARSEC_CACHE": "off"})
    loads: dict[str, list[dict[str, Any]]] = {}
    who = [e for e in entrants(case, every_form=False) if e.engine.column in ("sparsec", *THREE)]
    for i in range(rounds):
        again = [e for e in who if not i or e.engine.column != "DeepSparse"]  # it takes many seconds
        for timing in record(case, measure(case, folder, again, 1, 0))["engines"]:
            loads.setdefault(timing["engine"], []).append(timing)
    row: dict[str, Any] = {"network": cost.network, "variant": cost.variant, "kind": "cost", **made, "engines": []}
    for timings in loads.values():
        least = min(timings, key=lambda t: t["load_ms"] + t["first_ms"])
        row["engines"].append({k: least[k] for k in ("engine", "form", "load_ms", "first_ms", "memory_mb")})
    lines = []

    def line(what: str, value: float, bound: float, unit: str, least: bool = False) -> None:
        verdict = "met" if (value >= bound if least else value <= bound) else "missed"
        sign = ">=" if least else "<="
        lines.append(
            f"{cost.network:<14}{cost.variant:<21}{what:<28}{value:>10.1f} {unit:<3}{sign} {bound:g}  {verdict}"
        )

    line("build", made["build_s"], cost.build_s, "s")
    line("peak memory of the build", made["build_mb"], cost.build_mb, "MB")
    line("artifact", made["size_mb"], cost.size_mb, "MB")
    ready = {t["engine"]: t["load_ms"] + t["first_ms"] for t in row["engines"]}
    if cost.faster_load and "onnxruntime" in ready:
        line("load + first run, to ort's", ready["onnxruntime"] / ready["sparsec"], cost.faster_load, "x", least=True)
    if cost.load_ms:
        line("load", min(t["load_ms"] for t in loads["sparsec"]), cost.load_ms, "ms")
    shown = ", ".join(
        f"{t['engine']} {t['load_ms'] + t['first_ms']:.0f} ms {t['memory_mb']:.0f} MB" for t in row["engines"]
    )
    return row, [*lines, f"{'':<35}load + first run, and peak memory: {shown}"]


def forms(case: Case, folder: Store, rounds: int, seconds: float) -> str:
    """The slowest of the three forms of a quantized model, for sparsec, beside the plain one: at most 1.1 times."""
    timings = measure(case, folder, entrants(case, False, FORMS), rounds, seconds)
    ms = {t.form: t.ms for t in timings}
    ratio = max(ms.values()) / ms["qdq"]
    shown = ", ".join(f"{form} {value:.2f}" for form, value in ms.items())
    verdict = "met" if ratio <= 1.1 else "missed"
    return f"forms of {case}: {shown} ms; slowest {ratio:.3f} times the plain one, <= 1.1  {verdict}"


def any_length(folder: Store, rounds: int, seconds: float, variant: str = "int8_1x4_80") -> str:
    """BERT-base built for 1 to 384 tokens and for 128, run on 128: at most 1.05 times as slow."""
    model = folder.folder / f"bert_base_{variant}_any_length.onnx"
    if not model.exists():
        onnx.save(network("bert_base", variant, seq="seq"), str(model))
    feeds = folder.feeds(Case("bert_base", variant))
    processes = []
    try:
        for name, size in {"fixed": 128, "any": (1, 384)}.items():
            artifact = model.with_suffix(f".{name}.so")
            build(model, artifact, {"seq": size})
            processes.append(Process(SPARSEC, artifact, feeds, 1, 1))
        interleave(processes, rounds, seconds)
        fixed, free = (1e3 * median(p.times) for p in processes)
    finally:
        for process in processes:
            process.close()
    verdict = "met" if free / fixed <= 1.05 else "missed"
    return (
        f"bert_base {variant}, 128 tokens: {fixed:.2f} ms, built for 1 to 384: {free:.2f} ms, <= 1.05 times  {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "select",
        nargs="*",
        default=["*"],
        help="NETWORK:VARIANT:BATCH:THREADS[:TARGET], cost:NETWORK, forms:NETWORK, length:NETWORK; * is allowed",
    )
    parser.add_argument(
        "--from", dest="recorded", type=Path, metavar="FILE", help="judges recorded rows, times nothing"
    )
    arguments(parser)
    options = parser.parse_args()

    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in options.select)

    bars = [b for b in BARS if wanted(b.name)]
    if options.recorded:
        kept = json.loads(options.recorded.read_text())
        rows = {_case(r): r for r in kept if "kind" not in r}
        print("\n".join([heading(), *(judged(b, rows[b.case]) for b in bars if b.case in rows)]))
        return
    reason = fit()
    if reason:
        print(reason)
        return
    print("\n".join([*missing(), heading()]))
    with store(options) as folder:
        for bar in bars:
            who = entrants(bar.case, not options.no_peers and not bar.own, own=bar.own, every_form=not options.one_form)
            row = record(bar.case, measure(bar.case, folder, who, options.rounds, options.seconds)) | stamp(bar.target)
            save(options.json, [row])
            print(judged(bar, row), flush=True)
        for name in ("bert_base", "resnet50", "yolov5s", "mobilenetv2"):
            if wanted(f"forms:{name}"):
                print(forms(Case(name, "int8_1x4_80"), folder, options.rounds, options.seconds), flush=True)
        if wanted("length:bert_base"):
            print(any_length(folder, options.rounds, options.seconds), flush=True)
        for cost in COSTS:
            if wanted(f"cost:{cost.network}"):
                try:
                    row, lines = costs(cost, folder)
                except EngineError as error:
                    lines = [str(error)]
                else:
                    save(options.json, [row | stamp()])
                print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
