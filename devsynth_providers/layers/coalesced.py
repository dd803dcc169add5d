"""Equal requests under way at the same time are one call, whole or streamed."""

from __future__ import annotations

import asyncio

from typing_extensions import override

from .. import telemetry
from ..errors import NotPaid, ProviderError
from ..flights import Flight, Flights
from ..port import ProviderPort
from ..reply import Reply
from ..types import Plan, Request, Tenant, Timeouts, fingerprint
from .wrapper import Wrapper

SPARE_S = 0.05
"""Whoever has so little less time than the policy gives has all of it: something was done before it came here."""


class Coalesced(Wrapper):
    """Let a request listen to the call of an equal one that is under way; one that is like no other begins a call.

    Equal is what has one fingerprint, under one decision and with the same limits; which requests take part, says the
    rule of the *plan*. The call belongs to all who listen: it has the time that the policy gives, *total_s*, goes on
    when who began it is cancelled, late or gone, and is ended when nobody listens any more. Each of its attempts,
    and what it cost, is told by one of them: who began it, or, after an early leave, who has listened longest. The
    answers of those who tell of none are ``shared``.
    """

    def __init__(
        self, inner: ProviderPort, plan: Plan, flights: Flights, *, total_s: float = Timeouts().total_s
    ) -> None:
        super().__init__(inner)
        self._plan = plan
        self._flights = flights
        self._total_s = total_s

    @override
    async def send(self, request: Request) -> Reply:
        key = self._key(request) if self._plan.conduct.shares(sampled=request.sampled) else None
        if key is None:
            return await self.inner.send(request)
        request = request.begun()
        flight = self._flights.under_way(key)
        if flight is None:
            flight = self._flights.begin(key, self.inner, self._with_time(request))
        else:
            telemetry.event("coalesced", leader=flight.request.call.id)
            flight.link()
        return await _heard(flight, request)

    def _key(self, request: Request) -> str | None:
        plan = self._plan
        models = (candidate.model for candidate in plan.candidates)
        return fingerprint(Tenant.of(request), request, models, plan.policy, plan.rule, request.limits)

    def _with_time(self, request: Request) -> Request:
        """*request* in no more of a hurry than others: who begins a call may have less time than who joins."""
        due, own = asyncio.get_running_loop().time() + self._total_s, request.call.deadline
        return request if own is not None and own > due - SPARE_S else request.on(deadline=due)


async def _heard(flight: Flight, request: Request) -> Reply:
    """The answer that *flight* brings, for *request* alone."""
    listener, tally = flight.join(request), request.call.tally
    try:
        await flight.more(listener, 0)
    except BaseException as error:
        await flight.leave(listener)
        if isinstance(error, ProviderError | NotPaid):
            error.attempts = tally.attempts
        raise
    inner = flight.reply
    if inner is None:
        raise AssertionError("there was a piece, and no reply")
    reply = await Reply.open(flight.models[0], flight.listen(listener))
    reply.cached, reply.degraded, reply.attempts = inner.cached, flight.degraded, tally.attempts
    reply.shared = flight.shared_by(listener)

    def finish(reply: Reply, _: BaseException | None) -> None:
        reply.attempts, reply.shared = tally.attempts, flight.shared_by(listener)
        reply.usage = inner.usage
        reply.model = flight.models[len(reply.continued_by)]  # as far as it was heard: the call may have gone on

    return reply.on_finish(finish)
