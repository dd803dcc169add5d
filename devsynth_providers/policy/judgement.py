"""Which models of a rule can take a request, what each is expected to cost and take, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from ..types import Candidate, Latency, LatencyBasis, Limits, Model, Rates, Rejection, micros
from .facts import Conditions, Facts

CHAT = frozenset(("chat",))
"""What a model can do whose abilities nobody has told us. Whoever knows more says so in the policy."""
_UNBOUNDED = float("inf")

Refusal = tuple[str, str]
"""A stable code, and a sentence for people."""


class Entry(NamedTuple):
    """What a decision looks at of a model: found out once, since it does so for every request."""

    model: Model
    name: str
    id: str
    abilities: frozenset[str]
    window: float
    longest_output: float
    rates: Rates | None
    quality: float | None
    latency: Latency | None

    @classmethod
    def of(cls, model: Model) -> Self:
        return cls(
            model,
            model.name,
            model.id,
            CHAT if model.abilities is None else frozenset(model.abilities),
            model.context_window or _UNBOUNDED,
            model.max_output_tokens or _UNBOUNDED,
            None if model.price is None else model.price.rates,
            model.quality,
            model.latency,
        )


def judge(
    entries: Sequence[Entry], facts: Facts, limits: Limits, conditions: Conditions, allowed: frozenset[str] | None
) -> tuple[list[Candidate], list[Rejection]]:
    """The models of *entries* that can take the request, as listed, and the others with the first reason for each.

    *allowed* are the models that the caller's role may ask, all if it is ``None``.
    """
    tokens, longest, expected = facts.input_tokens, facts.max_output_tokens, facts.expected_output_tokens
    at_once = (tokens if facts.longest_text_tokens is None else facts.longest_text_tokens) + longest
    space = _vector_space(entries, facts, conditions)
    measured_of = conditions.latency
    limited = bool(limits.given)
    candidates: list[Candidate] = []
    rejected: list[Rejection] = []
    for entry in entries:
        refusal: Refusal | None = None
        if allowed is not None and entry.name not in allowed:
            refusal = "access_denied", "the caller's role may not ask it"
        elif entry.name in conditions.unavailable:
            refusal = "not_configured", conditions.unavailable[entry.name]
        elif entry.name in conditions.unhealthy:
            refusal = "unhealthy", conditions.unhealthy[entry.name]
        elif not facts.needs <= entry.abilities:
            missing = ", ".join(sorted(facts.needs - entry.abilities))
            refusal = "lacks_ability", f"it is not known to do {missing}"
        elif at_once > entry.window:
            refusal = "window_too_small", f"needs {at_once} tokens, its window holds {entry.window}"
        elif longest > entry.longest_output:
            refusal = "output_too_long", f"answers have at most {entry.longest_output} tokens"
        elif space is not None and entry.id != space.id:
            refusal = "other_vector_space", f"its vectors can not be compared with {space.name}'s"
        else:
            basis: LatencyBasis = "measured"
            latency = measured_of.get(entry.name)
            if latency is None:
                latency, basis = entry.latency, "unknown" if entry.latency is None else "prior"
            rates = entry.rates
            candidate = Candidate(
                entry.model,
                None if rates is None else micros(tokens * rates.input + expected * rates.output) / 1_000_000,
                None
                if rates is None
                else micros(tokens * rates.dearest_input + longest * rates.dearest_output) / 1_000_000,
                None if latency is None else latency.first_token_s + expected / latency.tokens_per_s,
                None if latency is None else latency.first_token_s,
                basis,
            )
            if not limited or (refusal := _over(candidate, limits)) is None:
                candidates.append(candidate)
        if refusal is not None:
            rejected.append(Rejection(entry.name, *refusal))
    return candidates, rejected


def _over(candidate: Candidate, limits: Limits) -> Refusal | None:
    return _too_dear(candidate, limits) or _too_slow(candidate, limits) or _too_weak(candidate.model, limits)


def _too_dear(candidate: Candidate, limits: Limits) -> Refusal | None:
    worst, expected = candidate.worst_cost_usd, candidate.cost_usd
    most, usual = limits.max_cost_usd, limits.max_expected_cost_usd
    if most is None and usual is None:
        return None
    if worst is None or expected is None:
        return "price_unknown", "its price is not known, and there is a cost ceiling"
    if most is not None and worst > most:
        return "over_cost_ceiling", f"could cost ${worst:.6f}, the ceiling is ${most:.6f}"
    if usual is not None and expected > usual:
        return "over_expected_cost", f"would cost about ${expected:.6f}, the ceiling is ${usual:.6f}"
    return None


def _too_slow(candidate: Candidate, limits: Limits) -> Refusal | None:
    """A model whose speed is not known may be asked: a target is no reason never to learn it."""
    whole, start = candidate.latency_s, candidate.first_token_s
    if limits.max_latency_s is not None and whole is not None and whole > limits.max_latency_s:
        return "over_latency_target", f"would take about {whole:.1f} s, the target is {limits.max_latency_s:g} s"
    if limits.first_token_s is not None and start is not None and start > limits.first_token_s:
        return "over_first_token_target", f"begins after {start:.1f} s, the target is {limits.first_token_s:g} s"
    return None


def _too_weak(model: Model, limits: Limits) -> Refusal | None:
    floor = limits.min_quality
    if floor is None:
        return None
    if model.quality is None:
        return "quality_unknown", "its quality is not known, and there is a floor"
    if model.quality < floor:
        return "below_quality_floor", f"quality {model.quality:g}, the floor is {floor:g}"
    return None


def _vector_space(entries: Sequence[Entry], facts: Facts, conditions: Conditions) -> Entry | None:
    """For embeddings, the model whose vector space the rule uses: the first that can embed and is configured.

    Limits have no say in it, and neither have roles and health: vectors made under a tighter limit, or on a bad day,
    must be comparable with all the others.
    """
    if "embeddings" not in facts.needs:
        return None
    return next((e for e in entries if "embeddings" in e.abilities and e.name not in conditions.unavailable), None)
