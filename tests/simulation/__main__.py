"""Plays schedules on all cores: ``python -m tests.simulation --schedules 10000 [--first 0]``.

Prints, for each that breaks a rule, the seed, what is broken, how few requests it takes, and how to see it again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from types import FrameType

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from . import fails, report
from .schedule import Schedule
from .spans import SOMETIMES

LONGEST_S = 30
"""Of real time, for one schedule: one that never ends does not leap."""
NO_END = f"no end after {LONGEST_S} s of real time"
TRACED_EACH = 8
"""One of so many schedules is played with spans."""


def _never_ends(_: int, __: FrameType | None) -> None:
    raise RuntimeError(NO_END)


def work(first: int, last: int, step: int) -> int:
    """Play each *step*th schedule; how many break a rule."""
    trace.set_tracer_provider(TracerProvider(sampler=SOMETIMES))
    signal.signal(signal.SIGALRM, _never_ends)
    failed = 0
    for seed in range(first, last, step):
        SOMETIMES.listens = seed % TRACED_EACH == 0
        signal.alarm(LONGEST_S)
        schedule = Schedule.of(seed)
        if found := fails(schedule):
            failed += 1
            signal.alarm(0)
            sys.stdout.write(report(schedule, found, shrink=not any(NO_END in what for what in found)) + "\n")
            sys.stdout.flush()
    return failed


def main() -> int:
    """0 if all hold, 1 if not."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--schedules", type=int, default=10_000)
    arguments.add_argument("--first", type=int, default=0, help="the first seed")
    arguments.add_argument("--share", nargs=2, type=int, help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    last = asked.first + asked.schedules
    if asked.share:
        return min(work(asked.first + asked.share[0], last, asked.share[1]), 1)
    began = time.monotonic()
    cores = os.cpu_count() or 1
    same = ["--schedules", str(asked.schedules), "--first", str(asked.first)]
    command = [sys.executable, "-m", "tests.simulation", *same, "--share"]
    processes = [subprocess.Popen([*command, str(number), str(cores)]) for number in range(cores)]
    failed = {process.wait() for process in processes} != {0}
    took = time.monotonic() - began
    sys.stdout.write(f"{asked.schedules} schedules from seed {asked.first} on, in {took:.0f} s: ")
    sys.stdout.write("some broke a rule, see above\n" if failed else "all rules hold\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
