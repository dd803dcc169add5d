"""No more than a provider takes, by all processes together: what they have sent is kept where all of them look."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from .. import telemetry, turns
from ..limits import ANY, Lane, Limiter, Ticket, Where
from ..policy import RateLimits
from ..stores.servers import Kind, server_key
from ..stores.shared import Full, Leave, Quota, Shared, SharedUnavailable
from ..types import Model, Request, Timeouts
from .turn import SPARE_S, Over, nobody_counts, refusal

AWAY_S = 5.0
"""What can not be reached is not asked again for so long: each time may take seconds."""
_log = logging.getLogger("devsynth_providers")


class _Gate(NamedTuple):
    """A gate that a call passes: for those who count, for people, and for those who wait in this process."""

    quota: Quota
    name: str
    where: Where


class Ration:
    """Let a call be made whose turn it is in this process only if it is within the limits of all that use *shared*.

    The *limiter* says what these are. Whoever has no leave goes back to where it stood in this process, holding up only
    those who would have none either, and asks again when there is likely to be some; no order is kept between
    processes. Where *shared* can not be reached the limits of this process hold alone.
    """

    def __init__(self, limiter: Limiter, shared: Shared, timeouts: Timeouts = Timeouts()) -> None:
        self._limiter = limiter
        self._shared = shared
        self._total_s = timeouts.total_s
        self._warned = False
        self._away_until = 0.0

    async def leave(self, model: Model, request: Request, ticket: Ticket) -> Over:
        """Wait until the call to *model* that *ticket* is of may be made. Whoever makes it says when it is over."""
        gates = self._gates(model, request.project)
        if not gates or time.monotonic() < self._away_until:
            return nobody_counts
        quotas = [gate.quota for gate in gates]
        clock = asyncio.get_running_loop().time
        began, name = clock(), ""
        deadline = began + self._total_s if request.call.deadline is None else request.call.deadline
        while isinstance(answer := await self._asked(quotas, ticket.wish.tokens, max(0.0, deadline - clock())), Full):
            _, full, where = gates[answer.number]
            if not name:
                turns.waiting()
            name = full
            late = clock() + answer.wait_s > deadline - SPARE_S
            if late or not await ticket.again(where, answer.wait_s):
                turns.begun(clock() - began)
                raise refusal(model, name, answer.wait_s if late else None, clock() - began)
        if name:
            waited_s = clock() - began
            turns.begun(waited_s)
            telemetry.measure(telemetry.QUEUE_WAIT, waited_s, model=model.name)
            telemetry.event("limit.waited", limit=name, wait_s=waited_s, shared=True)
        left = answer
        return nobody_counts if left is None else lambda tokens: self._shared.left(quotas, left, tokens)

    async def _asked(self, quotas: Sequence[Quota], tokens: int, lease_s: float) -> Leave | Full | None:
        try:
            return await self._shared.enter(quotas, tokens, lease_s)
        except SharedUnavailable as error:
            self._away_until = time.monotonic() + AWAY_S
            if not self._warned:
                self._warned = True
                _log.warning("limits hold for this process alone: %s", error)
            return None

    def _gates(self, model: Model, project: str | None) -> Sequence[_Gate]:
        """For the provider's account at its place, and for the model there; of each, for the project, and for all."""
        whole, own = self._limiter.rates(model)
        gates = list[_Gate]()
        all_rates: tuple[tuple[Kind, str, RateLimits | None, Lane], ...] = (
            ("provider", model.provider, whole, ANY),
            ("model", model.name, own, model.name),
        )
        for kind, name, rates, lane in all_rates:
            if rates is not None and _limits(rates):
                gates.append(_gate(server_key(model, kind, ""), rates, name, (lane, ANY)))
            if rates is not None and (each := rates.per_project) is not None and _limits(each):
                gate = server_key(model, kind, f"for {project or ''}")
                gates.append(_gate(gate, each, f"{name} for {project or 'requests of no project'}", (lane, project)))
        return gates


def _gate(gate: str, rates: RateLimits, name: str, where: Where) -> _Gate:
    quota = Quota(gate, rates.requests_per_minute, rates.tokens_per_minute, rates.concurrent)
    return _Gate(quota, name, where)


def _limits(rates: RateLimits) -> bool:
    return (rates.requests_per_minute, rates.tokens_per_minute, rates.concurrent) != (None, None, None)
