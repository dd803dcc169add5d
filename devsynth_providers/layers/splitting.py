"""A batch of texts that one request can not hold becomes several, and only what has failed is asked again."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from .. import telemetry
from ..batches import Capacity, Part, in_parts, may_be_parted, nobody_was_asked, once, own_of, taken, telling
from ..errors import AllProvidersFailed, DevSynthError, MalformedResponse, NotPaid, ProviderError
from ..port import ProviderPort
from ..reply import Reply
from ..types import Attempt, Chunk, EmbedRequest, Model, Request, Usage, Vector
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
    was refused, and says which it is. Either has all ``vectors`` that came, and the ``failures``. A part that nobody is
    asked for, as another finds out whether the server is well, waits for that one. Whoever cancels the batch cancels
    all parts. *models* are those that may be asked.
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
        self._under_way: dict[asyncio.Task[Reply], Part] = {}
        self._answers: dict[int, Reply] = {}
        self._looks_away = False
        self._held = False  # until a part under way has found out that the server is well
        self._refusals: dict[int, DevSynthError] = {}  # of texts that were asked alone
        self._failures: dict[int, DevSynthError] = {}  # of others
        self._end: DevSynthError | None = None

    def _key(self, text: str) -> tuple[str, str]:
        return self._inner.model.id, text

    @property
    def lacking(self) -> list[int]:
        """The places of texts that have no vector."""
        return [place for place, vector in enumerate(self._vectors) if vector is None]

    async def carry_out(self) -> None:
        """Ask for all of them. Raises what it has failed with, which then tells what came of each text."""
        try:
            while self._begin():
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                self._take()
        except asyncio.CancelledError:
            self._remember()
            raise
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
        misfits = self._misfits()
        if misfits is not None or self._end is not None or self.lacking:
            raise self._error(misfits)

    def _begin(self) -> bool:
        """Ask for as many parts as may be under way; whether there are any."""
        while self.pending and self._end is None and len(self._under_way) < (1 if self._held else AT_ONCE):
            part = self._next()
            self._under_way[asyncio.create_task(self._ask(part))] = part
        return bool(self._under_way)

    def _next(self) -> Part:
        """The halves of what was refused, at first; but once a text was refused and none was taken so far, a part far
        away says most about whether all will be."""
        looks_away, self._looks_away = self._looks_away and not self._answers, False
        return self.pending.pop() if looks_away else self.pending.popleft()

    async def _ask(self, part: Part) -> Reply:
        reply = await self._inner.send(
            replace(self._request, texts=tuple([self._request.texts[place] for place in part]))
        )
        answer = await reply.read()
        if len(answer.vectors) != len(part):
            raise self._malformed(f"{len(answer.vectors)} vectors for {len(part)} texts")
        return reply

    def _take(self) -> None:
        """What has come of the parts that have ended."""
        for task in [task for task in self._under_way if task.done()]:
            part = self._under_way.pop(task)
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                self._answers[part[0]], self._held = task.result(), False
                for place, vector in zip(part, task.result().response.vectors, strict=True):
                    self._vectors[place] = vector
            elif isinstance(error, DevSynthError):
                self.failed(part, error)
            elif not task.cancelled():
                raise error

    def failed(self, part: Part, error: DevSynthError) -> None:
        """*part* has failed by *error*, which may have brought some of its vectors."""
        vectors, failures = taken(error, len(part))
        for place, vector in zip(part, vectors, strict=True):
            self._vectors[place] = self._vectors[place] or vector
        lacking = [place for place in part if self._vectors[place] is None]
        if not lacking:
            return
        if self._under_way and nobody_was_asked(error):
            self._held = True
            self.pending.appendleft(lacking)
            return
        refused = may_be_parted(error)
        if refused and len(part) == 1:
            self._refusals[part[0]] = error
            self._looks_away = True
        if not refused or (len(self._refusals) >= ENOUGH and not self._answers):
            self._end = self._end or error
        if not refused:
            self._failures |= {place: failures.get(number, error) for number, place in enumerate(part)}
        elif len(part) > 1 and self._end is None:
            telemetry.event("batch.halved", texts=len(lacking), reason=error.kind)
            middle = len(lacking) // 2
            self.pending.extendleft(half for half in (lacking[middle:], lacking[:middle]) if half)

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
        if first is None or (end is not None and not may_be_parted(end)):
            error = _own(other)
        else:
            error = _own(refusals[first], f"text {first + 1} of {of}: " if (of := len(self._vectors)) > 1 else "")
        telling(error, self._vectors, dict.fromkeys(self.lacking, other) | failures | refusals)
        if isinstance(error, ProviderError | NotPaid):
            error.attempts = self._tally.attempts or error.attempts
        self._remember()
        return error

    def _remember(self) -> None:
        """What came, for whoever decides the request anew, or has no time left to hear what it ends with."""
        came = zip(self._request.texts, self._vectors, strict=True)
        self._tally.vectors |= {self._key(text): vector for text, vector in came if vector is not None}

    async def reply(self) -> Reply:
        """All vectors, in the order of the texts."""
        replies = [self._answers[first] for first in sorted(self._answers)]
        told = next((reply for reply in replies if reply.degraded), replies[0] if replies else None)
        usages = [attempt.usage for attempt in self._before]
        whole = Chunk(
            vectors=tuple(vector for vector in self._vectors if vector is not None),
            finish_reason="stop" if told is None else told.finish_reason,
            usage=_sum([*usages, *[reply.response.usage for reply in replies]]),
            model="" if told is None else told.response_model,
        )
        reply = await Reply.open(self._inner.model if told is None else told.model, once(whole))
        reply.usage, reply.attempts = whole.usage, self._tally.attempts
        reply.degraded = told is not None and told.degraded
        reply.cached = all(each.cached for each in replies) and not self._before
        return reply


def _own(error: DevSynthError, said: str = "") -> DevSynthError:
    """*error* as this batch's own, which begins with what is *said*: others may hold it."""
    if said and isinstance(error, AllProvidersFailed):
        named = AllProvidersFailed(said + error.message, error.exceptions)
        named.__cause__ = error.__cause__
        return named
    own = own_of(error)
    if said:
        own.args = (f"{said}{error}",)
    return own


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cached_input_tokens=sum(usage.cached_input_tokens for usage in usages),
        cache_write_tokens=sum(usage.cache_write_tokens for usage in usages),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        estimated=any(usage.estimated for usage in usages),
    )
