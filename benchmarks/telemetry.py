"""What telemetry costs in CPU, for a call and for a chunk of a stream: ours, and that of others.

    .venv/bin/python benchmarks/telemetry.py [--rounds 12] [--quick] [--only TEXT]...

Each way is a process of its own for each thing that an application may have set up: no SDK, one that samples nothing,
one that exports spans in batches to a receiver on loopback, and one that exports metrics as well. In it calls with
telemetry and without take turns, and the difference is what telemetry costs, the threads that export included. Figures
are medians over rounds, with the middle half of the rounds; content is off everywhere.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import environments
import tables
from overhead import Failed, FarSide, Worker, _end, step_s
from peers import INSTRUMENTED, OURS, OURS_BARE, STATES, Way
from peers.instrumented import SINK
from tables import Cell
from workload import CHUNKS

CELLS = (Cell("openai", "call", 1, calls=200), Cell("openai", "stream", 1, calls=12, events=1))
GOALS = (("no SDK", 30.0), ("spans", 150.0))
"""Microseconds a call that ours may cost."""


class Sink(BaseHTTPRequestHandler):
    """Takes whatever it is sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def measure(worker: Worker, far_side: FarSide, cell: Cell, number: int) -> float | None:
    """Seconds of CPU that telemetry adds to one call in *cell*; ``None`` where there is no such call."""
    if cell.kind == "stream":
        far_side.pace(step_s(worker.way.chunk_s, cell), cell.events)
    took = {}
    for switch in ("on", "off") if number % 2 else ("off", "on"):
        told = worker.measure(
            wire="openai", kind=f"{switch} {cell.kind}", concurrency=cell.concurrency, calls=cell.calls
        )
        if "missing" in told:
            return None
        took[switch] = told["cpu_s"]
    return took["on"] - took["off"]


def start(far_side: FarSide, only: list[str]) -> tuple[list[Worker], dict[str, str]]:
    """The workers, and why some are not there."""
    workers, absent = [], {}
    for way in INSTRUMENTED:
        if only and not any(text.lower() in way.name.lower() for text in only):
            continue
        try:
            worker = Worker.start(way, far_side.url)
        except (environments.NotMade, Failed) as reason:
            absent[way.name] = str(reason).strip().splitlines()[-1]
            continue
        if worker.missing:
            absent[way.name] = worker.missing["openai"]
            _end([worker])
        else:
            workers.append(worker)
    return workers, absent


def table(taken: dict[tuple[str, str], list[float]], cell: Cell) -> str:
    """What telemetry adds in *cell*, in microseconds."""
    chunks = CHUNKS if cell.kind == "stream" else 1
    what = "one of 100 chunks, µs" if cell.kind == "stream" else "one call, µs"
    lines = [f"| {what} | " + " | ".join(STATES) + " |", "|---|" + "--:|" * len(STATES)]
    for name in dict.fromkeys(way.name.rpartition(": ")[0] for way in INSTRUMENTED):
        row = [name]
        for state in STATES:
            values = [value * 1e6 / chunks for value in taken.get((f"{name}: {state}", cell.kind), ())]
            if not values:
                row.append("-")
                continue
            low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
            row.append(f"{middle:.1f} ({low:.1f} to {high:.1f})")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def goals(taken: dict[tuple[str, str], list[float]]) -> str:
    """What ours may cost a call, and whether it does not cost more."""
    lines = ["| goal for a call | at most, µs | it costs, µs | holds |", "|---|--:|--:|---|"]
    for name in (OURS_BARE, OURS):
        for state, most in GOALS:
            if values := taken.get((f"{name}: {state}", "call")):
                costs = statistics.median(values) * 1e6
                lines.append(f"| {name}: {state} | {most:.0f} | {costs:.1f} | {'yes' if costs <= most else 'no'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="rounds that count (default 12)")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="ways with TEXT in their name")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    os.environ[SINK] = f"http://127.0.0.1:{sink.server_port}"
    far_side = FarSide()
    workers: list[Worker] = []
    taken: dict[tuple[str, str], list[float]] = {}
    try:
        workers, absent = start(far_side, options.only)
        for number in range(rounds + 1):
            for cell in CELLS:
                for worker in workers:
                    took = measure(worker, far_side, cell, number)
                    if number and took is not None:
                        taken.setdefault((worker.way.name, cell.kind), []).append(took)
            print(f"round {number} of {rounds}", file=sys.stderr)
        print(tables.heading())
        for cell in CELLS:
            print(table(taken, cell))
        print(goals(taken))
        ways: list[Way] = [worker.way for worker in workers]
        for name in sorted({way.environment for way in ways}):
            print(f"- {name}: {environments.versions(name)}")
        for name, reason in absent.items():
            print(f"- not measured: {name}: {reason}")
    except Failed as error:
        sys.exit(str(error))
    finally:
        _end(workers)
        far_side.process.kill()


if __name__ == "__main__":
    main()
