"""The line before one provider, for all threads and event loops that call it."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from ..policy import RateLimits
from ..timers import ring_at
from .gate import Entry, Gate
from .line import Line, Where, Wish
from .ticket import Ticket, wake

BRIEF_S = 1.0
"""A wait that is longer by less is not worth looking at all who wait."""
TICK_S = 1e-6
"""So much later than planned an alarm rings: loops ring up to their clock's resolution too soon."""

Settle = Callable[[Gate, Entry, float], None]


class _Loop:
    """How many wait in one event loop, and when it is to look again. Every loop has an alarm: none relies on another
    that may be busy."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[Callable[[], float]], None]) -> None:
        self.waiting = 0
        self.at = math.inf
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self) -> None:
        """On the loop itself."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self.at == math.inf else ring_at(self._loop, self.at + TICK_S, self._rings)

    def _rings(self) -> None:
        self._timer, self.at = None, math.inf
        self._ring(self._loop.time)


class Entrance:
    """A ``Line`` that many may use at once.

    Tickets come back from anywhere, the garbage collector included, which may run in a thread that holds the lock:
    what is to be done is put into a list, and done by whoever has the lock, or gets it. Nothing waits under the lock.
    """

    def __init__(self, provider: str) -> None:
        self._line = Line(provider)
        self._lock = threading.Lock()
        self._mail: deque[Callable[[float], None]] = deque()
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}

    def set(self, whole: RateLimits | None, models: Mapping[str, RateLimits]) -> None:
        """From now on these limits hold, for those who wait too."""
        with self._lock:
            self._line.set(whole, models)
            loops = list(self._loops)
        if loops:
            self._look(loops[0].time)

    def counts_tokens(self, model: str) -> bool:
        """Whether any limit for *model* is one of tokens."""
        return self._line.counts_tokens(model)

    def join(self, wish: Wish, by: float = math.inf) -> tuple[Ticket | None, float, str]:
        """A ticket, whose turn may have come, or ``None`` if it would wait too long to be done by *by*; with the
        seconds it would wait as things go, and the name of the gate that it would wait at."""
        loop = asyncio.get_running_loop()
        ticket = Ticket(self, wish, by)
        expected_s, name = 0.0, ""
        with self._lock:
            now = loop.time()
            if not self._line.pass_at_once(ticket, now):
                at, gate = self._line.expected(wish, now)
                expected_s, name = at - now, "" if gate is None else gate.name
                done_at = at if at <= now else at + self._line.usually_s(wish)  # who need not wait may try anyway
                self._wait(ticket, loop, now, too_late=done_at > by)
        self._work(loop.time)
        return ticket if ticket.inside or ticket.turn is not None else None, expected_s, name

    def _wait(self, ticket: Ticket, loop: asyncio.AbstractEventLoop, now: float, *, too_late: bool) -> None:
        """In the queue, unless its turn comes at once: all who are before it may wait for what it need not pass."""
        self._line.join(ticket)
        self._let_in(now)
        if not ticket.inside and too_late:
            self._line.drop(ticket)
        elif not ticket.inside:
            ticket.turn = loop.create_future()
            self._enrol(loop, 1)
        self._set_alarms()

    def is_in(self, ticket: Ticket) -> bool:
        """Whether the turn of *ticket* has come; if not, it leaves the queue."""
        with self._lock:
            self._drop(ticket)
        self._look(ticket.loop.time)
        return ticket.inside

    def send_back(self, ticket: Ticket, where: Where, wait_s: float) -> None:
        """The turn of *ticket* is to come anew: elsewhere there is no room *where* for *wait_s*."""
        with self._lock:
            now = ticket.loop.time()
            news = now + wait_s > max(now, self._line.back_until(where)) + BRIEF_S
            self._line.send_back(ticket, where, now, wait_s)
            ticket.turn = ticket.loop.create_future()
            self._enrol(ticket.loop, 1)
            if news:
                self._send_away()
            self._let_in(now)
            self._set_alarms()
        self._work(ticket.loop.time)

    def give_back(self, ticket: Ticket, settle: Settle, *, pause_s: float = 0.0) -> None:
        """The call of *ticket* has ended, or will not be made; for *pause_s* no other is to follow it."""

        def settled(now: float) -> None:
            if not self._drop(ticket) and ticket.entries:  # else it was refused, and never made
                for entry in ticket.entries:
                    settle(entry.gate, entry, now)
                self._line.ended(now)
            if pause_s and ticket.entries:
                self._line.pause(ticket.wish, now, pause_s)
                self._send_away()

        self._mail.append(settled)
        self._work(ticket.loop.time)

    def _look(self, clock: Callable[[], float]) -> None:
        """See who may pass now."""
        self._mail.append(_nothing)
        self._work(clock)

    def _work(self, clock: Callable[[], float]) -> None:
        """Do what is in the mail, unless somebody is at it, who will then see it."""
        while self._mail and self._lock.acquire(blocking=False):
            try:
                now = clock()
                while self._mail:
                    self._mail.popleft()(now)
                self._let_in(now)
                self._set_alarms()
            finally:
                self._lock.release()

    def _let_in(self, now: float) -> None:
        """Tell everybody whose turn it is. Who can not be told, because the loop is closed, has left."""
        gone = True
        while gone:
            gone = False
            for caller in self._line.admit(now):
                if isinstance(caller, Ticket) and caller.turn is not None:
                    self._enrol(caller.loop, -1)
                    if not _wake(caller):
                        gone = True
                        for entry in caller.entries:
                            entry.gate.undo(entry)
                        caller.entries = ()

    def _set_alarms(self) -> None:
        for loop, alarm in self._loops.items():
            if self._line.next_at < alarm.at:
                alarm.at = self._line.next_at
                _call(loop, alarm.set)

    def _send_away(self) -> None:
        """Tell those whose turn can not come in time any more, because the provider wants to be left alone, or has no
        room left by others."""
        for caller in list(self._line.queue):
            if isinstance(caller, Ticket) and self._line.barred_until(caller.wish) > caller.by:
                self._drop(caller)
                _wake(caller)

    def _drop(self, ticket: Ticket) -> bool:
        if not self._line.drop(ticket):
            return False
        if ticket.turn is not None:
            self._enrol(ticket.loop, -1)
        return True

    def _enrol(self, loop: asyncio.AbstractEventLoop, change: int) -> None:
        alarm = self._loops.get(loop)
        if alarm is None:
            alarm = self._loops[loop] = _Loop(loop, self._look)
        alarm.waiting += change
        if not alarm.waiting:
            del self._loops[loop]
            if alarm.at < math.inf:
                alarm.at = math.inf
                _call(loop, alarm.set)


def _wake(ticket: Ticket) -> bool:
    """Have *ticket* look what has become of it. Whether its loop is still there."""
    return ticket.turn is None or _call(ticket.loop, partial(wake, ticket.turn))


def _call(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> bool:
    """Have *work* done by *loop*. Whether it is still there to do it."""
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    try:
        if here is loop:
            loop.call_soon(work)
        else:
            loop.call_soon_threadsafe(work)
    except RuntimeError:
        return False
    return True


def _nothing(now: float) -> None:
    """To look is all there is to do."""
