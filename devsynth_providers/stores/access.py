"""How a store comes to its SQLite file: here and now, if nothing has to be waited for, and else on a thread."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from .database import Database
from .worker import Busy, Worker, certain

T = TypeVar("T")

_FAILURES = (sqlite3.Error, OverflowError, UnicodeEncodeError)
"""Of a file, of what has no room in it, and of what is no text."""


class Access:
    """Has the *worker* do one thing after the other with the *database*, for any thread and event loop. What fails is
    raised as what *unavailable* makes of it."""

    def __init__(self, worker: Worker, database: Database, unavailable: Callable[[Exception], Exception]) -> None:
        self._worker = worker
        self._database = database
        self._unavailable = unavailable

    def done(self, work: Callable[[], T], *, surely: bool = False) -> Awaitable[T]:
        """What *work* returns, which begins at once, whether or not anybody awaits it. It is called off when whoever
        waits for it is cancelled, before a thread has come to it; unless it is to be done *surely*."""
        try:
            result = self._at_once(work)
        except Busy:
            put = self.put(work)
            return self.told(certain(put) if surely else put)
        except _FAILURES as error:
            raise self._unavailable(error) from None
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.set_result(result)
        return done

    def later(self, work: Callable[[], object]) -> None:
        """Have *work* done, soon: nobody waits for it, and it fails nobody."""
        try:
            self._at_once(work)
        except Busy:
            with suppress(RuntimeError):  # the interpreter ends
                self._worker.put(lambda: self._database.patiently(work))
        except _FAILURES:
            pass

    def put(self, work: Callable[[], T]) -> Future[T]:
        """What *work* returns, on the thread. It fails as ``sqlite3`` does."""
        try:
            return self._worker.put(lambda: self._database.patiently(work))
        except RuntimeError as error:  # the interpreter ends
            raise self._unavailable(error) from None

    async def told(self, done: Future[T]) -> T:
        """What was ``put``."""
        try:
            return await asyncio.wrap_future(done)
        except _FAILURES as error:
            unavailable = self._unavailable(error)
        raise unavailable

    def _at_once(self, work: Callable[[], T]) -> T:
        return self._worker.at_once(lambda: self._database.quickly(work))
