"""The limits of one provider or model, what has passed them, and how a refusal tightens them. Pure: told the time."""

from __future__ import annotations

import math

from ..policy import RateLimits
from .window import Charge, Window

FLOOR = 1 / 16
"""The share of the limits that refusals leave at least; of requests and of slots never less than one."""
RECOVERY_S = 120.0
"""How long answers must keep coming for the share to grow from nothing to all: half of it in a minute."""
CALM_S = 600.0
"""For so long after a refusal calls pass spread evenly over the minute: a provider that has just refused would refuse
a rush too."""
_SETTLES = 0.1


class Entry:
    """What one call takes at one gate."""

    __slots__ = ("at", "gate", "requests", "tokens")

    def __init__(self, gate: Gate, at: float, requests: Charge | None, tokens: Charge | None) -> None:
        self.gate = gate
        self.at = at
        self.requests = requests
        self.tokens = tokens


class Gate:
    """Says when a call may pass, and counts those that have.

    Additive increase, multiplicative decrease (Chiu and Jain 1989; RFC 5681): a refusal halves the *share* of all
    limits that holds, answers raise it again, evenly with the time over which they come. A refusal counts once for all
    calls that were under way at it, as a loss does once for a window of TCP (RFC 6582): only those that began after the
    last change for the worse say anything new. One that does not *adapt* is none of the provider's: its refusals say
    nothing of it.
    """

    def __init__(self, name: str, rates: RateLimits, *, adapts: bool = True) -> None:
        self.name = name
        self.adapts = adapts
        self.used_at = -math.inf
        """When the last call passed."""
        self.running = 0
        self.share = 1.0
        self.held_s: float | None = None
        """How long a call usually keeps its slot."""
        self._worse_at = -math.inf
        self._better_at = -math.inf
        self._requests: Window | None = None
        self._tokens: Window | None = None
        self.set(rates)

    def set(self, rates: RateLimits) -> None:
        """From now on *rates* hold. What has passed stays counted."""
        self.rates = rates
        self._requests = _window(self._requests, rates.requests_per_minute)
        self._tokens = _window(self._tokens, rates.tokens_per_minute)

    @property
    def slots(self) -> float:
        """How many calls may be under way at the moment."""
        most = self.rates.concurrent
        return math.inf if most is None else max(1, int(most * self.share))

    def free_at(self, now: float, tokens: int) -> float:
        """The soonest moment at which the next call may pass, *now* if at once; infinity if it waits for a slot."""
        return math.inf if self.running >= self.slots else self._by_the_clock(now, tokens, 0, 0)

    def expected_at(self, now: float, tokens: int, ahead: int, tokens_ahead: int) -> float:
        """When a call behind *ahead* others is likely to pass, if calls keep their slots as long as they usually do. Of
        those that have one now, nobody knows for how long yet: they are taken to be half through."""
        at = self._by_the_clock(now, tokens, ahead, tokens_ahead)
        before = self.running + ahead - self.slots
        if self.held_s is not None and before >= 0:
            at = max(at, now + (before + 0.5) / self.slots * self.held_s)
        return at

    def _by_the_clock(self, now: float, tokens: int, ahead: int, tokens_ahead: int) -> float:
        at = now
        evenly = now < self._worse_at + CALM_S
        if self._requests is not None:
            at = max(at, self._requests.free_at(now, 1, ahead, self.share, evenly=evenly))
        if self._tokens is not None:
            at = max(at, self._tokens.free_at(now, tokens, tokens_ahead, self.share, evenly=evenly))
        return at

    def enter(self, now: float, tokens: int) -> Entry:
        """Let a call pass that is expected to use so many *tokens*."""
        self.running += 1
        self.used_at = now
        requests = None if self._requests is None else self._requests.charge(now, 1)
        return Entry(self, now, requests, None if self._tokens is None else self._tokens.charge(now, tokens))

    def leave(self, entry: Entry, now: float) -> None:
        """The call has ended: its slot is free."""
        self.running -= 1
        took = max(0.0, now - entry.at)
        self.held_s = took if self.held_s is None else self.held_s + _SETTLES * (took - self.held_s)

    def undo(self, entry: Entry) -> None:
        """The call was never made."""
        self.running -= 1
        if self._requests is not None and entry.requests is not None:
            self._requests.undo(entry.requests)
        if self._tokens is not None and entry.tokens is not None:
            self._tokens.undo(entry.tokens)

    def used(self, entry: Entry, tokens: int) -> None:
        """The call used so many *tokens* in truth."""
        if self._tokens is not None and entry.tokens is not None:
            self._tokens.correct(entry.tokens, tokens)

    def refused(self, entry: Entry, now: float) -> None:
        """The provider refused the call for being asked too much."""
        if entry.at > self._worse_at:
            self.share = max(FLOOR, self.share / 2)
            self._worse_at = self._better_at = now

    def answered(self, entry: Entry, now: float) -> None:
        """The provider took the call."""
        if self.share < 1 and entry.at > self._worse_at:
            self.share = min(1.0, self.share + max(0.0, now - self._better_at) / RECOVERY_S)
            self._better_at = now


def _window(before: Window | None, limit: int | None) -> Window | None:
    if limit is None:
        if before is not None:
            before.end()
        return None
    if before is None:
        return Window(limit)
    before.limit = limit
    return before
