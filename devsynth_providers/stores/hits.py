"""Answers out of the cache that a ledger has been told of, and has not written yet: they are counted until it does."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from ..guard import Guard
from .entries import Hit

MINUTE_S = 60
_log = logging.getLogger("devsynth_providers")


class Hits:
    """Counts by whoever asked and the minute. Any thread may add to it; what a parent has added, its child forgets."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[int, Hit]]()
        self._guard = Guard(self._forget)
        self._warned = False

    def add(self, at: float, hit: Hit) -> bool:
        """Whether it is the first since the others were taken."""
        minute = int(at // MINUTE_S) * MINUTE_S
        with self._guard:
            first = not self._counts
            self._counts[minute, hit] += 1
        return first

    def take(self) -> Mapping[tuple[int, Hit], int]:
        """How often each came, from which minute on (seconds since 1970). They are forgotten here."""
        with self._guard:
            counts, self._counts = self._counts, Counter()
        return counts

    def lost(self, error: Exception) -> None:
        """They could not be written: that is said once, and fails nobody."""
        if not self._warned:
            self._warned = True
            _log.warning("answers out of the cache are not counted in the ledger: %s", error)

    def _forget(self) -> None:
        self._counts = Counter()
