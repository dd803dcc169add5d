"""The same library for callers without an event loop."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack, cast

from .errors import ConfigurationError
from .port import ProviderPort
from .types import MAX_TOKENS, TEMPERATURE, Context, Message, Options, Parameters, Request, Response

T = TypeVar("T")

_AT_EXIT_S = 5.0
_running: weakref.WeakSet[SyncRouter] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Before the interpreter ends: what a loop holds, connections for one, can only be let go of while it runs."""
    for each in list(_running):
        each.stop(_AT_EXIT_S)


class SyncRouter:
    """Drives a provider on an event loop of its own, in a thread of its own: also from inside a running loop.

    The thread starts with the first call. Any number of threads may call at once. ``close`` ends it; it closes the
    provider too.
    """

    def __init__(self, provider: ProviderPort) -> None:
        if not isinstance(provider, ProviderPort):
            raise ConfigurationError(f"SyncRouter takes a provider or a router, not {provider!r}")
        self._provider = provider
        self._forget()

    def _forget(self) -> None:
        """Begin with no loop and no thread; in a forked child too, where the thread has stayed behind."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def complete(self, request: Request | str | None = None, **options: Unpack[Options]) -> Response:
        """Ask, and return the whole answer."""
        return self._run(self._provider.complete(request, **options))

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
        again = getattr(self._provider, "reload", None)
        if again is None:
            raise ConfigurationError(
                f"{self._provider.model.name!r} is a provider alone: it has no policy to read again"
            )
        self._run(again())

    def close(self) -> None:
        """Close the provider, and end the thread."""
        self._running()
        thread = self._thread
        self._run(self._provider.aclose())
        self.stop()
        if thread is not None:
            thread.join()  # a router's aclose has stopped it from inside, and could not wait for it

    def stop(self, wait_s: float | None = None) -> None:
        """End the thread, and whatever it still has to do; the next call starts another. Waits for that, but for no
        longer than *wait_s* seconds."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(wait_s)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:  # Ctrl-C in the calling thread ends the call in the other one too
            future.cancel()
            raise

    def _iterate(self, pieces: AsyncGenerator[T, None]) -> Iterator[T]:
        end = object()

        async def step() -> object:
            return await anext(pieces, end)

        try:
            while (piece := self._run(step())) is not end:
                yield cast("T", piece)
        finally:
            self._let_go(pieces)

    def _let_go(self, pieces: AsyncGenerator[Any, None]) -> None:
        """Close a stream that its reader has left. A garbage collector may do so anywhere: on the loop's own thread
        there must be no waiting for the loop; after ``close`` the loop has seen to it already; and when the interpreter
        ends, or in a forked child, the loop's thread is gone."""
        loop, thread = self._loop, self._thread
        if loop is None or loop.is_closed() or sys.is_finalizing() or self._pid != os.getpid():
            return
        closing = asyncio.run_coroutine_threadsafe(_close(pieces), loop)
        if thread is not threading.current_thread():
            closing.result()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            self._forget()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="devsynth-providers", daemon=True
                )
                self._thread.start()
                _running.add(self)
            return self._loop

    def __enter__(self) -> Self:
        self._run(self._provider.warm_up())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _close(pieces: AsyncGenerator[Any, None]) -> None:
    await pieces.aclose()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run *loop* until it is stopped, then see its tasks and generators off."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        for task in (tasks := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
