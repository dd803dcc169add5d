"""The next model too, when the first is slow to begin: whoever begins first answers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from typing_extensions import override

from .. import telemetry
from ..errors import (
    AllProvidersFailed,
    CircuitOpen,
    ContentFiltered,
    DevSynthError,
    LimitReached,
    ProviderError,
)
from ..health import RetryBudget
from ..measured import Measured
from ..port import ProviderPort
from ..reply import Reply
from ..types import ChatRequest, EmbedRequest, Hedge, Request
from .wrapper import Wrapper


class Hedged(Wrapper):
    """Ask *inner*, and when it has not begun after as long as *hedge* says, *second* too; whoever loses is cancelled.

    How long is usual is *measured*; while too little is known, or the *budget* of all hedges has none left, there is no
    hedge. Nor is there one where *second* is not asked after all: it can not be paid, is left alone, or has no turn to
    give. An error of *inner* is raised at once if no other may be asked (``passes_on``, *stops_at*) or none is;
    else the answer of *second* is waited for. If both failed, ``AllProvidersFailed`` holds both errors. Vectors come
    from one vector space: there, only another server of the same model is a second.
    """

    def __init__(
        self,
        inner: ProviderPort,
        second: ProviderPort,
        hedge: Hedge,
        measured: Measured,
        budget: RetryBudget,
        *,
        stops_at: Collection[str] = (ContentFiltered.kind,),
    ) -> None:
        super().__init__(inner)
        self.second = second
        self._hedge = hedge
        self._measured = measured
        self._budget = budget
        self._stops_at = stops_at

    @property
    @override
    def max_context_size(self) -> int:
        return min(self.inner.max_context_size, self.second.max_context_size)

    @override
    async def warm_up(self) -> None:
        await asyncio.gather(self.inner.warm_up(), self.second.warm_up())

    @override
    async def aclose(self) -> None:
        await asyncio.gather(self.inner.aclose(), self.second.aclose())

    @override
    async def send(self, request: Request) -> Reply:
        if isinstance(request, EmbedRequest) and self.second.model.id != self.model.id:
            return await self.inner.send(request)
        request = request.begun()
        if not request.call.tally.begun:
            self._budget.earn(self._hedge.max_extra)
        after_s = self._after_s(request)
        if after_s is None:
            return await self.inner.send(request)
        asked = [first := _Asked(self.inner, request)]
        try:
            await asyncio.wait((first.task,), timeout=after_s)
            if first.task.done() or not self._may_begin(after_s):
                return await first.task
            asked.append(second := _Asked(self.second, request.on(reason="hedge")))
            winner = await self._race(first, second, request)
        except (Exception, asyncio.CancelledError) as error:
            for each in asked:
                each.task.cancel()
            await _gone(*asked)
            if isinstance(error, ProviderError) and len(asked) > 1:  # of the other it may have known nothing yet
                error.attempts = request.call.tally.attempts or error.attempts
            raise
        return self._won(request, winner, second if winner is first else first)

    def _after_s(self, request: Request) -> float | None:
        """How long to wait for the first; ``None`` if that is not known."""
        after = self._hedge.after
        if not isinstance(after, str):
            return after
        streamed = isinstance(request, ChatRequest) and request.stream
        usual_s = self._measured.first_token_s if streamed else self._measured.whole_s
        return usual_s(self.model.name, int(after.removeprefix("p")) / 100)

    def _may_begin(self, after_s: float) -> bool:
        if not self._budget.spend():
            telemetry.event("hedge.denied", model=self.second.model.name, reason="max_extra")
            return False
        telemetry.event("hedge.started", model=self.second.model.name, after_s=after_s)
        return True

    async def _race(self, first: _Asked, second: _Asked, request: Request) -> _Asked:
        """Whoever has content first; of two at the same moment, *first*."""
        while True:  # the second may have ended already, where tasks begin eagerly (Python 3.12)
            for each in (first, second):
                if each.task.done() and each.error is None:
                    return each
            if first.error is not None and self._is_final(first.error):
                raise first.error
            if second.error is not None and not self._was_asked(second.error, request):
                await first.task
                return first
            if first.error is not None and second.error is not None:
                raise _both(first, second)
            running = [each.task for each in (first, second) if not each.task.done()]
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    def _is_final(self, error: BaseException) -> bool:
        """Whether no other may be asked after *error* of the first."""
        passes_on = isinstance(error, ContentFiltered) or (isinstance(error, ProviderError) and error.passes_on)
        return not passes_on or getattr(error, "kind", None) in self._stops_at

    def _was_asked(self, error: BaseException, request: Request) -> bool:
        """Whether anything was sent to *second* before it failed by *error*; if not, there was no hedge after all."""
        if not isinstance(error, DevSynthError):
            raise error
        name = self.second.model.name
        if isinstance(error, CircuitOpen | LimitReached):  # perhaps only for its next try
            tries = (each for each in request.call.tally.attempts if each.model == name)
            sent = any(each.error != LimitReached.kind for each in tries)
        else:
            sent = isinstance(error, ProviderError)
        if not sent:
            telemetry.event("hedge.denied", model=name, reason=error.kind)
        return sent

    def _won(self, request: Request, winner: _Asked, loser: _Asked) -> Reply:
        """The answer of *winner*, which ends when *loser* has."""
        reply, tally = winner.task.result(), request.call.tally
        if winner.provider is self.second:
            reply.degraded = True
            telemetry.event("hedge.won", model=self.second.model.name)
        if isinstance(loser.error, DevSynthError):
            return reply
        loser.racer.lost_to(winner.racer)
        loser.task.cancel()
        ending = asyncio.create_task(_gone(loser))

        async def settled(reply: Reply, _: BaseException | None) -> None:
            try:
                await ending
            finally:
                reply.attempts = tally.attempts

        return reply.on_finish(settled)


class _Asked:
    """One of the two, with the request on its way to it."""

    def __init__(self, provider: ProviderPort, request: Request) -> None:
        self.provider = provider
        self.racer = telemetry.Racer()
        self.task = asyncio.create_task(self.racer.run(provider.send(request)))

    @property
    def error(self) -> BaseException | None:
        """What it failed by, if it has failed."""
        return self.task.exception() if self.task.done() else None


async def _gone(*asked: _Asked) -> None:
    """Wait until they, who are cancelled, have ended, and close what they have opened. A bug in one surfaces."""
    cancelled = False
    while running := [each.task for each in asked if not each.task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError:
            cancelled = True
            for task in running:
                task.cancel()
    ended = [each for each in asked if not each.task.cancelled()]
    for each in ended:
        if each.error is None:
            await each.task.result().aclose()
    for each in ended:
        if each.error is not None and not isinstance(each.error, DevSynthError):
            raise each.error
    if cancelled:
        raise asyncio.CancelledError


def _both(first: _Asked, second: _Asked) -> AllProvidersFailed:
    errors = list[ProviderError]()
    for each in (first, second):
        assert isinstance(each.error, ProviderError)
        each.error.model = each.error.model or each.provider.model.name
        errors.append(each.error)
    return AllProvidersFailed(f"All providers failed. Last error: {errors[-1]}", errors)
