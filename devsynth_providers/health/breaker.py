"""One circuit breaker, pure: the time comes in with every call, chance as a value, and nothing waits."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from .terms import Pass, State, Tolerance, Verdict

EARLY_S = 0.001
"""A timer of an event loop may fire so much too soon."""
SILENT = "no sign of life"
SLOW = "slow"
_LOST = Verdict(bad=True, reason=SILENT)
_KEPT = 256
"""Attempts kept for a window, the last ones: at more than that in one, the last ones are what matters."""


class Breaker:
    """Closed: everybody passes. Open: nobody, until a moment. Half open, from then on: one attempt, the probe, whose
    first content decides, or whose end.

    A breaker that opened for slowness alone lets everybody pass who has no better choice: a slow answer is one. A probe
    that is never told the end of is given up after the time that was named for it. Of several moments to wait for, the
    latest counts.

    A server that says nothing at all fails at nothing either until time has run out. So attempts count that nothing has
    come of, while they last, if nothing has come of any other since they began. That is a doubt: whatever comes from
    the server, to whomever, ends it.
    """

    def __init__(self, tolerance: Tolerance = Tolerance(), *, chance: Callable[[], float] = random.random) -> None:
        self._tolerance = tolerance
        self._chance = chance
        self._ended: deque[tuple[float, bool, bool]] = deque(maxlen=_KEPT)
        self._unheard: dict[Pass, bool] = {}
        """Attempts that nothing has come of for long; true, if for so long that they may be lost."""
        self._heard_at = float("-inf")
        self._era = 0
        self._until: float | None = None
        self._openings = 0
        self._closed_at = float("-inf")
        self._probe: Pass | None = None
        self._probe_until = 0.0
        self._told_until: float | None = None
        """Until when it is open if that is by the word of others alone."""
        self._doubt = False
        self.changes = 0
        """How often its state has changed."""
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

    def probing(self, now: float) -> bool:
        """Whether a probe is on its way."""
        return self._probe is not None and now < self._probe_until

    def wait_s(self, now: float) -> float | None:
        """How long until an attempt may be made; ``None`` while a probe is on its way, whose end nobody knows."""
        if self.probing(now):
            return None
        return 0.0 if self.state(now) != "open" or self._until is None else self._until - now

    def admit(self, now: float, lease_s: float) -> Pass | None:
        """Leave for an attempt that ends within *lease_s*; ``None`` if the server is to be left alone."""
        if self._until is not None and self.wait_s(now) == 0.0:
            self._probe, self._probe_until = Pass(self._era, probe=True), now + max(lease_s, EARLY_S)
            return self._probe
        return None if self.refuses else Pass(self._era)

    def heard(self, now: float, leave: Pass, *, slow: bool = False) -> State | None:
        """The first content of an attempt is here, which took long if *slow*: from now on it is no probe any more.

        Returns the state that it led to, if it is another than before, as ``settle`` does.
        """
        self._heard_at = now
        self._unheard.clear()
        led_to: State | None = None
        if leave is self._probe:
            self._probe = None
            if slow and self.slow and not self._doubt:
                self._open(now, SLOW, slow=True)
                led_to = "open"
            elif self.state(now) == "half_open":
                led_to = self._close(now)
            leave.era, leave.probe = self._era, False
        if self._doubt:
            self._openings = 0
            led_to = self._close(now)
        return led_to

    def unheard(self, now: float, leave: Pass, since: float, *, lost: bool) -> State | None:
        """Nothing has come of an attempt since the moment *since*: it is slow, or so late that it may be *lost*."""
        if leave.era != self._era or self._heard_at > since:
            return None
        if leave is self._probe:
            if not lost:
                return None
        else:
            self._unheard[leave] = lost
            if not (lost and not self.refuses and self._too_many(now)):
                if self._until is not None or len(self._unheard) < self._tolerance.slow:
                    return None
                lost = False
        self._open(now, SILENT if lost else SLOW, slow=not lost, doubt=True)
        return "open"

    def settle(self, now: float, leave: Pass, verdict: Verdict) -> State | None:
        """An attempt has ended. Returns the state that it led to, if it is another than before."""
        lost = self._unheard.pop(leave, False)
        if lost and not verdict.good and not verdict.bad:
            verdict = _LOST  # whoever gave it up had waited long enough
        current = leave.era == self._era
        probe = leave is self._probe
        if probe:
            self._probe = None
        if verdict.bad:
            return self._failed(now, verdict, probe=probe, current=current)
        if not verdict.good or not current:
            return None
        if probe:
            return self._close(now) if self.state(now) == "half_open" else None
        if not self.refuses:
            self._ended.append((now, False, verdict.slow))
            if self._until is None and verdict.slow and self._too_slow(now):
                self._open(now, SLOW, slow=True)
                return "open"
        return None

    def told(self, now: float, for_s: float, reason: str) -> None:
        """Others have found the server unwell: it is to be left alone for so long. Own attempts say more."""
        alone = self._until is None or (self._until == self._told_until and not self.probing(now))
        if alone or self.slow:
            self._hold(now, Verdict(bad=True, reason=reason, hold_s=for_s))
            self._told_until = self._until if alone else None

    def taken_back(self, now: float, early_s: float) -> None:
        """Others have found it well again, *early_s* before the time that they had said, or more. So it closes, where
        their word was all that there was against it."""
        if self._until is not None and self._until == self._told_until and self._until - now >= early_s:
            self._close(now)

    def nobody_tells(self) -> None:
        """Those who were let through will not tell how it ended: they are in another process."""
        self._probe = None
        self._unheard.clear()

    def _failed(self, now: float, verdict: Verdict, *, probe: bool, current: bool) -> State | None:
        if current and not probe:
            self._ended.append((now, True, False))
        refused = self.refuses
        tripped = probe or (current and not refused and (verdict.at_once or self._too_many(now)))
        if tripped:
            self._open(now, verdict.reason)
        if verdict.hold_s > 0:
            self._hold(now, verdict)
            self._told_until = None  # its own server has said so, too
        return "open" if tripped or (self.refuses and not refused) else None

    def _open(self, now: float, reason: str, *, slow: bool = False, doubt: bool = False) -> None:
        tolerance = self._tolerance
        if self._until is None and now - self._closed_at > tolerance.window_s:
            self._openings = 0  # it has been well for a while
        interval_s = min(tolerance.cap_s, tolerance.open_s * 2 ** min(self._openings, 30))
        self._openings += 1
        asked_for = self._until is not None and self._until > now and not self._doubt and not self.slow
        until = now + interval_s * (1 - self._chance() / 4)
        self._change(until if self._until is None else max(self._until, until), anew=not slow and not doubt)
        self.slow, self.reason, self._doubt = slow, reason, doubt and not asked_for

    def _hold(self, now: float, verdict: Verdict) -> None:
        until = now + min(verdict.hold_s, self._tolerance.longest_s)
        if not self.refuses or self._doubt:
            self._change(until if self._until is None else max(until, self._until))
            self.slow, self.reason, self._doubt = False, verdict.reason, False
        elif self._until is not None and until > self._until:
            self._until = until

    def _close(self, now: float) -> State:
        self._change(None, anew=not self._doubt)
        self._closed_at = now
        self.slow = self._doubt = False
        return "closed"

    def _change(self, until: float | None, *, anew: bool = True) -> None:
        self._until = until
        self._probe = None
        self.changes += 1
        self._ended.clear()
        if anew:  # what began before says nothing of what is now
            self._era += 1
            self._unheard.clear()

    def _too_many(self, now: float) -> bool:
        since = now - self._tolerance.window_s
        ended = [failed for at, failed, _ in list(self._ended) if at >= since]
        lost = sum(self._unheard.values())
        failures = sum(ended) + lost
        return failures >= self._tolerance.failures and failures >= self._tolerance.failure_share * (len(ended) + lost)

    def _too_slow(self, now: float) -> bool:
        since = now - self._tolerance.slow_window_s
        ended = [slow for at, failed, slow in list(self._ended) if at >= since and not failed]
        slow = sum(ended)
        return slow >= self._tolerance.slow and slow >= self._tolerance.slow_share * len(ended)
