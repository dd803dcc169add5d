"""Clocks: an answer that does not come in time is a ``ProviderTimeout``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from typing_extensions import override

from .. import turns
from ..errors import ProviderTimeout
from ..port import ProviderPort
from ..reply import Reply
from ..timers import ring_at
from ..types import ChatRequest, Chunk, Request, Timeouts
from .wrapper import Wrapper


class Timed(Wrapper):
    """Give up when the answer has not begun in time, stalls, or is not whole by the deadline.

    Three of the four clocks are here; the fourth, ``connect_s``, belongs to whoever opens the connection. The
    first-content clock runs for streams only: a whole answer begins when it is done. Keep-alives, and pieces with only
    a role in them, stop no clock; waiting for one's turn in a queue stops that of the first content. All clocks are
    the event loop's, so that a test can bring a loop with a clock of its own.
    """

    def __init__(self, inner: ProviderPort, timeouts: Timeouts = Timeouts()) -> None:
        super().__init__(inner)
        self.timeouts = timeouts

    @override
    async def send(self, request: Request) -> Reply:
        clock = _Clock(self.timeouts.idle_s)
        now = clock.time()
        request = request.due(now + self.timeouts.total_s)
        deadline = begun_by = request.call.deadline or now
        if isinstance(request, ChatRequest) and request.stream:
            begun_by = min(deadline, now + self.timeouts.first_token_s)
        listens = turns.listen(_FirstContent(clock, begun_by - now, deadline))
        clock.start(begun_by)
        try:
            reply = await self.inner.send(request)
        except BaseException as error:
            clock.close()
            if not (clock.stop() and isinstance(error, asyncio.CancelledError)):
                raise
            what = "no whole answer" if clock.due == deadline else "no first token"
            raise self._late(f"{what} after {clock.time() - now:.3g} s") from None
        finally:
            turns.leave(listens)
        clock.stop()
        return reply.through(self._paced(clock, deadline)).on_finish(clock.close)

    def _paced(
        self, clock: _Clock, deadline: float
    ) -> Callable[[AsyncGenerator[Chunk, None]], AsyncGenerator[Chunk, None]]:
        async def paced(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
            while True:
                idle_until = clock.time() + self.timeouts.idle_s
                clock.start(min(idle_until, deadline))
                try:
                    while (chunk := await anext(chunks)).empty:
                        pass
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError:
                    if not clock.stop():
                        raise
                    stalled = idle_until < deadline
                    raise self._late(
                        f"nothing more for {self.timeouts.idle_s:.3g} s" if stalled else "past the deadline"
                    ) from None
                finally:
                    clock.stop()
                yield chunk

        return paced

    def _late(self, message: str) -> ProviderTimeout:
        return ProviderTimeout(message, provider=self.model.provider, model=self.model.name)


class _Clock:
    """One timer for all that is waited for in an attempt, where ``asyncio.timeout`` makes one for each: this one is
    moved on by writing down what is *due*, and looks at that when it rings, which it does within *rings_within_s*: so
    that it need not be set anew where the next wait is shorter than the first."""

    def __init__(self, rings_within_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self.due = 0.0
        self._rings_within_s = rings_within_s
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._late = False

    def start(self, due: float) -> None:
        """Cancel the running task at *due*, unless it stops the clock before."""
        self._late = False
        task = self._task = asyncio.current_task()
        self._cancelling = 0 if task is None else task.cancelling()
        self.move(due)

    def move(self, due: float) -> None:
        """It is *due* then, and no more when it was; unless it has rung already."""
        if self._late:
            return
        self.due = due
        if self._timer is None or self._timer.when() > due:
            self._set()

    def stop(self) -> bool:
        """The wait is over. Whether it was this clock that ended it, and nobody else."""
        task, self._task = self._task, None
        if task is None or not self._late:
            return False
        return task.uncancel() <= self._cancelling

    def close(self, *_: object) -> None:
        """It is needed no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self) -> None:
        self.close()
        self._timer = ring_at(self._loop, min(self.due, self.time() + self._rings_within_s), self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._task is None:
            return  # nobody waits: whoever starts it again sets it
        if self.time() < self.due:
            self._set()
        else:
            self._late = True
            self._task.cancel()


class _FirstContent:
    """The clock of the first content, which stands still while the call waits for its turn."""

    def __init__(self, clock: _Clock, allowed_s: float, deadline: float) -> None:
        self._clock = clock
        self._allowed_s = allowed_s
        self._deadline = deadline

    def waiting(self) -> None:
        self._clock.move(self._deadline)

    def begun(self, wait_s: float) -> None:
        self._clock.move(min(self._clock.time() + self._allowed_s, self._deadline))
