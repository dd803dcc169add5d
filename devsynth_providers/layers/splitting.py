"""A batch of texts that one request can not hold becomes several, and only what has failed is asked again."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from .. import telemetry
from ..batches import Capacity, Part, in_parts, may_be_parted, once, taken, telling
from ..errors import AllProvidersFailed, DevSynthError, MalformedResponse, NotPaid, ProviderError
from ..port import ProviderPort
from ..reply import Reply
from ..types import Attempt, Chunk, EmbedRequest, Model, Request, Response, Usage, Vector
from .wrapper import Wrapper

AT_ONCE = 4
"""Parts of one batch under way at the same time."""
ENOUGH = 16
"""When so many texts were refused alone, and none was taken, it is the request that is refused, not the texts."""


class Splitting(Wrapper):
    """Ask for a batch in parts, a few at once, each of which has retries and other models of its own.

    A part of several texts that is refused for its size or for what it says is halved, until the text that is to blame
    is alone; the others are asked all the same. What a part fails with otherwise would be the failure of any, so that
    ends the batch: no other part begins, and those under way, which may be paid already, are let end. It is then the
    error of all texts that were not asked, and the one that is raised; else that is the refusal of the first text that
    was refused, and says which it is. Either has all ``vectors`` that came, and the ``failures``. Whoever cancels the
    batch cancels all parts. *models* are those that may be asked.
    """

    def __init__(self, inner: ProviderPort, models: Sequence[Model] = ()) -> None:
        super().__init__(inner)
        self._models = models

    @override
    async def send(self, request: Request) -> Reply:
        if not isinstance(request, EmbedRequest):
            return await self.inner.send(request)
        request, started = request.begun(), asyncio.get_running_loop().time()
        batch = _Batch(self.inner, request)
        parts = in_parts(request.texts, batch.lacking, Capacity.of(self._models or (self.model,)))
        if [len(part) for part in parts] == [len(request.texts)]:
            try:
                return await self.inner.send(request)
            except DevSynthError as error:
                if len(request.texts) == 1:
                    raise
                batch.failed(parts[0], error)
        else:
            telemetry.event("batch.split", texts=len(batch.lacking), parts=len(parts))
            batch.pending.extend(parts)
        await batch.carry_out()
        return (await batch.reply()).since(started)


class _Batch:
    """A batch under way: the parts that are still to be asked for, and what came of each text."""

    def __init__(self, inner: ProviderPort, request: EmbedRequest) -> None:
        self.pending = deque[Part]()
        self._inner = inner
        self._request = request
        self._tally = request.call.tally
        self._vectors: list[Vector | None] = [None] * len(request.texts)
        self._before: Sequence[Attempt] = ()  # those that have answered for some of the texts
        if known := self._tally.vectors:
            self._vectors = [known.get(self._key(text)) for text in request.texts]
            self._before = [attempt for attempt in self._tally.attempts if attempt.error is None]
        self._answers: dict[int, tuple[Reply, Response]] = {}
        self._looks_away = False
        self._refusals: dict[int, DevSynthError] = {}  # of texts that were asked alone
        self._failures: dict[int, DevSynthError] = {}  # of others
        self._end: DevSynthError | None = None
        self._bug: Exception | None = None
        self._workers: list[asyncio.Task[None]] = []

    def _key(self, text: str) -> tuple[str, str]:
        return self._inner.model.id, text

    @property
    def lacking(self) -> list[int]:
        """The places of texts that have no vector."""
        return [place for place, vector in enumerate(self._vectors) if vector is None]

    async def carry_out(self) -> None:
        """Ask for all of them. Raises what it has failed with, which then tells what came of each text.

        Not by ``asyncio.TaskGroup``: before Python 3.13 it leaves the task whose group has failed cancelled in part, so
        that the caller's own ``asyncio.timeout`` ends in a ``CancelledError``.
        """
        self._hire()
        try:
            while self._bug is None and (at_work := self._at_work):
                await asyncio.wait(at_work, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
        if self._bug is not None:
            raise self._bug
        misfits = self._misfits()
        if misfits is not None or self._end is not None or self.lacking:
            raise self._error(misfits)

    @property
    def _at_work(self) -> list[asyncio.Task[None]]:
        return [worker for worker in self._workers if not worker.done()]

    def _hire(self) -> None:
        if self._end is None:
            for _ in range(min(AT_ONCE - len(self._at_work), len(self.pending))):
                self._workers.append(asyncio.create_task(self._work()))

    async def _work(self) -> None:
        try:
            while self.pending and self._end is None:
                await self._ask(self._next())
        except Exception as error:
            self._bug = self._bug or error
            raise

    def _next(self) -> Part:
        """The halves of what was refused, at first; but once a text was refused and none was taken so far, a part far
        away says most about whether all will be."""
        looks_away, self._looks_away = self._looks_away and not self._answers, False
        return self.pending.pop() if looks_away else self.pending.popleft()

    async def _ask(self, part: Part) -> None:
        try:
            reply = await self._inner.send(
                replace(self._request, texts=tuple([self._request.texts[place] for place in part]))
            )
            answer = await reply.read()
            if len(answer.vectors) != len(part):
                raise self._malformed(f"{len(answer.vectors)} vectors for {len(part)} texts")
        except DevSynthError as error:
            self.failed(part, error)
            self._hire()
        else:
            self._answers[part[0]] = reply, answer
            for place, vector in zip(part, answer.vectors, strict=True):
                self._vectors[place] = vector

    def failed(self, part: Part, error: DevSynthError) -> None:
        """*part* has failed by *error*, which may have brought some of its vectors."""
        vectors, failures = taken(error, len(part))
        for place, vector in zip(part, vectors, strict=True):
            self._vectors[place] = self._vectors[place] or vector
        lacking = [place for place in part if self._vectors[place] is None]
        refused = may_be_parted(error) and bool(lacking)
        if refused and len(part) == 1:
            self._refusals[part[0]] = error
            self._looks_away = True
        if not refused or (len(self._refusals) >= ENOUGH and not self._answers):
            self._end = self._end or error
        if not refused:
            self._failures |= {place: failures.get(number, error) for number, place in enumerate(part)}
        elif len(part) > 1 and self._end is None:
            self.pending.extendleft(reversed(_halves(lacking, error)))

    def _misfits(self) -> DevSynthError | None:
        """Leave out the vectors that are of another dimension than most; the error says that there were some."""
        sizes = Counter(len(vector) for vector in self._vectors if vector is not None)
        if len(sizes) < 2:
            return None
        of, (usual, _) = len(self._vectors), sizes.most_common(1)[0]
        error = self._malformed(
            f"the parts of a batch do not fit: {of - len(self.lacking)} vectors for {of} texts, of dimensions "
            f"{sorted(sizes)}"
        )
        for place, vector in enumerate(self._vectors):
            if vector is not None and len(vector) != usual:
                self._vectors[place], self._failures[place] = None, error
        return error

    def _malformed(self, message: str) -> MalformedResponse:
        return MalformedResponse(message, provider=self._inner.model.provider, model=self._inner.model.name)

    def _error(self, misfits: DevSynthError | None) -> DevSynthError:
        """What the batch has failed with. Nothing here holds it any longer: it would hold this."""
        refusals, failures, end = self._refusals, self._failures, self._end
        self._refusals, self._failures, self._end = {}, {}, None
        first = min(refusals, default=None)
        other = end or misfits or self._malformed("a part of the batch was cancelled by somebody else")
        of_each = dict.fromkeys(self.lacking, other) | failures | refusals
        error = other
        if end is not None and not may_be_parted(end):
            error = end
        elif first is not None:
            error = refusals[first]
        told = telling(error, self._vectors, of_each)
        if first is not None and error is refusals[first]:
            told = _naming(error, first + 1, len(self._vectors))
        if isinstance(told, ProviderError | NotPaid):
            told.attempts = self._tally.attempts or told.attempts
        came = zip(self._request.texts, self._vectors, strict=True)
        self._tally.vectors |= {self._key(text): vector for text, vector in came if vector is not None}
        return told

    async def reply(self) -> Reply:
        """All vectors, in the order of the texts."""
        in_order = [self._answers[first] for first in sorted(self._answers)]
        replies, answers = [reply for reply, _ in in_order], [answer for _, answer in in_order]
        told = next((reply for reply in replies if reply.degraded), replies[0])
        usage = _sum([*[attempt.usage for attempt in self._before], *[answer.usage for answer in answers]])
        whole = Chunk(
            vectors=tuple(vector for vector in self._vectors if vector is not None),
            finish_reason=told.finish_reason,
            usage=usage,
            model=told.response_model,
        )
        reply = await Reply.open(told.model, once(whole))
        reply.usage, reply.attempts, reply.degraded = usage, self._tally.attempts, told.degraded
        reply.cached = all(each.cached for each in replies) and not self._before
        return reply


def _halves(part: Part, error: DevSynthError) -> list[Part]:
    """What of a part that was refused is to be asked next; no less than all of it, if that is a single text."""
    telemetry.event("batch.halved", texts=len(part), reason=error.kind)
    middle = len(part) // 2
    return [half for half in (part[:middle], part[middle:]) if half]


def _naming(error: DevSynthError, number: int, of: int) -> DevSynthError:
    """*error*, which says that it is of the *number*th of so many texts."""
    if isinstance(error, AllProvidersFailed):
        named: DevSynthError = AllProvidersFailed(f"text {number} of {of}: {error.message}", error.exceptions)
        named.vectors, named.failures, named.__cause__ = error.vectors, error.failures, error.__cause__
        return named
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
