"""An answer that was given before, in place of another call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from typing_extensions import override

from .. import telemetry
from ..batches import ByText, own_of
from ..errors import DevSynthError
from ..policy.coding import decoded, encoded
from ..port import ProviderPort
from ..reply import Reply
from ..stores.claims import ALONE, Claim
from ..types import (
    ChatRequest,
    Chunk,
    Conduct,
    EmbedRequest,
    Keep,
    Model,
    Request,
    Tenant,
    Vector,
    changed,
    fingerprint,
)
from .wrapper import Wrapper

WHOLE = frozenset(("stop", "tool_calls", "function_call"))
"""Finish reasons of answers that are worth keeping: not of those that were cut for their length or their content."""
LEASE_S = 120.0
"""How long others may take a call without a deadline to be under way."""
PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.16
"""Between two looks whether another process has its answer: short at first, then twice as long each time."""


class Cache(Protocol):
    """Where answers are kept: JSON values, each in a scope of its own, gone after a time. It never fails a call."""

    @property
    def tier(self) -> str:
        """What it is kept on, in a word for traces."""

    async def get_many(self, scope: str, keys: Sequence[str]) -> Mapping[str, Any]:
        """What *scope* has at *keys*, as far as there is anything."""

    def put(self, scope: str, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep *value* for *ttl* seconds. Nobody waits for it."""

    async def claim(self, scope: str, key: str, lease_s: float) -> Claim | None:
        """Leave to make the call whose answer is to be kept at *key*, for *lease_s* at most; ``None`` while another
        process makes it."""


class Cached(Wrapper):
    """Look in the *cache* before asking, and keep there what came whole, for as long as *keep* says.

    A kept answer comes in the pieces that it came in, at once, and costs nothing. One tenant, project and role
    together, never gets what was kept for another. Answers at a temperature above 0 are drawn by chance, and each is
    only one of many: they are kept where *keep* says ``sampled``. Of texts to embed only those that are new are asked
    for; where that fails, what came is kept, and the error has the vectors that were.

    Where the *conduct* lets equal requests share an answer, one that another process is just being given is waited for,
    with half of the time that there is: the cache knows who asks for what. It is made for one request.
    """

    def __init__(self, inner: ProviderPort, cache: Cache, keep: Keep, conduct: Conduct = Conduct()) -> None:
        super().__init__(inner)
        self._cache = cache
        self._keep = keep
        self._conduct = conduct
        self._missed = ""
        self._model = inner.model  # found out once: it is many layers down

    async def kept(self, request: Request) -> Reply | None:
        """The answer to *request* that is kept, if there is one. ``send`` does not look again for what is not."""
        if isinstance(request, EmbedRequest) or (key := self._kept_at(request)) is None:
            return None
        if (kept := await self._replayed(request, _scope(request), key)) is None:
            self._missed = key
        return kept

    def missed(self) -> None:
        """Count that ``kept`` found nothing, if ``send`` has not seen to that: others may have been asked instead."""
        if self._missed:
            self._missed = ""
            self._count(0, 1)

    @override
    async def send(self, request: Request) -> Reply:
        if isinstance(request, EmbedRequest):
            return await self._embedded(request)
        key, scope = self._kept_at(request), _scope(request)
        if key is None:
            return await self.inner.send(request)
        missed, self._missed = self._missed, ""
        if key != missed and (kept := await self._replayed(request, scope, key)) is not None:
            return kept
        claim = await self._claimed(request, scope, key)
        try:
            if not claim.own and (kept := await self._replayed(request, scope, key)) is not None:
                return kept
            self._count(0, 1)
            reply = await self.inner.send(request)
        except BaseException:
            claim.done()
            raise

        def keep(reply: Reply, error: BaseException | None) -> None:
            if error is None and reply.finish_reason in WHOLE and not reply.cached:
                self._cache.put(scope, key, _written(reply.pieces), self._keep.ttl_s)
            claim.done()

        return reply.on_finish(keep)

    def _kept_at(self, request: Request) -> str | None:
        """The key of the answer to *request*; ``None`` if it is not one that is kept."""
        return None if request.sampled and not self._keep.sampled else self._key(request)

    async def _embedded(self, request: EmbedRequest) -> Reply:
        keys = {text: self._key(replace(request, texts=(text,))) for text in request.texts}
        scope = _scope(request)
        known = await self._known(scope, keys)
        claim = ALONE
        if new := tuple(text for text in keys if text not in known):
            claim = await self._claimed(request, scope, self._key(replace(request, texts=new)))
        try:
            if not claim.own:
                known = await self._known(scope, keys)
            self._count(len(known), len(keys) - len(known))
            return await self._joined(request, scope, keys, known)
        finally:
            claim.done()

    async def _joined(
        self, request: EmbedRequest, scope: str, keys: Mapping[str, str | None], known: Mapping[str, Vector]
    ) -> Reply:
        """The vectors of all texts: those that are *known*, and those of the others, which are asked for."""
        new = tuple(text for text in keys if text not in known)
        if not new:
            vectors = tuple(known[text] for text in request.texts)
            return await self._given(request, [Chunk(vectors=vectors, finish_reason="stop")])
        own: DevSynthError | None = None
        try:
            reply = await self.inner.send(replace(request, texts=new))
            answer = await reply.read()
        except DevSynthError as error:
            each, own = ByText.of(error, new), own_of(error)
            self._put(scope, keys, each.vectors)
            each.vectors.update(known)
            each.tell(own, request.texts)
        if own is not None:
            try:
                raise own
            finally:
                del own  # it holds this frame
        asked = dict(zip(new, answer.vectors, strict=True))
        if not reply.cached:
            self._put(scope, keys, asked)
        whole = Chunk(
            vectors=tuple(asked[text] if text in asked else known[text] for text in request.texts),
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            model=answer.response_model,
        )
        joined = await Reply.open(reply.model, _each([whole]))
        joined.attempts, joined.usage, joined.cached = reply.attempts, answer.usage, reply.cached
        return joined

    def _put(self, scope: str, keys: Mapping[str, str | None], vectors: Mapping[str, Vector]) -> None:
        for text, vector in vectors.items():
            if (key := keys[text]) is not None:
                self._cache.put(scope, key, encoded(vector), self._keep.ttl_s)

    async def _known(self, scope: str, keys: Mapping[str, str | None]) -> Mapping[str, Vector]:
        """The vectors that are kept, by their texts."""
        kept = await self._looked_up(scope, list(keys.values()))
        return {text: vector for text, key in keys.items() if (vector := _read(Vector, kept.get(key or "")))}

    async def _claimed(self, request: Request, scope: str, key: str | None) -> Claim:
        """Leave to ask: at once, or when nobody else is asking the same any more, and may have kept the answer."""
        if key is None or not self._conduct.shares(sampled=request.sampled):
            return ALONE
        clock = asyncio.get_running_loop().time
        began = clock()
        left_s = LEASE_S if request.call.deadline is None else max(0.0, request.call.deadline - began)
        pause_s, until = PAUSE_S, began + left_s / 2
        while (claim := await self._cache.claim(scope, key, left_s)) is None and clock() < until:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if pause_s > PAUSE_S:
            telemetry.event("cache.waited", model=self._model.name, wait_s=clock() - began)
        return claim or Claim()

    async def _looked_up(self, scope: str, keys: Sequence[str | None]) -> Mapping[str, Any]:
        kept = await self._cache.get_many(scope, [key for key in keys if key is not None])
        hits = len(kept)
        telemetry.event("cache.lookup", model=self._model.name, hits=hits, misses=len(keys) - hits)
        return kept

    def _count(self, hits: int, misses: int) -> None:
        """Once for each request, when it is known: one that misses may find its answer after all, if others ask."""
        telemetry.count(telemetry.CACHE_REQUESTS, hits, model=self._model.name, result="hit")
        telemetry.count(telemetry.CACHE_REQUESTS, misses, model=self._model.name, result="miss")

    async def _replayed(self, request: Request, scope: str, key: str) -> Reply | None:
        """The answer that is kept at *key*, if there is one."""
        pieces = _read(list[Chunk], (await self._looked_up(scope, [key])).get(key))
        if not pieces:
            return None
        self._count(1, 0)
        return await self._given(request, pieces)

    async def _given(self, request: Request, pieces: Sequence[Chunk]) -> Reply:
        telemetry.mark("devsynth.cache.tier", self._cache.tier)
        reply = await Reply.open(self._model, _each(pieces))
        reply.cached, reply.attempts = True, request.call.tally.attempts  # others may have been asked before
        return reply

    def _key(self, request: Request) -> str | None:
        if isinstance(request, ChatRequest) and request.stream:
            request = changed(request, stream=False)
        return fingerprint(Tenant.of(request), request, [self._model])


class Kept(ProviderPort):
    """Look for the answer of *first*, whom *calls* would ask first, before anything else is done: what is kept needs
    nobody's turn, and no call that others may share. What makes *calls* is made where nothing is found."""

    def __init__(self, calls: Callable[[], ProviderPort], first: Cached) -> None:
        self._calls = calls
        self._first = first

    @property
    @override
    def model(self) -> Model:
        return self._first.model

    @override
    async def send(self, request: Request) -> Reply:
        kept = await self._first.kept(request)
        if kept is not None:
            return kept
        try:
            return await self._calls().send(request)
        finally:
            self._first.missed()


def _scope(request: Request) -> str:
    """The tenant, and nobody else: what can be mistaken for another one when written in a row is told apart."""
    return repr(tuple(Tenant.of(request)))


_SAYS_NOTHING = encoded(Chunk())


def _written(pieces: Sequence[Chunk]) -> list[dict[str, Any]]:
    """*pieces* as they are kept: of each, only what it says."""
    return [{name: value for name, value in encoded(piece).items() if value != _SAYS_NOTHING[name]} for piece in pieces]


def _read(kind: Any, data: object) -> Any:
    """What was kept, as a value of ours; ``None`` if there is nothing, or another version wrote it otherwise."""
    try:
        return None if data is None else decoded(kind, data)
    except ValueError:
        return None


async def _each(pieces: Sequence[Chunk]) -> AsyncGenerator[Chunk, None]:
    for piece in pieces:
        yield piece
