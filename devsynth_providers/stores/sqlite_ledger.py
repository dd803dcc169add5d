"""A ledger in one SQLite file, for all the processes of one machine."""

from __future__ import annotations

import functools
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import LedgerUnavailable
from .access import Access
from .database import Database, Transaction
from .entries import Entry, Hit, Outcome, Purse, Reserved, Spent
from .hits import Hits
from .migrations import BEGUN, OUTCOME, bring_up_to_date
from .process import gone, identity
from .worker import Worker

T = TypeVar("T")

_text, _values = functools.lru_cache(256)(json.dumps), functools.lru_cache(256)(json.loads)
"""Names as JSON, and back: they are mostly the same again."""

_NOTHING = bytearray()
"""Bound in place of ``None``, for which ``sqlite3`` looks for an adapter each time, longer than writing it takes."""
_MAY_BE_NOTHING = frozenset(("project", "role", "task", "complexity", "error", "first_token_s", "finish_reason"))


def _given(columns: str) -> str:
    """Parameters for *columns*."""
    return ", ".join("nullif(?, x'')" if name in _MAY_BE_NOTHING else "?" for name in columns.split(", "))


_TAKE = "UPDATE balances SET micros = micros + ? WHERE account = ? AND period = ? AND (micros + ? <= ? OR NOT ?)"
"""Takes so much out of a purse, if that has as much, or only warns; changes one row, or none."""
_TAKE_FIRST = (
    "INSERT INTO balances (micros, account, period) SELECT ?, ?, ? WHERE ? <= ? OR NOT ? ON CONFLICT DO NOTHING"
)
"""The same, where nothing has been taken out of it before."""
_RESERVE = (
    f"INSERT INTO under_way ({BEGUN}) SELECT {_given(BEGUN)} WHERE NOT EXISTS"
    " (SELECT 1 FROM ended WHERE call = ? AND attempt = ?)"
)
_FIND = "SELECT reserved_micros, purses FROM under_way WHERE call = ? AND attempt = ?"
_SETTLE = (
    f"INSERT INTO ended ({BEGUN}, {OUTCOME}) SELECT {BEGUN}, {_given(OUTCOME)} FROM under_way"
    " WHERE call = ? AND attempt = ?"
)
_END = "DELETE FROM under_way WHERE call = ? AND attempt = ?"
_RECOVER = (
    f"INSERT INTO ended ({BEGUN}, state, cost_micros, basis, error, latency_s) SELECT {BEGUN}, 'estimated',"
    " reserved_micros, 'estimated', 'process_ended', max(0, ? - at) FROM under_way WHERE process = ?"
)
_ADD = "UPDATE balances SET micros = micros + ? WHERE account = ? AND period = ?"
_COUNT = (
    "INSERT INTO hits (at, provider, model, project, role, task, policy, rule, hits) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET hits = hits + excluded.hits"
)


class SqliteLedger:
    """Keeps entries and balances in *file*, in write-ahead mode: what it has acknowledged outlives the process.

    A balance is what is spent and what is reserved; one statement with the limit in its condition decides whether an
    attempt may begin. What a process that has ended left reserved is counted as spent in full when the file is opened
    next, and by ``recover``. Any thread and event loop may use it; a child that was forked has
    a connection of its own. *clock* tells the time of day.
    """

    def __init__(self, file: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self.file = Path(file)
        self._clock = clock
        self._worker = Worker("devsynth-ledger")
        self._hits = Hits()
        # Neither holds this: forgotten, the connection is closed at once.
        self._database = Database(self.file, functools.partial(_prepare, self.file, clock))
        self._access = Access(self._worker, self._database, functools.partial(_unavailable, self.file))

    async def reserve(self, entry: Entry, purses: Sequence[Purse] = ()) -> Reserved:
        return await self._access.done(lambda: self._reserve(entry, purses))

    def settle(self, call: str, attempt: int, outcome: Outcome) -> Awaitable[bool]:
        return self._access.done(lambda: self._settle(call, attempt, outcome), surely=True)

    def hit(self, hit: Hit) -> None:
        if self._hits.add(self._clock(), hit):  # else the worker has not come to those before it
            with suppress(RuntimeError):  # the interpreter ends
                self._worker.put(self._count_hits)

    async def spent_micros(self, purse: Purse) -> int:
        return await self._access.done(lambda: self._balance(self._database.opened(), purse))

    async def recover(self) -> int:
        """Count as spent in full what processes that have ended left reserved; how many entries that were."""

        def recovered() -> int:
            with self._database.writing() as database:
                return _recover(database, self._clock())

        return await self._access.told(self._access.put(recovered))

    def record(self, entry: Entry, outcome: Outcome) -> Future[None]:
        """Write down an attempt that was made elsewhere: it has been paid, from no purse."""

        def written() -> None:
            self._reserve(entry, ())
            self._settle(entry.call, entry.attempt, outcome)

        return self._access.put(written)

    def total_micros(self, project: str | None) -> Future[int]:
        """What all entries of *project* have cost, or, while they are under way, may cost."""
        return self._access.put(lambda: self._total(self._database.opened(), project))

    def hits(self, project: str | None) -> Future[tuple[int, int]]:
        """How many requests of *project* the cache has answered, and how many have asked a model."""
        return self._access.put(lambda: self._hits_of(self._database.opened(), project))

    def close(self) -> None:
        """As ``aclose``, for code without an event loop."""
        self._worker.put(self._database.close).result()
        self._worker.close()

    async def aclose(self) -> None:
        await self._worker.done(self._database.close)
        self._worker.close()

    def _reserve(self, entry: Entry, purses: Sequence[Purse]) -> Reserved:
        now, over = self._clock(), list[Spent]()
        with self._database.writing() as database:
            for purse in purses:
                worst = entry.worst_micros
                what = (worst, purse.account, purse.period, worst, purse.limit_micros, int(purse.binding))
                taken = database.execute(_TAKE, what).rowcount or database.execute(_TAKE_FIRST, what).rowcount
                if taken and purse.binding:
                    continue  # within its limit
                spent = Spent(purse, self._balance(database, purse))
                if not taken:
                    database.execute("ROLLBACK")
                    return Reserved(refused=spent)
                if spent.spent_micros > purse.limit_micros:
                    over.append(spent)
            written = database.execute(
                _RESERVE,
                (
                    *(entry.call, entry.attempt, now, now + entry.lease_s, identity(), entry.worst_micros),
                    _paid_from(tuple(purses)),
                    *(entry.provider, entry.model, _or(entry.project), _or(entry.role), _or(entry.task)),
                    *(entry.policy, entry.rule, _text(tuple(entry.tags)), entry.reason, _or(entry.complexity)),
                    *(entry.call, entry.attempt),
                ),
            )
            if not written.rowcount:
                raise sqlite3.IntegrityError(f"attempt {entry.attempt} of {entry.call} has ended already")
        return Reserved(over=tuple(over))

    def _settle(self, call: str, attempt: int, outcome: Outcome) -> bool:
        state = "estimated" if outcome.basis in ("estimated", "unknown") else "settled"
        used = outcome.usage
        with self._database.writing() as database:
            found = database.execute(_FIND, (call, attempt)).fetchone()
            if found is None:
                return False
            reserved_micros, purses = found
            cost_micros = reserved_micros if outcome.cost_micros is None else outcome.cost_micros
            database.execute(
                _SETTLE,
                (
                    *(state, cost_micros, outcome.basis, used.input_tokens, used.output_tokens),
                    *(used.cached_input_tokens, used.cache_write_tokens, used.reasoning_tokens, int(used.estimated)),
                    *(_or(outcome.error), outcome.latency_s, _or(outcome.first_token_s), _or(outcome.finish_reason)),
                    *(call, attempt),
                ),
            )
            database.execute(_END, (call, attempt))
            for account, period in _values(purses):
                database.execute(_ADD, (cost_micros - reserved_micros, account, period))
        return True

    def _count_hits(self) -> None:
        rows = [(minute, *hit, count) for (minute, hit), count in self._hits.take().items()]

        def written() -> None:
            with self._database.writing() as database:
                database.executemany(_COUNT, rows)

        try:
            self._database.patiently(written)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody is there to hear of it
            self._hits.lost(error)

    def _balance(self, database: sqlite3.Connection | sqlite3.Cursor, purse: Purse) -> int:
        row = database.execute(
            "SELECT micros FROM balances WHERE account = ? AND period = ?", (purse.account, purse.period)
        ).fetchone()
        return int(row[0]) if row else 0

    def _total(self, database: sqlite3.Connection, project: str | None) -> int:
        (micros,) = database.execute(
            "SELECT coalesce(sum(coalesce(cost_micros, reserved_micros)), 0) FROM entries WHERE project IS ?",
            (project,),
        ).fetchone()
        return int(micros)

    def _hits_of(self, database: sqlite3.Connection, project: str | None) -> tuple[int, int]:
        hits, calls = database.execute(
            "SELECT (SELECT coalesce(sum(hits), 0) FROM hits WHERE project IS ?),"
            " (SELECT count(DISTINCT call) FROM entries WHERE project IS ?)",
            (project, project),
        ).fetchone()
        return int(hits), int(calls)


def _unavailable(file: Path, error: Exception) -> LedgerUnavailable:
    return LedgerUnavailable(f"the ledger {file} can not be used: {error}")


def _prepare(file: Path, clock: Callable[[], float], database: sqlite3.Connection) -> None:
    bring_up_to_date(database, file)
    with Transaction(database) as writing:
        _recover(writing, clock())


def _recover(database: sqlite3.Cursor, now: float) -> int:
    """Their worst case is what has been taken out for them already: it only becomes what they have cost."""
    recovered = 0
    for (process,) in database.execute("SELECT DISTINCT process FROM under_way").fetchall():
        if process != identity() and gone(process):
            database.execute(_RECOVER, (now, process))
            recovered += database.execute("DELETE FROM under_way WHERE process = ?", (process,)).rowcount
    return recovered


def _or(value: T | None) -> T | bytearray:
    return _NOTHING if value is None else value


@functools.lru_cache(256)
def _paid_from(purses: tuple[Purse, ...]) -> str:
    return json.dumps([(purse.account, purse.period) for purse in purses])
