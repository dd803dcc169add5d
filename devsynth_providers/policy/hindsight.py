"""What a policy would have come to for the requests of a log, as far as the log can tell.

A request under a policy is *observed* where the models that the policy asks were asked in that request; *modelled*
where at least one was not, but enough other requests tell what that model does; *unknown* where nothing tells;
*refused* where no model may be asked, which is known for sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import NoModelFits
from ..types import Model, Plan, Usage
from .decision import Decision
from .facts import Facts
from .past import Past
from .policy import Policy

Basis = Literal["observed", "modelled", "unknown", "refused"]
BASES: tuple[Basis, ...] = get_args(Basis)

NONE_DRAWN = (-1, -1)
"""For the number of a pool, and of the request whose outcome was drawn from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindsight:
    """What a policy comes to for one request. *asked* is the first model, by its name in the policy.

    *cost_micros* is ``None`` where a price is not known; *latency_s* is of answers only. Where it was modelled, *pool*
    and *donor* say whose outcome was taken first.
    """

    basis: Basis
    asked: str | None = None
    models: tuple[str, ...] = ()
    rule: str | None = None
    answered: bool = False
    cost_micros: float | None = None
    latency_s: float | None = None
    pool: int = -1
    donor: int = -1
    unknown: str | None = None
    """The model that nothing is known of."""


def decide(policy: Policy, decision: Decision, facts: Facts | None = None) -> Plan | None:
    """What *policy* does with a request of the past, in the conditions of then; ``None`` if it asks nobody."""
    try:
        return policy.plan(decision.facts if facts is None else facts, decision.conditions)
    except NoModelFits:
        return None


def look_back(policy: Policy, past: Past, chances: Sequence[tuple[float, float]]) -> list[Hindsight]:
    """What *policy* comes to for each request; *chances* decide whose outcome stands for what was not observed."""
    names = {name: past.known_as(model) for name, model in policy.models.items()}
    return [
        _look_back(decide(policy, decision), number, decision, past, names, chances[number])
        for number, decision in enumerate(past.decisions)
    ]


def _look_back(
    plan: Plan | None,
    number: int,
    decision: Decision,
    past: Past,
    names: Mapping[str, str],
    chances: tuple[float, float],
) -> Hindsight:
    if plan is None:
        return Hindsight(basis="refused", cost_micros=0.0)
    walk = _Walk(plan, number, decision, past, names)
    return walk.as_logged() or walk.walked(chances)


class _Walk:
    """The way of one request through the models of a plan, by what is known of each."""

    def __init__(self, plan: Plan, number: int, decision: Decision, past: Past, names: Mapping[str, str]) -> None:
        self._plan = plan
        self._decision = decision
        self._past = past
        self._seen = dict(past.walks[number])
        self._chain = [(names[each.model.name], each.model) for each in plan.candidates]

    def _end(self, drawn: tuple[int, int], answered: bool, cost: float | None, latency_s: float | None) -> Hindsight:
        return Hindsight(
            basis="observed" if drawn == NONE_DRAWN else "modelled",
            asked=self._plan.models[0],
            models=self._plan.models,
            rule=self._plan.rule,
            answered=answered,
            cost_micros=cost,
            latency_s=latency_s if answered else None,
            pool=drawn[0],
            donor=drawn[1],
        )

    def as_logged(self) -> Hindsight | None:
        """What the log says, if the same models in the same order were to be asked."""
        decision = self._decision
        if [name for name, _ in self._chain] != [each.served for each in decision.candidates]:
            return None
        if decision.outcome.status == "cancelled" and not self._seen:
            return self._nothing_known_of(None)
        models = dict(self._chain)
        costs = [_cost(models[name], visit.usage) for name, visit in self._seen.items() if name in models]
        cost = None if None in costs else float(sum(filter(None, costs)))
        answered = decision.outcome.status in ("answered", "left")
        return self._end(NONE_DRAWN, answered, cost, decision.outcome.latency_s)

    def walked(self, chances: tuple[float, float]) -> Hindsight:
        """Each model of the chain in turn, until one answers."""
        facts = self._decision.facts
        cost: float | None = 0.0
        latency_s = 0.0
        drawn = NONE_DRAWN
        answered = False
        asked: list[str] = []
        for name, model in self._chain:
            visit = self._seen.get(name)
            if visit is None:
                known = self._past.pool(name, facts)
                if known is None:
                    return self._nothing_known_of(model.name)
                visit = known.draw(chances[drawn != NONE_DRAWN], facts)
                if drawn == NONE_DRAWN:
                    drawn = known.number, visit.request
            asked.append(name)
            spent = _cost(model, visit.usage)
            cost = None if cost is None or spent is None else cost + spent
            latency_s += visit.latency_s
            answered = visit.answered
            if answered or visit.final:
                break
        if asked == list(self._seen):  # then the log also knows how long it waited between the tries
            latency_s = self._decision.outcome.latency_s or latency_s
        return self._end(drawn, answered, cost, latency_s)

    def _nothing_known_of(self, model: str | None) -> Hindsight:
        plan = self._plan
        return Hindsight(basis="unknown", asked=plan.models[0], models=plan.models, rule=plan.rule, unknown=model)


def _cost(model: Model, usage: Usage) -> float | None:
    cost = model.cost_micros(usage)
    return None if cost is None else float(cost)
