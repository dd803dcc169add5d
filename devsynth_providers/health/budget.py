"""What calls beside the first of a request may be spent: a share of the requests, so that an outage is not answered
with more load."""

from __future__ import annotations

from collections.abc import Callable

from ..guard import Guard

FLOOR_PER_S = 0.2
"""Retries in a second that are allowed however few requests there are."""
MOST = 10.0
"""Retries that can be saved up, and that there are to begin with."""


class RetryBudget:
    """A bucket of retries: requests put a share of one in, time a little, and each retry takes one out.

    Any thread may call any method. *clock* counts seconds. Without the *floor_per_s* that time puts in, and what there
    is *to_begin_with*, it is never more than the share: so for calls that are made twice only to be faster.
    """

    def __init__(
        self, clock: Callable[[], float], *, floor_per_s: float = FLOOR_PER_S, to_begin_with: float = MOST
    ) -> None:
        self._clock = clock
        self._guard = Guard()
        self._floor_per_s = floor_per_s
        self._left = to_begin_with
        self._at: float | None = None

    def earn(self, share: float) -> None:
        """A request has come; *share* of the requests may be followed by a retry."""
        with self._guard:
            self._left = min(MOST, self._left + share)

    def spend(self) -> bool:
        """Take one retry out. False if there is none."""
        now = self._clock()
        with self._guard:
            passed_s = 0.0 if self._at is None else max(0.0, now - self._at)
            self._at = now
            self._left = min(MOST, self._left + passed_s * self._floor_per_s)
            if self._left < 1:
                return False
            self._left -= 1
            return True
