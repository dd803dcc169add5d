"""What a policy says beside its rules: who may ask what, how much of it, at which price, and examples to try it by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal, cast, get_args

from annotated_types import Gt, MinLen
from typing_extensions import override

from ..errors import ConfigurationError
from ..types import STRICT, Limits, Price, Share, Usd, is_number
from .rules import Name, Names, Need, Number, no_text
from .zones import zone_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Access(Limits):
    """What a role may ask for: only *models*, if that is said, and within these limits; an empty list is nothing at
    all. The role ``*`` is every role that no other entry names, and a request without a role."""

    __pydantic_config__: ClassVar = STRICT

    role: Annotated[Names, MinLen(1)]
    models: Names | None = None

    @override
    def __post_init__(self) -> None:
        Limits.__post_init__(self)
        no_text(self, "role", "models")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """What a provider, or one model, is sent at most; and *per_project*, of that, for each project at most. Requests
    that name no project are one project together."""

    __pydantic_config__: ClassVar = STRICT

    requests_per_minute: Annotated[int, Gt(0)] | None = None
    tokens_per_minute: Annotated[int, Gt(0)] | None = None
    concurrent: Annotated[int, Gt(0)] | None = None
    per_project: RateLimits | None = None

    def __post_init__(self) -> None:
        if self.per_project is not None and self.per_project.per_project is not None:
            raise ConfigurationError("limits: what is said per_project has no per_project of its own")


Scope = Literal["project", "role", "task", "process", "policy", "run"]
Period = Literal["call", "hour", "day", "week", "month", "total"]
WhenSpent = Literal["refuse", "degrade", "warn"]
WhenUnavailable = Literal["refuse", "allow"]
_CHOICES = {
    "scope": get_args(Scope),
    "per": get_args(Period),
    "when_spent": get_args(WhenSpent),
    "when_unavailable": get_args(WhenUnavailable),
}
"""Of a budget that is made in code: in a file they are looked at with all the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent for each project, role or task, by each process, or by all who use the policy, in each span of
    time, by the clocks of *zone*; per ``call``, it is a ceiling for each request. For each ``run`` it is for all of it:
    what begins within one ``with router.budget():``, the outermost, or else one request.

    When it is spent, requests fail (``refuse``), are passed to models that can still be paid or are free (``degrade``),
    or are answered all the same, with a warning (``warn``). *when_unavailable* says what becomes of them where the
    ledger can not be written, which runs do without.
    """

    __pydantic_config__: ClassVar = STRICT

    scope: Scope
    limit_usd: Annotated[Usd, Gt(0)]
    per: Period = cast("Period", None)  # a day, or all of a run
    when_spent: WhenSpent = "refuse"
    when_unavailable: WhenUnavailable = "refuse"
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.per is None:
            object.__setattr__(self, "per", "total" if self.scope == "run" else "day")
        for name, choices in _CHOICES.items():
            if (given := getattr(self, name)) not in choices:
                raise ConfigurationError(f"{name} of a budget is one of {', '.join(choices)}, not {given!r}")
        if not (is_number(self.limit_usd) and 0 < self.limit_usd < math.inf):
            raise ConfigurationError(f"limit_usd of a budget is a number above 0, not {self.limit_usd!r}")
        zone_of(self.zone)
        if self.per == "call" and self.when_spent == "warn":
            raise ConfigurationError("per: call is a ceiling that holds before a call is made: it can not warn")
        if self.scope == "run" and self.per != "total":
            told = f"scope: run is for all of a run, however long it takes, not per {self.per}: leave per out"
            raise ConfigurationError(told)

    @property
    def has_account(self) -> bool:
        """Whether it is spent over more than one request, by an account in the ledger."""
        return self.per != "call" and self.scope != "run"

    @property
    def limit_micros(self) -> int:
        """The limit in millionths of a USD."""
        return round(self.limit_usd * 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assume:
    """The price to reckon with where none is known."""

    __pydantic_config__: ClassVar = STRICT

    assume: Price


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What traces may show: prompts and answers only with *content*, and where the environment wants them too."""

    __pydantic_config__: ClassVar = STRICT

    content: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What a test wants decided. What is not said may be anything. *models* are those that are asked, in their order;
    *rejected* those that must not be among them; *fails* is the name of an error in place of a decision."""

    __pydantic_config__: ClassVar = STRICT

    rule: Name | None = None
    first: Name | None = None
    models: Names | None = None
    rejected: Names = ()
    fails: Literal["NoModelFits", "AccessDenied"] | None = None

    def __post_init__(self) -> None:
        decided = self.rule or self.first or self.models or self.rejected
        if not (decided or self.fails):
            raise ConfigurationError("expect says nothing: give rule, first, models, rejected or fails")
        if decided and self.fails:
            raise ConfigurationError("where it fails, no rule and no model is decided: leave one of them out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A request, and what is to be decided of it: a line of the section ``tests``."""

    __pydantic_config__: ClassVar = STRICT

    expect: Expect
    prompt: str = ""
    texts: Names = ()
    """Texts to embed, in place of a prompt."""
    system_prompt: str | None = None
    task: str | None = None
    project: str | None = None
    role: str | None = None
    tags: Names = ()
    needs: tuple[Need, ...] = ()
    complexity: Share | None = None
    """In place of what the analyzer makes of the prompt."""
    input_tokens: Annotated[int, Gt(0)] | None = None
    max_tokens: Annotated[int, Gt(0)] = 1000
    at: str | None = None
    """A moment in ISO 8601, for rules with a ``time_of_day``."""
    max_cost_usd: Usd | None = None
    max_expected_cost_usd: Usd | None = None
    max_latency_s: Number | None = None
    first_token_s: Number | None = None
    min_quality: Share | None = None

    def __post_init__(self) -> None:
        if self.prompt and self.texts:
            raise ConfigurationError("a test has a prompt, or texts to embed, not both")
        self.moment  # noqa: B018 - raises for what is none

    @property
    def moment(self) -> datetime | None:
        """When it is; without a zone in UTC."""
        if self.at is None:
            return None
        try:
            moment = datetime.fromisoformat(self.at)
        except ValueError:
            raise ConfigurationError(f"at is a moment as 2026-11-23T08:30, not {self.at!r}") from None
        if not datetime.min.year < moment.year < datetime.max.year:
            raise ConfigurationError(f"at is a moment of which every time zone has one, not {self.at}")
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
