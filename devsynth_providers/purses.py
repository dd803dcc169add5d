"""What the budgets of a policy have an attempt paid from, and what is said where too little is left there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from . import telemetry
from .errors import BudgetExceeded
from .policy import Budget
from .policy.zones import zone_of
from .stores.entries import Purse, Spent, ends_at, period_of
from .stores.process import identity
from .types import Model, Request, RunBudget

REMAINING = "devsynth.budget.remaining_micros"
WARNS = "warns "
"""Stands before the name of an account that only warns: what comes after a scope, anybody may be called."""
_log = logging.getLogger("devsynth_providers")


class OfRuns:
    """What runs let an attempt cost, of whose figures each keeps count itself: what the code that opened one says, and
    of the whole run what the policy does.

    Of the policy's *budgets* for that the smallest is reached first, and of those that only warn the smallest.
    """

    def __init__(self, budgets: Iterable[Budget]) -> None:
        in_order = sorted(budgets, key=lambda budget: budget.limit_micros)
        self._holds = next((budget for budget in in_order if budget.when_spent != "warn"), None)
        self._warns = next((budget for budget in in_order if budget.when_spent == "warn"), None)

    def __bool__(self) -> bool:
        return self._holds is not None or self._warns is not None

    def take(self, run: RunBudget, worst: int | None, tokens: int, model: Model, *, whole: bool) -> None:
        """Set aside in *run* what an attempt at *model* may use at most. Raises ``BudgetExceeded``."""
        holds = self._holds if whole else None
        try:
            spent_micros = run.take(worst, tokens, None if holds is None else holds.limit_micros)
        except BudgetExceeded:
            telemetry.count(telemetry.BUDGET_REJECTIONS, scope="run")
            raise
        if holds is not None and spent_micros is not None:
            spent = Spent(_of_run(holds), spent_micros)
            if worst is None:
                raise no_price(spent.purse, holds, model)
            raise rejected(spent, holds, worst, model, datetime.now(UTC))

    def left_micros(self, runs: Sequence[RunBudget]) -> int | None:
        """What *runs*, the whole one first, still have, the least of them; ``None`` where none is limited."""
        left = [run.left_micros for run in runs]
        if runs and self._holds is not None:
            left.append(max(0, self._holds.limit_micros - runs[0].spent_micros))
        return min((each for each in left if each is not None), default=None)

    def look(self, spent_micros: int) -> None:
        """Warn if a run that has spent so much is over what it is only warned of."""
        if self._warns is not None and spent_micros > self._warns.limit_micros:
            warned(Spent(_of_run(self._warns), spent_micros))


def _of_run(budget: Budget) -> Purse:
    return Purse("run", "total", budget.limit_micros, budget.when_spent != "warn")


def purse_of(budget: Budget, request: Request, policy: str, now: datetime) -> Purse:
    """The account, and the span of time, that *budget* has *request* paid from."""
    known = {"project": request.project, "role": request.role, "task": request.task}
    whose = (known | {"process": identity(), "policy": policy})[budget.scope]
    assert budget.per != "call"
    period = period_of(budget.per, now, zone_of(budget.zone))
    if budget.zone != "UTC" and budget.per != "total":
        period = f"{period} {budget.zone}"
    warns = budget.when_spent == "warn"
    return Purse(f"{WARNS if warns else ''}{budget.scope}:{whose or ''}", period, budget.limit_micros, not warns)


def warned(spent: Spent) -> None:
    """Say that an attempt is made beyond what a budget has, which is only to warn."""
    telemetry.event("budget.warned", **_facts(spent))
    _log.warning("%s is over its budget: %s", spent.purse.account.removeprefix(WARNS), _figures(spent))


def rejected(spent: Spent, budget: Budget, worst: int, model: Model, now: datetime) -> BudgetExceeded:
    """Say that an attempt is not made, which would cost *worst* at most; returns the error to raise."""
    telemetry.event("budget.rejected", **_facts(spent))
    telemetry.mark(REMAINING, max(0, spent.purse.limit_micros - spent.spent_micros))
    assert budget.per != "call"
    resets_at = ends_at(budget.per, now, zone_of(budget.zone))
    until = (
        "" if resets_at is None else f" per {budget.per}; it begins anew at {resets_at.isoformat(timespec='minutes')}"
    )
    refusal = _refusal(
        f"{spent.purse.account} has too little left: {model.name} could cost ${worst / 1_000_000:.6f}, and "
        f"{_figures(spent)}{until}",
        spent.purse,
        budget,
    )
    refusal.resets_at, refusal.spent_usd = resets_at, spent.spent_micros / 1_000_000
    return refusal


def no_price(purse: Purse, budget: Budget, model: Model) -> BudgetExceeded:
    """The error to raise where nobody knows what an attempt at *model* would cost."""
    return _refusal(f"{purse.account} can not pay for {model.name}, which has no known price", purse, budget)


def _refusal(message: str, purse: Purse, budget: Budget) -> BudgetExceeded:
    telemetry.count(telemetry.BUDGET_REJECTIONS, scope=purse.account.partition(":")[0])
    refusal = BudgetExceeded(message)
    refusal.account, refusal.limit_usd = purse.account, budget.limit_usd
    refusal.passes_on = budget.when_spent == "degrade"
    return refusal


def _figures(spent: Spent) -> str:
    return f"${spent.spent_micros / 1_000_000:.6f} of ${spent.purse.limit_micros / 1_000_000:.6f} is spent"


def _facts(spent: Spent) -> dict[str, str | int]:
    purse = spent.purse
    return {
        "account": purse.account.removeprefix(WARNS),
        "period": purse.period,
        "limit_usd_micros": purse.limit_micros,
        "spent_usd_micros": spent.spent_micros,
    }
