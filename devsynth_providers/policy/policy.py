"""The policy and its decision: a pure function of the rules, the request's facts and the state of the world.

No I/O, no clock, no randomness. What it returns is what ``explain`` prints and what the router carries out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import MinLen

from ..errors import NoModelFits
from ..types import STRICT, Candidate, Limits, Model, Plan, Rejection, Retry, Timeouts, Usage
from .facts import Conditions, Facts
from .rules import Order, Rule

CHAT = frozenset(("chat",))
"""What a model can do whose abilities nobody has told us. Whoever knows more says so in the policy."""

_FAR = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an operator has decided. *models* maps the names that rules use to the facts of each."""

    __pydantic_config__: ClassVar = STRICT

    models: Mapping[str, Model]
    rules: Annotated[tuple[Rule, ...], MinLen(1)]
    name: str = "policy"
    version: Literal[1] = 1
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()

    def plan(self, facts: Facts, conditions: Conditions = Conditions()) -> Plan:
        """Choose the models for a request, in order: the first rule that holds decides.

        Raises ``NoModelFits`` if no model of that rule can take the request, and says why for each.
        """
        rule = next((rule for rule in self.rules if rule.when.holds(facts)), None)
        if rule is None:
            raise NoModelFits(f"no rule of policy {self.name!r} is for a request like this")
        limits = facts.limits.tightest(rule)
        candidates: list[Candidate] = []
        rejected: list[Rejection] = []
        space = _vector_space([self.models[name] for name in rule.models], facts, conditions)
        for name in rule.models:
            candidate = _candidate(self.models[name], facts)
            refusal = _refusal(candidate, facts, limits, conditions) or _other_space(candidate.model, space)
            if refusal is None:
                candidates.append(candidate)
            else:
                rejected.append(Rejection(name, *refusal))
        candidates = _ordered(candidates, rule.prefer)
        if not candidates:
            raise NoModelFits(f"no model of rule {rule.name!r} of policy {self.name!r} can take this request", rejected)
        return Plan(
            policy=self.name,
            rule=rule.name,
            complexity=facts.complexity,
            evidence=facts.evidence,
            input_tokens=facts.input_tokens,
            candidates=tuple(candidates),
            rejected=tuple(rejected),
            limits=limits,
        )


def _candidate(model: Model, facts: Facts) -> Candidate:
    expected = facts.expected_output_tokens
    return Candidate(
        model=model,
        cost_usd=_usd(model.cost_micros(Usage(facts.input_tokens, expected))),
        worst_cost_usd=_usd(model.worst_micros(facts.input_tokens, facts.max_output_tokens)),
        latency_s=None if model.latency is None else model.latency.estimate_s(expected),
        first_token_s=None if model.latency is None else model.latency.first_token_s,
    )


def _usd(micros: int | None) -> float | None:
    return None if micros is None else micros / 1_000_000


def _refusal(candidate: Candidate, facts: Facts, limits: Limits, conditions: Conditions) -> tuple[str, str] | None:
    """Why this model is not to be asked, as a stable code and a sentence; ``None`` if it is."""
    model = candidate.model
    if (unavailable := conditions.unavailable.get(model.name)) is not None:
        return "not_configured", unavailable
    if missing := facts.needs - (CHAT if model.abilities is None else model.abilities):
        return "lacks_ability", f"it is not known to do {', '.join(sorted(missing))}"
    return (
        _too_small(model, facts)
        or _too_dear(candidate, limits)
        or _too_slow(candidate, limits)
        or _too_weak(model, limits)
    )


def _too_small(model: Model, facts: Facts) -> tuple[str, str] | None:
    at_once = facts.input_tokens if facts.longest_text_tokens is None else facts.longest_text_tokens
    needed = at_once + facts.max_output_tokens
    if model.context_window is not None and needed > model.context_window:
        return "window_too_small", f"needs {needed} tokens, its window holds {model.context_window}"
    if model.max_output_tokens is not None and facts.max_output_tokens > model.max_output_tokens:
        return "output_too_long", f"answers have at most {model.max_output_tokens} tokens"
    return None


def _too_dear(candidate: Candidate, limits: Limits) -> tuple[str, str] | None:
    ceiling = limits.max_cost_usd
    if ceiling is None:
        return None
    if candidate.worst_cost_usd is None:
        return "price_unknown", "its price is not known, and there is a cost ceiling"
    if candidate.worst_cost_usd > ceiling:
        return "over_cost_ceiling", f"could cost ${candidate.worst_cost_usd:.6f}, the ceiling is ${ceiling:.6f}"
    return None


def _too_slow(candidate: Candidate, limits: Limits) -> tuple[str, str] | None:
    """A model whose speed is not known may be asked: a target is no reason never to learn it."""
    whole, start = candidate.latency_s, candidate.first_token_s
    if limits.max_latency_s is not None and whole is not None and whole > limits.max_latency_s:
        return "over_latency_target", f"would take about {whole:.1f} s, the target is {limits.max_latency_s:g} s"
    if limits.first_token_s is not None and start is not None and start > limits.first_token_s:
        return "over_first_token_target", f"begins after {start:.1f} s, the target is {limits.first_token_s:g} s"
    return None


def _too_weak(model: Model, limits: Limits) -> tuple[str, str] | None:
    floor = limits.min_quality
    if floor is None:
        return None
    if model.quality is None:
        return "quality_unknown", "its quality is not known, and there is a floor"
    return (
        ("below_quality_floor", f"quality {model.quality:g}, the floor is {floor:g}") if model.quality < floor else None
    )


def _ordered(candidates: list[Candidate], prefer: Order) -> list[Candidate]:
    """By preference; equals stay as listed, and what is not known comes last."""
    match prefer:
        case "cheapest":
            return sorted(candidates, key=lambda each: _FAR if each.cost_usd is None else each.cost_usd)
        case "fastest":
            return sorted(candidates, key=lambda each: _FAR if each.latency_s is None else each.latency_s)
        case "best":
            return sorted(candidates, key=lambda each: _FAR if each.model.quality is None else -each.model.quality)
        case "listed":
            return candidates


def _vector_space(models: Sequence[Model], facts: Facts, conditions: Conditions) -> Model | None:
    """For embeddings, the model whose vector space the rule uses: the first that can embed and is configured.

    Limits have no say in it: vectors made under a tighter limit must be comparable with all the others.
    """
    if "embeddings" not in facts.needs:
        return None
    able = (m for m in models if "embeddings" in (m.abilities or CHAT) and m.name not in conditions.unavailable)
    return next(able, None)


def _other_space(model: Model, space: Model | None) -> tuple[str, str] | None:
    if space is None or model.id == space.id:
        return None
    return "other_vector_space", f"its vectors can not be compared with {space.name}'s"
