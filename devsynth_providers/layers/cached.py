"""An answer that was given before, in place of another call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from typing_extensions import override

from .. import telemetry
from ..policy.coding import decoded, encoded
from ..port import ProviderPort
from ..reply import Reply
from ..types import ChatRequest, Chunk, EmbedRequest, Keep, Request, Tenant, Vector, fingerprint
from .wrapper import Wrapper

WHOLE = frozenset(("stop", "tool_calls", "function_call"))
"""Finish reasons of answers that are worth keeping: not of those that were cut for their length or their content."""


class Cache(Protocol):
    """Where answers are kept: JSON values, each in a scope of its own, gone after a time. It never fails a call."""

    async def get_many(self, scope: str, keys: Sequence[str]) -> Mapping[str, Any]:
        """What *scope* has at *keys*, as far as there is anything."""

    def put(self, scope: str, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep *value* for *ttl* seconds. Nobody waits for it."""


class Cached(Wrapper):
    """Look in the *cache* before asking, and keep there what came whole, for as long as *keep* says.

    A kept answer comes in the pieces that it came in, at once, and costs nothing. One tenant, project and role
    together, never gets what was kept for another. Answers at a temperature above 0 are drawn by chance, and each is
    only one of many: they are kept where *keep* says ``sampled``. Of texts to embed only those that are new are asked
    for.
    """

    def __init__(self, inner: ProviderPort, cache: Cache, keep: Keep) -> None:
        super().__init__(inner)
        self._cache = cache
        self._keep = keep

    @override
    async def send(self, request: Request) -> Reply:
        if isinstance(request, EmbedRequest):
            return await self._embedded(request)
        if not isinstance(request, ChatRequest) or (request.temperature > 0 and not self._keep.sampled):
            return await self.inner.send(request)
        key, scope = self._key(replace(request, stream=False)), _scope(request)
        kept = await self._looked_up(scope, [key])
        if pieces := _read(list[Chunk], kept.get(key or "")):
            return await self._replayed(pieces)

        def keep(reply: Reply, error: BaseException | None) -> None:
            if key is not None and error is None and reply.finish_reason in WHOLE and not reply.cached:
                self._cache.put(scope, key, encoded(reply.pieces), self._keep.ttl_s)

        return (await self.inner.send(request)).on_finish(keep)

    async def _embedded(self, request: EmbedRequest) -> Reply:
        keys = {text: self._key(replace(request, texts=(text,))) for text in request.texts}
        scope = _scope(request)
        kept = await self._looked_up(scope, list(keys.values()))
        known = {text: vector for text, key in keys.items() if (vector := _read(Vector, kept.get(key or "")))}
        new = tuple(text for text in keys if text not in known)
        if not new:
            vectors = tuple(known[text] for text in request.texts)
            return await self._replayed([Chunk(vectors=vectors, finish_reason="stop")])
        reply = await self.inner.send(replace(request, texts=new))
        answer = await reply.read()
        for text, vector in zip(new, answer.vectors, strict=True):
            known[text] = vector
            if (key := keys[text]) is not None and not reply.cached:
                self._cache.put(scope, key, encoded(vector), self._keep.ttl_s)
        whole = Chunk(
            vectors=tuple(known[text] for text in request.texts),
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            model=answer.response_model,
        )
        joined = await Reply.open(reply.model, _each([whole]))
        joined.attempts, joined.usage, joined.cached = reply.attempts, answer.usage, reply.cached
        return joined

    async def _looked_up(self, scope: str, keys: Sequence[str | None]) -> Mapping[str, Any]:
        kept = await self._cache.get_many(scope, [key for key in keys if key is not None])
        hits, model = len(kept), self.model.name
        telemetry.event("cache.lookup", model=model, hits=hits, misses=len(keys) - hits)
        telemetry.count(telemetry.CACHE_REQUESTS, hits, model=model, result="hit")
        telemetry.count(telemetry.CACHE_REQUESTS, len(keys) - hits, model=model, result="miss")
        return kept

    async def _replayed(self, pieces: Sequence[Chunk]) -> Reply:
        reply = await Reply.open(self.model, _each(pieces))
        reply.cached = True
        return reply

    def _key(self, request: Request) -> str | None:
        return fingerprint(Tenant.of(request), request, [self.model])


def _scope(request: Request) -> str:
    """The tenant, and nobody else: what can be mistaken for another one when written in a row is told apart."""
    return repr(tuple(Tenant.of(request)))


def _read(kind: Any, data: object) -> Any:
    """What was kept, as a value of ours; ``None`` if there is nothing, or another version wrote it otherwise."""
    try:
        return None if data is None else decoded(kind, data)
    except ValueError:
        return None


async def _each(pieces: Sequence[Chunk]) -> AsyncGenerator[Chunk, None]:
    for piece in pieces:
        yield piece
