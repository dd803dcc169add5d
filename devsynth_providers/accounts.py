"""Who pays for an attempt: the budgets of the policy, whose accounts a ledger keeps, and those that code has opened."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from . import telemetry
from .analysis import estimate_tokens
from .errors import BudgetExceeded, LedgerUnavailable
from .policy import Budget, Policy
from .policy.zones import zone_of
from .stores.entries import Entry, Hit, Ledger, Outcome, Purse, Spent, ends_at, period_of
from .stores.process import identity
from .types import Attempt, ChatRequest, Model, Request, RunBudget

REMAINING = "devsynth.budget.remaining_micros"
WARNS = "warns "
"""Stands before the name of an account that only warns: what comes after a scope, anybody may be called."""
NOT_SETTLED = "an attempt stays in the ledger as what it could have cost at most: %s"
_log = logging.getLogger("devsynth_providers")


def worst_micros(request: Request, model: Model) -> int | None:
    """What an attempt at *request* may cost at most: the whole prompt, and as many tokens of answer as were asked for,
    each of the dearest class. ``None`` where no price is known."""
    return model.worst_micros(estimate_tokens(request.text), _answer_tokens(request))


def _answer_tokens(request: Request) -> int:
    return request.max_tokens if isinstance(request, ChatRequest) else 0


class Book:
    """What the router of one *policy* writes down of attempts, and what it lets them cost.

    Each is written into the *ledger* before it is made, with the worst that it may cost, which is taken from all
    budgets that it falls under, or from none; and after it, what it has cost. Requests that name no project share an
    account, as if it were one, and so it is with roles and tasks. What costs nothing is never refused. Without a ledger
    only the budgets of code hold.
    """

    def __init__(self, ledger: Ledger | None, policy: Policy, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._policy = policy.name
        self._budgets = tuple(budget for budget in policy.budgets if budget.per != "call")
        self._lease_s = policy.timeouts.total_s
        self._clock = clock

    async def reserve(self, request: Request, model: Model) -> Reservation | None:
        """Let the attempt begin that *request* says the number of. Raises ``BudgetExceeded``, and ``LedgerUnavailable``
        where a budget has to hold and nothing can be written; ``None`` if nobody counts."""
        if self._ledger is None and not request.call.runs:
            return None
        worst = worst_micros(request, model)
        reserved = Reservation(self._ledger, request, worst or 0)
        for run in request.call.runs:
            try:
                run.take(worst, reserved.tokens)
            except BaseException:
                telemetry.count(telemetry.BUDGET_REJECTIONS, scope="run")
                reserved.give_back()
                raise
            reserved.runs.append(run)
        if left := [each for run in reserved.runs if (each := run.left_micros) is not None]:
            telemetry.mark(REMAINING, min(left))
        if self._ledger is not None:
            try:
                reserved.written = await self._written(self._ledger, request, model, worst)
            except BaseException as error:
                reserved.give_back()
                if isinstance(error, asyncio.CancelledError):  # it may have been written all the same
                    reserved.settled_as(Outcome(cost_micros=0, basis="free", error="cancelled"))
                raise
        return reserved

    def hit(self, request: Request, model: Model) -> None:
        """The cache has answered *request*, with what *model* has said once."""
        if self._ledger is not None:
            self._ledger.hit(
                Hit(
                    provider=model.provider,
                    model=model.name,
                    project=request.project,
                    role=request.role,
                    task=request.task,
                    policy=self._policy,
                    rule=request.call.rule,
                )
            )

    async def _written(self, ledger: Ledger, request: Request, model: Model, worst: int | None) -> bool:
        """Whether the entry stands in the ledger; if not, the budgets say that the attempt may be made all the same."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        paid = {} if worst == 0 else self._purses(request, now)
        if worst is None and (strict := next((purse for purse in paid if purse.binding), None)):
            what = f"{strict.account} can not pay for {model.name}, which has no known price"
            raise _refusal(what, strict, paid[strict])
        try:
            told = await ledger.reserve(self._entry(request, model, worst or 0), tuple(paid))
        except LedgerUnavailable as error:
            if paid and any(each.when_unavailable == "refuse" for each in self._budgets):
                raise
            _log.warning("an attempt is not in the ledger: %s", error)
            return False
        for spent in told.over:
            telemetry.event("budget.warned", **_facts(spent))
            _log.warning("%s is over its budget: %s", spent.purse.account.removeprefix(WARNS), _figures(spent))
        if told.refused is not None:
            telemetry.event("budget.rejected", **_facts(told.refused))
            telemetry.mark(REMAINING, max(0, told.refused.purse.limit_micros - told.refused.spent_micros))
            raise _exceeded(told.refused, paid[told.refused.purse], now, worst or 0, model)
        return True

    def _purses(self, request: Request, now: datetime) -> dict[Purse, Budget]:
        """What an attempt is paid from: each account in each span of time once. Of several budgets for one, the
        smallest is reached first; those that only warn have accounts of their own, beside those that hold."""
        smallest: dict[tuple[str, str], tuple[Purse, Budget]] = {}
        for budget in self._budgets:
            purse = _purse(budget, request, self._policy, now)
            known = smallest.get(purse[:2])
            if known is None or purse.limit_micros < known[0].limit_micros:
                smallest[purse[:2]] = purse, budget
        return dict(smallest.values())

    def _entry(self, request: Request, model: Model, worst: int) -> Entry:
        call = request.call
        due_s = None if call.deadline is None else call.deadline - asyncio.get_running_loop().time()
        return Entry(
            call=call.id,
            attempt=call.attempt,
            provider=model.provider,
            model=model.name,
            worst_micros=worst,
            lease_s=self._lease_s if due_s is None else max(0.0, due_s),
            project=request.project,
            role=request.role,
            task=request.task,
            policy=self._policy,
            rule=call.rule,
            tags=request.tags,
            reason=call.reason,
            complexity=call.complexity,
        )


class Reservation:
    """What is set aside for one attempt, until it has ended."""

    def __init__(self, ledger: Ledger | None, request: Request, micros: int) -> None:
        self.tokens = estimate_tokens(request.text) + _answer_tokens(request)
        self.runs: list[RunBudget] = []
        self.written = False
        self._ledger = ledger
        self._call = request.call
        self._micros = micros

    def give_back(self) -> None:
        """The attempt is not made."""
        for run in self.runs:
            run.count(-self._micros, -self.tokens, calls=-1)
        self.runs.clear()

    def settle(self, attempt: Attempt) -> Awaitable[object] | None:
        """*attempt* has ended: what it has cost takes the place of what was set aside. Await it to know that it is
        written down; that begins at once, and goes on also where nobody awaits it. It never fails."""
        used, cost = attempt.usage, self._micros if attempt.cost_micros is None else attempt.cost_micros
        for run in self.runs:
            run.count(cost - self._micros, used.input_tokens + used.output_tokens - self.tokens)
        if not self.written:
            return None
        return self.settled_as(
            Outcome(
                cost_micros=attempt.cost_micros,
                basis=attempt.cost_basis,
                usage=used,
                error=attempt.error,
                latency_s=attempt.latency_s,
                first_token_s=attempt.first_token_s,
                finish_reason=attempt.finish_reason,
            )
        )

    def settled_as(self, outcome: Outcome) -> Awaitable[object] | None:
        """Write *outcome* down."""
        if self._ledger is None:
            return None
        try:
            written = asyncio.ensure_future(self._ledger.settle(self._call.id, self._call.attempt, outcome))
        except LedgerUnavailable as error:
            _log.warning(NOT_SETTLED, error)
            return None
        if written.done():
            _complain(written)
            return None
        written.add_done_callback(_complain)
        return asyncio.gather(asyncio.shield(written), return_exceptions=True)


def _complain(written: asyncio.Future[bool]) -> None:
    if not written.cancelled() and (error := written.exception()) is not None:
        _log.warning(NOT_SETTLED, error)


def _purse(budget: Budget, request: Request, policy: str, now: datetime) -> Purse:
    known = {"project": request.project, "role": request.role, "task": request.task}
    whose = (known | {"process": identity(), "policy": policy})[budget.scope]
    assert budget.per != "call"
    period = period_of(budget.per, now, zone_of(budget.zone))
    if budget.zone != "UTC" and budget.per != "total":
        period = f"{period} {budget.zone}"
    warns = budget.when_spent == "warn"
    return Purse(f"{WARNS if warns else ''}{budget.scope}:{whose or ''}", period, budget.limit_micros, not warns)


def _exceeded(spent: Spent, budget: Budget, now: datetime, worst: int, model: Model) -> BudgetExceeded:
    assert budget.per != "call"
    resets_at = ends_at(budget.per, now, zone_of(budget.zone))
    until = "" if resets_at is None else f"; it begins anew at {resets_at.isoformat(timespec='minutes')}"
    refusal = _refusal(
        f"{spent.purse.account} has too little left: {model.name} could cost ${worst / 1_000_000:.6f}, and "
        f"{_figures(spent)} per {budget.per}{until}",
        spent.purse,
        budget,
    )
    refusal.resets_at, refusal.spent_usd = resets_at, spent.spent_micros / 1_000_000
    return refusal


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
