"""A batch of texts that one request can not hold becomes several, and only what has failed is asked again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from typing_extensions import override

from .. import telemetry
from ..analysis import estimate_tokens
from ..batches import Capacity, may_be_parted, once
from ..errors import AllProvidersFailed, MalformedResponse, NotPaid, ProviderError
from ..port import ProviderPort
from ..reply import Reply
from ..types import Chunk, EmbedRequest, Model, Request, Response, Usage
from .wrapper import Wrapper

AT_ONCE = 4
"""Parts of one batch under way at the same time."""
_MOST_TOKENS_A_CHARACTER = 3
"""More than any estimate has, so that small batches need none."""

Span = tuple[int, int]
"""The first of some texts, and the first after them."""


class Splitting(Wrapper):
    """Ask for a batch in parts, a few at once, each of which has retries and other models of its own.

    A part of several texts that is refused for its size or for what it says is halved, until the text that is to blame
    is alone; the error says which it is. When a part has failed for good, those under way are cancelled. *models* are
    those that may be asked.
    """

    def __init__(self, inner: ProviderPort, models: Sequence[Model] = ()) -> None:
        super().__init__(inner)
        self._models = models

    @override
    async def send(self, request: Request) -> Reply:
        if not isinstance(request, EmbedRequest):
            return await self.inner.send(request)
        request, started = request.begun(), asyncio.get_running_loop().time()
        spans = _spans(request.texts, Capacity.of(self._models or (self.model,)))
        if len(spans) == 1:
            try:
                return await self.inner.send(request)
            except ProviderError as error:
                if len(request.texts) == 1 or not may_be_parted(error):
                    raise
                spans = _halves(spans[0], error)
        else:
            telemetry.event("batch.split", texts=len(request.texts), parts=len(spans))
        batch = _Batch(self.inner, request, spans)
        await batch.carry_out()
        return (await batch.reply()).since(started)


class _Batch:
    """A batch under way: the spans that are still to be asked for, and the answers that have come."""

    def __init__(self, inner: ProviderPort, request: EmbedRequest, spans: Iterable[Span]) -> None:
        self._inner = inner
        self._request = request
        self._pending = deque(spans)
        self._answers: dict[int, tuple[Reply, Response]] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None

    async def carry_out(self) -> None:
        """Ask for all of them. Raises what the first that failed for good has failed with.

        Not by ``asyncio.TaskGroup``: before Python 3.13 it leaves the task whose group has failed cancelled in part, so
        that the caller's own ``asyncio.timeout`` ends in a ``CancelledError``.
        """
        self._hire()
        try:
            while self._failure is None and (at_work := self._at_work):
                await asyncio.wait(at_work, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
        if isinstance(self._failure, ProviderError | NotPaid):
            self._failure.attempts = self._request.call.tally.attempts  # with those of the parts that were cancelled
        if self._failure is not None:
            raise self._failure

    @property
    def _at_work(self) -> list[asyncio.Task[None]]:
        return [worker for worker in self._workers if not worker.done()]

    def _hire(self) -> None:
        for _ in range(min(AT_ONCE - len(self._at_work), len(self._pending))):
            self._workers.append(asyncio.create_task(self._work()))

    async def _work(self) -> None:
        try:
            while self._pending:
                await self._ask_or_halve(self._pending.popleft())
        except Exception as error:
            self._failure = self._failure or error
            raise

    async def _ask_or_halve(self, span: Span) -> None:
        try:
            await self._ask(span)
        except ProviderError as error:
            if not may_be_parted(error):
                raise
            if span[1] - span[0] == 1:
                raise _naming(error, span[1], len(self._request.texts)) from error.__cause__
            self._pending.extendleft(reversed(_halves(span, error)))
            self._hire()

    async def _ask(self, span: Span) -> None:
        reply = await self._inner.send(replace(self._request, texts=self._request.texts[slice(*span)]))
        self._answers[span[0]] = reply, await reply.read()

    async def reply(self) -> Reply:
        """All vectors, in the order of the texts. Raises ``MalformedResponse`` if they do not fit together."""
        in_order = [self._answers[first] for first in sorted(self._answers)]
        replies, answers = [reply for reply, _ in in_order], [answer for _, answer in in_order]
        vectors = [vector for answer in answers for vector in answer.vectors]
        told = next((reply for reply in replies if reply.degraded), replies[0])
        attempts = self._request.call.tally.attempts
        if len(vectors) != len(self._request.texts) or len({len(vector) for vector in vectors}) > 1:
            wrong = MalformedResponse(
                f"the parts of a batch do not fit: {len(vectors)} vectors for {len(self._request.texts)} texts, of "
                f"dimensions {sorted({len(vector) for vector in vectors})}",
                provider=told.model.provider,
                model=told.model.name,
            )
            wrong.attempts = attempts
            raise wrong
        usage = _sum([answer.usage for answer in answers])
        whole = Chunk(vectors=tuple(vectors), finish_reason=told.finish_reason, usage=usage, model=told.response_model)
        reply = await Reply.open(told.model, once(whole))
        reply.usage, reply.attempts, reply.degraded = usage, attempts, told.degraded
        reply.cached = all(each.cached for each in replies)
        return reply


def _spans(texts: Sequence[str], capacity: Capacity) -> list[Span]:
    """As few as hold them all in their order, none over *capacity* but what is a single text."""
    if len(texts) <= capacity.texts and sum(map(len, texts)) * _MOST_TOKENS_A_CHARACTER <= capacity.tokens:
        return [(0, len(texts))]
    spans, first, tokens = list[Span](), 0, 0
    for number, text in enumerate(texts):
        more = estimate_tokens(text)
        if number > first and (number - first == capacity.texts or tokens + more > capacity.tokens):
            spans.append((first, number))
            first, tokens = number, 0
        tokens += more
    return [*spans, (first, len(texts))]


def _halves(span: Span, error: ProviderError) -> list[Span]:
    first, after = span
    telemetry.event("batch.halved", texts=after - first, reason=error.kind)
    middle = (first + after) // 2
    return [(first, middle), (middle, after)]


def _naming(error: ProviderError, number: int, of: int) -> ProviderError:
    """*error*, which says that it is of the *number*th of so many texts."""
    if isinstance(error, AllProvidersFailed):
        return AllProvidersFailed(f"text {number} of {of}: {error.message}", error.exceptions)
    error.args = (f"text {number} of {of}: {error}",)
    return error


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cached_input_tokens=sum(usage.cached_input_tokens for usage in usages),
        cache_write_tokens=sum(usage.cache_write_tokens for usage in usages),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        estimated=any(usage.estimated for usage in usages),
    )
