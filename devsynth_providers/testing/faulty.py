"""A provider that does what upstreams do: it fails, by a schedule that is a value and a seed."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from typing_extensions import override

from ..port import ProviderPort
from ..reply import Reply
from ..types import Chunk, Identity, Model, Request
from .faults import Course, Fault, Step, joined


@dataclass(frozen=True, slots=True)
class Hit:
    """One request as the far side saw it: the *number*th, from 1, at the moment *at_s* on the loop's clock."""

    number: int
    at_s: float
    request: Request
    faults: tuple[Fault, ...]


class FaultyProvider(ProviderPort):
    """Asks *inner*, and lets *faults* befall what is asked and answered.

    What befalls a request depends on *seed*, on the name of the model, on what the request says and on how often that
    was said before, not on how tasks take turns: the same test has the same faults. Several may befall one request.
    What was asked is in ``hits``; ``unclosed`` counts the answers that nobody has closed yet. Retries that *inner* has
    of its own are left out: the faults are where the wire is.
    """

    def __init__(self, inner: ProviderPort, faults: Sequence[Fault] = (), *, seed: int = 0) -> None:
        self._whoever = inner
        self._inner = inner.bare
        self.faults = tuple(faults)
        self.seed = seed
        self.hits: list[Hit] = []
        self.unclosed = 0
        self._said: dict[str, int] = {}

    @property
    @override
    def model(self) -> Model:
        return self._inner.model

    @property
    @override
    def identity(self) -> Identity:
        return self._whoever.identity

    @property
    @override
    def max_context_size(self) -> int:
        return self._inner.max_context_size

    @override
    def count_tokens(self, text: str) -> int:
        return self._inner.count_tokens(text)

    def asked(self, from_s: float = 0.0, to_s: float = math.inf) -> int:
        """How many requests came from the moment *from_s* to before *to_s* on the loop's clock."""
        return sum(from_s <= hit.at_s < to_s for hit in self.hits)

    @override
    async def send(self, request: Request) -> Reply:
        text = request.text
        self._said[text] = nth = self._said.get(text, 0) + 1
        chance = random.Random(f"{self.seed}|{self.model.name}|{nth}|{text}")
        number, now = len(self.hits) + 1, asyncio.get_running_loop().time()
        drawn = [fault for fault in self.faults if chance.random() < fault.rate]
        hit = Hit(number, now, request, tuple(fault for fault in drawn if fault.may_befall(number, now)))
        self.hits.append(hit)
        return await Reply.open(self.model, self._chunks(hit, Course(hit.faults, self.model, chance.getrandbits(16))))

    async def _chunks(self, hit: Hit, course: Course) -> AsyncGenerator[Chunk, None]:
        self.unclosed += 1
        reply: Reply | None = None
        held: list[Chunk | None] | None = None if getattr(hit.request, "stream", False) else []
        try:
            steps = course.due()
            while True:
                for step in steps:
                    chunk = await _happens(step)
                    if held is not None:
                        held.append(chunk)
                    elif chunk is not None:
                        yield chunk
                if course.ended:
                    break
                if reply is None:
                    reply = await self._inner.send(hit.request)
                piece = await anext(reply, None)
                if piece is None:
                    break
                steps = course.through(piece)
            if held:
                yield joined([chunk for chunk in held if chunk is not None])
        except asyncio.CancelledError:
            await _unheard(sum(fault.lasts(1.0) for fault in hit.faults if fault.kind == "deaf"))
            raise
        finally:
            self.unclosed -= 1
            if reply is not None:
                await reply.aclose()

    @override
    async def warm_up(self) -> None:
        await self._inner.warm_up()

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()


async def _happens(step: Step) -> Chunk | None:
    """Wait if it is to wait, and raise if it is an error."""
    if isinstance(step, BaseException):
        raise step
    if isinstance(step, Chunk):
        return step
    await asyncio.sleep(step)
    return None


async def _unheard(seconds: float) -> None:
    """Go on for *seconds*, cancelled or not."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left_s := until - loop.time()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(left_s)
