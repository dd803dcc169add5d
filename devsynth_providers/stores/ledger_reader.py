"""A ledger read by whoever only looks: sums over groups of entries, and the entries. Nothing is written."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from .ledger_file import moment, opened
from .places import ledger_place


class By(StrEnum):
    """What entries are summed up by. Days begin in UTC. An entry with several tags is of the group of each."""

    project = "project"
    model = "model"
    rule = "rule"
    role = "role"
    task = "task"
    tag = "tag"
    day = "day"


SIMPLE = 0.3
"""Below it a request is counted as a simple one: complexity is from 0 to 1."""
_TAGGED = (
    "(SELECT DISTINCT entries.*, each.value AS tag"
    " FROM entries, json_each(CASE tags WHEN '[]' THEN '[null]' ELSE tags END) AS each)"
)
"""Each entry once for each of its tags, and once if it has none."""
_GIVEN_UP = "error IS NOT NULL AND error IN ('cancelled', 'process_ended')"
_FAILED = "error IS NOT NULL AND error NOT IN ('cancelled', 'process_ended')"
_ANSWERED = "state != 'reserved' AND error IS NULL"
_COST = "coalesce(cost_micros, 0)"
_SUMS = {
    "attempts": "count(*)",
    "calls": "count(DISTINCT call)",
    "answered": f"sum({_ANSWERED})",
    "failed": f"sum({_FAILED})",
    "given_up": f"sum({_GIVEN_UP})",
    "under_way": "sum(state = 'reserved')",
    "retries": "sum(reason = 'retry')",
    "fallbacks": "sum(reason = 'fallback')",
    "hedges": "sum(reason = 'hedge')",
    "input_tokens": "sum(coalesce(input_tokens, 0))",
    "output_tokens": "sum(coalesce(output_tokens, 0))",
    "cached_input_tokens": "sum(coalesce(cached_input_tokens, 0))",
    "cost_micros": f"sum({_COST})",
    "estimated_micros": f"sum((state = 'estimated') * {_COST})",
    "reserved_micros": "sum((state = 'reserved') * reserved_micros)",
    "retries_micros": f"sum((reason = 'retry') * {_COST})",
    "simple_micros": f"sum(coalesce(complexity < {SIMPLE}, 0) * {_COST})",
    "unpriced": "sum(state != 'reserved' AND coalesce(basis = 'unknown', 0) AND reserved_micros = 0)",
}
COLUMNS = (
    *("at", "call", "attempt", "reason", "state", "provider", "model", "project", "role", "task", "policy", "rule"),
    *(
        "complexity",
        "tags",
        "cost_micros",
        "reserved_micros",
        "basis",
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
    ),
    *("cache_write_tokens", "reasoning_tokens", "usage_estimated", "error", "latency_s", "first_token_s"),
    "finish_reason",
)
"""What is told of an entry: all but who has to settle it, and the purses it is paid from."""


HIT_COLUMNS = ("at", "provider", "model", "project", "role", "task", "policy", "rule")
"""What is told of requests that the cache has answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries: those whose attempts began at *since* or later, and before *until* (seconds since 1970), and that
    have the value that is given of each column in *having*. *failed* leaves only those that ended with an error."""

    since: float | None = None
    until: float | None = None
    having: tuple[tuple[str, str], ...] = ()
    failed: bool = False

    def sql(self) -> tuple[str, list[Any]]:
        """A condition, and its parameters."""
        said: list[tuple[str, Any]] = []
        if self.since is not None:
            said.append(("at >= ?", self.since))
        if self.until is not None:
            said.append(("at < ?", self.until))
        for column, value in self.having:
            assert column in COLUMNS
            said.append((f"{column} = ?", value))
        conditions = [*(condition for condition, _ in said), *([f"({_FAILED})"] if self.failed else [])]
        return " AND ".join(conditions) or "TRUE", [value for _, value in said]

    @property
    def of_hits(self) -> bool:
        """Whether it can be said of answers out of the cache: those have no call, no attempt and no error."""
        return not self.failed and all(column in HIT_COLUMNS for column, _ in self.having)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Half, and 95 in a hundred, took no longer than this; ``None`` where nothing was measured."""

    p50: float | None = None
    p95: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What the entries of one group come to. *calls* are counted once in each group that they have an attempt in; money
    is in millionths of a dollar. *estimated_micros* is a part of *cost_micros*, as is *simple_micros*, what requests of
    a complexity below ``SIMPLE`` have cost; *reserved_micros* is not: it may be needed for attempts under way.
    *given_up* are attempts that nobody waited for in the end. *unpriced* ones are not in the cost, since no price is
    known for them. *hits* are requests that the cache has answered: none of the others."""

    key: str | None = None
    attempts: int = 0
    calls: int = 0
    answered: int = 0
    failed: int = 0
    given_up: int = 0
    under_way: int = 0
    retries: int = 0
    fallbacks: int = 0
    hedges: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_micros: int = 0
    estimated_micros: int = 0
    reserved_micros: int = 0
    retries_micros: int = 0
    simple_micros: int = 0
    unpriced: int = 0
    latency_s: Quantiles = field(default=Quantiles())
    first_token_s: Quantiles = field(default=Quantiles())
    hits: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The part of the requests that the cache has answered, from 0 to 1; ``None`` where there were none."""
        return self.hits / (self.hits + self.calls) if self.hits + self.calls else None


class LedgerReader:
    """What one ledger says, at the moment at which it was opened; others may go on writing to it. *name* is the file's,
    or the server's, for people."""

    def __init__(self, database: sqlite3.Connection, name: str) -> None:
        self._database = database
        self.name = name

    def groups(self, by: By, wanted: Wanted = Wanted(), *, timed: bool = True) -> list[Group]:
        """The dearest first; days in their order. Unless *timed*, without the times they took: that is quicker."""
        found = self._timed(self._sums(by, wanted), by, wanted) if timed else self._sums(by, wanted)
        if by is By.day:
            return sorted(found, key=lambda each: each.key or "")
        return sorted(found, key=lambda each: (-each.cost_micros, -each.attempts, -each.hits, each.key or ""))

    def total(self, wanted: Wanted = Wanted()) -> Group:
        return next(iter(self._timed(self._sums(None, wanted), None, wanted)), Group())

    def errors(self, by: By, wanted: Wanted = Wanted()) -> dict[str | None, str]:
        """Of each group in which attempts failed, the kind of error that was there most often."""
        condition, values = wanted.sql()
        rows = self._database.execute(
            f"SELECT {_key(by)}, error FROM {_rows(by)} WHERE ({condition}) AND {_FAILED}"
            " GROUP BY 1, 2 ORDER BY count(*), error",
            values,
        )
        return dict(rows.fetchall())

    def entries(self, wanted: Wanted = Wanted(), *, latest: int | None = None) -> Iterator[dict[str, Any]]:
        """Entries as plain values by column, oldest first; or so many of the *latest*, the last of them first."""
        condition, values = wanted.sql()
        order = "at, call, attempt" if latest is None else "at DESC, call DESC, attempt DESC"
        rows = self._database.execute(
            f"SELECT {', '.join(COLUMNS)} FROM entries WHERE {condition} ORDER BY {order} LIMIT ?",
            [*values, -1 if latest is None else latest],
        )
        for row in rows:
            entry = dict(zip(COLUMNS, row, strict=True))
            entry["at"] = moment(entry["at"])
            entry["tags"] = json.loads(entry["tags"])
            entry["usage_estimated"] = None if entry["usage_estimated"] is None else bool(entry["usage_estimated"])
            yield entry

    def _sums(self, by: By | None, wanted: Wanted) -> list[Group]:
        condition, values = wanted.sql()
        rows = self._database.execute(
            f"SELECT {_key(by)} AS key, {', '.join(_SUMS.values())} FROM {_rows(by)} WHERE {condition} GROUP BY 1",
            values,
        )
        found = {key: Group(key=key, **dict(zip(_SUMS, sums, strict=True))) for key, *sums in rows}
        for key, hits in self._hits(by, wanted):
            found[key] = replace(found.get(key, Group(key=key)), hits=hits)
        return list(found.values())

    def _hits(self, by: By | None, wanted: Wanted) -> list[tuple[str | None, int]]:
        if not wanted.of_hits:
            return []
        key = _key(None if by is By.tag else by)  # of hits no tags are kept
        condition, values = wanted.sql()
        return self._database.execute(
            f"SELECT {key} AS key, sum(hits) FROM hits WHERE {condition} GROUP BY 1", values
        ).fetchall()

    def _timed(self, groups: list[Group], by: By | None, wanted: Wanted) -> list[Group]:
        latency, first_token = (self._quantiles(what, by, wanted) for what in ("latency_s", "first_token_s"))
        return [
            replace(
                each,
                latency_s=latency.get(each.key, Quantiles()),
                first_token_s=first_token.get(each.key, Quantiles()),
            )
            for each in groups
        ]

    def _quantiles(self, what: str, by: By | None, wanted: Wanted) -> dict[str | None, Quantiles]:
        """By nearest rank, of attempts that answered: each is a value that was measured."""
        condition, values = wanted.sql()
        rows = self._database.execute(
            f"SELECT key, max(value) FILTER (WHERE at = (of * 50 + 99) / 100),"
            f" max(value) FILTER (WHERE at = (of * 95 + 99) / 100) FROM ("
            f" SELECT key, value, row_number() OVER (PARTITION BY key ORDER BY value) AS at,"
            f" count(*) OVER (PARTITION BY key) AS of FROM ("
            f" SELECT {_key(by)} AS key, {what} AS value FROM {_rows(by)}"
            f" WHERE ({condition}) AND {_ANSWERED} AND {what} IS NOT NULL)) GROUP BY key",
            values,
        )
        return {key: Quantiles(p50, p95) for key, p50, p95 in rows}


def _key(by: By | None) -> str:
    """What entries of one group have in common, in SQL."""
    if by is None:
        return "NULL"
    return "strftime('%Y-%m-%d', at, 'unixepoch')" if by is By.day else by.value


def _rows(by: By | None) -> str:
    """Where entries stand that are summed up, in SQL."""
    return _TAGGED if by is By.tag else "entries"


@contextmanager
def read_ledger(where: str | Path | None = None) -> Iterator[LedgerReader]:
    """Open the ledger in a file, or at the URL of a server, to look at it; the user's own, if it is not said *where*.
    Raises ``ConfigurationError`` with what to do where there is none that this version can read."""
    place = ledger_place(where)
    if isinstance(place, str):
        from .redis_reader import copied  # noqa: PLC0415 - redis, only for those who have a server

        with copied(place) as (database, name):
            yield LedgerReader(database, name)
        return
    with opened(place, "ro") as database:
        database.execute("BEGIN")  # what is told is of one moment
        yield LedgerReader(database, str(place))
