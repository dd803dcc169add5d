"""What the numbers of a ledger give reason to look at: a function for each reason, silent where there is too little."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..stores.ledger_reader import SIMPLE, Group
from .table import dollars

FEWEST = 20
"""Attempts, without which nothing is said: a share of fewer is chance."""
SPEND_SHARE = 0.4
FAILED_SHARE = 0.2
FALLBACK_SHARE = 0.2
ESTIMATED_SHARE = 0.1
TAIL_RATIO = 5.0
TAIL_FEWEST = 100
"""Attempts that answered, without which a p95 rests on less than five of them."""

_ADVICE = {
    "rate_limited": "state its limits in the policy (limits), so that requests wait here and not there",
    "local_limit": "requests waited too long for their turn: raise its limits, or list another model after it",
    "timeout": "compare the policy's timeouts with how long it takes when it answers",
    "authentication": "its key is refused: see devsynth-providers doctor",
    "quota_exhausted": "its account is empty: fill it up, or take it out of the rules",
    "context_too_long": "state its context_window in the policy, so that it is not asked",
}


class Suggestion(NamedTuple):
    """Something worth a look: *code* for programs, *about* which rule or model, *message* for people."""

    code: str
    about: str | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What suggestions are made from. *errors* are the commonest ones of models that failed."""

    total: Group
    rules: Sequence[Group]
    models: Sequence[Group]
    errors: Mapping[str | None, str]


def suggestions(sums: Sums) -> list[Suggestion]:
    """All that *sums* supports, those about money first."""
    if sums.total.attempts < FEWEST:
        return []
    return [each for rule in RULES for each in rule(sums)]


def dear_rule(sums: Sums) -> Iterator[Suggestion]:
    """One of several rules has ``SPEND_SHARE`` of the cost or more: what is changed there counts most."""
    for rule in sums.rules if len(sums.rules) > 1 else ():
        share = _share(rule.cost_micros, sums.total.cost_micros)
        if share >= SPEND_SHARE and rule.attempts >= FEWEST:
            yield Suggestion(
                "dear_rule",
                rule.key,
                f"{share:.0%} of spend is on rule {_name(rule)} ({dollars(rule.cost_micros)} for {rule.calls} calls): "
                "a cheaper model, or a cache, counts most there",
            )


def dear_for_simple(sums: Sums) -> Iterator[Suggestion]:
    """Simple requests of one rule have ``SPEND_SHARE`` of the cost or more, unless it is for those alone: of that
    ``dear_rule`` says all."""
    for rule in sums.rules:
        if len(sums.rules) > 1 and rule.simple_micros == rule.cost_micros:
            continue
        share = _share(rule.simple_micros, sums.total.cost_micros)
        if share >= SPEND_SHARE and rule.attempts >= FEWEST:
            yield Suggestion(
                "dear_for_simple",
                rule.key,
                f"{share:.0%} of spend is on rule {_name(rule)} with complexity under {SIMPLE} "
                f"({dollars(rule.simple_micros)}): a rule before it (when: {{complexity: {{below: {SIMPLE}}}}}) could "
                "ask a cheaper model",
            )


def failing_model(sums: Sums) -> Iterator[Suggestion]:
    """A model failed ``FAILED_SHARE`` of the attempts that have ended or more; those given up are no fault of its."""
    for model in sums.models:
        ended = model.answered + model.failed
        if ended >= FEWEST and model.failed / ended >= FAILED_SHARE:
            error = sums.errors.get(model.key, "")
            cost = f", and its retries cost {dollars(model.retries_micros)}" if model.retries_micros else ""
            advice = _ADVICE.get(error, "list it later, or look at its traces")
            yield Suggestion(
                "failing_model",
                model.key,
                f"model {_name(model)} failed {model.failed / ended:.0%} of its attempts ({model.failed} of {ended}), "
                f"most often with {error}{cost}: {advice}",
            )


def passed_on(sums: Sums) -> Iterator[Suggestion]:
    """A rule's calls go on to another model in ``FALLBACK_SHARE`` of its calls or more."""
    for rule in sums.rules:
        share = _share(rule.fallbacks, rule.calls)
        if rule.calls >= FEWEST and share >= FALLBACK_SHARE:
            yield Suggestion(
                "passed_on",
                rule.key,
                f"rule {_name(rule)} passed on to another model {rule.fallbacks} times in {rule.calls} calls: "
                "the model it asks first may not be the right one",
            )


def unsure_cost(sums: Sums) -> Iterator[Suggestion]:
    """``ESTIMATED_SHARE`` of all cost or more is one model's, and estimated, not told by its provider."""
    for model in sums.models:
        share = _share(model.estimated_micros, sums.total.cost_micros)
        if model.attempts >= FEWEST and share >= ESTIMATED_SHARE:
            yield Suggestion(
                "unsure_cost",
                model.key,
                f"{share:.0%} of spend is only estimated, at model {_name(model)} ({dollars(model.estimated_micros)}): "
                "its answers did not tell all their tokens, or were cut; compare with the provider's bill",
            )


def unknown_price(sums: Sums) -> Iterator[Suggestion]:
    """Attempts at a model are not in the cost, because its price is not known."""
    for model in sums.models:
        if model.unpriced >= FEWEST:
            yield Suggestion(
                "unknown_price",
                model.key,
                f"{model.unpriced} attempts at model {_name(model)} are not in the cost, since its price is not known: "
                "state it in the policy, or say price: free",
            )


def long_tail(sums: Sums) -> Iterator[Suggestion]:
    """A model's p95 is ``TAIL_RATIO`` times its p50 or more: few answers take much longer than most."""
    for model in sums.models:
        half, most = model.latency_s.p50, model.latency_s.p95
        if half and most and model.answered >= TAIL_FEWEST and most >= TAIL_RATIO * half:
            yield Suggestion(
                "long_tail",
                model.key,
                f"half of the answers of model {_name(model)} come within {half:.2f} s, but one in twenty takes more "
                f"than {most:.2f} s: a hedge (hedge: {{after: p95}}) would ask another model by then",
            )


RULES: tuple[Callable[[Sums], Iterator[Suggestion]], ...] = (
    *(dear_rule, dear_for_simple, unknown_price, failing_model, passed_on, unsure_cost, long_tail),
)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _name(group: Group) -> str:
    return group.key or "(none)"
