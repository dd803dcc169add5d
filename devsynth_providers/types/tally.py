"""What one request has come to so far: shared by all its attempts, also by those under way at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answer import Attempt


class Tally:
    """Numbers the attempts of a request, keeps those that have ended, and knows what all of them may have cost."""

    __slots__ = ("_attempts", "_held_micros", "begun")

    def __init__(self) -> None:
        self.begun = 0
        """How many attempts have begun."""
        self._attempts: list[Attempt] = []
        self._held_micros = 0

    def number(self) -> int:
        """The number of an attempt that begins now, from 1."""
        self.begun += 1
        return self.begun

    def ended(self, attempt: Attempt) -> None:
        """It has ended, however it did."""
        self._attempts.append(attempt)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Those that have ended, in the order in which they did."""
        return tuple(self._attempts)

    @property
    def spent_micros(self) -> int:
        """What all attempts may have cost at most, with what is held for those that have not ended."""
        return self._held_micros + sum(attempt.worst_micros or 0 for attempt in self._attempts)

    def hold(self, micros: int) -> None:
        """Set *micros* aside for an attempt that begins; a negative number gives back what was, when it has ended."""
        self._held_micros += micros
