"""The circuits of all the servers that a program asks, and what its retries may be spent."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..types import Identity
from .breaker import Breaker, Tolerance
from .budget import RetryBudget
from .circuit import Circuit
from .guard import Guard

WAITING = 64
"""Requests that wait at the same time for a server to come back; more are told at once when to come back."""


def now() -> float:
    """Seconds by the clock of the running loop, which is the system's monotonic one unless a test brings its own."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class Health:
    """How servers have been of late: one circuit for each, and one budget for retries.

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
        self._circuits: dict[Identity, Circuit] = {}
        self._guard = Guard()
        self._room = waiting
        self.chance = chance
        self.retries = RetryBudget(clock)

    def circuit(self, identity: Identity) -> Circuit:
        """The circuit of whoever *identity* is; always the same one."""
        with self._guard:
            if identity not in self._circuits:
                self._circuits[identity] = Circuit(Breaker(self._tolerance, chance=self.chance), self._clock)
            return self._circuits[identity]

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
