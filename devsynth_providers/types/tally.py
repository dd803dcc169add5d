"""What one request has come to so far: shared by all its attempts, also by those under way at the same time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from .run_budget import RunBudget

if TYPE_CHECKING:
    from .answer import Attempt, Vector


class Tally:
    """Numbers the attempts of a request, keeps those that have ended, and knows what all of them may have cost."""

    __slots__ = ("_attempts", "_held_micros", "_run", "begun", "vectors")

    def __init__(self) -> None:
        self.begun = 0
        """How many attempts have begun."""
        self.vectors: dict[tuple[str, str], Vector] = {}
        """What came of a batch that failed in part, by the vector space and the text: if the request is decided anew,
        those texts are not asked for again."""
        self._attempts: list[Attempt] = []
        self._held_micros = 0
        self._run: RunBudget | None = None

    @property
    def run(self) -> RunBudget:
        """The request as a run by itself, for one that began in none."""
        if self._run is None:
            self._run = RunBudget(owner=None)
        return self._run

    def number(self) -> int:
        """The number of an attempt that begins now, from 1."""
        self.begun += 1
        return self.begun

    def unmade(self, number: int) -> None:
        """The attempt that had this *number* was not made: the next may have it, unless another has begun since."""
        if number == self.begun:
            self.begun -= 1

    def ended(self, attempt: Attempt) -> None:
        """It has ended, however it did."""
        self._attempts.append(attempt)

    def take_over(self, attempts: Iterable[Attempt]) -> None:
        """*attempts* were another request's, and are told by this one, and paid: by the numbers that they have, where
        those are not taken."""
        for attempt in attempts:
            self.begun = max(self.begun + 1, attempt.number)
            self._attempts.append(replace(attempt, number=self.begun))
            self.run.count(attempt.cost_micros or 0, attempt.usage.input_tokens + attempt.usage.output_tokens, calls=1)

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
