"""One circuit breaker, pure: the time comes in with every call, chance as a value, and nothing waits."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

State = Literal["closed", "open", "half_open"]

EARLY_S = 0.001
"""A timer of an event loop may fire so much too soon."""
_KEPT = 256
"""Attempts kept for a window, the last ones: at more than that in one, the last ones are what matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """When a server is left alone, and for how long. All times are in seconds.

    It is where, of the attempts that ended within *window_s*, at least *failures* and at least *failure_share* of all
    failed; or where within *slow_window_s* at least *slow* and *slow_share* were slow. It is left alone for *open_s*
    the first time, twice as long each next time, up to *cap_s*, less up to a quarter by chance. What a server asks for
    itself is granted up to *longest_s*.
    """

    window_s: float = 30.0
    failures: int = 5
    failure_share: float = 0.5
    slow_window_s: float = 120.0
    slow: int = 10
    slow_share: float = 0.8
    open_s: float = 2.0
    cap_s: float = 60.0
    longest_s: float = 3600.0


class Verdict(NamedTuple):
    """What an attempt that has ended says of the server. Neither *good* nor bad is no verdict at all.

    *hold_s* is how long the server is to be left alone by its own word; *at_once* says that no other failure need be
    waited for.
    """

    good: bool = False
    bad: bool = False
    slow: bool = False
    reason: str = ""
    hold_s: float = 0.0
    at_once: bool = False


NEUTRAL = Verdict()


class Pass(NamedTuple):
    """Leave to make one attempt. *era* tells attempts that began before the last change from those after."""

    era: int
    probe: bool = False


class Breaker:
    """Closed: everybody passes. Open: nobody, until a moment. Half open, from then on: one attempt, the probe, whose
    end decides.

    A breaker that opened for slowness alone lets everybody pass who has no better choice: a slow answer is one. A probe
    that is never told the end of is given up after the time that was named for it. Of several moments to wait for, the
    latest counts.
    """

    def __init__(self, tolerance: Tolerance = Tolerance(), *, chance: Callable[[], float] = random.random) -> None:
        self._tolerance = tolerance
        self._chance = chance
        self._ended: deque[tuple[float, bool, bool]] = deque(maxlen=_KEPT)
        self._era = 0
        self._until: float | None = None
        self._openings = 0
        self._closed_at = float("-inf")
        self._probe_until: float | None = None
        self.slow = False
        """Whether it is open for slowness alone."""
        self.reason = ""
        """Why it opened last."""

    @property
    def closed(self) -> bool:
        return self._until is None

    @property
    def refuses(self) -> bool:
        """Whether it is open for more than slowness."""
        return self._until is not None and not self.slow

    def state(self, now: float) -> State:
        """What it is at *now*."""
        if self._until is None:
            return "closed"
        return "half_open" if now >= self._until - EARLY_S else "open"

    @property
    def changes(self) -> int:
        """How often its state has changed."""
        return self._era

    def probing(self, now: float) -> bool:
        """Whether a probe is on its way."""
        return self._probe_until is not None and now < self._probe_until

    def wait_s(self, now: float) -> float | None:
        """How long until an attempt may be made; ``None`` while a probe is on its way, whose end nobody knows."""
        if self.probing(now):
            return None
        return 0.0 if self.state(now) != "open" or self._until is None else self._until - now

    def admit(self, now: float, lease_s: float) -> Pass | None:
        """Leave for an attempt that ends within *lease_s*; ``None`` if the server is to be left alone."""
        if self._until is None:
            return Pass(self._era)
        if self.wait_s(now) == 0.0:
            self._era += 1  # a probe that was given up has nothing more to say
            self._probe_until = now + max(lease_s, EARLY_S)
            return Pass(self._era, probe=True)
        return Pass(self._era) if self.slow else None

    def settle(self, now: float, leave: Pass, verdict: Verdict) -> State | None:
        """An attempt has ended. Returns the state that it led to, if it is another than before."""
        current = leave.era == self._era
        probe = leave.probe and current and self._probe_until is not None
        if probe:
            self._probe_until = None
        if verdict.bad:
            return self._failed(now, verdict, probe=probe, current=current)
        if not verdict.good or not current:
            return None
        if probe:
            return self._close(now) if self.state(now) == "half_open" else None
        if self._until is None or self.slow:
            self._ended.append((now, False, verdict.slow))
            if self._until is None and verdict.slow and self._too_slow(now):
                self._open(now, "slow", slow=True)
                return "open"
        return None

    def _failed(self, now: float, verdict: Verdict, *, probe: bool, current: bool) -> State | None:
        if current and not probe:
            self._ended.append((now, True, False))
        refused = self.refuses
        tripped = probe or (current and not refused and (verdict.at_once or self._too_many(now)))
        if tripped:
            self._open(now, verdict.reason)
        if verdict.hold_s > 0:
            self._hold(now, verdict)
        return "open" if tripped or (self.refuses and not refused) else None

    def _open(self, now: float, reason: str, *, slow: bool = False) -> None:
        tolerance = self._tolerance
        if self._until is None and now - self._closed_at > tolerance.window_s:
            self._openings = 0  # it has been well for a while
        interval_s = min(tolerance.cap_s, tolerance.open_s * 2 ** min(self._openings, 30))
        self._openings += 1
        self._change(max(self._until or now, now + interval_s * (1 - self._chance() / 4)))
        self.slow, self.reason = slow, reason

    def _hold(self, now: float, verdict: Verdict) -> None:
        until = now + min(verdict.hold_s, self._tolerance.longest_s)
        if self._until is None or self.slow:
            self._change(until if self._until is None else max(until, self._until))
            self.slow, self.reason = False, verdict.reason
        elif until > self._until:
            self._until = until

    def _close(self, now: float) -> State:
        self._change(None)
        self._closed_at = now
        self.slow = False
        return "closed"

    def _change(self, until: float | None) -> None:
        self._until = until
        self._era += 1
        self._probe_until = None
        self._ended.clear()

    def _too_many(self, now: float) -> bool:
        since = now - self._tolerance.window_s
        ended = [failed for at, failed, _ in self._ended if at >= since]
        failures = sum(ended)
        return failures >= self._tolerance.failures and failures >= self._tolerance.failure_share * len(ended)

    def _too_slow(self, now: float) -> bool:
        since = now - self._tolerance.slow_window_s
        ended = [slow for at, failed, slow in self._ended if at >= since and not failed]
        slow = sum(ended)
        return slow >= self._tolerance.slow and slow >= self._tolerance.slow_share * len(ended)
