"""Waiting for one's turn: whoever queues a call says so here, and whoever reckons with time listens.

A call in a queue is not at work: the clock of its first token must not run, and how long it waited is to be told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """Hears of the current attempt that it has to wait, and that its turn has come."""

    def waiting(self) -> None:
        """It is in a queue now."""

    def begun(self, wait_s: float) -> None:
        """It is at work now, after *wait_s* seconds in the queue."""


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("devsynth_turns", default=())


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Let *listener* hear of calls that are made inside this block."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def waiting() -> None:
    """Say that the current attempt has to wait for its turn."""
    for listener in _listeners.get():
        listener.waiting()


def begun(wait_s: float) -> None:
    """Say that its turn has come, after *wait_s* seconds."""
    for listener in _listeners.get():
        listener.begun(wait_s)
