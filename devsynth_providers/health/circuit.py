"""A breaker for many callers: it brings the clock and a lock, and tells people why it is open."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from ..guard import Guard
from .breaker import Breaker
from .terms import Pass, State, Verdict

LOOK_AGAIN_S = 1.0
"""While a probe is on its way nobody knows when it ends: come back in so many seconds."""


class Circuit:
    """The breaker of one server. Any thread may call any method. *clock* counts seconds."""

    def __init__(self, breaker: Breaker, clock: Callable[[], float]) -> None:
        self._breaker = breaker
        self._clock = clock
        self._guard = Guard(breaker.nobody_tells)

    def admit(self, lease_s: float) -> Pass | None:
        """Leave for an attempt that ends within *lease_s*; ``None`` if the server is to be left alone."""
        with self._guard:
            return self._breaker.admit(self._clock(), lease_s)

    def heard(self, leave: Pass, *, slow: bool = False) -> State | None:
        """The first content of an attempt is here, which took long if *slow*. Returns what ``settle`` does."""
        with self._guard:
            return self._breaker.heard(self._clock(), leave, slow=slow)

    def unheard(self, leave: Pass, since: float, *, lost: bool) -> State | None:
        """Nothing has come of an attempt since the moment *since*: it is slow, or so late that it may be *lost*."""
        with self._guard:
            return self._breaker.unheard(self._clock(), leave, since, lost=lost)

    def settle(self, leave: Pass, verdict: Verdict) -> State | None:
        """An attempt has ended. Returns the state that it led to, if it is another than before."""
        with self._guard:
            return self._breaker.settle(self._clock(), leave, verdict)

    def told(self, for_s: float, reason: str) -> None:
        """Another process has found the server unwell: it is to be left alone for so long, for this *reason*."""
        with self._guard:
            self._breaker.told(self._clock(), for_s, reason)

    def taken_back(self, early_s: float) -> None:
        """It has found it well again, *early_s* before that was over, or more."""
        with self._guard:
            self._breaker.taken_back(self._clock(), early_s)

    @property
    def refuses(self) -> bool:
        """Whether an attempt would be refused now."""
        with self._guard:
            return self.avoided and not self._breaker.slow

    @property
    def avoided(self) -> bool:
        """Whether others should be asked in its place now."""
        with self._guard:
            return not self._breaker.closed and self._breaker.wait_s(self._clock()) != 0.0

    @property
    def closed(self) -> bool:
        """Whether nothing is wrong."""
        return self._breaker.closed

    @property
    def wait_s(self) -> float | None:
        """Seconds until an attempt may be made; ``None`` while one is being made to find out."""
        with self._guard:
            return self._breaker.wait_s(self._clock())

    @property
    def retry_after_s(self) -> float:
        """Seconds after which it is worth asking again."""
        wait_s = self.wait_s
        return LOOK_AGAIN_S if wait_s is None else wait_s

    @property
    def changes(self) -> int:
        """How often it has opened, closed, or been left alone for longer."""
        return self._breaker.changes

    @property
    def reason(self) -> str:
        """Why it opened, in a few words."""
        return self._breaker.reason

    @override
    def __str__(self) -> str:
        with self._guard:
            breaker, now = self._breaker, self._clock()
            if breaker.closed:
                return "its circuit is closed"
            if breaker.probing(now):
                return f"its circuit is open ({breaker.reason}), and one request finds out whether it is back"
            return f"its circuit is open ({breaker.reason}): it is left alone for another {self.retry_after_s:.1f} s"
