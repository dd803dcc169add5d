"""What a breaker goes by, what it is told and what it says: values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """When a server is left alone, and for how long. All times are in seconds.

    It is where, of the attempts that ended within *window_s*, at least *failures* and at least *failure_share* of all
    failed; or where within *slow_window_s* at least *slow* and *slow_share* were slow. It is left alone for *open_s*
    the first time, twice as long each next time, up to *cap_s*, less up to a quarter by chance. What a server asks for
    itself is granted up to *longest_s*.
    """

    window_s: float = 30.0
    failures: int = 5
    failure_share: float = 0.5
    slow_window_s: float = 120.0
    slow: int = 10
    slow_share: float = 0.8
    open_s: float = 2.0
    cap_s: float = 60.0
    longest_s: float = 3600.0


class Verdict(NamedTuple):
    """What an attempt that has ended says of the server. Neither *good* nor bad is no verdict at all.

    *hold_s* is how long the server is to be left alone by its own word; *at_once* says that no other failure need be
    waited for.
    """

    good: bool = False
    bad: bool = False
    slow: bool = False
    reason: str = ""
    hold_s: float = 0.0
    at_once: bool = False


NEUTRAL = Verdict()


class Pass:
    """Leave to make one attempt. *era* tells attempts that began before the last change from those after."""

    __slots__ = ("era", "probe")

    def __init__(self, era: int, *, probe: bool = False) -> None:
        self.era = era
        self.probe = probe
