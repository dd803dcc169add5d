"""No more than a provider takes: calls wait for their turn, or go elsewhere."""

from __future__ import annotations

import asyncio
import math

from typing_extensions import override

from .. import telemetry, turns
from ..errors import LimitReached, ProviderUnavailable, RateLimitError
from ..limits import Limiter, Ticket, Wish
from ..port import ProviderPort
from ..reply import Reply
from ..types import Request
from .turn import SPARE_S, Others, Over, most_tokens, nobody_counts, refusal, told, used
from .wrapper import Wrapper

_OVERLOADED = (503, 529)


class Limited(Wrapper):
    """Wait for one's turn at *inner*, as the *limiter* has it; ``LimitReached`` at once if there is no time to wait.

    The turn lasts until the answer has ended, failed, been left, or been forgotten. Before the call it is taken to use
    the whole prompt and ``max_tokens`` of answer, as providers reckon themselves when they admit a call (OpenAI, guide
    "Rate limits"); afterwards it counts what was reported. So no minute gets too much because answers were longer than
    usual; where ``max_tokens`` is far above what is needed, fewer calls are under way at once than could be.
    A provider that refuses, by 429, or 503 and 529 for being overloaded, is asked less for a while. Where *others* send
    to it, too, whose turn it is here still needs their leave.
    """

    def __init__(self, inner: ProviderPort, limiter: Limiter, others: Others | None = None) -> None:
        super().__init__(inner)
        self._limiter = limiter
        self._others = others

    @override
    async def send(self, request: Request) -> Reply:
        ticket = await self._turn(request)
        over = await self._leave(request, ticket)
        try:
            reply = await self.inner.send(request)
        except BaseException as error:
            over(used(error, ticket.wish.tokens))
            _failed(ticket, error)
            raise

        def finish(reply: Reply, error: BaseException | None) -> None:
            tokens = told(reply.reported_usage, ticket.wish.tokens)
            over(tokens)
            if error is None:
                ticket.answered(tokens)
            else:
                ticket.failed(tokens)

        return reply.on_finish(finish)

    async def _leave(self, request: Request, ticket: Ticket) -> Over:
        if self._others is None:
            return nobody_counts
        try:
            return await self._others.leave(self.model, request, ticket)
        except BaseException:
            ticket.undo()  # nothing was sent
            raise

    async def _turn(self, request: Request) -> Ticket:
        deadline = request.call.deadline
        by = math.inf if deadline is None else deadline - SPARE_S
        model = self.model
        entrance = self._limiter.entrance(model)
        counted_elsewhere = self._others is not None and self._limiter.rates(model) != (None, None)
        counts = counted_elsewhere or entrance.counts_tokens(model.name)
        tokens = most_tokens(request) if counts else 0
        ticket, expected_s, gate = entrance.join(Wish(model.name, request.project, tokens), by)
        if ticket is None:
            raise refusal(model, gate, expected_s)
        if not ticket.inside:
            clock = asyncio.get_running_loop().time
            began = clock()
            turns.waiting()
            in_time = await ticket.called()
            waited_s = clock() - began
            turns.begun(waited_s)
            telemetry.measure(telemetry.QUEUE_WAIT, waited_s, model=self.model.name)
            if not in_time:
                raise refusal(model, gate, None, waited_s)
            telemetry.event("limit.waited", limit=gate, wait_s=waited_s)
        return ticket


def _failed(ticket: Ticket, error: BaseException) -> None:
    overloaded = isinstance(error, ProviderUnavailable) and error.status in _OVERLOADED
    if isinstance(error, LimitReached):
        ticket.undo()  # nothing was sent
        return
    if overloaded or isinstance(error, RateLimitError):
        ticket.refused(getattr(error, "retry_after_s", None))
        return
    ticket.failed(used(error, ticket.wish.tokens))
