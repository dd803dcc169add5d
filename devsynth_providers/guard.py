"""A lock that neither a fork nor the garbage collector can turn against those who use it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable


class Guard:
    """Use it by ``with``, for as short as can be: callers hold up their event loop while they wait for it.

    The garbage collector may end a forgotten call in the midst of another's, in the same thread: that one gets it too.
    A forked child finds it free, whoever had it; *forked* is called there.
    """

    def __init__(self, forked: Callable[[], None] | None = None) -> None:
        self._lock = threading.RLock()
        self._forked = forked
        _guards.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """In a forked child, before anything else happens there."""
        self._lock = threading.RLock()
        if self._forked is not None:
            self._forked()


_guards: weakref.WeakSet[Guard] = weakref.WeakSet()


def _renew_all() -> None:
    for guard in list(_guards):
        guard.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
