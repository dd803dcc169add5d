"""A clock that leaps: an event loop on which hours pass in no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from typing_extensions import override

T = TypeVar("T")


class VirtualClock(asyncio.SelectorEventLoop):
    """An event loop whose clock leaps to the next timer when there is nothing else to do: hours pass in no time.

    Every wait in this library is by the loop's clock, so that timeouts and retries can be tested as they are. Only
    for code that waits for nothing outside the loop: no sockets, no threads. Waiting with no timer set is a
    deadlock, and raises ``RuntimeError``.
    """

    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Leaping(self))

    @override
    def time(self) -> float:
        return self._now

    def leap(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self._now += seconds

    @property
    def timers(self) -> int:
        """How many timers are set: at the end of a test, those that somebody has left behind."""
        return sum(not timer.cancelled() for timer in self._scheduled)


class _Leaping(selectors.DefaultSelector):
    """Does not wait: asks what is there, and if it is nothing, lets the clock leap."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: everything waits, and nothing is on its way")
            self._clock.leap(timeout)
        return ready


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* on a ``VirtualClock``, and return what it returns."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        return runner.run(main)
