"""What telemetry costs in CPU, for a call and for a chunk of a stream: ours, and that of others.

    .venv/bin/python benchmarks/telemetry.py [--rounds 12] [--quick] [--only TEXT]...

Each way is a process of its own for each thing that an application may have set up: no SDK, one that samples nothing,
one that exports spans in batches to a receiver on loopback, and one that exports metrics as well. In it calls with
telemetry and without take turns, and the difference is what telemetry costs, the export of spans included. Figures
are medians over rounds, with the middle half of the rounds. What the receiver got is counted after each turn: all
spans of the calls with telemetry, none of those without, and nothing of what was said; else the benchmark ends.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from typing import NamedTuple

import environments
import tables
from overhead import Failed, FarSide, Worker, _end, step_s
from peers import INSTRUMENTED, OURS, OURS_BARE, SDK_ALONE, STATES, Way, instrumented
from peers.instrumented import SINK
from receiver import Got, Receiver
from tables import Cell
from workload import CHUNKS

CELLS = (Cell("openai", "call", 1, calls=200), Cell("openai", "stream", 1, calls=12, events=1))
GOALS = (("no SDK", 30.0), ("spans", 150.0))
"""Microseconds a call that ours may cost."""


class Took(NamedTuple):
    """Seconds of CPU for a call, and how many of them went into exporting its spans."""

    cpu_s: float
    export_s: float


class Subject:
    """A worker, and what the receiver has got of it."""

    def __init__(self, worker: Worker, got: Got) -> None:
        self.worker = worker
        self.name, _, self.state = worker.way.name.rpartition(": ")
        self._got = got
        self._peer: type[instrumented.Instrumented] = getattr(instrumented, worker.way.home.partition(":")[2])
        self.names: set[str] = set()
        self.metrics: set[str] = set()

    def measure(self, far_side: FarSide, cell: Cell, number: int) -> Took:
        """What telemetry adds to one call in *cell*."""
        if cell.kind == "stream":
            far_side.pace(step_s(self.worker.way.chunk_s, cell), cell.events)
        took: dict[str, Took] = {}
        for switch in ("on", "off") if number % 2 else ("off", "on"):
            told = self.worker.measure(
                wire="openai", kind=f"{switch} {cell.kind}", concurrency=cell.concurrency, calls=cell.calls
            )
            took[switch] = Took(told["cpu_s"], told["later_s"])
            self._check(switch, cell)
        return Took(took["on"].cpu_s - took["off"].cpu_s, took["on"].export_s - took["off"].export_s)

    def _check(self, switch: str, cell: Cell) -> None:
        """Raises ``Failed`` where the receiver did not get what it should have: what was measured is not telemetry."""
        spans, metrics = self._got.taken()
        calls = (cell.calls + cell.concurrency) if switch == "on" and self.state.startswith("spans") else 0  # one warms
        if len(spans) != calls * self._peer.spans:
            names = ", ".join(sorted(set(spans))) or "none"
            raise Failed(f"{self.worker.way.name}: {switch} {cell.kind}: {len(spans)} spans of {calls} calls: {names}")
        if calls and self._peer.metrics and self.state == "spans and metrics" and not metrics:
            raise Failed(f"{self.worker.way.name}: {switch} {cell.kind}: no metrics")
        if self._got.content:
            raise Failed(f"{self.worker.way.name}: {switch} {cell.kind}: a prompt or an answer was exported")
        self.names.update(spans)
        if self._peer.metrics:
            self.metrics.update(metrics)

    def told(self) -> str:
        """What came of it, in a line."""
        spans = f"{self._peer.spans} span{'s' * (self._peer.spans > 1)} a call ({', '.join(sorted(self.names))})"
        return f"{self.name}: {spans}, {', '.join(sorted(self.metrics)) or 'it has no metrics'}"


def start(far_side: FarSide, receiver: Receiver, only: list[str]) -> tuple[list[Subject], dict[str, str]]:
    """The workers, and why some are not there."""
    subjects, absent = [], {}
    for way in INSTRUMENTED:
        if only and not any(text.lower() in way.name.lower() for text in only):
            continue
        os.environ[SINK], got = receiver.place()
        try:
            worker = Worker.start(way, far_side.url)
        except (environments.NotMade, Failed) as reason:
            absent[way.name] = str(reason).strip().splitlines()[-1]
            continue
        if worker.missing:
            absent[way.name] = worker.missing["openai"]
            _end([worker])
        else:
            subjects.append(Subject(worker, got))
    return subjects, absent


def table(taken: dict[tuple[str, str], list[Took]], cell: Cell) -> str:
    """What telemetry adds in *cell*, in microseconds; behind it, what of that is the export."""
    chunks = CHUNKS if cell.kind == "stream" else 1
    what = "one of 100 chunks, µs" if cell.kind == "stream" else "one call, µs"
    lines = [f"| {what} | " + " | ".join(STATES) + " |", "|---|" + "--:|" * len(STATES)]
    for name in dict.fromkeys(way.name.rpartition(": ")[0] for way in INSTRUMENTED):
        row = [name]
        for state in STATES:
            mine = taken.get((f"{name}: {state}", cell.kind), [])
            row.append(_told(mine, 1e6 / chunks, exported=state.startswith("spans")) if mine else "-")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _told(taken: list[Took], scale: float, *, exported: bool) -> str:
    values = [took.cpu_s * scale for took in taken]
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    export = f", export {statistics.median(took.export_s * scale for took in taken):.1f}" if exported else ""
    return f"{middle:.1f} ({low:.1f} to {high:.1f}){export}"


def goals(taken: dict[tuple[str, str], list[Took]]) -> str:
    """What ours may cost a call, and whether it does not cost more."""
    lines = [
        "| goal for a call | at most, µs | it costs, µs | without the export | of it the SDK alone | holds |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name in (OURS_BARE, OURS):
        for state, most in GOALS:
            if values := taken.get((f"{name}: {state}", "call")):
                costs = statistics.median(took.cpu_s for took in values) * 1e6
                alone = taken.get((f"{SDK_ALONE}: {state}", "call"))
                bare, floor = f"{_bare(values):.1f}", f"{_bare(alone):.1f}" if alone else "-"
                holds = "yes" if costs <= most else "no"
                lines.append(f"| {name}: {state} | {most:.0f} | {costs:.1f} | {bare} | {floor} | {holds} |")
    return "\n".join(lines) + "\n"


def _bare(values: list[Took]) -> float:
    """Microseconds without the export."""
    return statistics.median(took.cpu_s - took.export_s for took in values) * 1e6


def footnotes(subjects: list[Subject], absent: dict[str, str]) -> str:
    """What the receiver got, what was compared, and what was not, with the reason."""
    lines = [f"- arrived: {subject.told()}" for subject in subjects if subject.state == STATES[-1]]
    ways: list[Way] = [subject.worker.way for subject in subjects]
    lines += [f"- {name}: {environments.versions(name)}" for name in sorted({way.environment for way in ways})]
    lines += [f"- not measured: {name}: {reason}" for name, reason in absent.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="rounds that count (default 12)")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="ways with TEXT in their name")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    far_side, receiver = FarSide(), Receiver()
    subjects: list[Subject] = []
    taken: dict[tuple[str, str], list[Took]] = {}
    try:
        subjects, absent = start(far_side, receiver, options.only)
        for number in range(rounds + 1):
            for cell in CELLS:
                for subject in subjects:
                    took = subject.measure(far_side, cell, number)
                    if number:
                        taken.setdefault((subject.worker.way.name, cell.kind), []).append(took)
            print(f"round {number} of {rounds}", file=sys.stderr)
        print(tables.heading())
        for cell in CELLS:
            print(table(taken, cell))
        print(goals(taken))
        print(footnotes(subjects, absent))
    except Failed as error:
        sys.exit(str(error))
    finally:
        _end([subject.worker for subject in subjects])
        far_side.process.kill()


if __name__ == "__main__":
    main()
