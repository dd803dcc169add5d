"""A ledger as code without an event loop has it, in a file or on a server: each method blocks until it is done."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import LedgerUnavailable
from ..guard import Guard
from ..own_loop import OwnLoop, outcome_of
from .entries import Entry, Outcome
from .places import on_server
from .redis_clients import Clients
from .redis_ledger import RedisLedger
from .redis_reader import hits_of, spent_by
from .sqlite_ledger import SqliteLedger

T = TypeVar("T")


class BlockingLedger(Protocol):
    """Any thread may use it, and a child that was forked. Each method raises ``LedgerUnavailable`` where it can not be
    done."""

    def record(self, entry: Entry, outcome: Outcome) -> None:
        """Write down an attempt that was made elsewhere: it has been paid, from no purse."""

    def total_micros(self, project: str | None) -> int:
        """What all entries of *project* have cost, or, while they are under way, may cost."""

    def hits(self, project: str | None) -> tuple[int, int]:
        """How many requests of *project* the cache has answered, and how many have asked a model."""

    def close(self) -> None:
        """Let go of what is open, when what is under way is done. Whoever uses it again opens it again."""


def blocking_ledger(where: str | Path) -> BlockingLedger:
    """The ledger at *where*, a file or the URL of a server. Raises ``ConfigurationError`` as ``ledger_of`` does."""
    return BlockingServer(where) if on_server(where) else BlockingFile(where)


class BlockingFile:
    """Of the ledger in *file*."""

    def __init__(self, file: str | Path) -> None:
        self._ledger = SqliteLedger(file)

    def record(self, entry: Entry, outcome: Outcome) -> None:
        self._done(self._ledger.record(entry, outcome))

    def total_micros(self, project: str | None) -> int:
        return self._done(self._ledger.total_micros(project))

    def hits(self, project: str | None) -> tuple[int, int]:
        return self._done(self._ledger.hits(project))

    def close(self) -> None:
        self._ledger.close()

    def _done(self, done: Future[T]) -> T:
        try:
            return done.result()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise LedgerUnavailable(f"the ledger {self._ledger.file} can not be used: {error}") from None


class BlockingServer:
    """Of the ledger on the server at *url*. To read is to go through all entries that are kept there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: _Opened | None = _Opened(url)
        self._guard = Guard()

    def record(self, entry: Entry, outcome: Outcome) -> None:
        self._done(lambda opened: opened.record(entry, outcome))

    def total_micros(self, project: str | None) -> int:
        return self._done(lambda opened: spent_by(opened.clients, project))[0]

    def hits(self, project: str | None) -> tuple[int, int]:
        return self._done(lambda opened: opened.hits(project))

    def close(self) -> None:
        with self._guard:
            opened, self._opened = self._opened, None  # who comes now opens it anew, and is in nobody's way
        if opened is not None and opened.own.running:
            opened.own.end(opened.close())

    def _done(self, work: Callable[[_Opened], Coroutine[Any, Any, T]]) -> T:
        with self._guard:
            opened = self._opened = self._opened or _Opened(self._url)
            begun = opened.begin(work(opened))
        try:
            return outcome_of(begun)
        except CancelledError:
            raise opened.unavailable("the interpreter ends") from None


class _Opened:
    """What a ``BlockingServer`` has from its first use until it is closed."""

    def __init__(self, url: str) -> None:
        self.clients = Clients(url)
        self.own = OwnLoop()
        self._ledger = RedisLedger(url)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            return self.own.begin(work)
        except RuntimeError as error:
            raise self.unavailable(str(error)) from None

    def unavailable(self, why: str) -> LedgerUnavailable:
        return LedgerUnavailable(f"the ledger {self.clients.name} can not be used: {why}")

    async def record(self, entry: Entry, outcome: Outcome) -> None:
        await self._ledger.reserve(entry)
        with suppress(LedgerUnavailable):  # it is written down, at what it has cost: the rest is said when it can be
            await self._ledger.settle(entry.call, entry.attempt, outcome)

    async def hits(self, project: str | None) -> tuple[int, int]:
        _, calls = await spent_by(self.clients, project)
        return await hits_of(self.clients, project), calls

    async def close(self) -> None:
        """The last thing that is begun here."""
        if under_way := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(under_way)
        await self._ledger.aclose()
        await self.clients.aclose()
