"""One request of the past: what was known of it, what was decided, and how it went. No content, unless asked for.

``DecisionLog`` writes these, one on a line; ``read_log`` reads them, ``diff`` and ``replay`` work on them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, overload
from urllib.parse import urlsplit

from typing_extensions import override

from ..analysis import TaskAnalyzer, estimate_tokens
from ..types import Attempt, Candidate, CostBasis, Model, Rejection, Usage
from .coding import decoded, encoded
from .facts import Conditions, Facts

VERSION = 1
"""Of the form of a line. A line of a higher one is not read: what it says may mean something else."""


def served(model: Model) -> str:
    """Which model this is in the world, whatever a policy calls it: who serves it, by which name, and where.

    Two policies may call different models by one name, or one model by different names.
    """
    try:
        where = urlsplit(model.base_url or "").netloc.rpartition("@")[2]
    except ValueError:
        where = ""
    file = Path(model.path).name if model.path else ""
    place = where or file
    return f"{model.provider}/{model.id}" + (f" at {place}" if place else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A model that might have been asked, and what was expected of it."""

    model: str
    served: str
    cost_usd: float | None = None
    worst_cost_usd: float | None = None
    latency_s: float | None = None
    first_token_s: float | None = None

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        return cls(
            model=candidate.model.name,
            served=served(candidate.model),
            cost_usd=candidate.cost_usd,
            worst_cost_usd=candidate.worst_cost_usd,
            latency_s=candidate.latency_s,
            first_token_s=candidate.first_token_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One attempt, without the message of its error, which may repeat the prompt."""

    model: str
    served: str
    provider: str = ""
    reason: str = "primary"
    latency_s: float = 0.0
    wait_s: float = 0.0
    first_token_s: float | None = None
    usage: Usage = Usage()
    cost_micros: int | None = None
    cost_basis: CostBasis = "unknown"
    worst_micros: int | None = None
    finish_reason: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, attempt: Attempt, names: Mapping[str, str]) -> Self:
        """*attempt*, where *names* tells which model is served by each name of the policy."""
        return cls(
            model=attempt.model,
            served=names.get(attempt.model, f"{attempt.provider}/{attempt.model}"),
            provider=attempt.provider,
            reason=attempt.reason,
            latency_s=attempt.latency_s,
            wait_s=attempt.wait_s,
            first_token_s=attempt.first_token_s,
            usage=attempt.usage,
            cost_micros=attempt.cost_micros,
            cost_basis=attempt.cost_basis,
            worst_micros=attempt.worst_micros,
            finish_reason=attempt.finish_reason,
            error=attempt.error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended: *status* is answered, left (early, by the caller), failed, cancelled or refused.

    *model* is the one that answered; *cost_micros* and *latency_s* are of the whole request, all tries together.
    """

    status: str
    error: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    degraded: bool = False
    cached: bool = False
    cost_micros: int | None = None
    cost_basis: CostBasis = "unknown"
    latency_s: float | None = None
    first_token_s: float | None = None
    attempts: tuple[Try, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One line of the log. *time* is when the request came, in UTC; *prompt* is there only if it was asked for."""

    outcome: Outcome
    facts: Facts = Facts()
    conditions: Conditions = Conditions()
    v: int = VERSION
    time: str = ""
    call: str = ""
    policy: str = ""
    rule: str | None = None
    candidates: tuple[Option, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    prompt: str | None = None
    """The part of the request that says what is to be done."""
    text: str | None = None
    """All of what the model had to read, where that is more than *prompt*."""

    def line(self) -> str:
        """This decision as one line of JSON."""
        written = {name: value for name, value in encoded(self).items() if value is not None}
        return json.dumps(written, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of_line(cls, line: str | bytes) -> Self:
        """The decision that *line* tells. Raises ``ValueError`` with the reason if it tells none."""
        try:
            data: Any = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError("no JSON: cut off, or written by something else") from None
        version = data.get("v") if isinstance(data, dict) else None
        if type(version) is not int or version < 1:
            raise ValueError("no decision: it has no version")
        if version > VERSION:
            raise ValueError(f"version {version}, from a newer devsynth_providers")
        try:
            return decoded(cls, data)
        except ValueError as error:
            raise ValueError(f"decision{error}") from None

    def judged(self, analyzer: TaskAnalyzer | None) -> Facts:
        """The facts as logged, or, where the prompt is in the log, as *analyzer* sees them."""
        if analyzer is None or self.prompt is None:
            return self.facts
        seen = analyzer.analyze(self.prompt)
        tokens = seen.input_tokens if self.text is None else estimate_tokens(self.text)
        return self.facts._replace(complexity=seen.complexity, evidence=seen.evidence, input_tokens=tokens)


@dataclass(frozen=True)
class Log(Sequence[Decision]):
    """The decisions of a log, in its order. *unreadable* counts the lines that tell none, by the reason."""

    decisions: tuple[Decision, ...] = ()
    unreadable: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, decisions: Iterable[Decision]) -> Log:
        return decisions if isinstance(decisions, Log) else cls(tuple(decisions))

    @overload
    def __getitem__(self, index: int) -> Decision: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Decision]: ...
    @override
    def __getitem__(self, index: int | slice) -> Decision | Sequence[Decision]:
        return self.decisions[index]

    @override
    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions)

    @override
    def __len__(self) -> int:
        return len(self.decisions)


def read_log(path: str | Path) -> Log:
    """Read what a ``DecisionLog`` wrote: the file, after the older one (``.1``) where there is one.

    A line that can not be read is counted, never guessed at. Raises ``OSError`` if the file can not be read.
    """
    decisions: list[Decision] = []
    unreadable: Counter[str] = Counter()
    older = Path(f"{path}.1")
    for file in [older, Path(path)] if older.is_file() else [Path(path)]:
        with file.open("rb") as lines:
            for line in lines:
                try:
                    if line.strip():
                        decisions.append(Decision.of_line(line))
                except ValueError as error:
                    unreadable[str(error)] += 1
    return Log(tuple(decisions), dict(unreadable))
