"""What a call, a streamed chunk and an embedding cost in CPU: this library, those below it, and those beside it.

    .venv/bin/python benchmarks/overhead.py [--rounds 5] [--quick] [--only TEXT]... [--kind TEXT]...

Every way to ask is a process of its own, in an environment of its own where it needs one, and asks the same server on
loopback for the same text; an answer that is not that text ends the benchmark. In each round every way has its turn
at every cell, so that whatever else the machine does falls on all alike; the first round is thrown away. CPU is that
of the asking process, user and system. Ratios are taken within a round. Figures are medians over rounds. The ratios
travel, the milliseconds do not.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import environments
import tables
from peers import BESIDE, INSIDE, WAYS, Way
from tables import Cell, Figures, Pairs
from workload import TEXTS

CONCURRENCY = (1, 16, 128)
HEAVY_ROUNDS = 2
"""Rounds that count with the most calls in flight: so many calls need no more to be even."""
PAIRED_ROUNDS = 12
"""Rounds of what differs by a few percent."""
BUNCH = 8
"""Events in one write, for the streams of which a read finds several."""


class Failed(Exception):
    """A peer did not answer as it should: nothing that was measured counts."""


@dataclass
class Worker:
    """The process of one way."""

    way: Way
    process: subprocess.Popen[str]
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, way: Way, url: str) -> Worker:
        command = [environments.python(way.environment), str(environments.HOME / "worker.py"), way.home, way.name, url]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environments.variables())
        worker = cls(way, process)
        worker.missing = worker._answer()["missing"]
        return worker

    def measure(self, **told: Any) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"failed": "the process ended"}
        if "failed" in answer:
            raise Failed(f"{self.way.name}: {answer['failed']}")
        return answer


class FarSide:
    """The server, and how it paces its streams."""

    def __init__(self) -> None:
        command = [sys.executable, str(environments.HOME / "far_side.py")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def pace(self, step_s: float, events: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", "/pace", json.dumps({"step_s": step_s, "events": events}))
        connection.getresponse().read()
        connection.close()


def cells(quick: bool, kinds: list[str]) -> list[Cell]:
    """What is measured, each at several concurrencies."""
    at = CONCURRENCY[:2] if quick else CONCURRENCY
    made = []
    for wire in ("openai", "anthropic"):
        made += [Cell(wire, "call", each, calls=128) for each in at]
        made += [Cell(wire, "stream", each, calls=max(12, each), events=1) for each in at]
        made += [Cell(wire, "stream", 16, calls=16, events=BUNCH)]
    made += [Cell("openai", "embed 1", each, calls=max(16, each)) for each in at]
    made += [Cell("openai", f"embed {len(TEXTS)}", each, calls=16) for each in at if each <= 16]
    return [cell for cell in made if not kinds or any(kind in f"{cell.wire} {cell.kind}" for kind in kinds)]


def step_s(chunk_s: float, cell: Cell) -> float:
    """How long a step of the far side is, if it leaves *chunk_s* for each chunk; its timers count milliseconds."""
    return math.ceil(chunk_s * cell.events * cell.concurrency * 1000) / 1000


def measure(workers: list[Worker], far_side: FarSide, asked: list[Cell], rounds: int) -> Figures:
    """All cells of all workers, *rounds* times over and once more to warm up."""
    figures = Figures()
    for number in range(rounds + 1):
        started = time.monotonic()
        for cell in asked:
            if cell.concurrency == CONCURRENCY[-1] and number > HEAVY_ROUNDS:
                continue
            for worker in workers:
                if cell.wire not in worker.way.wires or cell.wire in worker.missing:
                    continue
                if cell.kind == "stream":
                    far_side.pace(step_s(worker.way.chunk_s, cell), cell.events)
                took = worker.measure(wire=cell.wire, kind=cell.kind, concurrency=cell.concurrency, calls=cell.calls)
                if number and "missing" not in took:
                    figures.add(cell, worker.way.name, took["cpu_s"], took["wall_s"])
        print(f"round {number} of {rounds}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return figures


def beside(far_side: FarSide, rounds: int, kinds: list[str]) -> Pairs:
    """How many times the CPU of LiteLLM's own calls a router over them takes, each pair of turns in one process."""
    pairs = Pairs()
    workers = [Worker.start(way, far_side.url) for way in BESIDE]
    asked = [cell for cell in cells(False, kinds) if cell.kind in ("call", "stream") and cell.events < BUNCH]
    for number in range(rounds + 1):
        for cell in asked:
            if cell.kind == "stream" and cell.concurrency == CONCURRENCY[-1]:
                continue
            for worker in workers:
                if cell.kind == "stream":
                    far_side.pace(step_s(worker.way.chunk_s, cell), cell.events)
                names = ("litellm", "ours") if number % 2 else ("ours", "litellm")
                told = {"wire": cell.wire, "concurrency": cell.concurrency, "calls": cell.calls}
                took = {name: worker.measure(kind=f"{name} {cell.kind}", **told)["cpu_s"] for name in names}
                if number:
                    pairs.add(cell, worker.way.name, took["ours"] / took["litellm"])
    _end(workers)
    return pairs


def inside(url: str, rounds: int) -> dict[str, dict[str, float]]:
    """CPU milliseconds of what the router does without any wire, with and without an SDK for its spans."""
    rows: dict[str, dict[str, float]] = {}
    workers = [Worker.start(way, url) for way in INSIDE]
    taken: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for kind in ("call", "plan", "spans", "stream"):
            for worker in workers:
                took = worker.measure(wire="openai", kind=kind, concurrency=1, calls=200)
                if number:
                    taken.setdefault((kind, worker.way.name), []).append(took["cpu_s"] * 1000)
    for (kind, name), values in taken.items():
        rows.setdefault(kind, {})[name] = statistics.median(values)
    _end(workers)
    return rows


def start(url: str, only: list[str]) -> tuple[list[Worker], dict[str, str]]:
    """The workers, and why some are not there."""
    workers, absent = [], {}
    for way in WAYS:
        if only and not any(text.lower() in way.name.lower() for text in only):
            continue
        try:
            worker = Worker.start(way, url)
        except environments.NotMade as reason:
            absent[way.name] = f"no environment: {reason}"
            continue
        workers.append(worker)
        for wire, reason in worker.missing.items():
            absent[f"{way.name}, {wire}'s wire"] = reason
    return workers, absent


def _end(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default 5)")
    parser.add_argument("--quick", action="store_true", help="two rounds, and not with 128 calls in flight")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="ways with TEXT in their name")
    parser.add_argument("--kind", action="append", default=[], metavar="TEXT", help="call, stream or embed only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there, too")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    far_side = FarSide()
    workers: list[Worker] = []
    try:
        workers, absent = start(far_side.url, options.only)
        asked = cells(options.quick, options.kind)
        figures = measure(workers, far_side, asked, rounds)
        print(tables.heading())
        print(tables.all_of(figures, asked, [way.name for way in WAYS], absent))
        pairs = beside(far_side, PAIRED_ROUNDS if rounds > 2 else rounds, options.kind)
        print(tables.of_pairs(pairs))
        print(tables.of_claims(figures, pairs, asked))
        print(tables.of_inside(inside(far_side.url, rounds)))
        for name in sorted({worker.way.environment for worker in workers}):
            print(f"- {name}: {environments.versions(name)}")
        if options.json:
            options.json.write_text(figures.as_json())
    except Failed as error:
        sys.exit(str(error))
    finally:
        _end(workers)
        far_side.process.kill()


if __name__ == "__main__":
    main()
