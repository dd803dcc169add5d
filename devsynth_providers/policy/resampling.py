"""The bootstrap behind ``replay``: quantities of two policies, and of their difference, with intervals.

Each resample is a string of random bytes, turned into weights by a table: ten thousand requests take milliseconds
without any library for numbers.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter, mul
from typing import Literal

from .hindsight import Hindsight

Unit = Literal["usd", "s", "share"]
Weights = Sequence[float]

QUANTITIES: tuple[tuple[str, Unit], ...] = (
    ("mean cost", "usd"),
    ("latency p50", "s"),
    ("latency p95", "s"),
    ("refused", "share"),
    ("failed", "share"),
)

ENOUGH = 100
"""On fewer independent answers, resampling can not tell how far the slowest of twenty may be: there is no interval."""

_POISSON = bytes(count for count, times in enumerate((94, 95, 46, 16, 4, 1)) for _ in range(times))
"""A weight for each byte: of 256, so many are 0, 1, 2 … that mean and variance are exactly 1, as Poisson's."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its interval of 95 %; ``None`` where there is nothing to tell it from."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Side:
    """One policy's outcomes, laid out so that a weight for each request gives all quantities quickly.

    Columns stand in the order of the pools that modelled outcomes were drawn from; those drawn from none come first.
    """

    def __init__(
        self,
        outcomes: Sequence[Hindsight],
        asked: Sequence[str | None],
        compared: Sequence[bool],
        priced: Sequence[bool],
        labels: Sequence[str],
    ) -> None:
        order = sorted(range(len(outcomes)), key=lambda number: outcomes[number].pool)
        rows = [outcomes[number] for number in order]
        self._ordered = _picked(order)
        self._drawn = list(_drawn(rows))
        self._compared = [float(compared[number]) for number in order]
        self._priced = [float(priced[number]) for number in order]
        self._costs = [
            (row.cost_micros or 0.0) / 1e6 if priced[number] else 0.0 for number, row in zip(order, rows, strict=True)
        ]
        answers = [
            (row.latency_s, place)
            for place, (number, row) in enumerate(zip(order, rows, strict=True))
            if compared[number] and row.latency_s is not None
        ]
        answers.sort()
        self._latencies = [latency for latency, _ in answers]
        self.told_by = _independent(
            [rows[place].donor if rows[place].donor >= 0 else order[place] for _, place in answers]
        )
        self._by_latency = _picked([place for _, place in answers])
        self._failed = _picked(
            [
                place
                for place, (number, row) in enumerate(zip(order, rows, strict=True))
                if compared[number] and row.basis != "refused" and not row.answered
            ]
        )
        self._refused = _picked([number for number, row in enumerate(outcomes) if row.basis == "refused"])
        self._asked = [_picked([number for number, first in enumerate(asked) if first == label]) for label in labels]

    def quantities(self, weights: Weights) -> list[float]:
        """The quantities, then the share of each model; NaN where nothing tells."""
        masses = self._masses(weights)
        total = sum(weights)
        compared = sum(map(mul, masses, self._compared))
        running = list(accumulate(self._by_latency(masses)))
        return [
            _share(sum(map(mul, masses, self._costs)), sum(map(mul, masses, self._priced))),
            self._quantile(running, 0.5),
            self._quantile(running, 0.95),
            _share(sum(self._refused(weights)), total),
            _share(sum(self._failed(masses)), compared),
            *(_share(sum(asked(weights)), total) for asked in self._asked),
        ]

    def _masses(self, weights: Weights) -> list[float]:
        """The weight of each row: its own; where modelled, times that of its donor, its pool's sum staying as it is."""
        masses = list(self._ordered(weights))
        for begin, end, donors in self._drawn:
            own = masses[begin:end]
            both = list(map(mul, own, donors(weights)))
            if (sum_of_both := sum(both)) > 0:
                scale = sum(own) / sum_of_both
                masses[begin:end] = [each * scale for each in both]
        return masses

    def _quantile(self, running: Sequence[float], share: float) -> float:
        if not running or running[-1] <= 0:
            return math.nan
        return self._latencies[bisect_left(running, share * running[-1] * (1 - 1e-12))]


def estimates(
    old: Side, new: Side, labels: Sequence[str], generator: random.Random, resamples: int
) -> Iterator[tuple[str, Unit, Estimate, Estimate, Estimate]]:
    """Each quantity by its name: under the old policy, the new one, and new less old."""
    count = len(old._compared)
    ones = bytes([1]) * count
    points = _three(old, new, ones)
    samples = [
        _three(old, new, weights)
        for weights in (generator.randbytes(count).translate(_POISSON) for _ in range(resamples))
        if any(weights)
    ]
    told = sum(old._compared)
    names = [*QUANTITIES, *((label, "share") for label in labels)]
    for number, (name, unit) in enumerate(names):
        kinds = [
            _estimate(points[kind][number], [each[kind][number] for each in samples]) for kind in range(len(points))
        ]
        if name == "latency p95" and min(old.told_by, new.told_by) < ENOUGH:
            kinds = [Estimate(each.value) for each in kinds]
        if unit == "share":
            of = told if name == "failed" else count
            kinds[:2] = [_bounded(each, of) for each in kinds[:2]]
        yield name, unit, kinds[0], kinds[1], kinds[2]


def _three(old: Side, new: Side, weights: Weights) -> tuple[list[float], list[float], list[float]]:
    before, after = old.quantities(weights), new.quantities(weights)
    return before, after, [b - a for a, b in zip(before, after, strict=True)]


def _estimate(value: float, samples: Sequence[float]) -> Estimate:
    told = sorted(each for each in samples if not math.isnan(each))
    if math.isnan(value) or not told:
        return Estimate(None if math.isnan(value) else value)
    last = len(told) - 1
    return Estimate(value, told[round(0.025 * last)], told[round(0.975 * last)])


def _bounded(each: Estimate, count: float) -> Estimate:
    """The interval of a share of none or all of *count* requests, by the binomial: all resamples are alike there."""
    if count and each.value is not None:
        reach = 1 - 0.025 ** (1 / count)
        if each.value <= 0:
            return Estimate(0.0, 0.0, reach)
        if each.value >= 1:
            return Estimate(1.0, 1 - reach, 1.0)
    return each


def _drawn(rows: Sequence[Hindsight]) -> Iterator[tuple[int, int, Callable[[Weights], Weights]]]:
    """For each pool, where its rows begin and end, and what takes the weights of their donors."""
    begin = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end].pool != rows[begin].pool:
            if rows[begin].pool >= 0:
                yield begin, end, _picked([row.donor for row in rows[begin:end]])
            begin = end


def _picked(places: Sequence[int]) -> Callable[[Weights], Weights]:
    """What takes those at *places*, in that order."""
    if len(places) < 2:
        return lambda weights: [weights[place] for place in places]
    taken: Callable[[Weights], Weights] = itemgetter(*places)
    return taken


def _independent(sources: Sequence[int]) -> float:
    """How many requests the answers rest on, where one whose outcome stands for many counts for less than these."""
    times = Counter(sources).values()
    return len(sources) ** 2 / sum(each * each for each in times) if times else 0.0


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
