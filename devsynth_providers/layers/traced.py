"""One attempt, written down: an ``Attempt`` in the answer or the error, and a span in the trace."""

from __future__ import annotations

import asyncio

from typing_extensions import override

from .. import telemetry
from ..analysis import estimate_tokens
from ..errors import DevSynthError, ProviderError
from ..reply import Reply
from ..types import Attempt, Request, Response, Usage
from .wrapper import Wrapper


class Traced(Wrapper):
    """Write down every attempt that passes, however it ends: answered, failed, left early or cancelled.

    Usage that the provider did not report is estimated from the text, and marked so: an attempt that may have
    been billed is never counted as free.
    """

    @override
    async def send(self, request: Request) -> Reply:
        clock = asyncio.get_running_loop().time
        started = clock()
        with telemetry.attempt_span(request, self.model) as span:
            try:
                reply = await self.inner.send(request)
            except BaseException as error:
                failed = self._attempt(
                    request, Response(), error, latency_s=clock() - started, first_token_s=None, wait_s=span.wait_s
                )
                if isinstance(error, ProviderError):
                    error.provider, error.model = self.model.provider, self.model.name
                    error.attempts = (failed,)
                span.finish(failed, "", error)
                raise

        def finish(response: Response, error: BaseException | None) -> None:
            first_token_s = None if reply.begun is None else reply.begun - started
            done = self._attempt(
                request, response, error, latency_s=clock() - started, first_token_s=first_token_s, wait_s=span.wait_s
            )
            reply.usage = done.usage
            reply.attempts = (*reply.attempts, done)
            span.finish(done, response.response_model, error)

        return reply.since(started).on_finish(finish)

    def _attempt(
        self,
        request: Request,
        response: Response,
        error: BaseException | None,
        *,
        latency_s: float,
        first_token_s: float | None,
        wait_s: float,
    ) -> Attempt:
        usage = response.usage
        if usage == Usage() and _may_be_billed(error):
            usage = _estimate(request, response)
        return Attempt(
            number=request.call.attempt,
            reason=request.call.reason,
            provider=self.model.provider,
            model=self.model.name,
            latency_s=latency_s,
            wait_s=wait_s,
            first_token_s=first_token_s,
            usage=usage,
            cost_micros=self.model.cost_micros(usage),
            cost_basis=self.model.cost_basis(usage),
            finish_reason=response.finish_reason,
            error=_kind(error),
            error_message=str(error) if isinstance(error, DevSynthError) else "",
        )


def _may_be_billed(error: BaseException | None) -> bool:
    return error.billed if isinstance(error, ProviderError) else not isinstance(error, DevSynthError)


def _estimate(request: Request, response: Response) -> Usage:
    """What an attempt used as far as can be told from here: all of the prompt, and what was written."""
    written = response.text + "".join(call.arguments for call in response.tool_calls)
    return Usage(estimate_tokens(request.text), estimate_tokens(written), estimated=True)


def _kind(error: BaseException | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, DevSynthError):
        return error.kind
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__qualname__
