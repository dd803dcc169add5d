"""A thread for a store: what may block is done there, and not on anybody's event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_here = threading.local()
"""What the running thread has opened."""


class Busy(Exception):
    """It can not be done here and now: whoever does it would have to wait."""


class Worker:
    """Does one thing after the other. Begins with the first of them; a child that was forked has one of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begin()

    def _begin(self) -> None:
        self._lock, self._at_it = threading.Lock(), threading.Lock()
        self._waiting = 0
        self._pool: ThreadPoolExecutor | None = None
        self._pid = os.getpid()

    def put(self, work: Callable[[], T]) -> Future[T]:
        """Have *work* done, soon. Raises ``RuntimeError`` at the end of the interpreter."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
            done = self._pool.submit(self._do, work)
            self._waiting += 1
        done.add_done_callback(self._called_off)
        return done

    async def done(self, work: Callable[[], T]) -> T:
        """What *work* returns."""
        return await asyncio.wrap_future(self.put(work))

    def at_once(self, work: Callable[[], T]) -> T:
        """What *work* returns, done by the caller: to tell a thread, and to be told, takes longer than a few rows do.
        Raises ``Busy`` if anything is being done, or waits for it; so may *work*, and so it must if it would wait."""
        if self._waiting or self._pid != os.getpid() or not self._at_it.acquire(blocking=False):
            raise Busy
        try:
            return work()
        finally:
            self._at_it.release()

    def close(self) -> None:
        """Do what is left, then end."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.shutdown(wait=True)

    def _called_off(self, done: Future[T]) -> None:
        """Of what is cancelled before it begins nobody else says that it waits no longer."""
        if done.cancelled():
            with self._lock:
                self._waiting -= 1

    def _do(self, work: Callable[[], T]) -> T:
        try:
            with self._at_it:
                return work()
        finally:
            with self._lock:
                self._waiting -= 1


def closed_with_thread(opened: sqlite3.Connection) -> None:
    """Close *opened*, which no other thread may do, when the running one ends: that of a worker that was forgotten
    too. It would complain of being left (Python 3.13). One that the thread had opened before is closed now."""
    _here.opened = _Closing(opened)


class _Closing:
    def __init__(self, opened: sqlite3.Connection) -> None:
        self._opened = opened

    def __del__(self) -> None:
        with suppress(sqlite3.Error):  # in a forked child: it is another thread that drops it there
            self._opened.close()


def certain(done: Future[T]) -> Future[T]:
    """As *done*, but what it is of is not called off when whoever waits for it is cancelled."""
    told: Future[T] = Future()
    told.set_running_or_notify_cancel()

    def tell(done: Future[T]) -> None:
        if (error := done.exception()) is None:
            told.set_result(done.result())
        else:
            told.set_exception(error)

    done.add_done_callback(tell)
    return told
