"""What another policy would decide otherwise: over the requests of a log, or over prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from typing_extensions import override

from ..analysis import TaskAnalyzer
from ..errors import NoModelFits
from ..types import ChatRequest, Request
from .decision import Decision, Log
from .facts import Conditions, Facts
from .policy import Policy
from .shown import counted, table

REFUSED = "(refused)"
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a policy does with a request: its *rule*, its *models* in order, and the codes of those it rejects.

    Without models it is refused; *why* then says so in a sentence.
    """

    rule: str | None = None
    models: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    why: str = ""

    @override
    def __str__(self) -> str:
        return f"{self.rule}: {', '.join(self.models)}" if self.models else REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One request that would be decided otherwise: *of* is its prompt, or its call in the log."""

    of: str
    old: Choice
    new: Choice

    @property
    def way(self) -> tuple[str, str]:
        """From where to where."""
        return str(self.old), str(self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What *new* decides otherwise than *old*, of so many *requests*. ``print`` it."""

    old: str
    new: str
    requests: int
    changes: tuple[Change, ...]
    moved_rules: int = 0
    """Requests for which another rule decides, but the same models in the same order."""
    unreadable: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.changes)

    @override
    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{len(self.changes):,} of {counted(self.requests, 'request')} decided otherwise"
        if self.moved_rules:
            yield f"{counted(self.moved_rules, 'more request')} by another rule, but alike"
        ways = Counter(each.way for each in self.changes)
        first = {each.way: each.of for each in reversed(self.changes)}
        if ways:
            rows = [(f"{count:,}", *way, _short(first[way])) for way, count in ways.most_common(_SHOWN)]
            yield from ("", *table(("", self.old, self.new, "such as"), rows))
        if len(ways) > _SHOWN:
            yield f"and {len(ways) - _SHOWN} more ways"
        for reason, count in self.unreadable.items():
            yield f"{counted(count, 'line')} not read: {reason}"

    def as_json(self) -> dict[str, Any]:
        """All of it as what ``json.dumps`` takes."""
        return asdict(self)


def diff(
    old: Policy,
    new: Policy,
    asked: Iterable[Decision | Facts | Request | str],
    *,
    analyzer: TaskAnalyzer | None = None,
    old_analyzer: TaskAnalyzer | None = None,
) -> Diff:
    """What *new* would decide otherwise than *old* of what is *asked*: a log as ``read_log`` reads it, or prompts.

    A logged request is decided in the conditions of then, by the facts of then; with an analyzer, by what that makes
    of the prompt, where the log has it. *old_analyzer* is for the old policy, if that had another one.
    """
    changes: list[Change] = []
    moved = count = 0
    for each in asked:
        count += 1
        before, conditions = _facts(each, old_analyzer or analyzer)
        after, _ = _facts(each, analyzer)
        one, other = _choice(old, before, conditions), _choice(new, after, conditions)
        if one.models != other.models:
            changes.append(Change(of=_name(each), old=one, new=other))
        else:
            moved += one.rule != other.rule
    unreadable = dict(asked.unreadable) if isinstance(asked, Log) else {}
    return Diff(
        old=old.name, new=new.name, requests=count, changes=tuple(changes), moved_rules=moved, unreadable=unreadable
    )


def _facts(asked: Decision | Facts | Request | str, analyzer: TaskAnalyzer | None) -> tuple[Facts, Conditions]:
    if isinstance(asked, Decision):
        return asked.judged(analyzer), asked.conditions
    if isinstance(asked, Facts):
        return asked, Conditions()
    request = ChatRequest.of(asked) if isinstance(asked, str) else asked
    return Facts.of(request, analyzer or TaskAnalyzer()), Conditions()


def _choice(policy: Policy, facts: Facts, conditions: Conditions) -> Choice:
    try:
        plan = policy.plan(facts, conditions)
    except NoModelFits as error:
        rejected = tuple((each.model, each.code) for each in error.rejected)
        return Choice(rejected=rejected, why=str(error.args[0]))
    rejected = tuple((each.model, each.code) for each in plan.rejected)
    return Choice(rule=plan.rule, models=plan.models, rejected=rejected)


def _name(asked: Decision | Facts | Request | str) -> str:
    match asked:
        case str():
            return asked
        case Decision():
            return asked.call
        case Request():
            return asked.task_text
        case _:
            return asked.task or ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"
