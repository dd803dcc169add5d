"""What is written into a ledger: an attempt before it is made, the accounts it is paid from, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, NamedTuple, Protocol

from ..types import CostBasis, Usage

Period = Literal["hour", "day", "week", "month", "total"]


class Purse(NamedTuple):
    """An account that an attempt is paid from in one span of time, with its limit there. ``project:billing`` is one
    account, and ``2026-11-26`` one span. One that is not *binding* is taken from even where too little is left."""

    account: str
    period: str
    limit_micros: int
    binding: bool = True


class Spent(NamedTuple):
    """A purse, and how much of it is spent, or reserved for attempts under way."""

    purse: Purse
    spent_micros: int


class Reserved(NamedTuple):
    """What came of wanting to reserve: the purse that has *refused*, having too little left; or else those that are
    *over* their limits now, none of which is binding."""

    refused: Spent | None = None
    over: tuple[Spent, ...] = ()


class Entry(NamedTuple):
    """One attempt, before it is made. *call* and *attempt* name it: there is one entry for both. *worst_micros* is what
    it may cost at most, and *lease_s* how long it may take. *complexity* is how difficult the request was judged to be,
    from 0 to 1; ``None`` where nobody has judged."""

    call: str
    attempt: int
    provider: str
    model: str
    worst_micros: int
    lease_s: float
    project: str | None = None
    role: str | None = None
    task: str | None = None
    policy: str = ""
    rule: str = ""
    tags: tuple[str, ...] = ()
    reason: str = "primary"
    complexity: float | None = None


class Outcome(NamedTuple):
    """What came of it. *cost_micros* is ``None`` where the price is not known: then what was reserved stays spent."""

    cost_micros: int | None
    basis: CostBasis
    usage: Usage = Usage()
    error: str | None = None
    latency_s: float = 0.0
    first_token_s: float | None = None
    finish_reason: str | None = None


class Hit(NamedTuple):
    """A request that the cache has answered: no attempt, and for nothing. Who asked, and whose answer it was once."""

    provider: str
    model: str
    project: str | None = None
    role: str | None = None
    task: str | None = None
    policy: str = ""
    rule: str = ""


class Ledger(Protocol):
    """Reserve, settle, recover. Whoever implements it never lets a binding purse be overrun, by any number of tasks,
    threads and processes, settles an entry once, and keeps what it has acknowledged."""

    async def reserve(self, entry: Entry, purses: Sequence[Purse] = ()) -> Reserved:
        """Write *entry* down and take its worst case out of all *purses*, or, if one that is binding has too little, do
        neither and say which. Raises ``LedgerUnavailable`` if it can not be written."""

    def settle(self, call: str, attempt: int, outcome: Outcome) -> Awaitable[bool]:
        """Put what it has really cost in place of the worst case. False if it was settled before, or is not there. It
        begins at once, and is done also where nobody awaits it."""

    def hit(self, hit: Hit) -> None:
        """Count *hit*, soon: nobody waits for it, and it never fails. At the latest ``aclose`` has it written."""

    async def spent_micros(self, purse: Purse) -> int:
        """What is spent of *purse*, with what is reserved."""

    async def aclose(self) -> None:
        """Let go of it."""


def period_of(per: Period, now: datetime, zone: tzinfo) -> str:
    """The name of the span of time that *now* is in, by the clocks of *zone*: weeks begin on Mondays (ISO 8601)."""
    there = now.astimezone(zone)
    if per == "total":
        return "total"
    if per == "week":
        year, week, _ = there.isocalendar()
        return f"{year}-W{week:02}"
    if per == "hour":  # with the offset: the hour that clocks go back is there twice
        return there.strftime("%Y-%m-%dT%H%z")
    return there.strftime({"day": "%Y-%m-%d", "month": "%Y-%m"}[per])


def ends_at(per: Period, now: datetime, zone: tzinfo) -> datetime | None:
    """When the span of time ends that *now* is in; ``None`` if never."""
    there = now.astimezone(zone)
    if per == "total":
        return None
    if per == "hour":  # in UTC: clocks that go back have the next hour once more
        gone = timedelta(minutes=there.minute, seconds=there.second, microseconds=there.microsecond)
        return (now.astimezone(UTC) - gone + timedelta(hours=1)).astimezone(zone)
    day = there.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if per == "day":
        return day + timedelta(days=1)
    if per == "week":
        return day + timedelta(days=7 - there.weekday())
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)
