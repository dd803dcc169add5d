"""How near the quick estimate of tokens comes to the exact count, and what both cost.

    .venv/bin/python benchmarks/tokens.py

Reads the samples in tests/data/tokens and prints a Markdown table. The error is that of the estimate, in percent of the
count of each encoding; times are microseconds for a kilobyte (1,024 bytes of UTF-8), the best of five runs, with the
table loaded. The counts are the same everywhere, the times are this machine's.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from devsynth_providers import TokenCounter
from devsynth_providers.analysis import estimate_tokens

SAMPLES = sorted((Path(__file__).parent.parent / "tests/data/tokens").glob("*.txt"))


def us_per_kb(count: Callable[[str], int], text: str) -> float:
    runs = timeit.repeat(lambda: count(text), number=50, repeat=5)
    return min(runs) / 50 * 1e6 / (len(text.encode()) / 1024)


def main() -> None:
    newer, older = TokenCounter("gpt-4o"), TokenCounter("gpt-4")
    started = time.perf_counter()
    newer.load()
    loaded_s = time.perf_counter() - started
    print(
        f"{datetime.date.today()}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n\n"
        "| sample | characters | o200k_base | cl100k_base | estimate | error, o200k % | error, cl100k % "
        "| estimate µs/kB | exact µs/kB |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for path in SAMPLES:
        text = path.read_text(encoding="utf-8")
        new, old, about = newer.count(text), older.count(text), estimate_tokens(text)
        print(
            f"| {path.stem} | {len(text)} | {new} | {old} | {about} | {(about / new - 1) * 100:+.0f} "
            f"| {(about / old - 1) * 100:+.0f} | {us_per_kb(estimate_tokens, text):.1f} "
            f"| {us_per_kb(newer.count, text):.0f} |"
        )
    print(f"\nThe table of o200k_base was read in {loaded_s:.2f} s, once for the process.")


if __name__ == "__main__":
    main()
