"""What a ledger needs now and then: to be checked, and to lose what is old."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from .database import Transaction
from .entries import Period, ends_at
from .ledger_file import opened
from .process import gone

BATCH = 2_000
"""Entries that are removed at once: routers have to wait for it, a twentieth of a second."""
PAUSE_S = 0.05
"""How long the file is left to routers then: those that wait look for it at least so often, in the beginning."""

Paid = tuple[str, str]
"""An account and a span of time."""

_HITS = "DELETE FROM hits WHERE rowid IN (SELECT rowid FROM hits WHERE at < ? ORDER BY at LIMIT ?)"
_NAMES: tuple[tuple[Period, str, str], ...] = (
    ("hour", r"\d{4}-\d\d-\d\dT\d\d[+-]\d{4}", "%Y-%m-%dT%H%z"),
    ("day", r"\d{4}-\d\d-\d\d", "%Y-%m-%d"),
    ("week", r"\d{4}-W\d\d", "%G-W%V"),
    ("month", r"\d{4}-\d\d", "%Y-%m"),
)


class Imbalance(NamedTuple):
    """A balance that is not the sum of its entries."""

    account: str
    period: str
    balance_micros: int
    entries_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check has found. *left* are reservations of processes that have ended: they count in full, and the next
    router that opens the file says so. *overdue* ones are of processes that may be there, and take longer than they
    were to."""

    entries: int
    balances: int
    damage: tuple[str, ...]
    wrong: tuple[Imbalance, ...]
    left: int
    left_micros: int
    overdue: int

    @property
    def right(self) -> bool:
        return not self.damage and not self.wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Old:
    """Entries from before a day. *under_way* ones among them are not removed, whatever is said. *hits* are answers out
    of the cache, which are no entries."""

    entries: int
    cost_micros: int
    first_at: float | None
    last_at: float | None
    under_way: int
    hits: int = 0


def check(file: Path, *, clock: Callable[[], float] = time.time) -> Checked:
    """Whether every balance in *file* is what its entries have cost, or may yet cost. Changes nothing."""
    with opened(file, "ro") as database:
        database.execute("BEGIN")
        damage = tuple(told for (told,) in database.execute("PRAGMA quick_check(10)") if told != "ok")
        paid = Counter[Paid](_paid(database))
        paid.update(_amounts(database, "SELECT account, period, micros FROM pruned"))
        balances = _amounts(database, "SELECT account, period, micros FROM balances")
        left = left_micros = 0
        for process, count, micros in database.execute(
            "SELECT process, count(*), sum(reserved_micros) FROM under_way GROUP BY process"
        ):
            if gone(process):
                left, left_micros = left + count, left_micros + micros
        (overdue,) = database.execute("SELECT count(*) FROM under_way WHERE until < ?", (clock(),)).fetchone()
        (entries,) = database.execute("SELECT count(*) FROM entries").fetchone()
    keys = sorted(balances.keys() | paid.keys())
    wrong = [Imbalance(*key, balances.get(key, 0), paid[key]) for key in keys if balances.get(key, 0) != paid[key]]
    return Checked(
        entries=entries,
        balances=len(balances),
        damage=damage,
        wrong=tuple(wrong),
        left=left,
        left_micros=left_micros,
        overdue=max(0, overdue - left),
    )


def old(file: Path, before: float) -> Old:
    """What ``prune`` would remove."""
    with opened(file, "ro") as database:
        row = database.execute(
            "SELECT count(*), coalesce(sum(cost_micros), 0), min(at), max(at) FROM ended WHERE at < ?", (before,)
        ).fetchone()
        (under_way,) = database.execute("SELECT count(*) FROM under_way WHERE at < ?", (before,)).fetchone()
        (hits,) = database.execute("SELECT coalesce(sum(hits), 0) FROM hits WHERE at < ?", (before,)).fetchone()
    return Old(entries=row[0], cost_micros=row[1], first_at=row[2], last_at=row[3], under_way=under_way, hits=hits)


def prune(
    file: Path,
    before: float,
    *,
    batch: int = BATCH,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], object] = time.sleep,
) -> int:
    """Remove the entries of attempts that began *before* then and have ended, and what the cache has answered; how many
    entries. Budgets go on to hold: a
    balance stays until its span of time is over and no entry is left of it. Routers may use the file meanwhile."""
    removed = 0
    with opened(file, "rw") as database:
        while some := _remove(database, before, batch):
            removed += some
            sleep(PAUSE_S)
        while database.execute(_HITS, (before, batch)).rowcount:
            sleep(PAUSE_S)
        _forget(database, datetime.fromtimestamp(clock(), UTC))
    return removed


def _remove(database: sqlite3.Connection, before: float, batch: int) -> int:
    """A part of what is old, in one transaction; what it had paid is written down instead."""
    with Transaction(database):
        rows = database.execute(
            "DELETE FROM ended WHERE (at, call, attempt) IN"
            " (SELECT at, call, attempt FROM ended WHERE at < ? ORDER BY at LIMIT ?)"
            " RETURNING purses, cost_micros",
            (before, batch),
        ).fetchall()
        paid = Counter[Paid]()
        for purses, micros in rows:
            for account, period in json.loads(purses):
                paid[account, period] += micros
        database.executemany(
            "INSERT INTO pruned VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET micros = micros + excluded.micros",
            [(*key, micros) for key, micros in paid.items()],
        )
    return len(rows)


def _forget(database: sqlite3.Connection, now: datetime) -> None:
    """Remove balances that nothing can change any more, and that no entry explains."""
    pruned = _amounts(database, "SELECT account, period, micros FROM pruned")
    if not (over := [key for key in pruned if has_ended(key[1], now)]):
        return
    there = _paid(database)  # takes its time, but nobody waits for it: no entry comes to what is over
    done = [key for key in over if key not in there]
    with Transaction(database):
        database.executemany("DELETE FROM balances WHERE account = ? AND period = ?", done)
        database.executemany("DELETE FROM pruned WHERE account = ? AND period = ?", done)


def has_ended(period: str, now: datetime) -> bool:
    """Whether the span of time of that name is over; one that has no name of ours never is."""
    name, _, zone = period.partition(" ")
    for per, form, layout in _NAMES:
        if re.fullmatch(form, name):
            try:
                begin = datetime.strptime(f"{name} 1" if per == "week" else name, layout + " %u" * (per == "week"))
                there = begin if begin.tzinfo else begin.replace(tzinfo=UTC if zone in ("", "UTC") else ZoneInfo(zone))
            except (ValueError, OSError, KeyError):
                return False
            end = ends_at(per, there, there.tzinfo or UTC)
            return end is not None and end + timedelta(hours=1) <= now
    return False


def _paid(database: sqlite3.Connection) -> dict[Paid, int]:
    return _amounts(
        database,
        "SELECT json_extract(purse.value, '$[0]'), json_extract(purse.value, '$[1]'),"
        " sum(CASE state WHEN 'reserved' THEN reserved_micros ELSE cost_micros END)"
        " FROM entries, json_each(entries.purses) AS purse GROUP BY 1, 2",
    )


def _amounts(database: sqlite3.Connection, query: str) -> dict[Paid, int]:
    return {(account, period): micros for account, period, micros in database.execute(query)}
