"""Which rules nothing can reach, found by trying every kind of request that the rules tell apart.

Rules look at few things, and at each by a few bounds or names: between two bounds, and for all names that no rule
mentions, they decide alike. So a finite number of requests stands for all; where these are too many, only rules that a
single earlier one covers are found, and nothing is claimed of the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from .facts import Conditions, Facts
from .rules import Modality, Range, TimeOfDay, When

MOST = 6_000
"""Kinds of requests that are tried for one policy."""
MOST_FOR_TWO = 500
"""The same for two rules, where all together tell too many kinds apart."""
MOST_OF_TWOS = 100_000
"""And for all such twos together: there are many in a long policy."""
_WEEK = 7 * 24 * 4
"""Quarters of an hour in it."""
_ZONES = 8
"""With more of them, nothing is claimed of times of day: too many clocks to set against each other."""
_OTHER = "\0some other"

Kind = tuple[Facts, Conditions]


class Reach:
    """Of rules with these conditions, in this order."""

    def __init__(self, whens: Sequence[When]) -> None:
        self._whens = whens
        self._left = MOST_OF_TWOS
        kinds = _kinds(whens, MOST)
        self._takers = None if kinds is None else _takers(whens, kinds)

    def never(self, index: int) -> bool:
        """Whether no request at all is like the rule with this number."""
        if self._takers is not None:
            return not self._takers[index]
        own = self._whens[index]
        kinds = self._kinds_of(own)
        return kinds is not None and not any(own.holds(*kind) for kind in kinds)

    def shadowed_by(self, index: int) -> tuple[int, ...] | None:
        """The earlier rules that together take all that this one matches; ``None`` if some is left, or if that is not
        known."""
        if self._takers is not None:
            takers = self._takers[index]
            return None if index in takers else tuple(sorted(takers))
        own = self._whens[index]
        like_it = next((kind for kind in self._kinds_of(own) or () if own.holds(*kind)), None)
        return next(((each,) for each in range(index) if self._covered(own, self._whens[each], like_it)), None)

    def _covered(self, own: When, other: When, like_it: Kind | None) -> bool:
        """Whether each request like *own*, of which *like_it* is one, is like *other*, and that is certain."""
        if other.everything or own == other:
            return True
        if like_it is None or not other.holds(*like_it):
            return False
        kinds = self._kinds_of(own, other)
        return kinds is not None and all(other.holds(*kind) for kind in kinds if own.holds(*kind))

    def _kinds_of(self, *whens: When) -> Iterator[Kind] | None:
        kinds = _kinds(whens, MOST_FOR_TWO) if self._left > 0 else None
        return None if kinds is None else self._counted(kinds)

    def _counted(self, kinds: Iterable[Kind]) -> Iterator[Kind]:
        for kind in kinds:
            self._left -= 1
            yield kind


def _takers(whens: Sequence[When], kinds: Iterable[Kind]) -> list[set[int]]:
    """For each rule, the rules that decide the requests which it matches."""
    takers: list[set[int]] = [set() for _ in whens]
    for kind in kinds:
        matching = [index for index, when in enumerate(whens) if when.holds(*kind)]
        for index in matching:
            takers[index].add(matching[0])
    return takers


def _kinds(whens: Sequence[When], most: int) -> Iterator[Kind] | None:
    """A request of each kind that *whens* tell apart; ``None`` if there are too many."""
    parts = [part for when in whens for part in _parts(when)]
    hours = [each.time_of_day for each in parts if each.time_of_day]
    too_many = most < _WEEK or len({each.zone for each in hours}) > _ZONES
    if hours and (too_many or not all(each.on_the_quarter for each in hours)):
        return None
    choices: dict[str, list[Any]] = {
        "complexity": _numbers([each.complexity for each in parts], most=1.0),
        "input_tokens": _numbers([each.input_tokens for each in parts], most=None),
        "task": _names(parts, "task"),
        "project": _names(parts, "project"),
        "role": _names(parts, "role"),
        "tags": _subsets(sorted({tag for each in parts for tag in each.tags})),
        "needs": _subsets(sorted(_needs(parts))),
        "now": _moments(hours),
    }
    count = 1
    for values in choices.values():
        count *= len(values)
        if count > most:
            return None
    return (_kind(dict(zip(choices, each, strict=True))) for each in itertools.product(*choices.values()))


def _parts(when: When) -> Iterator[When]:
    yield when
    for inner in (*when.all, *when.any, *([when.not_] if when.not_ else [])):
        yield from _parts(inner)


def _numbers(ranges: Sequence[Range | None], most: float | None) -> list[float]:
    """The bounds, and a number between each two of them, below and above all; one number, if there are none."""
    if not any(ranges):
        return [0.0]
    bounds = {0.0} if most is None else {0.0, most}
    for each in ranges:
        if each is not None:
            bounds |= {bound for bound in (each.above, each.below, *(each.between or ())) if bound is not None}
    inside = sorted(bound for bound in bounds if most is None or bound <= most)
    between = [(low + high) / 2 for low, high in itertools.pairwise(inside)]
    return [*inside, *between, *([inside[-1] + 1] if most is None else [])]


def _names(parts: Sequence[When], what: str) -> list[str]:
    return [*sorted({name for each in parts for name in getattr(each, what)}), _OTHER]


def _needs(parts: Sequence[When]) -> set[str]:
    """All that rules look at: at a modality, by whatever else it might be; at chat, by texts to embed without it."""
    needs = {need for each in parts for need in each.needs}
    if any(each.modality for each in parts):
        needs |= {*get_args(Modality)} - {"text"}
    return needs | ({"embeddings"} if "chat" in needs else set())


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    sizes = range(len(names) + 1) if len(names) <= 14 else range(0)  # so many would be too many in any case
    found = [each for size in sizes for each in itertools.combinations(names, size)]
    return found or [()] * (MOST + 1)


def _moments(hours: Sequence[TimeOfDay]) -> list[datetime | None]:
    """None, and every quarter of an hour of a week, if any rule looks at the clock: for each way in which the clocks of
    its zones stand to each other, since some are put forward weeks before others."""
    clocks = {each.zone: each for each in hours}
    if not clocks:
        return [None]
    days = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(3653))
    weeks: dict[tuple[timedelta | None, ...], datetime] = {}
    for day in days if clocks.keys() != {"UTC"} else [next(days)]:
        weeks.setdefault(tuple(clock.there(day).utcoffset() for clock in clocks.values()), day)
    return [None, *(week + timedelta(minutes=15 * step) for week in weeks.values() for step in range(_WEEK))]


def _kind(of: Mapping[str, Any]) -> Kind:
    needs = frozenset(of["needs"])
    facts = Facts(
        complexity=of["complexity"],
        input_tokens=of["input_tokens"],
        task=of["task"],
        project=of["project"],
        role=of["role"],
        tags=of["tags"],
        needs=needs - {"streaming"} | (frozenset() if "embeddings" in needs else {"chat"}),
        streaming="streaming" in needs,
    )
    return facts, Conditions(now=of["now"])
