"""Much work at once: so many pieces under way and no more, and what came of each in the order in which it was given."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, Generic, Self, TypeVar

from .errors import InvalidRequest

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T], Coroutine[Any, Any, R]]

AT_ONCE = 16
"""How many are under way at the same time, unless somebody says."""
AHEAD = 64
"""How many outcomes for each of those are kept at most, because one before them is not there yet."""


def in_order(
    work: Work[T, R], items: Iterable[T] | AsyncIterable[T], *, at_once: int = AT_ONCE
) -> AsyncGenerator[R, None]:
    """Do *work* for each of *items*, *at_once* of them at the same time, and yield the results in their order.

    Items are read one at a time, when there is room for another: neither they nor the results pile up. What *work*
    raises is raised at once, and ends all; what *items* raises, after the results of those before it. Whoever leaves
    early ends what is under way; to have that done at once, leave by ``contextlib.aclosing``.
    """
    if not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
        raise InvalidRequest(f"at_once is a whole number from 1 on, not {at_once!r}")
    source = aiter(items) if isinstance(items, AsyncIterable) else _OneByOne(_iterator(items))
    return _results(work, source, at_once)


async def _results(work: Work[T, R], source: AsyncIterator[T], at_once: int) -> AsyncGenerator[R, None]:
    async with aclosing(_Line(work, source, at_once)) as line:
        async for result in line:
            yield result


class _Line(Generic[T, R]):
    """What is under way, and what is done and not yet taken; in order."""

    def __init__(self, work: Work[T, R], source: AsyncIterator[T], at_once: int) -> None:
        self._work = work
        self._source = source
        self._slots = asyncio.Semaphore(at_once)
        self._room = asyncio.Semaphore(at_once * AHEAD)
        self._line: deque[asyncio.Task[R]] = deque()
        self._news = asyncio.Event()
        self._failure: BaseException | None = None
        self._feeder = asyncio.create_task(self._feed())
        self._feeder.add_done_callback(lambda _: self._news.set())

    async def _feed(self) -> None:
        while True:
            await self._room.acquire()
            await self._slots.acquire()
            try:
                item = await anext(self._source)
            except StopAsyncIteration:
                return
            task = asyncio.create_task(self._work(item))
            self._line.append(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[R]) -> None:
        self._slots.release()
        self._news.set()
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if failure is not None and self._failure is None:
            self._failure = failure
            self._cancel()

    def _cancel(self) -> None:
        for task in (self._feeder, *self._line):
            task.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        while self._failure is None:
            if self._line and self._line[0].done():
                self._room.release()
                return self._line.popleft().result()
            if not self._line and self._feeder.done():
                self._feeder.result()
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        raise self._failure

    async def aclose(self) -> None:
        """End what is under way, and wait until it has ended."""
        self._cancel()
        await asyncio.gather(self._feeder, *self._line, return_exceptions=True)


def _iterator(items: Iterable[T]) -> Iterator[T]:
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise InvalidRequest(f"a list of requests, or another iterable, is wanted, not {type(items).__name__}")
    return iter(items)


class _OneByOne(Generic[T]):
    """An iterator, for those who wait."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        for item in self._items:
            return item
        raise StopAsyncIteration


class Handed(Generic[T]):
    """Items that are read in another thread than the loop's, by whoever waits there for what comes of them."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = _iterator(items)
        self._asked: queue.SimpleQueue[asyncio.Future[T] | None] = queue.SimpleQueue()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        asked: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.put(asked)
        return await asked

    def until(self, done: Future[Any]) -> None:
        """In that other thread: read what is asked for, until *done* is."""
        done.add_done_callback(lambda _: self._asked.put(None))
        while (asked := self._asked.get()) is not None:
            give = self._read()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody asks any more
                asked.get_loop().call_soon_threadsafe(give, asked)

    def _read(self) -> Callable[[asyncio.Future[T]], None]:
        failure: Exception = StopAsyncIteration()
        try:
            for item in self._items:
                return lambda asked: None if asked.done() else asked.set_result(item)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the outcomes are taken
            failure = error
        return lambda asked: None if asked.done() else asked.set_exception(failure)
