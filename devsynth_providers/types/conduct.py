"""How a plan is carried out where a model is slow, breaks off or refuses: what a rule says beside whom to ask."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from ..errors import ConfigurationError
from .model import STRICT, PositiveSeconds, Share

Quantile = Literal["p50", "p75", "p90", "p95", "p99"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """Ask the next model too, when the first has not begun after so long; whoever begins first answers.

    *after* is a share of the model's own answers, as measured of late, or seconds. *max_extra* is the share of a
    router's requests that may be asked twice for it.
    """

    __pydantic_config__: ClassVar = STRICT

    after: Quantile | PositiveSeconds = "p95"
    max_extra: Share = 0.05

    def __post_init__(self) -> None:
        if isinstance(self.after, int | float) and not 0 < self.after < math.inf:
            raise ConfigurationError(f"hedge: after is p50, p75, p90, p95, p99, or seconds, not {self.after!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Keep whole answers for *ttl_s* seconds, and give them to equal requests of the same project and role. *sampled*
    says that those at a temperature above 0 are kept too, though another call would bring another answer."""

    __pydantic_config__: ClassVar = STRICT

    ttl_s: Annotated[float, Interval(gt=0, le=31_536_000)] = 3600.0
    sampled: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.ttl_s, bool) or not 0 < self.ttl_s < math.inf:
            raise ConfigurationError(f"cache: ttl_s is a number of seconds above 0, not {self.ttl_s!r}")


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """*on_break* says what a stream does that is cut after its first text, *coalesce* which of equal requests under way
    share one answer (``auto``: those that would get the same one), *join_embeddings_s* for how long texts to embed wait
    for those of others, to be asked for in one request, *on_content_filter* whether a prompt that one model
    refuses is shown to the next, *on_auth* whether the next is asked where a key is refused."""

    on_break: Literal["raise", "continue"] = "raise"
    hedge: Hedge | None = None
    coalesce: Literal["auto", "always", "never"] = "auto"
    join_embeddings_s: Annotated[float, Interval(ge=0, le=1)] | None = None
    cache: Keep | None = None
    on_content_filter: Literal["raise", "next"] = "raise"
    on_auth: Literal["next", "raise"] = "next"

    def __post_init__(self) -> None:
        wait_s = self.join_embeddings_s
        if wait_s is not None and (isinstance(wait_s, bool) or not 0 <= wait_s <= 1):
            raise ConfigurationError(f"join_embeddings_s is a number of seconds from 0 to 1, not {wait_s!r}")

    @property
    def stops_at(self) -> frozenset[str]:
        """The kinds of errors after which no other model is asked, of those that are for the policy to say."""
        stops = {"content_filtered": self.on_content_filter == "raise", "authentication": self.on_auth == "raise"}
        return frozenset(kind for kind, stop in stops.items() if stop)

    def shares(self, *, sampled: bool) -> bool:
        """Whether equal requests under way share one answer, which is drawn by chance if *sampled*."""
        return self.coalesce == "always" or (self.coalesce == "auto" and not sampled)

    @property
    def unusual(self) -> dict[str, str]:
        """What is not as it is where a rule says nothing, in words for people."""
        told = {
            each.name: getattr(self, each.name) for each in fields(Conduct) if getattr(self, each.name) != each.default
        }
        if self.cache is not None:
            told["cache"] = f"for {self.cache.ttl_s:g} s" + (", sampled answers too" if self.cache.sampled else "")
        if self.hedge is not None:
            told["hedge"] = f"after {self.hedge.after}" + (" s" if not isinstance(self.hedge.after, str) else "")
        return told
