"""The same library for callers without an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar, Unpack, cast

from .bulk import AT_ONCE, Handed
from .errors import ConfigurationError, DevSynthError, ProviderUnavailable, StreamInterrupted
from .own_loop import Meanwhile, OwnLoop, outcome_of
from .port import ProviderPort
from .types import MAX_TOKENS, TEMPERATURE, Context, Message, Options, Parameters, Request, Response, RunBudget

T = TypeVar("T")


class SyncRouter:
    """Drives a provider on an event loop of its own, in a thread of its own: also from inside a running loop.

    The thread starts with the first call. Any number of threads may call at once. ``close`` ends it; it closes the
    provider too. Calls that are under way then fail: ``ProviderUnavailable``, or ``StreamInterrupted``.
    """

    def __init__(self, provider: ProviderPort) -> None:
        if not isinstance(provider, ProviderPort):
            raise ConfigurationError(f"SyncRouter takes a provider or a router, not {provider!r}")
        self._provider = provider
        self._own = OwnLoop()

    def complete(self, request: Request | str | None = None, **options: Unpack[Options]) -> Response:
        """Ask, and return the whole answer."""
        return self._run(self._provider.complete(request, **options))

    def complete_all(
        self, requests: Iterable[Request | str], *, at_once: int = AT_ONCE, **options: Unpack[Options]
    ) -> Iterator[Response | DevSynthError]:
        """``complete`` each of *requests*, *at_once* at the same time: yields, in their order, the answer to each, or
        the error that it failed with. Requests are read in the calling thread, while it waits for an outcome."""
        handed = Handed(requests)
        return self._iterate(self._provider.complete_all(handed, at_once=at_once, **options), handed.until)

    def generate(
        self,
        prompt: str | None = None,
        temperature: float = TEMPERATURE,
        max_tokens: int = MAX_TOKENS,
        stop_sequences: Sequence[str] | None = None,
        *,
        system_prompt: str | None = None,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **parameters: Unpack[Parameters],
    ) -> str:
        """Return the text of the answer to *prompt*."""
        return self._run(
            self._provider.generate(
                prompt,
                temperature,
                max_tokens,
                stop_sequences,
                system_prompt=system_prompt,
                messages=messages,
                tools=tools,
                **parameters,
            )
        )

    def generate_stream(
        self,
        prompt: str | None = None,
        temperature: float = TEMPERATURE,
        max_tokens: int = MAX_TOKENS,
        stop_sequences: Sequence[str] | None = None,
        *,
        system_prompt: str | None = None,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **parameters: Unpack[Parameters],
    ) -> Iterator[str]:
        """Yield the text of the answer to *prompt* as it arrives."""
        pieces = self._provider.generate_stream(
            prompt,
            temperature,
            max_tokens,
            stop_sequences,
            system_prompt=system_prompt,
            messages=messages,
            tools=tools,
            **parameters,
        )
        return self._iterate(cast("AsyncGenerator[str, None]", pieces))

    def embed(self, text: str, **context: Unpack[Context]) -> list[float]:
        """Return the vector of *text*."""
        return self._run(self._provider.embed(text, **context))

    def embed_batch(self, texts: Sequence[str], **context: Unpack[Context]) -> list[list[float]]:
        """Return one vector for each of *texts*, in their order."""
        return self._run(self._provider.embed_batch(texts, **context))

    def reload(self) -> None:
        """Have a router read its policy again, as ``Router.reload`` does."""
        self._run(self._of_a_router("reload")())

    def budget(self, usd: float | None = None, *, tokens: int | None = None, calls: int | None = None) -> RunBudget:
        """What the code inside its ``with`` may use, as ``Router.budget`` has it."""
        budget: RunBudget = self._of_a_router("budget")(usd, tokens=tokens, calls=calls)
        return budget

    def _of_a_router(self, name: str) -> Any:
        own = getattr(self._provider, name, None)
        if own is None:
            raise ConfigurationError(f"{self._provider.model.name!r} is a provider alone, not a router: no {name} here")
        return own

    def close(self) -> None:
        """Close the provider, and end the thread."""
        self._own.end(self._provider.aclose())

    def stop(self, wait_s: float | None = None) -> None:
        """End the thread, and whatever it still has to do; the next call starts another. Waits for that, but for no
        longer than *wait_s* seconds."""
        self._own.stop(wait_s)

    def _run(self, work: Coroutine[Any, Any, T], meanwhile: Meanwhile | None = None) -> T:
        try:
            return outcome_of(self._own.begin(work), meanwhile)
        except concurrent.futures.CancelledError:
            model = self._provider.model
            told = f"{model.name} was closed while it was asked"
            raise ProviderUnavailable(told, provider=model.provider, model=model.name) from None

    def _iterate(self, pieces: AsyncGenerator[T, None], meanwhile: Meanwhile | None = None) -> Iterator[T]:
        stream, seen, loop = _Stream(pieces), list[str](), self._own.begun()
        try:
            while (piece := self._next(stream, loop, seen, meanwhile)) is not None:
                if isinstance(piece, str):
                    seen.append(piece)
                yield piece
        finally:
            self._own.tell(loop, stream.close)  # also where a garbage collector closes what its reader has left

    def _next(
        self, stream: _Stream[T], loop: asyncio.AbstractEventLoop, seen: Sequence[str], meanwhile: Meanwhile | None
    ) -> T | None:
        try:
            if self._own.serves(loop):
                return self._run(stream.piece(), meanwhile)
        except ProviderUnavailable:
            if self._own.serves(loop):
                raise
        model = self._provider.model
        interrupted = StreamInterrupted("it was closed while it was read", provider=model.provider, model=model.name)
        interrupted.partial = "".join(seen)
        raise interrupted

    def __enter__(self) -> Self:
        self._run(self._provider.warm_up())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Stream(Generic[T]):
    """A stream on its loop: asked for one piece at a time, and closed once nobody asks any more."""

    def __init__(self, pieces: AsyncGenerator[T, None]) -> None:
        self._pieces = pieces
        self._asking: asyncio.Task[Any] | None = None

    async def piece(self) -> T | None:
        """The next piece; ``None`` at the end."""
        self._asking = asyncio.current_task()
        try:
            return await anext(self._pieces, None)
        finally:
            self._asking = None

    def close(self, closed: threading.Event) -> None:
        """On the loop: close it, and say so."""
        task = asyncio.get_running_loop().create_task(self._close())
        task.add_done_callback(lambda _: closed.set())

    async def _close(self) -> None:
        if self._asking is not None:  # Ctrl-C has left it alone with its question
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await self._pieces.aclose()
