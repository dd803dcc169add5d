"""Figures of many rounds, and the Markdown tables made of them."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from peers import DIRECT, LITELLM, OPENAI_SDK, SPANS, UNIFIED
from workload import CHUNKS, DIMENSIONS


@dataclass(frozen=True)
class Cell:
    """One thing that is measured."""

    wire: str
    kind: str
    concurrency: int
    calls: int
    events: int = 0
    """Those in one write, for streams."""

    @property
    def table(self) -> tuple[str, str, int]:
        return self.wire, self.kind, self.events


class Figures:
    """Seconds of CPU and wall for a call, by cell and way, one of each for each round."""

    def __init__(self) -> None:
        self._taken: dict[tuple[Cell, str], list[tuple[float, float]]] = {}

    def add(self, cell: Cell, way: str, cpu_s: float, wall_s: float) -> None:
        self._taken.setdefault((cell, way), []).append((cpu_s, wall_s))

    def cpu_s(self, cell: Cell, way: str) -> float | None:
        return _median([cpu for cpu, _ in self._taken.get((cell, way), ())])

    def wall_s(self, cell: Cell, way: str) -> float | None:
        return _median([wall for _, wall in self._taken.get((cell, way), ())])

    def ratio(self, cell: Cell, way: str, base: str, base_cell: Cell) -> float | None:
        """How many times the CPU of *base* in the same round."""
        rounds = zip(self._taken.get((cell, way), ()), self._taken.get((base_cell, base), ()), strict=False)
        return _median([mine[0] / theirs[0] for mine, theirs in rounds])

    def as_json(self) -> str:
        return json.dumps([{**asdict(cell), "way": way, "s": s} for (cell, way), s in self._taken.items()], indent=1)


class Pairs:
    """How many times the CPU of LiteLLM's own calls a router takes, by cell and way, one for each round."""

    def __init__(self) -> None:
        self._taken: dict[tuple[Cell, str], list[float]] = {}

    def add(self, cell: Cell, way: str, ratio: float) -> None:
        self._taken.setdefault((cell, way), []).append(ratio)

    def known(self, way: str, kind: str | None = None) -> list[tuple[float, Cell]]:
        """The median of each cell."""
        mine = [(cell, taken) for (cell, name), taken in self._taken.items() if name == way]
        return [(statistics.median(taken), cell) for cell, taken in mine if kind in (None, cell.kind)]

    def between(self, cell: Cell, way: str) -> tuple[float, float]:
        """Where the middle half of the rounds lies."""
        taken = self._taken[cell, way]
        low, _, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else (taken[0], 0, taken[0])
        return low, high


def heading() -> str:
    return (
        f"{datetime.date.today()}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n"
    )


def all_of(figures: Figures, cells: Sequence[Cell], ways: Sequence[str], absent: dict[str, str]) -> str:
    """One table for each kind on each wire, and why some ways are not in them."""
    tables = dict.fromkeys(cell.table for cell in cells)
    parts = [_table(figures, [cell for cell in cells if cell.table == each], ways) for each in tables]
    parts.extend(f"- not measured: {name}: {reason}" for name, reason in absent.items())
    return "\n".join(parts) + "\n"


CLAIMS = ((UNIFIED, LITELLM, 1.05), (DIRECT, OPENAI_SDK, 0.8))
"""Our ways, what they are held against, and how many times its CPU they may take. Against LiteLLM in one process."""


def of_pairs(pairs: Pairs) -> str:
    """What a router adds to LiteLLM's calls."""
    lines = ["| in one process | in flight | times litellm | middle half of rounds |", "|---|--:|--:|---|"]
    for way in (UNIFIED, UNIFIED + SPANS):
        for ratio, cell in pairs.known(way):
            low, high = pairs.between(cell, way)
            title = f"{way}: {_title(cell.kind, cell.wire, cell.events)}"
            lines.append(_row([title, str(cell.concurrency), f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"]))
    return "\n".join(lines) + "\n"


def of_claims(figures: Figures, pairs: Pairs, cells: Sequence[Cell]) -> str:
    """What is claimed for a call and a chunk, each at its worst cell."""
    lines = ["| claim | at most | worst | where | holds |", "|---|--:|--:|---|---|"]
    for way, base, most in CLAIMS:
        for name, kind in itertools.product((way, way + SPANS), ("call", "stream")):
            if base == LITELLM:
                known = pairs.known(name, kind)
            else:
                mine = [(figures.ratio(cell, name, base, _at(cell, base)), cell) for cell in cells if cell.kind == kind]
                known = [(ratio, cell) for ratio, cell in mine if ratio is not None]
            if not known:
                continue
            ratio, cell = max(known, key=lambda each: each[0])
            claim = f"{name}: {'a chunk' if kind == 'stream' else 'a call'} by {base}'s"
            where = f"{_title(kind, cell.wire, cell.events)}, {cell.concurrency} in flight"
            lines.append(_row([claim, f"{most:.2f}", f"{ratio:.2f}", where, "yes" if ratio <= most else "no"]))
    return "\n".join(lines) + "\n"


def of_inside(rows: dict[str, dict[str, float]]) -> str:
    """What the router takes by itself."""
    names = {"call": "Router over a scripted provider", "plan": "of that, Router.plan", "spans": "of that, its spans"}
    names["stream"] = f"the same, streamed in {CHUNKS} chunks"
    columns = list(next(iter(rows.values())))
    lines = ["| without any wire, CPU ms | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
    lines += [_row([names[kind], *(f"{row[column]:.3f}" for column in columns)]) for kind, row in rows.items()]
    return "\n".join(lines) + "\n"


def _table(figures: Figures, mine: Sequence[Cell], ways: Sequence[str]) -> str:
    wire, kind, events = mine[0].table
    divisor, unit = (CHUNKS, "µs") if kind == "stream" else (1, "ms")
    scale = {"µs": 1e6, "ms": 1e3}[unit] / divisor
    bases = [OPENAI_SDK, "anthropic SDK", LITELLM] if wire == "anthropic" else [OPENAI_SDK, LITELLM]
    bases = [base for base in bases if figures.cpu_s(_at(mine[0], base), base)]
    at = [cell.concurrency for cell in mine]
    head = [f"{_title(kind, wire, events)}, in flight"]
    head += [f"CPU {unit}, {n}" for n in at]
    head += [f"times {base.removesuffix('.acompletion')}, {n}" for base in bases for n in at]
    head += [f"wall {unit}, {n}" for n in at]
    lines = [_row(head), "|---|" + "--:|" * (len(head) - 1)]
    for way in ways:
        if all(figures.cpu_s(cell, way) is None for cell in mine):
            continue
        row = [way]
        row += [_number(figures.cpu_s(cell, way), scale) for cell in mine]
        row += [_number(figures.ratio(cell, way, base, _at(cell, base))) for base in bases for cell in mine]
        row += [_number(figures.wall_s(cell, way), scale) for cell in mine]
        lines.append(_row(row))
    return "\n".join(lines) + "\n"


def _at(cell: Cell, base: str) -> Cell:
    """The cell that *base* is compared in: the openai SDK has none but on its own wire."""
    wire = "openai" if base == OPENAI_SDK else cell.wire
    return replace(cell, wire=wire)


def _title(kind: str, wire: str, events: int) -> str:
    name = {"openai": "OpenAI", "anthropic": "Anthropic"}[wire]
    if kind == "call":
        return f"{name}: one call, whole answer"
    if kind == "stream":
        return f"{name}: one of {CHUNKS} chunks, {events} in a write"
    count = int(kind.partition(" ")[2])
    return f"{name}: {count} text{'s' * (count > 1)} embedded, {DIMENSIONS} numbers each"


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _number(value: float | None, scale: float = 1) -> str:
    if value is None:
        return "-"
    value *= scale
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
