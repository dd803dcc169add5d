"""A policy on trial: it decides every request too, and only tells where it would have decided otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from typing_extensions import override

from . import telemetry
from .errors import NoModelFits
from .guard import Guard
from .policy import Conditions, Facts, Policy
from .types import Model, Plan

Pair = tuple[str | None, str | None]

_IDENTITY = ("provider", "id", "base_url", "api_key_env", "path")
"""What a provider is configured by: two models that agree in it are there, or not there, together."""
_FOUND_OUT = ("price", "context_window", "max_output_tokens", "abilities")
"""What a provider may know of its model where a policy does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """How often the policy called *policy* would have decided otherwise; ``print`` it.

    *differences* counts requests that it would have decided by another rule or with another order of models, or that
    one of the two policies refuses. *by_first_models* counts those by the model that is asked first and the one that
    would be, ``None`` where no model fits. *errors* counts requests that it could not decide, *last_error* is the last.
    """

    policy: str
    requests: int = 0
    differences: int = 0
    by_first_models: Mapping[Pair, int] = field(default_factory=dict)
    errors: int = 0
    last_error: str | None = None

    @override
    def __str__(self) -> str:
        lines = [f"shadow {self.policy!r}: {self.differences} of {self.requests} requests decided otherwise"]
        pairs = sorted(self.by_first_models.items(), key=lambda each: -each[1])
        lines += [f"  {count} times {mine or 'none'} -> {theirs or 'none'}" for (mine, theirs), count in pairs]
        if self.errors:
            lines.append(f"  {self.errors} errors, the last: {self.last_error}")
        return "\n".join(lines)


class Shadow:
    """Compares the decisions of *policy* with those of *real*, whose models *known* are as their providers know them.

    What is true of a model holds for the shadow's model of the same name if both are served from the same place; a
    model that only the shadow has counts as available.
    """

    def __init__(self, policy: Policy, real: Policy, known: Mapping[str, Model]) -> None:
        self._shared = {name for name, model in policy.models.items() if _same(model, real.models.get(name))}
        models = {
            name: _informed(model, real.models[name], known[name]) if name in self._shared else model
            for name, model in policy.models.items()
        }
        self._policy = replace(policy, models=models)
        self._lock = Guard()
        self._requests = 0
        self._errors = 0
        self._last_error: str | None = None
        self._pairs: Counter[Pair] = Counter()

    def compare(self, facts: Facts, conditions: Conditions, decided: Plan | NoModelFits) -> None:
        """Decide by the shadow, and note on the current span if it is not what was *decided*. Raises nothing."""
        try:
            pair = self._difference(facts, conditions, decided)
            failure = None
        except Exception as error:  # noqa: BLE001 - a policy on trial never fails a call
            pair, failure = None, f"{type(error).__name__}: {error}"
        with self._lock:
            self._requests += 1
            if failure is not None:
                self._errors += 1
                self._last_error = failure
            elif pair is not None:
                self._pairs[pair] += 1

    def _difference(self, facts: Facts, conditions: Conditions, decided: Plan | NoModelFits) -> Pair | None:
        gone, ill = (
            {name: why for name, why in known.items() if name in self._shared}
            for known in (conditions.unavailable, conditions.unhealthy)
        )
        mine = decided if isinstance(decided, Plan) else None
        try:
            theirs = self._policy.plan(facts, conditions._replace(unavailable=gone, unhealthy=ill))
        except NoModelFits:
            theirs = None
        if _outcome(mine) == _outcome(theirs):
            return None
        telemetry.event(
            "policy.shadow.differs",
            **{
                "devsynth.policy.rule": None if mine is None else mine.rule,
                "devsynth.policy.order": list(mine.models) if mine else [],
                "devsynth.shadow.policy": self._policy.name,
                "devsynth.shadow.rule": None if theirs is None else theirs.rule,
                "devsynth.shadow.order": list(theirs.models) if theirs else [],
            },
        )
        return _first(mine), _first(theirs)

    @property
    def report(self) -> ShadowReport:
        """What came of it so far."""
        with self._lock:
            return ShadowReport(
                policy=self._policy.name,
                requests=self._requests,
                differences=self._pairs.total(),
                by_first_models=MappingProxyType(dict(self._pairs)),
                errors=self._errors,
                last_error=self._last_error,
            )


def _same(model: Model, other: Model | None) -> bool:
    return other is not None and all(getattr(model, fact) == getattr(other, fact) for fact in _IDENTITY)


def _informed(model: Model, stated: Model, known: Model) -> Model:
    """*model*, with what the provider of its twin has *known* beyond what was *stated* of that."""
    found = [fact for fact in _FOUND_OUT if getattr(model, fact) is None and getattr(stated, fact) is None]
    return replace(model, **{fact: getattr(known, fact) for fact in found})


def _outcome(plan: Plan | None) -> tuple[str, tuple[str, ...]] | None:
    return None if plan is None else (plan.rule, plan.models)


def _first(plan: Plan | None) -> str | None:
    return None if plan is None else plan.models[0]
