"""One provider's gates, and the queue before them. Pure: told the time, waits for nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..policy import RateLimits
from .gate import Entry, Gate
from .queue import FairQueue, Place, Rank
from .turnstile import Turnstile

NO_LIMITS = RateLimits()
LONGEST_PAUSE_S = 3600.0
"""A provider that wants to be left alone for longer is believed so much."""

AGAIN_S = 5.0
"""Who was sent back tries again after so long at most: calls that end elsewhere used less than they were taken to."""


class _Any:
    """Every lane, or every project; ``None`` is the project of those who name none."""


ANY = _Any()
Lane = str | _Any
"""A model, or all of them."""
Where = tuple[Lane, str | _Any | None]
"""A lane, and a project in it."""
Closed = set[Where]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a call would do: ask *model*, for *project*, with so many *tokens* at most."""

    model: str
    project: str | None = None
    tokens: int = 0


class _Back(NamedTuple):
    """Where there was no room elsewhere for somebody whose turn it was, until when that is likely to stay so, and when
    to try again."""

    where: Where
    until: float
    again_at: float


class Caller(Protocol):
    """Whoever stands in the line."""

    wish: Wish
    place: Place[Caller] | None
    rank: Rank | None
    """Where it stood before its turn had come."""
    entries: tuple[Entry, ...]
    inside: bool
    """Whether its turn has come."""


class Line:
    """Calls to one provider pass its gate, and before it that of their model, where these have limits; and before each
    of them that of their project.

    They pass in their turn and all gates at once. Nobody overtakes at a gate that is closed: a call that needs many
    tokens gets them. A call that waits for its model only lets those for other models by, and one that waits for its
    project those of others; so it does while the provider wants to be left alone, which it says of one model.

    Whose turn has come, and who finds no room elsewhere, is sent back to where it stood, and gives back all that it
    took. Until it may try again it holds up those whom a gate of ours would that is closed to such calls.
    """

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.queue: FairQueue[Caller] = FairQueue()
        self.next_at = math.inf
        """When somebody in the queue may pass though nothing happens until then."""
        self._whole: Turnstile | None = None
        self._models: dict[str, Turnstile] = {}
        self._paused: dict[str, float] = {}
        self._back: dict[Caller, _Back] = {}

    def set(self, whole: RateLimits | None, models: Mapping[str, RateLimits]) -> None:
        """From now on these limits hold. Who waits keeps the place, what has passed is counted."""
        self._whole = _set(self._whole, self.provider, whole)
        for name in models.keys() | self._models.keys():
            turnstile = _set(self._models.get(name), name, models.get(name))
            if turnstile is not None:
                self._models[name] = turnstile
        self._back.clear()  # elsewhere, too, there may be more room by these

    def gates(self, wish: Wish) -> tuple[Gate, ...]:
        """What a call passes, the narrowest first."""
        return tuple(gate for gate, _ in self._passes(wish))

    def _passes(self, wish: Wish) -> list[tuple[Gate, Where]]:
        """The gates, each with those that it holds up when it is closed."""
        passes: list[tuple[Gate, Where]] = []
        for turnstile, lane in ((self._models.get(wish.model), wish.model), (self._whole, ANY)):
            if turnstile is not None:
                if (own := turnstile.of(wish.project)) is not None:
                    passes.append((own, (lane, wish.project)))
                passes.append((turnstile.gate, (lane, ANY)))
        return passes

    def expected(self, wish: Wish, now: float) -> tuple[float, Gate | None]:
        """When the turn of a call that joins now would come, as things go, and at which gate it would wait longest."""
        queue = self.queue
        paused = self.paused_until(wish)
        expected: tuple[float, Gate | None] = now, None
        for gate, where in self._passes(wish):
            (lane, project), back = where, self.back_until(where)
            ahead = tokens = 0
            if queue:
                count = queue.ahead if project is ANY else queue.own
                ahead = count(wish.project, None if lane is ANY else wish.model)
                tokens = queue.size * ahead // len(queue)
            at = max(paused, back, gate.expected_at(now, wish.tokens, ahead, tokens))
            shut = ahead > 0 or gate.free_at(now, wish.tokens) > now
            if at > expected[0] or (shut and expected[1] is None):
                expected = at, gate
        return expected

    def usually_s(self, wish: Wish) -> float:
        """How long calls like this one are under way, as far as is known."""
        return max([gate.held_s or 0.0 for gate in self.gates(wish)], default=0.0)

    def paused_until(self, wish: Wish) -> float:
        """The moment before which the provider has asked to be left alone."""
        return self._paused.get(wish.model, -math.inf)

    def back_until(self, where: Where) -> float:
        """The moment before which nobody passes *where*, because some were sent back who wait there."""
        return max((each.until for each in self._back.values() if each.where == where), default=-math.inf)

    def barred_until(self, wish: Wish) -> float:
        """The moment before which no call like this one passes, whatever gates may say."""
        return max([self.paused_until(wish), *(self.back_until(where) for _, where in self._passes(wish))])

    def pause(self, wish: Wish, now: float, seconds: float) -> None:
        """The provider wants to be left alone for so many *seconds*, by calls like this one."""
        if seconds > 0:
            until = now + min(seconds, LONGEST_PAUSE_S)
            self._paused[wish.model] = max(until, self.paused_until(wish))

    def counts_tokens(self, model: str) -> bool:
        """Whether any limit that a call to *model* passes is one of tokens."""
        return any(each is not None and each.counts_tokens for each in (self._models.get(model), self._whole))

    def pass_at_once(self, caller: Caller, now: float) -> bool:
        """Let *caller* pass if nobody waits and all gates are open. Whether it did."""
        wish = caller.wish
        gates = self.gates(wish)
        if self.queue or self.paused_until(wish) > now or any(gate.free_at(now, wish.tokens) > now for gate in gates):
            return False
        caller.inside, caller.entries = True, tuple([gate.enter(now, wish.tokens) for gate in gates])
        caller.rank = self.queue.passed()
        return True

    def join(self, caller: Caller) -> None:
        """Put *caller* at the end; ``admit`` lets it pass."""
        wish = caller.wish
        caller.place = self.queue.join(caller, wish.model, wish.project, wish.tokens)

    def drop(self, caller: Caller) -> bool:
        """Let *caller* leave the queue. Whether it was in it."""
        place, caller.place = caller.place, None
        self._back.pop(caller, None)
        return place is not None and self.queue.leave(place)

    def send_back(self, caller: Caller, where: Where, now: float, wait_s: float) -> None:
        """Put *caller*, whose turn it was, where it stood: it seems that *where* there is no room for *wait_s*."""
        wish = caller.wish
        for entry in caller.entries:
            entry.gate.undo(entry)
        caller.inside, caller.entries = False, ()
        caller.place = self.queue.join(caller, wish.model, wish.project, wish.tokens, caller.rank)
        self._back[caller] = _Back(where, now + wait_s, now + min(wait_s, AGAIN_S))

    def ended(self, now: float) -> None:
        """A call has: that may have made room elsewhere, for the first of those who were sent back."""
        for place in self.queue.heads() if self._back else ():
            back = self._back.get(place.item)
            if back is not None and back.again_at > now:
                self._back[place.item] = _Back(back.where, now, now)
                return

    def admit(self, now: float) -> list[Caller]:
        """Let everybody pass whose turn it is now."""
        self.next_at = math.inf
        closed = Closed()
        admitted: list[Caller] = []
        while (caller := self._first(now, closed)) is not None:
            admitted.append(caller)
        return admitted

    def _first(self, now: float, closed: Closed) -> Caller | None:
        """Let pass who is the first of those for whom it is open. Whom others wait behind is added to *closed*."""
        for place in self.queue.heads():
            lane, project, caller = place.lane, place.project, place.item
            if not closed.isdisjoint(((ANY, ANY), (lane, ANY), (ANY, project), (lane, project))):
                continue
            passes = self._passes(caller.wish)
            waits = [(gate.free_at(now, caller.wish.tokens), where) for gate, where in passes]
            if (back := self._back.get(caller)) is not None:
                waits.append((back.again_at, back.where))
            paused_until = self.paused_until(caller.wish)
            at = max([now, paused_until, *(moment for moment, _ in waits)])
            if at <= now:
                self._back.pop(caller, None)
                caller.place, caller.inside, caller.rank = None, True, self.queue.take(place)
                caller.entries = tuple(gate.enter(now, caller.wish.tokens) for gate, _ in passes)
                return caller
            self.next_at = min(self.next_at, at)
            closed.update(where for moment, where in waits if moment > now)
            if paused_until > now:
                closed.add((lane, ANY))
        return None


def _set(turnstile: Turnstile | None, name: str, rates: RateLimits | None) -> Turnstile | None:
    if turnstile is None:
        return None if rates is None else Turnstile(name, rates)
    turnstile.set(rates or NO_LIMITS)
    return turnstile
