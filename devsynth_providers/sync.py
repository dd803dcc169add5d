"""The same library for callers without an event loop."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar, Unpack, cast

from .bulk import AT_ONCE, Handed
from .errors import ConfigurationError, DevSynthError, ProviderUnavailable, StreamInterrupted
from .port import ProviderPort
from .types import MAX_TOKENS, TEMPERATURE, Context, Message, Options, Parameters, Request, Response, RunBudget

T = TypeVar("T")
Meanwhile = Callable[[concurrent.futures.Future[Any]], None]
"""What the calling thread does until the future is done."""

_AT_EXIT_S = 5.0
_LOOK_S = 0.1
_running: weakref.WeakSet[SyncRouter] = weakref.WeakSet()


@atexit.register  # for those that begin when the interpreter ends already: it does not hear of others any more
def _stop_all() -> None:
    """Before the interpreter ends: what a loop holds, connections for one, can only be let go of while it runs."""
    for each in list(_running):
        each.stop(_AT_EXIT_S)


def _stop_first() -> None:
    """As ``_stop_all``, but before whoever was told of the end earlier: they take the spans of what is left."""
    _stop_all()


class SyncRouter:
    """Drives a provider on an event loop of its own, in a thread of its own: also from inside a running loop.

    The thread starts with the first call. Any number of threads may call at once. ``close`` ends it; it closes the
    provider too. Calls that are under way then fail: ``ProviderUnavailable``, or ``StreamInterrupted``.
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
        self._forgotten: weakref.finalize[Any, SyncRouter] | None = None

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
        with self._locked():
            self._running()
            thread = self._thread
        closing = self._begin(self._provider.aclose())
        with contextlib.suppress(concurrent.futures.CancelledError):  # another thread closes it, too
            closing.result()
        self.stop()
        if thread is not None:
            thread.join()  # a router's aclose has stopped it from inside, and could not wait for it

    def stop(self, wait_s: float | None = None) -> None:
        """End the thread, and whatever it still has to do; the next call starts another. Waits for that, but for no
        longer than *wait_s* seconds."""
        if self._pid != os.getpid():
            return self._forget()
        with self._lock:  # who has been told to begin is before this: it begins, and is ended
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
            if loop is None or thread is None or self._forgotten is None:
                return None
            self._forgotten.detach()
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(wait_s)
        return None

    def _begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        with self._locked():
            return asyncio.run_coroutine_threadsafe(work, self._running())

    def _run(self, work: Coroutine[Any, Any, T], meanwhile: Meanwhile | None = None) -> T:
        future = self._begin(work)
        try:
            if meanwhile is not None:
                meanwhile(future)
            return future.result()
        except concurrent.futures.CancelledError:
            model = self._provider.model
            told = f"{model.name} was closed while it was asked"
            raise ProviderUnavailable(told, provider=model.provider, model=model.name) from None
        except BaseException:  # Ctrl-C in the calling thread ends the call in the other one too
            future.cancel()
            raise

    def _iterate(self, pieces: AsyncGenerator[T, None], meanwhile: Meanwhile | None = None) -> Iterator[T]:
        stream, seen = _Stream(pieces), list[str]()
        with self._locked():
            loop = self._running()
        try:
            while (piece := self._next(stream, loop, seen, meanwhile)) is not None:
                if isinstance(piece, str):
                    seen.append(piece)
                yield piece
        finally:
            self._let_go(stream, loop)

    def _next(
        self, stream: _Stream[T], loop: asyncio.AbstractEventLoop, seen: Sequence[str], meanwhile: Meanwhile | None
    ) -> T | None:
        try:
            if self._loop is loop and self._pid == os.getpid():
                return self._run(stream.piece(), meanwhile)
        except ProviderUnavailable:
            if self._loop is loop:
                raise
        model = self._provider.model
        interrupted = StreamInterrupted("it was closed while it was read", provider=model.provider, model=model.name)
        interrupted.partial = "".join(seen)
        raise interrupted

    def _let_go(self, stream: _Stream[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Close a stream that its reader has left. A garbage collector may do so anywhere, so there is no lock; on the
        loop's own thread there must be no waiting for the loop; after ``close`` the loop has seen to it already; and
        when the interpreter ends, or in a forked child, the loop's thread is gone."""
        thread = self._thread
        if self._loop is not loop or thread is None or sys.is_finalizing() or self._pid != os.getpid():
            return
        closed = threading.Event()
        try:
            loop.call_soon_threadsafe(stream.close, closed)
        except RuntimeError:  # it ends at this moment, and sees to it
            return
        while thread is not threading.current_thread() and thread.is_alive() and not closed.wait(_LOOK_S):
            pass

    def _locked(self) -> threading.Lock:
        if self._pid != os.getpid():
            self._forget()
        return self._lock

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, which begins if there is none. Under the lock."""
        if self._loop is None:
            loop = self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(loop,), name="devsynth-providers", daemon=True)
            self._thread.start()
            self._forgotten = weakref.finalize(self, _end, loop, self._pid)
            self._forgotten.atexit = False
            _running.add(self)
            atexit.unregister(_stop_first)
            atexit.register(_stop_first)
        return self._loop

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


def _end(loop: asyncio.AbstractEventLoop, pid: int) -> None:
    """Whoever had *loop* was forgotten without being closed."""
    if pid == os.getpid():
        with contextlib.suppress(RuntimeError):  # it was closed after all
            loop.call_soon_threadsafe(loop.stop)


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
