"""One answer as it arrives.

A ``Reply`` exists only once its first content is here. That is the library's rule about failure: before it, a
call may be tried again or passed to the next model; after it, the caller has seen text, and what goes wrong is
raised as ``StreamInterrupted`` with that text.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from .errors import ContentFiltered, EmptyResponse, ProviderError, ProviderUnavailable, StreamInterrupted
from .types import Attempt, Chunk, Model, Plan, Response, ToolCall, Usage, assemble, total_cost

OnFinish = Callable[["Reply", BaseException | None], Awaitable[object] | None]

_closing: set[asyncio.Task[None]] = set()
_left_behind: deque[Reply] = deque()
"""Answers that were forgotten when their loop had ended."""


class Reply:
    """Iterate it for chunks, or ``await read()`` for the whole ``Response``. Leave it by ``async with``.

    The attributes without an underscore are for layers to fill in; callers read them off the ``Response``.
    *begun* is the moment of the first content on the loop's clock; *usage* takes the place of what the chunks say.
    One that is forgotten before its end is closed all the same, with a ``ResourceWarning``.
    """

    _ended: float | None = 0.0  # until it is made

    def __init__(self, model: Model, chunks: AsyncGenerator[Chunk, None], *, started: float) -> None:
        self.model = model
        self.plan: Plan | None = None
        self.cached = False
        self.degraded = False
        self.shared = False
        self.attempts: tuple[Attempt, ...] = ()
        self.usage: Usage | None = None
        self.begun: float | None = None
        self._chunks = chunks
        self._inside: list[AsyncGenerator[Chunk, None]] = []
        self._unbegun = 0  # how many of the generators, outermost first, nobody has asked for anything yet
        self._started = started
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._reader: asyncio.Task[Any] | None = None  # the task that waits for the next piece
        self._let_go: asyncio.Future[None] | None = None  # somebody else has closed it, and waits for the reader
        self._next: Chunk | None = None
        self._untaken: Chunk | None = None
        self._seen: list[Chunk] = []
        self._on_finish: list[OnFinish] = []
        self._entered = False
        self._ended = None
        settle_left_behind()

    @classmethod
    async def open(cls, model: Model, chunks: AsyncGenerator[Chunk, None]) -> Self:
        """Wait for the first piece that says something; failing before it is failing to open.

        Raises ``EmptyResponse`` if the answer ends without any, and ``ContentFiltered`` if it was withheld.
        """
        clock = asyncio.get_running_loop().time
        reply = cls(model, chunks, started=clock())
        try:
            reply._next = await reply._first()
        except BaseException as error:
            reply._ended = clock()
            await chunks.aclose()
            if isinstance(error, ProviderError):
                error.usage = reply.reported_usage
            raise
        reply.begun = clock()
        return reply

    async def _first(self) -> Chunk:
        """The first chunk with content; what came before it, usage for one, is kept."""
        async for chunk in self._chunks:
            if chunk.text or chunk.tool_calls or chunk.vectors:
                return chunk
            if not chunk.empty:
                self._seen.append(chunk)
            if chunk.finish_reason == "content_filter":
                raise ContentFiltered(
                    "the provider's content policy withheld the answer",
                    provider=self.model.provider,
                    model=self.model.name,
                )
        raise EmptyResponse("the answer has no content", provider=self.model.provider, model=self.model.name)

    def since(self, started: float) -> Self:
        """Count this answer's times from *started*, a moment on the loop's clock."""
        self._started = started
        return self

    def on_finish(self, callback: OnFinish) -> Self:
        """Call *callback* once with this reply, when it ends, fails or is abandoned; first added, first called."""
        self._on_finish.append(callback)
        return self

    def through(self, wrap: Callable[[AsyncGenerator[Chunk, None]], AsyncGenerator[Chunk, None]]) -> Self:
        """Let the pieces still to come pass through *wrap*."""
        self._inside.append(self._chunks)
        self._chunks = wrap(self._chunks)
        self._unbegun += 1
        return self

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        try:
            chunk = self._next
            while chunk is None or chunk.empty:
                chunk = await self._another()
        except StopAsyncIteration:
            await self._finish(None)
            raise
        except ProviderError as error:
            interrupted = self._interrupted(error)
            await self._finish(interrupted)
            raise interrupted from (None if interrupted is error else error)
        except BaseException as error:
            await self._finish(error)
            raise
        self._next = None
        self._seen.append(chunk)
        return chunk

    async def _another(self) -> Chunk:
        """The next piece. An answer that just ends, with no reason given, was cut off somewhere."""
        self._unbegun = 0
        task = self._reader = asyncio.current_task()
        cancelling = 0 if task is None else task.cancelling()
        try:
            return await anext(self._chunks)
        except asyncio.CancelledError:
            if task is None or self._let_go is None or task.uncancel() > cancelling:
                raise
            raise StreamInterrupted(
                "it was closed while somebody read it", provider=self.model.provider, model=self.model.name
            ) from None
        except StopAsyncIteration:
            if any(chunk.finish_reason for chunk in self._seen):
                raise
            raise ProviderUnavailable(
                "it ended without a finish reason", provider=self.model.provider, model=self.model.name
            ) from None
        finally:
            self._reader = None
            if self._let_go is not None and not self._let_go.done():
                self._let_go.set_result(None)

    def _interrupted(self, error: ProviderError) -> ProviderError:
        """What *error* is to a caller who has seen a part of the answer."""
        partial = self.text
        if isinstance(error, ContentFiltered):
            error.partial = partial
            return error
        if isinstance(error, StreamInterrupted):
            error.partial = error.partial or partial
            return error
        wrapped = StreamInterrupted(
            f"the answer broke off after {len(partial)} characters: {error}",
            provider=error.provider,
            model=error.model,
            status=error.status,
            code=error.code,
        )
        wrapped.partial = partial
        return wrapped

    async def read(self) -> Response:
        """Take the rest of the answer and return it whole."""
        async with self:
            async for _ in self:
                pass
        return self.response

    @property
    def pieces(self) -> tuple[Chunk, ...]:
        """What has come so far, as it came."""
        return tuple(self._seen)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join([chunk.text for chunk in self._seen])

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, as the provider put it; ``None`` while it has not, or if it was cut or left."""
        return next((chunk.finish_reason for chunk in reversed(self._seen) if chunk.finish_reason), None)

    @property
    def response_model(self) -> str:
        """What the provider says that answered, the last if several did; empty if it does not say."""
        return next((chunk.model for chunk in reversed(self._seen) if chunk.model or chunk.continued_by), "")

    @property
    def reported_usage(self) -> Usage | None:
        """The usage that the provider sent last."""
        return next((chunk.usage for chunk in reversed(self._come) if chunk.usage), None)

    @property
    def written(self) -> str:
        """What the model wrote as far as it came, calls of tools too, and also what nobody has taken."""
        text = "".join([chunk.text for chunk in self._come])
        return text + "".join([part.arguments for chunk in self._come for part in chunk.tool_calls])

    @property
    def _come(self) -> Sequence[Chunk]:
        """All that came: of an answer that was left, the first piece may have been waiting for whoever takes it."""
        return self._seen if self._untaken is None else (*self._seen, self._untaken)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far; the last may lack the end of its arguments."""
        parts = [part for chunk in self._seen for part in chunk.tool_calls]
        return assemble(parts) if parts else ()

    @property
    def continued_by(self) -> tuple[str, ...]:
        """The models that have gone on where the answer broke off, in order."""
        return tuple([chunk.continued_by for chunk in self._seen if chunk.continued_by])

    @property
    def first_token_s(self) -> float | None:
        """Seconds until the first content was here."""
        return None if self.begun is None else self.begun - self._started

    @property
    def response(self) -> Response:
        """The answer so far; whole once the iteration has ended."""
        usage = self.usage or self.reported_usage or Usage()
        if self.attempts or self.shared or self.cached:
            cost_micros, basis = total_cost(self.attempts)
        else:
            cost_micros, basis = self.model.cost_micros(usage), self.model.cost_basis(usage)
        now = self._time() if self._ended is None else self._ended
        continued_by = self.continued_by
        return Response(
            text=self.text,
            model=self.model.name,
            provider=self.model.provider,
            response_model=self.response_model,
            vectors=tuple([vector for chunk in self._seen for vector in chunk.vectors]),
            tool_calls=self.tool_calls,
            usage=usage,
            cost_usd=None if cost_micros is None else cost_micros / 1_000_000,
            cost_basis=basis,
            finish_reason=self.finish_reason,
            cached=self.cached,
            degraded=self.degraded or bool(continued_by),
            shared=self.shared,
            continued_by=continued_by,
            attempts=tuple(sorted(self.attempts, key=lambda attempt: attempt.number)),
            plan=self.plan,
            first_token_s=self.first_token_s,
            latency_s=now - self._started,
        )

    async def aclose(self) -> None:
        """Stop listening, and close the connection. An answer left early has no error and no finish reason."""
        await self._finish(None)

    async def _finish(self, error: BaseException | None) -> None:
        if self._ended is not None:
            return
        self._ended = self._time()
        try:
            await self._close()
        finally:
            callbacks, self._on_finish = self._on_finish, []
            try:
                await self._call_back(iter(callbacks), error)
            finally:
                if isinstance(error, ProviderError):
                    error.attempts = self.attempts

    async def _call_back(self, callbacks: Iterator[OnFinish], error: BaseException | None) -> None:
        """Call one after the other, also those after one that fails, or is cancelled while it waits."""
        for callback in callbacks:
            try:
                done = callback(self, error)
                if done is not None:
                    await done
            except BaseException:
                await self._call_back(callbacks, error)
                raise

    async def _close(self) -> None:
        self._leave_lying()
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._let_go = self._loop.create_future()
            self._reader.cancel()  # from the inside: a generator at work can not be closed
            await self._let_go
        # A generator that never began does not close what it was given: each is closed, outermost first. Those have
        # nothing to close, and a loop that is ending would complain that they begin now.
        for chunks in (self._chunks, *reversed(self._inside))[self._unbegun :]:
            await chunks.aclose()

    def _leave_lying(self) -> None:
        self._next, self._untaken = None, self._next or self._untaken

    def _tell(self) -> Sequence[Awaitable[object]]:
        """Call all who want to hear of the end, also where one of them fails; returns what they still have to do."""
        failed: Exception | None = None
        callbacks, self._on_finish = self._on_finish, []
        still: list[Awaitable[object]] = []
        for callback in callbacks:
            try:
                if (more := callback(self, None)) is not None:
                    still.append(more)
            except Exception as caught:  # noqa: BLE001 - raised when everybody has heard
                failed = failed or caught
        if failed is not None:
            raise failed
        return still

    def __del__(self) -> None:
        if self._ended is not None or sys.is_finalizing():
            return
        try:  # a garbage collector may be at work anywhere, in a thread that holds any lock: nothing is done here
            self._loop.call_soon_threadsafe(self._forgotten)
        except RuntimeError:  # the loop is closed
            _left_behind.append(self)
        if not self._entered:  # else whoever has entered it is forgotten, too, and leaves it
            told = f"an answer of {self.model.name} was forgotten before its end: leave it by async with, or read it"
            warnings.warn(told, ResourceWarning, stacklevel=2, source=self)

    def _forgotten(self) -> None:
        """On a loop: nobody has it any more. It is written down at once: a loop that ends cancels its tasks before they
        begin, and closes generators itself."""
        if self._ended is not None:
            return
        self._ended = self._time()
        self._leave_lying()
        still = self._tell()
        if self._loop is asyncio.get_running_loop():
            task = self._loop.create_task(self._closed_alone(still))
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    async def _closed_alone(self, still: Sequence[Awaitable[object]]) -> None:
        with contextlib.suppress(RuntimeError):  # the garbage collector has the loop close the same generators
            await self._close()
        for each in still:
            await each

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def settle_left_behind() -> None:
    """Have those answers written down, on the running loop, that were forgotten when theirs had ended."""
    while _left_behind:
        asyncio.get_running_loop().call_soon(_left_behind.popleft()._forgotten)
