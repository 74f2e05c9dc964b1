"""Commands that only look: inspect and targets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .arguments import FILE
from .text import shape_text, size_text, table


@click.command()
@click.argument("artifact", type=FILE, metavar="MODEL.so")
@click.option("--json", "as_json", is_flag=True, help="Prints the manifest as JSON.")
def inspect(artifact: Path, as_json: bool) -> None:
    """Shows what an artifact holds, without running any of its code."""
    from ..runtime_stub.artifact import read_manifest

    manifest = read_manifest(artifact)
    if as_json:
        click.echo(json.dumps(manifest, indent=2))
        return
    members = [manifest, *manifest.get("fallbacks", ())]
    facts = [
        ("file", str(artifact)),
        ("size", size_text(artifact.stat().st_size)),
        ("weights", size_text(manifest["weights_bytes"])),
        *[fact for member in members for fact in _member_facts(member)],
        ("model", f"sha256 {manifest['model_sha256']}"),
        ("options", json.dumps(manifest["options"])),
        ("made by", ", ".join(f"{k} {v}" for k, v in {"sparsec": manifest["sparsec"], **manifest["tools"]}.items())),
        ("ABI", str(manifest["abi"])),
    ]
    click.echo("\n".join(f"{name:<8} {value}" for name, value in facts))
    for kind in ("inputs", "outputs"):
        rows = [(row["name"], row["dtype"], shape_text(row["shape"])) for row in manifest[kind]]
        click.echo("\n" + table((kind, "dtype", "shape"), rows))
    if manifest["dims"]:
        dims = [(row["name"], str(row["lower"]), str(row["upper"]), _sum_text(row)) for row in manifest["dims"]]
        click.echo("\n" + table(("dimension", "from", "to", ""), dims))
    for member in members:
        which = f"layer on {member['target']['name']}" if len(members) > 1 else "layer"
        rest = member["layers"]
        for bucket in member.get("buckets", [{"layers": len(rest), "dims": {}}]):
            title = " ".join([which, *(f"{name}<={size}" for name, size in bucket["dims"].items())])
            rows, rest = rest[: bucket["layers"]], rest[bucket["layers"] :]
            layers = [
                (", ".join(row["nodes"]) or row["name"], row["kernel"], shape_text(row["shape"]),
                 f"{row['macs'] / 1e6:.3f}", row["reason"]) for row in rows
            ]  # fmt: skip
            click.echo("\n" + table((title, "kernel", "shape", "MMACs", "why"), layers))


def _member_facts(member: Mapping[str, Any]) -> list[tuple[str, str]]:
    target = member["target"]
    needs = " ".join(target["features"]) or "nothing more"
    return [
        ("target", f"{target['name']} ({target['triple']}; needs {needs})"),
        ("arena", size_text(member["arena_bytes"])),
        *[("bucket", _bucket_text(bucket)) for bucket in member.get("buckets", ())],
    ]


def _sum_text(dim: Mapping[str, Any]) -> str:
    if "equals" not in dim:
        return ""
    terms, constant = dim["equals"]["terms"], dim["equals"]["constant"]
    parts = [name if factor == 1 else f"{factor}*{name}" for name, factor in terms.items()]
    return "= " + " + ".join([*parts, *([str(constant)] if constant else [])])


def _bucket_text(bucket: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{name} up to {size}" for name, size in bucket["dims"].items())
    return f"{sizes}: arena {size_text(bucket['arena_bytes'])}"


@click.command()
def targets() -> None:
    """Lists the targets, what they require, and whether this CPU has it."""
    from ..compiler.target import TARGETS
    from ..runtime_stub.cpu import host_features, host_machine

    machine, have = host_machine(), host_features()
    rows = []
    for row in TARGETS.values():
        missing = [feature for feature in row.requires if feature not in have]
        fits = row.machine in (machine, "")
        verdict = f"no, lacks {' '.join(missing)}" if fits else f"no, this is {machine}"
        runs = fits and not missing
        rows.append((row.name, "yes" if runs else verdict, row.summary, " ".join(row.requires) or "-"))
    click.echo(table(("target", "this CPU", "for", "requires"), rows))
