"""No more than a provider takes: calls wait for their turn, or go elsewhere."""

from __future__ import annotations

import asyncio
import math

from typing_extensions import override

from .. import telemetry, turns
from ..analysis import estimate_tokens
from ..errors import LimitReached, ProviderError, ProviderUnavailable, RateLimitError
from ..limits import Limiter, Ticket, Wish
from ..port import ProviderPort
from ..reply import Reply
from ..types import ChatRequest, Request, Usage
from .wrapper import Wrapper

SPARE_S = 0.05
"""A turn that comes so short before the deadline is none."""
_OVERLOADED = (503, 529)


class Limited(Wrapper):
    """Wait for one's turn at *inner*, as the *limiter* has it; ``LimitReached`` at once if there is no time to wait.

    The turn lasts until the answer has ended, failed, been left, or been forgotten. Before the call it is taken to use
    the whole prompt and ``max_tokens`` of answer, as providers reckon themselves when they admit a call (OpenAI, guide
    "Rate limits"); afterwards it counts what was reported. So no minute gets too much because answers were longer than
    usual; where ``max_tokens`` is far above what is needed, fewer calls are under way at once than could be.
    A provider that refuses, by 429, or 503 and 529 for being overloaded, is asked less for a while.
    """

    def __init__(self, inner: ProviderPort, limiter: Limiter) -> None:
        super().__init__(inner)
        self._limiter = limiter

    @override
    async def send(self, request: Request) -> Reply:
        ticket = await self._turn(request)
        try:
            reply = await self.inner.send(request)
        except BaseException as error:
            _failed(ticket, error)
            raise

        def finish(reply: Reply, error: BaseException | None) -> None:
            tokens = _told(reply.reported_usage, ticket)
            if error is None:
                ticket.answered(tokens)
            else:
                ticket.failed(tokens)

        return reply.on_finish(finish)

    async def _turn(self, request: Request) -> Ticket:
        deadline = request.call.deadline
        by = math.inf if deadline is None else deadline - SPARE_S
        model = self.model
        entrance = self._limiter.entrance(model)
        tokens = _most_tokens(request) if entrance.counts_tokens(model.name) else 0
        ticket, expected_s, gate = entrance.join(Wish(model.name, request.project, tokens), by)
        if ticket is None:
            raise self._refusal(gate, expected_s)
        if not ticket.inside:
            clock = asyncio.get_running_loop().time
            began = clock()
            turns.waiting()
            in_time = await ticket.called()
            waited_s = clock() - began
            turns.begun(waited_s)
            telemetry.measure(telemetry.QUEUE_WAIT, waited_s, limit=gate)
            if not in_time:
                raise self._refusal(gate, None, waited_s)
            telemetry.event("limit.waited", limit=gate, wait_s=waited_s)
        return ticket

    def _refusal(self, gate: str, expected_s: float | None, waited_s: float | None = None) -> LimitReached:
        telemetry.event("limit.refused", limit=gate, expected_wait_s=expected_s, wait_s=waited_s)
        when = (
            "did not come in time"
            if expected_s is None
            else f"would come in about {expected_s:.3g} s, and it has no time for that"
        )
        error = LimitReached(
            f"{gate} is asked as much as its limits allow; the turn of this call {when}",
            provider=self.model.provider,
            model=self.model.name,
            code="local_limit",
        )
        error.retry_after_s = expected_s
        return error


def _most_tokens(request: Request) -> int:
    return estimate_tokens(request.text) + (request.max_tokens if isinstance(request, ChatRequest) else 0)


def _failed(ticket: Ticket, error: BaseException) -> None:
    overloaded = isinstance(error, ProviderUnavailable) and error.status in _OVERLOADED
    if overloaded or (isinstance(error, RateLimitError) and not isinstance(error, LimitReached)):
        ticket.refused(getattr(error, "retry_after_s", None))
        return
    tokens = _told(error.usage, ticket) if isinstance(error, ProviderError) else None
    if tokens is None and isinstance(error, ProviderError) and not error.billed:
        tokens = 0
    ticket.failed(tokens)


def _told(usage: Usage | None, ticket: Ticket) -> int | None:
    """The tokens that *usage* tells of; ``None`` if it tells nothing, or what can not be true: a false word must
    neither free a minute nor fill it."""
    if usage is None or min(usage.input_tokens, usage.output_tokens) < 0:
        return None
    tokens = usage.input_tokens + usage.output_tokens
    return tokens if tokens <= 10 * ticket.wish.tokens + 10_000 else None
