"""A decision as a value: which models will be asked, in which order, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from typing_extensions import override

from .conduct import Conduct
from .limits import Limits
from .model import Model


class Evidence(NamedTuple):
    """One reason for a judgement of difficulty: what was seen, and what it added to the score."""

    name: str
    value: float
    contribution: float


LatencyBasis = Literal["measured", "prior", "unknown"]


class Candidate(NamedTuple):
    """A model that may be asked, with what it is expected to cost and take."""

    model: Model
    cost_usd: float | None
    """For the expected length of the answer; ``None`` where the price is not known."""
    worst_cost_usd: float | None
    """If the answer is as long as it may be."""
    latency_s: float | None
    """Until the answer is whole, if it has the expected length."""
    first_token_s: float | None
    latency_basis: LatencyBasis = "unknown"
    """How the two are known: by what was measured of late, or only by what the policy says of the model."""


class Rejection(NamedTuple):
    """A model of the rule that will not be asked: a stable *code*, and a sentence for people."""

    model: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the router does with a request: exactly this, in this order. ``print`` it to see why."""

    policy: str
    rule: str
    complexity: float
    evidence: tuple[Evidence, ...]
    input_tokens: int
    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...]
    limits: Limits
    expected_output_tokens: int = 0
    explored: bool = False
    """Whether the first model is only first for once, so that something is learnt of its speed."""
    preferred: str | None = None
    """The model that would be first if none were left alone for having failed of late."""
    conduct: Conduct = Conduct()
    """What is done where a model is slow, breaks off or refuses: what the rule says of it."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in the order in which they are asked."""
        return tuple(candidate.model.name for candidate in self.candidates)

    @override
    def __str__(self) -> str:
        because = ", ".join(f"{e.name} {e.contribution:+.2f}" for e in self.evidence if abs(e.contribution) >= 0.005)
        lines = [
            f"rule {self.rule!r} of policy {self.policy!r}; complexity {self.complexity:.2f}"
            + (f" ({because})" if because else "")
            + f"; about {self.input_tokens} token{'' if self.input_tokens == 1 else 's'} in"
        ]
        limits = [f"{name} {value:g}" for name, value in self.limits.given.items()]
        if limits:
            lines.append("limits: " + ", ".join(limits))
        if conduct := self.conduct.unusual:
            lines.append("conduct: " + ", ".join(f"{name} {value}" for name, value in conduct.items()))
        width = max((len(name) for name in (*self.models, *(r.model for r in self.rejected))), default=0)
        dearest = max((len(_cost(each)) for each in self.candidates), default=0)
        for number, each in enumerate(self.candidates, 1):
            who = f"{each.model.name:<{width}}  {each.model.provider:<10}"
            lines.append(f"  {number}. {who} {_cost(each):<{dearest}}  {_time(each)}")
        lines += [f"  -  {r.model:<{width}}  not asked: {r.reason} ({r.code})" for r in self.rejected]
        return "\n".join(lines)


def _cost(candidate: Candidate) -> str:
    if candidate.cost_usd is None or candidate.worst_cost_usd is None:
        return "price unknown"
    if candidate.model.price is not None and candidate.model.price.free:
        return "free"
    return f"about ${candidate.cost_usd:.6f}, at most ${candidate.worst_cost_usd:.6f}"


def _time(candidate: Candidate) -> str:
    if candidate.latency_s is None:
        return "time unknown"
    measured = " (measured)" if candidate.latency_basis == "measured" else ""
    return f"about {candidate.latency_s:.1f} s, first token after {candidate.first_token_s:.1f} s{measured}"
