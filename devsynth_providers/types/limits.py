"""What an answer may cost and how soon it must come: of a request, of a rule, and of both."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InvalidRequest
from .model import Seconds, Share, Usd

_NUMBERS = (int, float)
LIMITS = ("max_cost_usd", "max_expected_cost_usd", "max_latency_s", "first_token_s", "min_quality")
"""The fields of ``Limits``, which rules have too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the answer may cost and how soon it must come; ``None`` is no limit.

    *max_cost_usd* holds over all attempts, by the worst case of each: an answer as long as it may be.
    *max_expected_cost_usd* is for one answer of the length that is expected, and no promise. *max_latency_s* (the whole
    answer) and *first_token_s* (its start) are targets: models whose estimate misses them are not asked.
    """

    max_cost_usd: Usd | None = None
    max_expected_cost_usd: Usd | None = None
    max_latency_s: Seconds | None = None
    first_token_s: Seconds | None = None
    min_quality: Share | None = None

    def __post_init__(self) -> None:
        for name in LIMITS:
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 <= value < math.inf):  # also refuses NaN
                raise InvalidRequest(f"{name} must be a number from 0 on, not {value!r}")
        if self.min_quality is not None and self.min_quality > 1:
            raise InvalidRequest(f"min_quality is from 0 to 1, not {self.min_quality!r}")

    @property
    def given(self) -> dict[str, float]:
        """Those that limit anything, by their names."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    def tightest(self, other: Limits) -> Limits:
        """Both at once: the smaller ceiling, the higher floor."""
        if not other.given:
            return self
        return Limits(
            max_cost_usd=_least(self.max_cost_usd, other.max_cost_usd),
            max_expected_cost_usd=_least(self.max_expected_cost_usd, other.max_expected_cost_usd),
            max_latency_s=_least(self.max_latency_s, other.max_latency_s),
            first_token_s=_least(self.first_token_s, other.first_token_s),
            min_quality=max((q for q in (self.min_quality, other.min_quality) if q is not None), default=None),
        )


NO_LIMITS = Limits()


def is_number(value: object) -> bool:
    """Whether *value* is one; a truth value is none."""
    return isinstance(value, _NUMBERS) and type(value) is not bool


def _least(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)
