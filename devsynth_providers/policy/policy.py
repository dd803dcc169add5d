"""The policy and its decision: a pure function of the rules, the request's facts and the state of the world.

No I/O, no clock, no randomness. What it returns is what ``explain`` prints and what the router carries out.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Annotated, ClassVar, Literal

from annotated_types import MinLen

from ..errors import AccessDenied, NoModelFits
from ..types import STRICT, Limits, Model, Plan, Retry, Share, Timeouts
from .coding import encoded
from .facts import Conditions, Facts
from .judgement import Entry, judge
from .order import ordered
from .rules import Name, Rule
from .sections import Access, Assume, Budget, Example, RateLimits, Telemetry


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What an operator has decided. *models* maps the names that rules use to the facts of each.

    *unknown_price* says what a model without a known price may cost where there is a ceiling: ``refuse`` takes none
    there. *explore* is the share of requests which ask a model first whose speed nobody has measured, where a rule
    prefers the fastest and would else never learn it.
    """

    __pydantic_config__: ClassVar = STRICT

    models: Mapping[str, Model]
    rules: Annotated[tuple[Rule, ...], MinLen(1)]
    name: str = "policy"
    version: Literal[1] = 1
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    access: tuple[Access, ...] = ()
    unknown_price: Literal["refuse"] | Assume = "refuse"
    explore: Share = 0.05
    limits: Mapping[Name, RateLimits] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    telemetry: Telemetry = Telemetry()
    tests: tuple[Example, ...] = ()

    @functools.cached_property
    def digest(self) -> str:
        """The same for equal policies, in every process; traces tell by it which version has decided."""
        return sha256(json.dumps(encoded(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def has_accounts(self) -> bool:
        """Whether there are budgets that need a ledger."""
        return any(budget.has_account for budget in self.budgets)

    def plan(self, facts: Facts, conditions: Conditions = Conditions()) -> Plan:
        """Choose the models for a request, in order: the first rule that holds decides.

        Raises ``NoModelFits`` if no model of that rule can take the request, and says why for each; ``AccessDenied``
        if that is for the caller's role alone.
        """
        rule, entries = next((each for each in self._entries if each[0].when.holds(facts, conditions)), (None, ()))
        if rule is None:
            raise NoModelFits(f"no rule of policy {self.name!r} is for a request like this")
        limits = facts.limits.tightest(rule)
        allowed: frozenset[str] | None = None
        for entry in self._access(facts.role) if self.access else ():
            limits = limits.tightest(entry)
            if entry.models is not None:
                allowed = frozenset(entry.models) if allowed is None else allowed & frozenset(entry.models)
        for budget in self.budgets:
            if budget.per == "call":
                limits = limits.tightest(Limits(max_cost_usd=budget.limit_usd))
        if conditions.budget_left_usd is not None:
            limits = limits.tightest(Limits(max_cost_usd=max(0.0, conditions.budget_left_usd)))
        candidates, rejected = judge(entries, facts, limits, conditions, allowed)
        if not candidates:
            denied = all(each.code == "access_denied" for each in rejected)
            error = AccessDenied if denied else NoModelFits
            for_whom = f" for role {facts.role!r}" if denied and facts.role else ""
            raise error(
                f"no model of rule {rule.name!r} of policy {self.name!r} can take this request{for_whom}", rejected
            )
        in_order, explored = ordered(candidates, rule.prefer, self.explore, conditions.draw)
        preferred = in_order[0].model.name
        if not explored and any(each.code == "unhealthy" for each in rejected):
            all_well, _ = judge(entries, facts, limits, conditions._replace(unhealthy={}), allowed)
            preferred = ordered(all_well, rule.prefer, 0, None)[0][0].model.name
        return Plan(
            policy=self.name,
            rule=rule.name,
            complexity=facts.complexity,
            evidence=facts.evidence,
            input_tokens=facts.input_tokens,
            candidates=in_order,
            rejected=tuple(rejected),
            limits=limits,
            expected_output_tokens=facts.expected_output_tokens,
            explored=explored,
            preferred=preferred,
            conduct=rule,
        )

    @property
    def priced(self) -> Mapping[str, Model]:
        """The models, each with the price to reckon with: of those whose price is not known, what is assumed."""
        if self.unknown_price == "refuse":
            return self.models
        assumed = self.unknown_price.assume
        return {
            name: replace(model, price=assumed, price_assumed=True) if model.price is None else model
            for name, model in self.models.items()
        }

    @functools.cached_property
    def _entries(self) -> tuple[tuple[Rule, tuple[Entry, ...]], ...]:
        """Each rule with what is looked at of its models, reckoned once."""
        entries = {name: Entry.of(model) for name, model in self.priced.items()}
        return tuple((rule, tuple(entries[name] for name in rule.models)) for rule in self.rules)

    def _access(self, role: str | None) -> list[Access]:
        """The entries that are for *role*."""
        named = [entry for entry in self.access if role is not None and role in entry.role]
        return named or [entry for entry in self.access if "*" in entry.role]
