"""Waiting for one's turn: whoever queues a call says so here, and whoever reckons with time listens.

A call in a queue is not at work: the clock of its first token must not run, and how long it waited is to be told apart.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Protocol


class Listener(Protocol):
    """Hears of the current attempt that it has to wait, and that its turn has come."""

    def waiting(self) -> None:
        """It is in a queue now."""

    def begun(self, wait_s: float) -> None:
        """It is at work now, after *wait_s* seconds in the queue."""


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("devsynth_turns", default=())


def listen(listener: Listener) -> Token[tuple[Listener, ...]]:
    """From now on *listener*, too, hears of calls that are made here, until ``leave``."""
    return _listeners.set((*_listeners.get(), listener))


def leave(token: Token[tuple[Listener, ...]]) -> None:
    """The listener that *token* is of hears no more."""
    _listeners.reset(token)


def waiting() -> None:
    """Say that the current attempt has to wait for its turn."""
    for listener in _listeners.get():
        listener.waiting()


def begun(wait_s: float) -> None:
    """Say that its turn has come, after *wait_s* seconds."""
    for listener in _listeners.get():
        listener.begun(wait_s)
