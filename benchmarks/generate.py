"""Writes a benchmark network to a file: `python benchmarks/generate.py resnet50 int8_1x4_80 --form full_qdq`."""

from __future__ import annotations

import argparse

import onnx
from generators.graph import FORMS
from generators.networks import NETWORKS, VARIANTS, network


def size(text: str) -> int | str:
    """A number, or the name of a dynamic dimension."""
    return int(text) if text.isdigit() else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--form", choices=FORMS, default="qdq", help="of quantized ones")
    parser.add_argument("--batch", type=size, default=1, help="a number or a name")
    parser.add_argument("--seq", type=size, help="tokens of a BERT: a number or a name")
    parser.add_argument("--per-channel", action="store_true", help="scales of the weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", help="default: NETWORK_VARIANT[_FORM].onnx")
    options = parser.parse_args()
    changes = {"batch": options.batch, "seed": options.seed, "per_channel": options.per_channel}
    if options.seq is not None:
        changes["seq"] = options.seq
    suffix = f"_{options.form}" if options.variant.startswith("int8") else ""
    path = options.output or f"{options.network}_{options.variant.replace(':', '')}{suffix}.onnx"
    onnx.save(network(options.network, options.variant, options.form, **changes), path)
    print(path)


if __name__ == "__main__":
    main()
