"""The circuits of all the servers that a program asks, and what its retries may be spent."""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..guard import Guard
from ..types import Identity
from .breaker import Breaker
from .budget import RetryBudget
from .circuit import Circuit
from .terms import Tolerance

WAITING = 64
"""Requests that wait at the same time for a server to come back; more are told at once when to come back."""
KEPT = 1024
"""Circuits kept though nobody uses them: of servers that are in no policy any more, or are not just now."""


def now() -> float:
    """Seconds by the clock of the running loop, which is the system's monotonic one unless a test brings its own."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class Health:
    """How servers have been of late: one circuit for each, one budget for retries, and one for hedges.

    A router has one of its own; routers that ask the same servers may share one, from any number of loops and threads.
    It outlives policies: where a server, its model and the credential are the same, so is the circuit. *chance* returns
    numbers from 0 to 1.
    """

    def __init__(
        self,
        tolerance: Tolerance = Tolerance(),
        *,
        clock: Callable[[], float] = now,
        chance: Callable[[], float] = random.random,
        waiting: int = WAITING,
    ) -> None:
        self._tolerance = tolerance
        self._clock = clock
        self._circuits: weakref.WeakValueDictionary[Identity, Circuit] = weakref.WeakValueDictionary()
        self._last: OrderedDict[Identity, Circuit] = OrderedDict()
        self._guard = Guard(self._nobody_waits)
        self._waiting = self._room = waiting
        self.chance = chance
        self.retries = RetryBudget(clock)
        self.hedges = RetryBudget(clock, floor_per_s=0.0, to_begin_with=0.0)

    def circuit(self, identity: Identity) -> Circuit:
        """The circuit of whoever *identity* is: the same one as long as anybody uses it, or it was used of late."""
        with self._guard:
            circuit = self._circuits.get(identity)
            if circuit is None:
                circuit = Circuit(Breaker(self._tolerance, chance=self.chance), self._clock)
                self._circuits[identity] = circuit
            self._last[identity] = circuit
            self._last.move_to_end(identity)
            if len(self._last) > KEPT:
                self._last.popitem(last=False)
            return circuit

    @contextmanager
    def waiting(self) -> Iterator[bool]:
        """Wait for a server inside this block, if what it gives is true: there is room for one more."""
        with self._guard:
            room = self._room > 0
            self._room -= room
        try:
            yield room
        finally:
            with self._guard:
                self._room += room

    def _nobody_waits(self) -> None:
        """In a forked child: those who wait do so in another process."""
        self._room = self._waiting
