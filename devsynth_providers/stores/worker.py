"""A thread for a store: what blocks is done there, and not on anybody's event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """Does one thing after the other. Begins with the first of them; a child that was forked has one of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def put(self, work: Callable[[], T]) -> Future[T]:
        """Have *work* done, soon. Raises ``RuntimeError`` at the end of the interpreter."""
        if self._pid != os.getpid():
            self._pid, self._lock, self._pool = os.getpid(), threading.Lock(), None
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
            return self._pool.submit(work)

    async def done(self, work: Callable[[], T]) -> T:
        """What *work* returns."""
        return await asyncio.wrap_future(self.put(work))

    def close(self) -> None:
        """Do what is left, then end."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.shutdown(wait=True)
