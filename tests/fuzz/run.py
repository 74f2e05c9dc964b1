"""Mutated ONNX files through the compiler: `make fuzz FUZZ="--count 10000"`; what was done before is not done again.

Every case runs in a process of its own, forked from one that has everything imported.
"""

from __future__ import annotations

import collections
import json
import os
import resource
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "onnx_suite")]

import case

CPU_SECONDS = 60
WALL_SECONDS = 300
"""For busy machines; what computes is stopped by `CPU_SECONDS`."""
MEMORY = 12 << 30


@dataclass(frozen=True)
class Outcome:
    """One line of the log."""

    case: int
    what: str
    verdict: str
    reason: str
    seconds: float


@dataclass
class Running:
    """A forked case."""

    number: int
    pid: int
    pipe: int
    began: float
    text: bytes = b""


def begin(number: int) -> Running:
    """Forks a case; its verdicts come through the pipe, a line of JSON each: the last one counts."""
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(write)
        return Running(number, pid, read, time.monotonic())
    os.setpgid(0, 0)
    os.close(read)
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(write, "w") as out:

        def tell(verdict: str, reason: str) -> None:
            print(json.dumps([verdict, reason]), file=out, flush=True)

        try:
            tell(*case.run(number, lambda: tell("unjudged", "the reference died")))
        except BaseException as error:
            tell("traceback", repr(error))
    os._exit(0)


def end(running: Running) -> Outcome:
    """Waits for the process and says how it went."""
    os.close(running.pipe)
    _, status = os.waitpid(running.pid, 0)
    what, _ = case.make(running.number)
    if running.text:
        verdict, reason = json.loads(running.text.splitlines()[-1])
    else:
        name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status}"
        verdict, reason = ("hang" if name in ("SIGXCPU", "SIGKILL") else "crash"), name
    return Outcome(running.number, what, verdict, reason, round(time.monotonic() - running.began, 2))


def advance(running: list[Running]) -> list[Outcome]:
    """Reads what there is to read; the outcomes of those that ended."""
    ready, _, _ = select.select([r.pipe for r in running], [], [], 1.0)
    done = []
    for one in list(running):
        if one.pipe in ready:
            chunk = os.read(one.pipe, 1 << 16)
            one.text += chunk
            if not chunk:
                running.remove(one)
                done.append(end(one))
        elif time.monotonic() - one.began > WALL_SECONDS:
            os.killpg(one.pid, signal.SIGKILL)
            one.began = time.monotonic()
    return done


def fuzz(numbers: list[int], jobs: int, log: Path) -> list[Outcome]:
    """Runs the cases, a line of `log` for each as it ends."""
    todo, running, outcomes = list(reversed(numbers)), [], []
    case.warm_up()
    with log.open("a") as out:
        while todo or running:
            while todo and len(running) < jobs:
                running.append(begin(todo.pop()))
            for outcome in advance(running):
                outcomes.append(outcome)
                print(json.dumps(asdict(outcome)), file=out, flush=True)
                if outcome.verdict in case.FINDINGS:
                    print(f"{outcome.case} {outcome.what} -> {outcome.verdict}: {outcome.reason.strip()[-300:]}")
    return outcomes


def read(log: Path) -> dict[int, dict[str, Any]]:
    """Case -> its line."""
    lines = log.read_text().splitlines() if log.exists() else []
    return {row["case"]: row for row in map(json.loads, lines)}


@click.command()
@click.option("--count", default=200, help="Cases 0 to COUNT - 1.")
@click.option(
    "--log", type=click.Path(path_type=Path), default=Path("fuzz.jsonl"), help="Cases in it are not done again."
)
@click.option("--jobs", default=os.cpu_count(), help="Processes.")
@click.option("--show", type=int, help="Write this case's model beside the log and run it here.")
def main(count: int, log: Path, jobs: int, show: int | None) -> None:
    """Exit status 1 where a case is a finding."""
    if show is not None:
        what, data = case.make(show)
        path = log.with_name(f"case_{show}.onnx")
        path.write_bytes(data)
        verdict, reason = case.run(show)
        print(f"{path}: {what}\n{verdict} {reason}")
        return
    done = read(log)
    fuzz([n for n in range(count) if n not in done], jobs, log)
    rows = [row for number, row in read(log).items() if number < count]
    verdicts = collections.Counter(row["verdict"] for row in rows)
    print(", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common()))
    print(f"{verdicts['verified'] + verdicts['unjudged'] + verdicts['wrong']} were linked")
    sys.exit(any(verdicts[v] for v in case.FINDINGS))


if __name__ == "__main__":
    main()
