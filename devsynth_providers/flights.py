"""Calls that several requests listen to: each in a task of its own, which is nobody's, and ends with the last."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable

from . import telemetry
from .errors import NotPaid, ProviderError, ProviderTimeout, ProviderUnavailable, StreamInterrupted
from .port import ProviderPort
from .reply import Reply
from .retold import retold
from .timers import ring_at
from .types import Chunk, Model, Request

SPARE_S = 0.05
"""Whoever has so little less time than the policy gives has all of it: something was done before it came here."""


class Flights:
    """The calls under way, of each event loop by itself: a call lives on the loop that it began on."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Flight]] = weakref.WeakKeyDictionary()

    def under_way(self, key: str) -> Flight | None:
        """The call that answers what has the fingerprint *key*, if there is one."""
        return self._here.get(key)

    def begin(self, key: str, inner: ProviderPort, request: Request, *, total_s: float) -> Flight:
        """Let *inner* be asked, for all who come while it is. The call has the time that the policy gives, *total_s*:
        who begins it may have less than who joins."""
        here, due, own = self._here, asyncio.get_running_loop().time() + total_s, request.call.deadline
        if own is None or own <= due - SPARE_S:
            request = request.on(deadline=due)

        def forget(flight: Flight) -> None:
            if here.get(key) is flight:
                del here[key]

        flight = here[key] = Flight(inner, request, forget)
        return flight

    @property
    def _here(self) -> dict[str, Flight]:
        return self._of.setdefault(asyncio.get_running_loop(), {})

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))


class Listener:
    """A request that listens to a flight until *due*."""

    def __init__(self, request: Request, due: float | None) -> None:
        self.tally = request.call.tally
        self.told = 0
        """How many attempts of the flight it tells of."""
        self.news = asyncio.Event()
        self.late = False
        self._timer = None if due is None else ring_at(asyncio.get_running_loop(), due, self._run_out_of_time)

    def _run_out_of_time(self) -> None:
        self.late = True
        self.news.set()

    def close(self) -> None:
        """It listens no longer."""
        if self._timer is not None:
            self._timer.cancel()


class Flight:
    """One call, in a task of its own: it ends when it is done, or when nobody listens any more.

    The task has the context of whoever began it: spans of attempts hang below that request. It waits for no listener,
    and keeps each piece once.
    """

    def __init__(self, inner: ProviderPort, request: Request, forget: Callable[[Flight], None]) -> None:
        self.inner = inner
        """Who was asked."""
        self.request = request
        self.reply: Reply | None = None
        self.models: list[Model] = []
        """Who began the answer, and who has gone on where it broke off, in order."""
        self.degraded = False
        """Whether it began so."""
        self.link = telemetry.linker()
        self.payer: Listener | None = None
        """Who tells of the attempts, and what they cost."""
        self._model = inner.model
        self._forget = forget
        self._pieces: list[Chunk] = []
        self._listeners: dict[Listener, None] = {}  # in the order in which they came
        self._told = 0  # attempts that somebody tells of
        self._ended = False
        self._error: BaseException | None = None
        self._task = asyncio.get_running_loop().create_task(self._fly(inner.send))
        self._task.add_done_callback(self._landed)

    async def _fly(self, send: Callable[[Request], Awaitable[Reply]]) -> None:
        try:
            async with await send(self.request) as reply:
                self.reply, self.degraded = reply, reply.degraded
                self.models.append(reply.model)
                if reply.reported_usage is not None:  # came before the first content, and will not come again
                    self._pieces.append(Chunk(usage=reply.reported_usage, model=reply.response_model))
                async for chunk in reply:
                    if chunk.continued_by:
                        self.models.append(reply.model)
                    self._pieces.append(chunk)
                    self._wake()
        finally:
            del self  # it holds the error, which holds this frame

    def _landed(self, task: asyncio.Task[None]) -> None:
        """It has ended; called for a task, too, that was cancelled before it began."""
        self._ended = True
        self._error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._forget(self)
        self._settle()
        self._wake()

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.news.set()

    def take_off(self) -> None:
        """Nobody else may join."""
        self._forget(self)

    async def heard(self, request: Request) -> Reply:
        """The answer, for *request* alone."""
        listener, tally = self.join(request), request.call.tally
        try:
            await self.more(listener, 0)
        except BaseException as error:
            await self.leave(listener)
            if isinstance(error, ProviderError | NotPaid):
                error.attempts = tally.attempts
            tally.vectors |= self.request.call.tally.vectors  # whoever asks anew needs no more than what is lacking
            raise
        inner = self.reply
        if inner is None:
            raise AssertionError("there was a piece, and no reply")
        reply = await Reply.open(self.models[0], self.listen(listener))
        reply.cached, reply.degraded, reply.attempts = inner.cached, self.degraded, tally.attempts
        reply.shared = self.shared_by(listener)

        def finish(reply: Reply, _: BaseException | None) -> None:
            reply.attempts, reply.shared = tally.attempts, self.shared_by(listener)
            reply.usage = inner.usage
            reply.model = self.models[len(reply.continued_by)]  # as far as it was heard: the call may have gone on

        return reply.on_finish(finish)

    def join(self, request: Request) -> Listener:
        """Let *request* listen, and not beyond its own deadline, unless that is the flight's, or later."""
        own, whole = request.call.deadline, self.request.call.deadline
        listener = Listener(request, own if own is not None and whole is not None and own < whole else None)
        self._listeners[listener] = None
        self.payer = self.payer or listener
        return listener

    async def more(self, listener: Listener, heard: int) -> bool:
        """Wait for a piece beyond the first *heard*; whether there is one. Raises what the call ended with."""
        while len(self._pieces) <= heard:
            if self._error is not None:
                raise self._own(self._error, listener)
            if self._ended:
                return False
            if listener.late:
                if any(piece.vectors for piece in self._pieces):
                    return False  # they have come all at once: only what they came by has not ended yet
                model = self._model if self.reply is None else self.reply.model
                raise ProviderTimeout("past the deadline", provider=model.provider, model=model.name)
            listener.news.clear()
            await listener.news.wait()
        return True

    async def listen(self, listener: Listener) -> AsyncGenerator[Chunk, None]:
        """Every piece, those that came before at once."""
        heard = 0
        try:
            while heard < len(self._pieces) or await self.more(listener, heard):
                yield self._pieces[heard]
                heard += 1
        finally:
            await self.leave(listener)

    async def leave(self, listener: Listener) -> None:
        """*listener* has gone. The last one ends the flight, and waits until nothing of it is left."""
        listener.close()
        del self._listeners[listener]
        if not self._listeners and not self._task.done():
            self._forget(self)
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._settle()
        if listener is self.payer and not self._task.done():
            self.payer = next(iter(self._listeners))

    def _settle(self) -> None:
        """What has ended since is the payer's to tell. Who began the flight has it in its tally as it is."""
        attempts, payer = self.request.call.tally.attempts, self.payer
        if payer is not None:
            payer.told += len(attempts) - self._told
            if payer.tally is not self.request.call.tally:
                payer.tally.take_over(attempts[self._told :])
        self._told = len(attempts)

    def shared_by(self, listener: Listener) -> bool:
        """Whether others tell of it, also where *listener* is the payer, and comes too late to tell of anything, or
        where those who answer it share another call."""
        if listener.told:
            return False
        return listener is not self.payer or self._told > 0 or (self.reply is not None and self.reply.shared)

    def _own(self, error: BaseException, listener: Listener) -> BaseException:
        if isinstance(error, asyncio.CancelledError):
            what = "the call that was to answer was cancelled"
            return ProviderUnavailable(what, provider=self._model.provider, model=self._model.name)
        if isinstance(error, StreamInterrupted) and isinstance(error.__cause__, ProviderError):
            error = error.__cause__  # how much of the answer came before, each reply says for itself
        own = retold(error, led=listener.tally is self.request.call.tally)
        if isinstance(own, StreamInterrupted):
            own.partial = "".join([piece.text for piece in self._pieces])
        return own
