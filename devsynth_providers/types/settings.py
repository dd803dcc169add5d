"""How long to wait, and how often to try: settings that a policy may carry and a layer obeys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from .model import STRICT, PositiveSeconds, Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The four clocks, in seconds: to connect, to the first content of a stream, between two pieces of it, and
    for the whole request over all its attempts."""

    __pydantic_config__: ClassVar = STRICT

    connect_s: PositiveSeconds = 5.0
    first_token_s: PositiveSeconds = 20.0
    idle_s: PositiveSeconds = 15.0
    total_s: PositiveSeconds = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often to ask one model, and how long to wait between.

    *attempts* counts all of them, the first too. Waits are drawn from 0 to a bound that starts at *initial_s* and
    doubles up to *cap_s* ("full jitter", AWS Architecture Blog, 2015), so that callers do not return in step.
    """

    __pydantic_config__: ClassVar = STRICT

    attempts: Annotated[int, Interval(ge=1, le=20)] = 3
    initial_s: Seconds = 0.5
    cap_s: Seconds = 8.0
