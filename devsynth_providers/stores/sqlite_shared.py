"""What the processes of one machine share, in one SQLite file."""

from __future__ import annotations

import asyncio
import math
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .access import Access
from .database import Database
from .process import gone, identity
from .shared import POLL_S, WINDOW_S, Full, Leave, Quota, SharedUnavailable, Unwell
from .worker import Worker

T = TypeVar("T")

VERSION = 1
_TABLES = (
    "CREATE TABLE IF NOT EXISTS passed (gate TEXT, second INTEGER, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,"
    " PRIMARY KEY (gate, second)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS under_way (gate TEXT, id TEXT, until REAL NOT NULL, process TEXT NOT NULL,"
    " PRIMARY KEY (gate, id)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS unwell (server TEXT PRIMARY KEY, until REAL NOT NULL, reason TEXT NOT NULL)"
    " WITHOUT ROWID",
)
_OVER = {
    # What is to come yet was written by a clock that was wrong: it would close the gates until then.
    "passed": "DELETE FROM passed WHERE gate = :gate"
    f" AND (second <= :now - {WINDOW_S + 1} OR second > :now + {WINDOW_S})",
    "under_way": "DELETE FROM under_way WHERE gate = :gate AND until <= :now",
}
_NEXT = {table: f"SELECT min(gate) FROM {table} WHERE gate > ?" for table in _OVER}


class SqliteShared:
    """Keeps in *file* what passed in the last minute, what is under way, and who is unwell.

    What a process that has ended had under way is over. Any thread and event loop may use it; a child that was forked
    has a connection of its own. *clock* tells the time of day.
    """

    def __init__(self, file: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self.file = Path(file)
        self._clock = clock
        self._worker = Worker("devsynth-shared")
        self._database = Database(self.file, self._prepare)
        self._access = Access(
            self._worker, self._database, lambda error: SharedUnavailable(f"{self.file} can not be used: {error}")
        )
        self._swept = dict.fromkeys(_OVER, "")

    async def enter(self, quotas: Sequence[Quota], tokens: int, lease_s: float) -> Leave | Full:
        told: Leave | Full | None = None

        def entered() -> Leave | Full:
            nonlocal told
            told = self._enter(quotas, tokens, lease_s)
            return told

        try:
            return await self._access.done(entered)
        except asyncio.CancelledError:  # it may have been let in, or be let in yet
            self._access.later(lambda: self._left(quotas, told, 0) if isinstance(told, Leave) else None)
            raise

    def left(self, quotas: Sequence[Quota], leave: Leave, tokens: int | None) -> None:
        self._access.later(lambda: self._left(quotas, leave, tokens))

    async def unwell(self) -> Mapping[str, Unwell]:
        return await self._access.done(self._unwell)

    def found(self, server: str, for_s: float, reason: str) -> None:
        self._access.later(lambda: self._found(server, for_s, reason))

    async def aclose(self) -> None:
        with suppress(RuntimeError):
            await self._worker.done(self._database.close)
        self._worker.close()

    def _enter(self, quotas: Sequence[Quota], tokens: int, lease_s: float) -> Leave | Full:
        now = self._clock()
        leave = Leave(secrets.token_hex(8), math.floor(now), tokens)
        with self._database.writing() as database:
            self._forget_the_old(database, [quota.gate for quota in quotas], now)
            for number, quota in enumerate(quotas):
                if wait_s := self._wait_s(database, quota, tokens, now):
                    return Full(number, wait_s)
            for quota in quotas:
                database.execute(
                    "INSERT INTO passed VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE SET"
                    " requests = requests + 1, tokens = tokens + excluded.tokens",
                    (quota.gate, leave.second, tokens),
                )
                database.execute(
                    "INSERT INTO under_way VALUES (?, ?, ?, ?)", (quota.gate, leave.id, now + lease_s, identity())
                )
        return leave

    def _forget_the_old(self, database: sqlite3.Cursor, gates: Sequence[str], now: float) -> None:
        """At *gates*, and at as many others, each time the next ones: nobody looks through all there are, and those
        that nobody asks at any more come to an end, too."""
        for table, over in _OVER.items():
            for gate in (*gates, *self._others(database, table, len(gates))):
                database.execute(over, {"gate": gate, "now": now})

    def _others(self, database: sqlite3.Cursor, table: str, number: int) -> Iterator[str]:
        for _ in range(number):
            (gate,) = database.execute(_NEXT[table], (self._swept[table],)).fetchone()
            self._swept[table] = gate or ""
            if gate is None:
                return
            yield gate

    def _wait_s(self, database: sqlite3.Cursor, quota: Quota, tokens: int, now: float) -> float:
        """How long until one more may pass *quota*; 0 if it may."""
        if quota.concurrent is not None:
            count = "SELECT count(*) FROM under_way WHERE gate = ?"
            if database.execute(count, (quota.gate,)).fetchone()[0] >= quota.concurrent:
                self._forget_the_dead(database, quota.gate)
                if database.execute(count, (quota.gate,)).fetchone()[0] >= quota.concurrent:
                    return POLL_S
        rows = database.execute(
            "SELECT second, requests, tokens FROM passed WHERE gate = ? ORDER BY second", (quota.gate,)
        ).fetchall()
        requests = [(second, number) for second, number, _ in rows]
        used = [(second, number) for second, _, number in rows]
        return max(_until_free(requests, quota.requests, 1, now), _until_free(used, quota.tokens, tokens, now))

    def _forget_the_dead(self, database: sqlite3.Cursor, gate: str) -> None:
        held = database.execute("SELECT DISTINCT process FROM under_way WHERE gate = ?", (gate,)).fetchall()
        for (process,) in held:
            if process != identity() and gone(process):
                database.execute("DELETE FROM under_way WHERE process = ?", (process,))

    def _left(self, quotas: Sequence[Quota], leave: Leave, tokens: int | None) -> None:
        correction = 0 if tokens is None else tokens - leave.tokens
        with self._database.writing() as database:
            for quota in quotas:
                ended = database.execute("DELETE FROM under_way WHERE gate = ? AND id = ?", (quota.gate, leave.id))
                if correction and ended.rowcount:
                    database.execute(
                        "UPDATE passed SET tokens = max(0, tokens + ?) WHERE gate = ? AND second = ?",
                        (correction, quota.gate, leave.second),
                    )

    def _unwell(self) -> Mapping[str, Unwell]:
        now = self._clock()
        rows = self._database.opened().execute("SELECT server, until, reason FROM unwell WHERE until > ?", (now,))
        return {server: Unwell(until, until - now, reason) for server, until, reason in rows}

    def _found(self, server: str, for_s: float, reason: str) -> None:
        now = self._clock()
        with self._database.writing() as database:
            database.execute("DELETE FROM unwell WHERE until <= ? OR (server = ? AND ? <= 0)", (now, server, for_s))
            if for_s > 0:
                database.execute(
                    "INSERT INTO unwell VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET until = excluded.until,"
                    " reason = excluded.reason WHERE excluded.until > until",
                    (server, now + for_s, reason),
                )

    def _prepare(self, database: sqlite3.Connection) -> None:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if strange := tables - {"passed", "under_way", "unwell"}:
            raise sqlite3.OperationalError(f"it has {', '.join(sorted(strange))}, and is another's: name another file")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise sqlite3.OperationalError(f"it is of version {version}, and this is version {VERSION}")
        for table in _TABLES:
            database.execute(table)
        database.execute(f"PRAGMA user_version = {VERSION}")


def _until_free(passed: Sequence[tuple[int, int]], limit: int | None, amount: int, now: float) -> float:
    """How long until *amount* may pass, beside what has *passed* in each second; more than *limit* passes alone."""
    if limit is None:
        return 0.0
    used = sum(number for _, number in passed)
    wait_s = 0.0
    for second, number in passed:
        if used == 0 or used + amount <= limit:
            break
        used, wait_s = used - number, second + WINDOW_S + 1 - now
    return wait_s
