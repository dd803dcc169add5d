"""The next model, when one has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from typing_extensions import override

from .. import telemetry
from ..errors import (
    AllProvidersFailed,
    ContentFiltered,
    ContextTooLong,
    InvalidRequest,
    NotPaid,
    ProviderError,
)
from ..port import ProviderPort
from ..reply import Reply
from ..types import ChatRequest, EmbedRequest, Model, Request

LEFT_TO_OTHERS = 0.25
"""The share of the time that a whole answer, which is silent until it is done, leaves to the models after it."""


class FallbackProvider(ProviderPort):
    """Ask each provider in turn until one begins to answer.

    An error that every provider would repeat (``passes_on`` is false) is raised at once, and so is one of a kind in
    *stops_at*; what a content policy refused (``content_filtered``) goes on where that is not in it. After
    ``ContextTooLong`` only larger windows are asked. Vectors come from one vector space: an embedding passes on only to
    providers of the same model. When all have failed, ``AllProvidersFailed`` holds one error for each; if only one
    could be asked, its own error is raised. A whole answer may not take all of the time while others could still be
    asked: a quarter of it is theirs. Of a provider that asks several itself, each error counts, and none of them
    is asked again.
    """

    def __init__(
        self, providers: Sequence[ProviderPort], *, stops_at: Collection[str] = (ContentFiltered.kind,)
    ) -> None:
        if not providers:
            raise InvalidRequest("FallbackProvider needs at least one provider")
        self.providers = tuple(providers)
        self._stops_at = stops_at

    @property
    @override
    def model(self) -> Model:
        return self.providers[0].model

    @property
    @override
    def max_context_size(self) -> int:
        return min(provider.max_context_size for provider in self.providers)

    @override
    async def send(self, request: Request) -> Reply:
        request, errors = request.begun(), list[ProviderError]()
        unpaid: NotPaid | None = None
        asked = set[str]()
        able = self._able(request)
        for provider in able:
            if provider.model.name in asked or (errors and not _may_follow(provider, errors, request)):
                continue
            try:
                reply = await provider.send(request if provider is able[-1] else _leaving_time(request))
            except NotPaid as error:
                if not error.passes_on:
                    raise
                unpaid = error
            except ProviderError as error:
                failed = error.exceptions if isinstance(error, AllProvidersFailed) else (error,)
                for final in (each for each in failed if not self._passes_on(each)):
                    final.attempts = error.attempts
                    raise final from final.__cause__
                errors += failed
                asked |= {each.model for each in failed[1:]}
                request = request.on(reason="fallback")
            else:
                reply.degraded = reply.degraded or provider is not self.providers[0]
                for each in errors:  # it would hold this frame, and that the answer: forgotten, it is to end at once
                    each.__traceback__ = None
                return reply
        if unpaid is not None:
            unpaid.attempts = request.call.tally.attempts  # those after it, too, that could be paid and failed
            raise unpaid
        if len(errors) == 1:
            raise errors[0]
        raise AllProvidersFailed(f"All providers failed. Last error: {errors[-1]}", errors)

    def _passes_on(self, error: ProviderError) -> bool:
        return (error.passes_on or isinstance(error, ContentFiltered)) and error.kind not in self._stops_at

    def _able(self, request: Request) -> tuple[ProviderPort, ...]:
        if isinstance(request, EmbedRequest):
            return tuple(each for each in self.providers if each.model.id == self.model.id)
        return self.providers

    @override
    async def warm_up(self) -> None:
        await asyncio.gather(*(provider.warm_up() for provider in self.providers))

    @override
    async def aclose(self) -> None:
        await asyncio.gather(*(provider.aclose() for provider in self.providers))


def _leaving_time(request: Request) -> Request:
    """*request* for a model that others come after."""
    deadline = request.call.deadline
    if deadline is None or (isinstance(request, ChatRequest) and request.stream):
        return request  # a stream that hangs is noticed by when it begins
    return request.due(deadline - LEFT_TO_OTHERS * (deadline - asyncio.get_running_loop().time()))


def _may_follow(provider: ProviderPort, errors: Sequence[ProviderError], request: Request) -> bool:
    """Whether *provider* is worth asking after *errors*; if so, the trace says what it follows and why."""
    deadline = request.call.deadline
    if deadline is not None and asyncio.get_running_loop().time() >= deadline:
        return False
    for error in errors:
        if isinstance(error, ContextTooLong) and not _larger(provider.model, error.context_window):
            return False
    last = errors[-1]
    telemetry.event("fallback", **{"from": last.model, "to": provider.model.name, "reason": last.kind})
    return True


def _larger(model: Model, window: int | None) -> bool:
    """Whether *model* holds more than *window* tokens, as far as is known."""
    return window is None or model.context_window is None or model.context_window > window
