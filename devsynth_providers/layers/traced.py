"""One attempt, written down: an ``Attempt`` in the answer or the error, and a span in the trace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from typing_extensions import override

from .. import telemetry
from ..accounts import Book, Reservation
from ..analysis import estimate_tokens
from ..errors import DevSynthError, NotPaid, ProviderError
from ..port import ProviderPort
from ..reply import Reply
from ..types import Attempt, ChatRequest, Model, Request, Usage
from .wrapper import Wrapper


class Traced(Wrapper):
    """Write down every attempt that passes, however it ends: answered, failed, left early or cancelled. Where there is
    a *book* it stands in the ledger before it is made; one that can not be paid is none.

    Usage that the provider did not report is estimated from the text, and marked so: an attempt that may have
    been billed is never counted as free. What is asked and answered is in the trace only where *show_content* says
    so, and the environment too.
    """

    def __init__(self, inner: ProviderPort, book: Book | None = None, *, show_content: bool = False) -> None:
        super().__init__(inner)
        self._book = book
        self._show_content = show_content

    @override
    async def send(self, request: Request) -> Reply:
        tally = request.call.tally
        if (number := tally.number()) != request.call.attempt:
            request = request.on(attempt=number)
        reserved = None if self._book is None else await self._reserved(self._book, request)
        clock = asyncio.get_running_loop().time  # an answer may end when no loop runs any more
        started = clock()
        with telemetry.attempt_span(request, self.model, show_content=self._show_content) as span:
            try:
                reply = await self.inner.send(request)
            except BaseException as error:
                failed = self._attempt(request, clock() - started, started, span, error)
                tally.ended(failed)
                if isinstance(error, ProviderError):
                    error.provider, error.model = self.model.provider, self.model.name
                    error.attempts = tally.attempts
                span.finish(failed, None, error)
                written = None if reserved is None else reserved.settle(failed)
                if written is not None and not isinstance(error, asyncio.CancelledError):
                    await written
                raise

        def finish(reply: Reply, error: BaseException | None) -> Awaitable[object] | None:
            done = self._attempt(request, clock() - started, started, span, error, reply)
            reply.usage = done.usage
            tally.ended(done)
            reply.attempts = tally.attempts
            span.finish(done, reply, error)
            return None if reserved is None else reserved.settle(done)

        reply.attempts = tally.attempts
        return span.paced(reply.since(started)).on_finish(finish)

    async def _reserved(self, book: Book, request: Request) -> Reservation | None:
        tally = request.call.tally
        try:
            return await book.reserve(request, self.model)
        except NotPaid as refusal:
            tally.unmade(request.call.attempt)
            refusal.attempts = tally.attempts
            raise

    def _attempt(
        self,
        request: Request,
        latency_s: float,
        started: float,
        span: telemetry.AttemptSpan,
        error: BaseException | None,
        reply: Reply | None = None,
    ) -> Attempt:
        model = self.model if reply is None else reply.model  # who answered may not be who was to be asked first
        usage = getattr(error, "usage", None) if reply is None else reply.reported_usage
        if usage is not None and not _possible(usage, request, model):
            usage = None
        worst = None
        if usage is None and _may_be_billed(error) and not span.queued:  # in a queue nothing has been sent
            usage = _estimate(request, reply)
            if error is not None:
                asked = request.max_tokens if isinstance(request, ChatRequest) else 0
                worst = model.worst_micros(usage.input_tokens, asked)
        charged = usage is not None
        usage = usage or Usage()
        cost_micros = model.cost_micros(usage) if charged else 0
        return Attempt(
            number=request.call.attempt,
            reason=request.call.reason,
            provider=model.provider,
            model=model.name,
            latency_s=latency_s,
            wait_s=span.wait_s,
            first_token_s=None if reply is None or reply.begun is None else reply.begun - started,
            usage=usage,
            cost_micros=cost_micros,
            cost_basis=model.cost_basis(usage) if charged else "free",
            worst_micros=cost_micros if worst is None else worst,
            finish_reason=None if reply is None else reply.finish_reason,
            error=_kind(error),
            error_message=str(error) if isinstance(error, DevSynthError) else "",
        )


def _possible(usage: Usage, request: Request, model: Model) -> bool:
    """Whether so many tokens can have been used: they add up, no more went in than the window or the prompt holds, and
    no more came out than was asked for, each with room for what a provider counts otherwise."""
    if not usage.adds_up:
        return False
    asked = request.max_tokens if isinstance(request, ChatRequest) else 0
    if usage.output_tokens > 4 * asked + 10_000:
        return False
    if usage.input_tokens <= (model.context_window or 10_000):
        return True
    return usage.input_tokens <= 10 * estimate_tokens(request.text) + 10_000


def _may_be_billed(error: BaseException | None) -> bool:
    return error.billed if isinstance(error, ProviderError) else not isinstance(error, DevSynthError)


def _estimate(request: Request, reply: Reply | None) -> Usage:
    """What an attempt used as far as can be told from here: all of the prompt, and what was written."""
    written = "" if reply is None else reply.written
    return Usage(estimate_tokens(request.text), estimate_tokens(written), estimated=True)


def _kind(error: BaseException | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, DevSynthError):
        return error.kind
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__qualname__
