"""The decision log: what was decided and how it went, one line of JSON for each request, when it has ended.

Facts, not content: no prompt, no answer, no error message, no key. ``docs/replay.md`` lists what stands in a line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import ConfigurationError, DevSynthError, NoModelFits
from .lines import LineWriter
from .policy import Conditions, Facts
from .policy.decision import Decision, Option, Outcome, Try, served
from .reply import Reply
from .types import Attempt, Plan, Rejection, Request, total_cost


class DecisionLog:
    """Writes each decision of a router, with its outcome, to the file *path*, which only its owner may read.

    Writing neither blocks nor fails a call: a thread of its own does it. What could not be written is counted in
    ``lost``, and logged once. Several processes may write to one file. A file that would be larger than *max_bytes*
    becomes ``path.1``, in place of the one before. With *prompts*, what was asked is written too: for those who want to
    see what another analyzer would make of it, and may keep it.
    """

    def __init__(self, path: str | Path, *, prompts: bool = False, max_bytes: int = 100_000_000) -> None:
        self.path = Path(path)
        if not self.path.absolute().parent.is_dir():
            raise ConfigurationError(f"a decision log can not be written to {self.path}: there is no such folder")
        self.prompts = prompts
        self._lines = LineWriter(self.path, max_bytes)

    @property
    def lost(self) -> int:
        """How many decisions could not be written."""
        return self._lines.lost

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that has ended is written; whether it was in time."""
        return self._lines.flush(timeout_s)

    def close(self) -> None:
        """Write what is left, and end the thread. Requests that end later are still written."""
        self._lines.close()

    def add(self, decision: Callable[[], Decision]) -> None:
        """Have what *decision* returns written, soon; it is called in the thread that writes."""
        self._lines.put(lambda: decision().line())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Note:
    """What is known of one request, until it has ended and is written. Without a *log* it does nothing.

    Around the request, by ``with``: an error that leaves it is its end. An answer ends by ``finish``.
    """

    __slots__ = ("_began", "_conditions", "_facts", "_log", "_plan", "_policy", "_request", "_time")

    def __init__(self, log: DecisionLog | None, request: Request, policy: str) -> None:
        self._log = log
        if log is not None:
            self._request = request
            self._policy = policy
            self._time = datetime.now(UTC)
            self._began = asyncio.get_running_loop().time()
            self._facts: Facts | None = None
            self._conditions = Conditions()
            self._plan: Plan | None = None

    def given(self, facts: Facts, conditions: Conditions) -> None:
        """The decision is made from these."""
        if self._log is not None:
            self._facts, self._conditions = facts, conditions

    def decided(self, plan: Plan) -> None:
        """This was decided."""
        if self._log is not None:
            self._plan = plan

    def finish(self, reply: Reply, error: BaseException | None) -> None:
        """The answer is whole, was left early, or broke off."""
        if self._log is None:
            return
        status = "answered" if reply.finish_reason else "left"
        answer = reply.response
        cost_micros, basis = total_cost(reply.attempts)
        outcome = Outcome(
            status=status if error is None else _status(error),
            error=_kind(error),
            model=answer.model,
            finish_reason=answer.finish_reason,
            degraded=answer.degraded,
            cached=answer.cached,
            cost_micros=cost_micros,
            cost_basis=basis,
            latency_s=answer.latency_s,
            first_token_s=answer.first_token_s,
        )
        self._end(outcome, reply.attempts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or self._log is None:
            return
        attempts = self._request.call.tally.attempts
        cost_micros, basis = total_cost(attempts)
        outcome = Outcome(
            status=_status(error),
            error=_kind(error),
            cost_micros=cost_micros,
            cost_basis=basis,
            latency_s=asyncio.get_running_loop().time() - self._began,
        )
        self._end(outcome, attempts, getattr(error, "rejected", ()))

    def _end(self, outcome: Outcome, attempts: tuple[Attempt, ...], rejected: tuple[Rejection, ...] = ()) -> None:
        if self._log is not None and self._facts is not None:
            self._log.add(partial(self._decision, self._facts, outcome, attempts, rejected, self._log.prompts))

    def _decision(
        self,
        facts: Facts,
        outcome: Outcome,
        attempts: tuple[Attempt, ...],
        rejected: tuple[Rejection, ...],
        prompts: bool,
    ) -> Decision:
        plan, request = self._plan, self._request
        candidates = () if plan is None else plan.candidates
        names = {each.model.name: served(each.model) for each in candidates}
        asked, whole = (request.task_text, request.text) if prompts else (None, None)
        return Decision(
            time=self._time.isoformat(timespec="milliseconds"),
            call=request.call.id,
            policy=self._policy,
            rule=None if plan is None else plan.rule,
            facts=facts,
            conditions=_without_reasons(self._conditions),
            candidates=tuple(map(Option.of, candidates)),
            rejected=tuple(Rejection(each.model, each.code, "") for each in (plan.rejected if plan else rejected)),
            outcome=replace(outcome, attempts=tuple(Try.of(each, names) for each in attempts)),
            prompt=asked,
            text=None if whole == asked else whole,
        )


def _without_reasons(conditions: Conditions) -> Conditions:
    """*conditions* without the sentences that say why: a provider of somebody's own may have written anything there."""
    unavailable, unhealthy = (dict.fromkeys(each, "") for each in (conditions.unavailable, conditions.unhealthy))
    return conditions._replace(unavailable=unavailable, unhealthy=unhealthy)


def _status(error: BaseException) -> str:
    if isinstance(error, NoModelFits):
        return "refused"
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "failed"


def _kind(error: BaseException | None) -> str | None:
    if error is None or isinstance(error, asyncio.CancelledError | GeneratorExit):
        return None
    return error.kind if isinstance(error, DevSynthError) else type(error).__qualname__
