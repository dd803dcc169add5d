"""One call's right to be made: waited for, held until the answer has ended, given back once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..timers import ring_at
from .gate import Entry, Gate
from .line import Caller, Where, Wish
from .queue import Place, Rank

if TYPE_CHECKING:
    from .entrance import Entrance


class Ticket:
    """Held by one call. Whoever drops it gives it back, too: a call that is forgotten keeps no slot for ever.

    *by* is the moment from which its turn would be of no use, on the clock of the *loop* that it waits in.
    """

    def __init__(self, entrance: Entrance, wish: Wish, by: float = math.inf) -> None:
        self.wish = wish
        self.by = by
        self.place: Place[Caller] | None = None
        self.rank: Rank | None = None
        self.entries: tuple[Entry, ...] = ()
        self.loop = asyncio.get_running_loop()
        self.turn: asyncio.Future[None] | None = None
        self.inside = False
        self._entrance = entrance
        self._given_back = False

    async def called(self) -> bool:
        """Wait for the turn. Whether it came in time; if not, the ticket is worth nothing."""
        if self.turn is None:
            return True
        timer = None if self.by == math.inf else ring_at(self.loop, self.by, wake, self.turn)
        try:
            await self.turn
        except BaseException:
            self.undo()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return self._entrance.is_in(self)

    async def again(self, where: Where, wait_s: float) -> bool:
        """The turn has come, but elsewhere there is no room *where* for *wait_s*: give it back, and wait for it anew,
        in the same place. Whether it came in time; if not, the ticket is worth nothing."""
        if self.loop.time() + wait_s > self.by:
            self.undo()
            return False
        self._entrance.send_back(self, where, wait_s)
        return await self.called()

    def undo(self) -> None:
        """The call is not made: out of the queue, or back with all that it was given."""
        self._give_back(lambda gate, entry, now: gate.undo(entry))

    def answered(self, tokens: int | None) -> None:
        """The call was answered, with so many *tokens* used, ``None`` if that is not known."""

        def settle(gate: Gate, entry: Entry, now: float) -> None:
            _leave(gate, entry, now, tokens)
            gate.answered(entry, now)

        self._give_back(settle)

    def failed(self, tokens: int | None) -> None:
        """The call came to nothing, or nobody knows to what."""
        self._give_back(lambda gate, entry, now: _leave(gate, entry, now, tokens))

    def refused(self, retry_after_s: float | None) -> None:
        """The provider is asked too much. Its narrowest gate is tightened: limits are mostly those of a model."""
        narrowest = next((entry for entry in self.entries if entry.gate.adapts), None)

        def settle(gate: Gate, entry: Entry, now: float) -> None:
            _leave(gate, entry, now, 0)
            if entry is narrowest:
                gate.refused(entry, now)

        self._give_back(settle, pause_s=retry_after_s or 0.0)

    def _give_back(self, settle: Callable[[Gate, Entry, float], None], *, pause_s: float = 0.0) -> None:
        if not self._given_back:
            self._given_back = True
            self._entrance.give_back(self, settle, pause_s=pause_s)

    def __del__(self) -> None:
        if not getattr(self, "_given_back", True):
            self.failed(None)


def wake(turn: asyncio.Future[None]) -> None:
    """On its own loop: whoever waits for *turn* looks what has become of it."""
    if not turn.done():
        turn.set_result(None)


def _leave(gate: Gate, entry: Entry, now: float, tokens: int | None) -> None:
    gate.leave(entry, now)
    if tokens is not None:
        gate.used(entry, tokens)
