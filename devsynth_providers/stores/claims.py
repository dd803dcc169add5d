"""Leave to make a call that others may want to make at the same time, in other processes too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

OVER_S = 2.0
"""For so long it is known that a call is over: who waited for it looks for its answer, and need not make a claim."""
OVER = "over"
TAG = "claim"
"""What tells claims from answers where both are kept in one table."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Leave to make a call. *own* says that nobody else has it: without that, others may have made the call meanwhile,
    and what is to be asked for may be there. ``done`` is said when the call has ended, whatever came of it."""

    own: bool = False
    done: Callable[[], None] = lambda: None


ALONE = Claim(own=True)
"""For a call that nobody else waits for."""
