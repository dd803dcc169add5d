"""How fast models have been of late: what plans reckon with in place of what a policy says of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from .guard import Guard
from .types import Attempt, Latency

HALF_LIFE_S = 900.0
"""After a quarter of an hour a sample counts half: loads change with the time of day, not with the minute."""
KEPT = 64
"""Samples kept of each model and kind, the last ones."""
ENOUGH = 2.0
"""What the samples must count for together; with less, what the policy says holds, or nothing is known."""
FRESH_S = 1.0
"""A summary is made anew at most so often: a plan must not pay for sorting."""
_FASTEST = 1e6

_Samples = deque[tuple[float, float]]


class Measured:
    """Takes note of attempts, and tells each model's usual time to the first token and speed after it, kept apart.

    Both are weighted medians. From answers that came whole, the two can not be told apart: the time of the shortest of
    them stands for the first token. A timeout counts as a first token that came when waiting ended, and so does an
    attempt that was given up because another model, asked for its being slow, began first: left out, what is slow would
    seem ever rarer. A reader that takes its time makes a stream look slow. Any thread may call any method. *clock*
    counts seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Guard()
        self._first: dict[str, _Samples] = {}
        self._speed: dict[str, _Samples] = {}
        self._whole: dict[str, deque[tuple[float, float, int]]] = {}
        self._summary: Mapping[str, Latency] = MappingProxyType({})
        self._made = float("-inf")
        self._news = False

    def note(self, attempts: Collection[Attempt], *, streamed: bool) -> None:
        """Learn from the *attempts* of a request; those that failed otherwise than by being slow say nothing of it."""
        now = self._clock()
        beaten = any(each.reason == "hedge" and each.error is None for each in attempts)
        with self._lock:
            for attempt in attempts:
                took = attempt.latency_s - attempt.wait_s
                lost = beaten and attempt.error == "cancelled" and attempt.reason == "primary"
                if attempt.error == "timeout" or (lost and streamed):
                    self._add(self._first, attempt.model, now, took)
                if not streamed and (attempt.error == "timeout" or lost):
                    self._keep_whole(attempt.model, now, took, 0)
                elif attempt.error is None and attempt.first_token_s is not None and attempt.finish_reason:
                    self._answered(attempt, now, took, attempt.first_token_s - attempt.wait_s, streamed)

    def _answered(self, attempt: Attempt, now: float, took: float, first: float, streamed: bool) -> None:
        tokens = attempt.usage.output_tokens
        if not streamed:
            self._keep_whole(attempt.model, now, took, tokens)
            return
        self._add(self._first, attempt.model, now, first)
        if tokens > 1 and took > first:
            self._add(self._speed, attempt.model, now, (tokens - 1) / (took - first))

    def _keep_whole(self, model: str, now: float, took: float, tokens: int) -> None:
        self._whole.setdefault(model, deque(maxlen=KEPT)).append((now, took, tokens))
        self._news = True

    def _add(self, kind: dict[str, _Samples], model: str, now: float, value: float) -> None:
        kind.setdefault(model, deque(maxlen=KEPT)).append((now, value))
        self._news = True

    @property
    def latency(self) -> Mapping[str, Latency]:
        """What is known now, by the names of models; those are not in it of which too little was seen of late."""
        now = self._clock()
        age_s = now - self._made
        if (self._news and age_s >= FRESH_S) or age_s >= HALF_LIFE_S / 10:
            with self._lock:
                names = self._first.keys() | self._whole.keys()
                known = {name: found for name in names if (found := self._of(name, now)) is not None}
                self._summary, self._made, self._news = MappingProxyType(known), now, False
        return self._summary

    def first_token_s(self, model: str, quantile: float) -> float | None:
        """The time within which so large a share of the answers of *model* began, from 0 to 1; ``None`` if too little
        was seen."""
        now = self._clock()
        with self._lock:
            return _quantile(_weighted(self._first.get(model, ()), now), quantile)

    def whole_s(self, model: str, quantile: float) -> float | None:
        """The time within which so large a share of the answers of *model* that came whole were there; ``None`` if too
        little was seen."""
        now = self._clock()
        with self._lock:
            samples = [(at, took) for at, took, _ in self._whole.get(model, ())]
            return _quantile(_weighted(samples, now), quantile)

    def _of(self, model: str, now: float) -> Latency | None:
        first = _weighted(self._first.get(model, ()), now)
        speed = _weighted(self._speed.get(model, ()), now)
        begins = _quantile(first, 0.5)
        whole = list(self._whole.get(model, ()))
        if begins is None:
            begins = _quantile(_weighted([(at, took) for at, took, _ in whole], now), 0.1)
        if begins is None:
            return None
        for at, took, tokens in whole:
            if tokens:
                rate = min(tokens / max(took - begins, 1e-9), _FASTEST)
                speed.append((rate, _weight(now - at)))
        rate_ = _quantile(sorted(speed), 0.5)
        return None if rate_ is None else Latency(first_token_s=max(begins, 1e-6), tokens_per_s=max(rate_, 1e-6))


def _weight(age_s: float) -> float:
    return float(0.5 ** (age_s / HALF_LIFE_S))


def _weighted(samples: Iterable[tuple[float, float]], now: float) -> list[tuple[float, float]]:
    """The values, in order, each with what it counts for."""
    return sorted((value, _weight(now - at)) for at, value in samples)


def _quantile(weighted: Sequence[tuple[float, float]], share: float) -> float | None:
    """The value below which *share* of the weight lies."""
    total = sum(weight for _, weight in weighted)
    if total < ENOUGH:
        return None
    reached = 0.0
    for value, weight in weighted:
        reached += weight
        if reached >= share * total:
            return value
    return weighted[-1][0]
