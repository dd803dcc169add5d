"""A lock that a forked child does not find taken by a thread that has stayed behind."""

from __future__ import annotations

import os
import threading


class Guard:
    """Use it by ``with``, for as short as can be: callers hold up their event loop while they wait for it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.Lock()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
