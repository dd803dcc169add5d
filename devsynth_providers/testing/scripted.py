"""Providers that do as they are told: by a script, or by repeating what they are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from typing_extensions import override

from ..analysis import estimate_tokens
from ..port import ProviderPort
from ..reply import Reply
from ..types import FREE, Chunk, EmbedRequest, Model, Request, Usage, Vector

Step = str | Chunk | BaseException | float
"""A piece of an answer, an error to raise in its place, or seconds to wait before the next step."""
Line = Step | Sequence[Step]


class ScriptedProvider(ProviderPort):
    """Answers each request with the next line of its script.

    A line is text, or several steps: texts, ``Chunk``s, errors to raise, numbers of seconds to wait. A line without
    a ``finish_reason`` ends as a complete answer does, with ``stop`` and *usage*. Asked to embed, it answers with
    *vectors* of each text in place of the line's texts; its errors and waits stay.
    What was asked is in ``requests``; ``closed`` counts the answers that were closed, finished or not.
    """

    def __init__(
        self,
        *script: Line,
        model: Model | None = None,
        usage: Usage | None = Usage(3, 5),
        vectors: Callable[[str], Vector] = lambda text: (float(len(text)), 1.0),
    ) -> None:
        self._model = model or Model(
            name="scripted", provider="test", context_window=8192, abilities=frozenset(("chat", "embeddings"))
        )
        self._script = iter(script)
        self._usage = usage
        self._vectors = vectors
        self.requests: list[Request] = []
        self.closed = 0

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        self.requests.append(request)
        try:
            line = next(self._script)
        except StopIteration:
            raise AssertionError(f"{self.model.name} was asked more often than its script has lines") from None
        steps = [line] if isinstance(line, Step) else list(line)
        return await Reply.open(self.model, self._chunks(request, steps))

    async def _chunks(self, request: Request, steps: list[Step]) -> AsyncGenerator[Chunk, None]:
        finished = False
        if isinstance(request, EmbedRequest):
            vectors = Chunk(vectors=tuple(map(self._vectors, request.texts)), finish_reason="stop", usage=self._usage)
            steps = [*(step for step in steps if not isinstance(step, str)), vectors]
        try:
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, float | int):
                    await asyncio.sleep(step)
                    continue
                chunk = step if isinstance(step, Chunk) else Chunk(step)
                finished = finished or chunk.finish_reason is not None
                yield chunk
            if not finished:
                yield Chunk(finish_reason="stop", usage=self._usage)
        finally:
            self.closed += 1


class EchoProvider(ProviderPort):
    """Answers with the name of its model and what it was asked, a word a piece: every answer tells who gave it.

    *model* is a ``Model``, or the name of one that is free. *pace_s* is how long it takes for each word. A vector tells
    its text by the length of the text, and its model by that of the model's id: one vector space, one length.
    """

    def __init__(self, model: Model | str = "echo", *, pace_s: float = 0.0) -> None:
        if isinstance(model, str):
            model = Model(
                name=model,
                provider="test",
                price=FREE,
                context_window=8192,
                abilities=frozenset(("chat", "embeddings", "tools", "json")),
            )
        self._model = model
        self._pace_s = pace_s

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        return await Reply.open(self.model, self._chunks(request))

    def words(self, request: Request) -> list[str]:
        """The pieces of its answer."""
        first, *others = f"{self.model.name}: {request.task_text}".split(" ")
        return [first, *(f" {word}" for word in others)]

    async def _chunks(self, request: Request) -> AsyncGenerator[Chunk, None]:
        read = estimate_tokens(request.text)
        if isinstance(request, EmbedRequest):
            vectors = tuple((float(len(text)), float(len(self.model.id))) for text in request.texts)
            if self._pace_s:
                await asyncio.sleep(self._pace_s)
            yield Chunk(vectors=vectors, finish_reason="stop", usage=Usage(read, 0))
            return
        words = self.words(request)
        for word in words:
            if self._pace_s:
                await asyncio.sleep(self._pace_s)
            yield Chunk(word)
        yield Chunk(finish_reason="stop", usage=Usage(read, estimate_tokens("".join(words))))
