"""Providers and a clock for tests: yours as well as ours. Nothing here waits, or needs a network."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from typing_extensions import override

from .port import ProviderPort
from .reply import Reply
from .types import Chunk, EmbedRequest, Model, Request, Usage, Vector

T = TypeVar("T")

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


class VirtualClock(asyncio.SelectorEventLoop):
    """An event loop whose clock leaps to the next timer when there is nothing else to do: hours pass in no time.

    Every wait in this library is by the loop's clock, so that timeouts and retries can be tested as they are. Only
    for code that waits for nothing outside the loop: no sockets, no threads. Waiting with no timer set is a
    deadlock, and raises ``RuntimeError``.
    """

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Leaping(self))

    @override
    def time(self) -> float:
        return self._now

    def leap(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self._now += seconds


class _Leaping(selectors.DefaultSelector):
    """Does not wait: asks what is there, and if it is nothing, lets the clock leap."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: everything waits, and nothing is on its way")
            self._clock.leap(timeout)
        return ready


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* on a ``VirtualClock``, and return what it returns."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        return runner.run(main)
