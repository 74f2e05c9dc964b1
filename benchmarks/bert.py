"""BERT-base, pruned and quantized, against onnxruntime, interleaved in one process: `make bench-bert`.

Weights are random and seeded; each engine is given the form of the model that it runs faster.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import onnx
import onnxruntime as ort
from generators.bert import BERT_BASE, MINILM_L6, BertConfig, bert
from models import sample

import sparsec
from sparsec.compiler.target import resolve
from sparsec.runtime_stub.inputs import random_inputs

NETWORKS = {"bert_base": BERT_BASE, "minilm_l6": MINILM_L6}
VARIANTS = {
    "fp32_dense": {},
    "fp32_unstructured_90": {"sparsity": 0.9, "pattern": "unstructured"},
    "fp32_2:4": {"pattern": "2:4"},
    "int8_dense": {"quantized": True},
    "int8_1x4_80": {"sparsity": 0.8, "pattern": "1x4", "quantized": True},
}


def compare(config: BertConfig, threads: int, rounds: int, folder: Path) -> tuple[float, float, float]:
    """Median milliseconds of (sparsec, onnxruntime on the plain QDQ form, on the integer form; equal for float)."""
    forms = ["qdq", "integer"] if config.quantized else ["qdq"]
    paths = {}
    for form in forms:
        paths[form] = folder / f"{form}.onnx"
        onnx.save(bert(replace(config, form=form)), str(paths[form]))
    ours = sparsec.load(sparsec.build(paths["qdq"], output=folder / "model.so"), threads=threads)
    inputs = random_inputs(ours.manifest)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    sessions = {f: ort.InferenceSession(str(p), options, providers=["CPUExecutionProvider"]) for f, p in paths.items()}
    runs = {"sparsec": lambda: ours.run(inputs)}
    for form, session in sessions.items():
        runs[form] = lambda session=session: session.run(None, inputs)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for function in runs.values():
        sample(function, 0.2)
    for _ in range(rounds):
        for name, function in runs.items():
            times[name] += sample(function, 0.3)
    medians = {name: 1e3 * median(values) for name, values in times.items()}
    return medians["sparsec"], medians["qdq"], medians.get("integer", medians["qdq"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=["bert_base"], help=", ".join(NETWORKS))
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    target = resolve("native")
    print(f"target {target.name} ({target.isa}), batch 1, {options.seq} tokens, {options.threads} thread(s), medians")
    print(f"{'model':<34}{'sparsec ms':>12}{'ort QDQ ms':>12}{'ort int ms':>12}{'ratio':>8}")
    for network in options.networks:
        for variant in options.variants:
            config = replace(NETWORKS[network], seq=options.seq, **VARIANTS[variant])
            with tempfile.TemporaryDirectory() as folder:
                ours, qdq, integer = compare(config, options.threads, options.rounds, Path(folder))
            best = min(qdq, integer)
            name = f"{network} {variant}"
            print(f"{name:<34}{ours:>12.2f}{qdq:>12.2f}{integer:>12.2f}{best / ours:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
