"""What a rule says: for which requests, which models, in which order, within which limits. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Len, MinLen
from typing_extensions import override

from ..errors import ConfigurationError
from ..types import STRICT, Ability, Conduct, Limits
from .facts import Conditions, Facts
from .zones import zone_of

Order = Literal["listed", "cheapest", "fastest", "best"]
Name = Annotated[str, MinLen(1)]
Names = tuple[Name, ...]
Need = Literal[Ability, "streaming"]
Modality = Literal["text", "vision", "audio", "embeddings"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Number = Annotated[float, Ge(0)]

_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers above *above*, below *below*, and from the first to the second of *between*. The bounds of *between* are
    inside, the others outside."""

    __pydantic_config__: ClassVar = STRICT

    above: Number | None = None
    below: Number | None = None
    between: Annotated[tuple[Number, ...], Len(2, 2)] | None = None

    def holds(self, number: float) -> bool:
        """Whether *number* is one of them."""
        return (
            (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
            and (self.between is None or self.between[0] <= number <= self.between[1])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeOfDay:
    """From *from_* on and before *to*, both as ``HH:MM`` in *zone*; past midnight if *to* is the earlier. The days are
    those on which it begins."""

    __pydantic_config__: ClassVar = STRICT

    from_: str = "00:00"
    to: str = "24:00"
    zone: str = "UTC"
    days: tuple[Day, ...] = _DAYS

    def __post_init__(self) -> None:
        if _minutes(self.from_) == _minutes(self.to):
            raise ConfigurationError("from and to are the same moment; for the whole day leave both out")
        zone_of(self.zone)

    @property
    def on_the_quarter(self) -> bool:
        """Whether it begins and ends at a quarter of an hour."""
        return not (_minutes(self.from_) % 15 or _minutes(self.to) % 15)

    def there(self, now: datetime) -> datetime:
        """*now* by the clocks of the zone."""
        return now.astimezone(zone_of(self.zone))

    def holds(self, now: datetime | None) -> bool:
        """Whether *now*, which knows its time zone, is in it."""
        if now is None:
            return False
        minute, day = _clock(self.zone, int(now.timestamp()) // 60)
        begin, end = _minutes(self.from_), _minutes(self.to)
        if begin < end:
            return begin <= minute < end and _DAYS[day] in self.days
        if minute >= begin:
            return _DAYS[day] in self.days
        return minute < end and _DAYS[day - 1] in self.days


@lru_cache(maxsize=64)
def _clock(zone: str, minute: int) -> tuple[int, int]:
    """The minute of the day and the day of the week in *zone*, so many minutes after 1970: the same for all rules."""
    there = datetime.fromtimestamp(minute * 60, zone_of(zone))
    return there.hour * 60 + there.minute, there.weekday()


def no_text(owner: object, *names: str) -> None:
    """Refuse a text where a tuple of them is meant: every letter of it would count as a name."""
    for name in names:
        if isinstance(getattr(owner, name), str):
            raise ConfigurationError(f"{name} is a tuple of names, not a text: ({getattr(owner, name)!r},)")


@cache
def _minutes(clock: str) -> int:
    hours, colon, minutes = clock.partition(":")
    right = colon and len(hours) == len(minutes) == 2 and (hours + minutes).isascii() and (hours + minutes).isdigit()
    total = int(hours) * 60 + int(minutes) if right else -1
    if not right or int(minutes) > 59 or total > 24 * 60:
        raise ConfigurationError(f"a time of day is written as 08:30, up to 24:00, not {clock!r}")
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """What a request must be like for a rule to decide; everything that is said must hold.

    Of several names, one is enough; of several needs, all must be there. *all*, *any* and *not_* put further ones
    together.
    """

    __pydantic_config__: ClassVar = STRICT

    complexity: Range | None = None
    input_tokens: Range | None = None
    task: Names = ()
    tags: Names = ()
    project: Names = ()
    role: Names = ()
    needs: tuple[Need, ...] = ()
    modality: tuple[Modality, ...] = ()
    time_of_day: TimeOfDay | None = None
    all: tuple[When, ...] = ()
    any: tuple[When, ...] = ()
    not_: When | None = None

    def __post_init__(self) -> None:
        no_text(self, "task", "tags", "project", "role", "needs", "modality")
        if "*" in self.role:
            raise ConfigurationError("'*' is no role here: without role, a rule is for all of them")

    @property
    def everything(self) -> bool:
        """Whether it says nothing, so that every request is like this."""
        return self == _ALWAYS

    def holds(self, facts: Facts, conditions: Conditions = Conditions()) -> bool:
        """Whether a request with these *facts* is like this."""
        return (
            (not self.task or facts.task in self.task)
            and (self.complexity is None or self.complexity.holds(facts.complexity))
            and (self.input_tokens is None or self.input_tokens.holds(facts.input_tokens))
            and (not self.tags or any(tag in self.tags for tag in facts.tags))
            and (not self.project or facts.project in self.project)
            and (not self.role or facts.role in self.role)
            and (not self.needs or all(_needed(need, facts) for need in self.needs))
            and (not self.modality or facts.modality in self.modality)
            and (self.time_of_day is None or self.time_of_day.holds(conditions.now))
            and (not self.all or all(each.holds(facts, conditions) for each in self.all))
            and (not self.any or any(each.holds(facts, conditions) for each in self.any))
            and (self.not_ is None or not self.not_.holds(facts, conditions))
        )


_ALWAYS = When()


def _needed(need: str, facts: Facts) -> bool:
    return facts.streaming if need == "streaming" else need in facts.needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each of three things counts when models are put in order: how good, how cheap, how fast."""

    __pydantic_config__: ClassVar = STRICT

    quality: Number = 0.0
    cost: Number = 0.0
    latency: Number = 0.0

    def __post_init__(self) -> None:
        if not self.quality + self.cost + self.latency > 0:
            raise ConfigurationError("of the weights quality, cost and latency, one must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Limits, Conduct):
    """For requests like *when*, ask *models*, ordered as *prefer* says, within these limits, by this conduct."""

    __pydantic_config__: ClassVar = STRICT

    name: Name
    models: Annotated[Names, MinLen(1)]
    when: When = When()
    prefer: Order | Weights = "listed"

    @override
    def __post_init__(self) -> None:
        Limits.__post_init__(self)
        Conduct.__post_init__(self)
        no_text(self, "models")
        if not isinstance(self.prefer, Weights) and self.prefer not in ("listed", "cheapest", "fastest", "best"):
            raise ConfigurationError(f"prefer is listed, cheapest, fastest, best or Weights, not {self.prefer!r}")


def needs_of(when: When) -> frozenset[str]:
    """The abilities that every request of which *when* holds needs, as far as it says so itself."""
    own = set(when.needs) - {"streaming"} | ({when.modality[0]} - {"text"} if len(when.modality) == 1 else set())
    return frozenset(own.union(*(needs_of(each) for each in when.all)))
