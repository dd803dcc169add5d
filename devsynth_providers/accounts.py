"""Who pays for an attempt: the policy's budgets, whose accounts a ledger keeps, and those of the run it is part of."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from . import telemetry
from .analysis import estimate_tokens
from .errors import LedgerUnavailable
from .policy import Budget, Policy
from .purses import REMAINING, OfRuns, no_price, purse_of, rejected, warned
from .stores.entries import Entry, Hit, Ledger, Outcome, Purse
from .types import Attempt, ChatRequest, Model, Request, RunBudget

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
    only the budgets of runs hold: those of code, and those of the policy, for which a request outside of all runs of
    code is one by itself.
    """

    def __init__(self, ledger: Ledger | None, policy: Policy, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._policy = policy.name
        self._budgets = tuple(budget for budget in policy.budgets if budget.has_account)
        self._of_runs = OfRuns(budget for budget in policy.budgets if budget.scope == "run")
        self._lease_s = policy.timeouts.total_s
        self._clock = clock

    async def reserve(self, request: Request, model: Model) -> Reservation | None:
        """Let the attempt begin that *request* says the number of. Raises ``BudgetExceeded``, and ``LedgerUnavailable``
        where a budget has to hold and nothing can be written; ``None`` if nobody counts."""
        runs = request.call.runs or ((request.call.tally.run,) if self._of_runs else ())
        if self._ledger is None and not runs:
            return None
        worst = worst_micros(request, model)
        reserved = Reservation(self._ledger, request, worst or 0)
        try:
            for run in runs:
                self._of_runs.take(run, worst, reserved.tokens, model, whole=run is runs[0])
                reserved.runs.append(run)
            spent_micros = runs[0].spent_micros if runs and worst != 0 else 0
            if (left := self._of_runs.left_micros(runs)) is not None:
                telemetry.mark(REMAINING, left)
            if self._ledger is not None:
                reserved.written = await self._written(self._ledger, request, model, worst)
        except BaseException as error:
            reserved.give_back()
            if isinstance(error, asyncio.CancelledError):  # it may have been written all the same
                reserved.settled_as(Outcome(cost_micros=0, basis="free", error="cancelled"))
            raise
        self._of_runs.look(spent_micros)  # now that it is made
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
            raise no_price(strict, paid[strict], model)
        try:
            told = await ledger.reserve(self._entry(request, model, worst or 0), tuple(paid))
        except LedgerUnavailable as error:
            if paid and any(each.when_unavailable == "refuse" for each in self._budgets):
                raise
            _log.warning("an attempt is not in the ledger: %s", error)
            return False
        for spent in told.over:
            warned(spent)
        if told.refused is not None:
            raise rejected(told.refused, paid[told.refused.purse], worst or 0, model, now)
        return True

    def _purses(self, request: Request, now: datetime) -> dict[Purse, Budget]:
        """What an attempt is paid from: each account in each span of time once. Of several budgets for one, the
        smallest is reached first; those that only warn have accounts of their own, beside those that hold."""
        smallest: dict[tuple[str, str], tuple[Purse, Budget]] = {}
        for budget in self._budgets:
            purse = purse_of(budget, request, self._policy, now)
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
            complexity=call.complexity if isinstance(request, ChatRequest) else None,  # of texts to embed, none
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
