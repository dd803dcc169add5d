"""One vector for each text, all of one dimension and of numbers, or no answer at all."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence

from typing_extensions import override

from ..errors import MalformedResponse, ProviderError, StreamInterrupted
from ..reply import Reply
from ..types import Chunk, EmbedRequest, Request, Vector
from .wrapper import Wrapper


class Matched(Wrapper):
    """Hand on vectors only when all are there and fit the texts: half of them are of no use to anybody, and until then
    the next model can be asked. What else is asked passes as it is."""

    @override
    async def send(self, request: Request) -> Reply:
        reply = await self.inner.send(request)
        if not isinstance(request, EmbedRequest):
            return reply
        try:
            answer = await reply.read()
        except StreamInterrupted as error:  # nobody has seen anything of it yet
            raise error.__cause__ if isinstance(error.__cause__, ProviderError) else error from None
        if (problem := _problem(answer.vectors, len(request.texts))) is not None:
            wrong = MalformedResponse(problem, provider=reply.model.provider, model=reply.model.name)
            wrong.usage = reply.reported_usage
            raise wrong
        whole = Chunk(
            vectors=answer.vectors,
            finish_reason=answer.finish_reason,
            usage=reply.reported_usage,
            model=answer.response_model,
        )
        matched = await Reply.open(reply.model, _once(whole))
        matched.cached = reply.cached
        return matched


async def _once(chunk: Chunk) -> AsyncGenerator[Chunk, None]:
    yield chunk


def _problem(vectors: Sequence[Vector], texts: int) -> str | None:
    if len(vectors) != texts:
        return f"{len(vectors)} vectors for {texts} texts"
    if len({len(vector) for vector in vectors}) > 1:
        return "vectors of different dimensions"
    for vector in vectors:
        if not any(vector):
            return "a vector of zeros, or of nothing"
        if not (math.isfinite(sum(vector)) or all(map(math.isfinite, vector))):
            return "a vector with something in it that is no number"
    return None
