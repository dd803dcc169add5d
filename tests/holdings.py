"""What a process holds on to; a router over a server on loopback; and a call that is cut short where it waits."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from typing import Any, NamedTuple

import aiohttp

from devsynth_providers import OpenAIProvider, Reply, Router

from .helpers import PRICED, model, policy
from .loopback import Answer, Loopback, stream, vectors, whole

KEY = "sk-canary-0123456789abcdef"
ABILITIES = frozenset(("chat", "embeddings", "tools", "json"))
_earlier: weakref.WeakSet[Any] = weakref.WeakSet()
"""Answers and sessions that other tests hold on to, for example by the traceback of an error that is a parameter."""


class Holdings(NamedTuple):
    """How much of everything that can leak there is."""

    descriptors: int
    threads: int
    tasks: int
    timers: int
    answers: int
    sessions: int


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def descriptors_fall_to(most: int) -> bool:
    """Whether no more than *most* are open, or soon: the server's ends of connections are in this process, too."""
    for _ in range(300):
        if descriptors() <= most:
            return True
        time.sleep(0.1)
    return False


def leave_out_what_there_is() -> None:
    """Let ``held`` count only what comes from now on."""
    _earlier.update(_kept())


def held() -> Holdings:
    """What is held now, on the running loop if there is one."""
    kept = [each for each in _kept() if each not in _earlier]
    try:
        loop: Any = asyncio.get_running_loop()
        tasks, timers = len(asyncio.all_tasks()), sum(not timer.cancelled() for timer in loop._scheduled)
    except RuntimeError:
        tasks = timers = 0
    answers = sum(type(each) is Reply for each in kept)
    sessions = sum(type(each) is not Reply and not each.closed and not each._loop.is_closed() for each in kept)
    return Holdings(descriptors(), threading.active_count(), tasks, timers, answers, sessions)


def _kept() -> list[Any]:
    gc.collect()
    kinds = {Reply, aiohttp.ClientSession}
    return [each for each in gc.get_objects() if type(each) in kinds]


async def settled() -> None:
    """Let the loop do what it has put off: generators are closed in its next turns."""
    for _ in range(20):
        await asyncio.sleep(0)


def by_what_is_asked(body: dict[str, Any]) -> Answer:
    """The right kind of answer, which leaves the connection to the next call."""
    if "input" in body:
        return vectors(*[[1.0, 2.0]] * len(body["input"]))
    return as_one(stream() if body.get("stream") else whole())


def as_one(answer: Answer) -> Answer:
    """*answer* in one piece that says how long it is."""
    data = b"".join(piece for piece in answer.pieces if isinstance(piece, bytes))
    return replace(answer, pieces=[data], content_length=len(data))


def provider(server: Loopback, lane: str = "direct", *, key: str = KEY, name: str = "m") -> OpenAIProvider:
    transport: Any = "auto" if lane == "direct" else "litellm"
    facts = model(name, provider="openai", price=PRICED)
    return OpenAIProvider(facts, base_url=server.url, api_key=key, transport=transport)


def router(server: Loopback, lane: str = "direct", *names: str, **options: Any) -> Router:
    """Models called *names*, or one, served by *server*; the router opens and closes their providers."""
    ours = {"retry", "timeouts", "limits"}
    transport: Any = "auto" if lane == "direct" else "litellm"
    models = [
        model(name, provider="openai", price=PRICED, base_url=server.url, api_key_env="TEST_KEY", transport=transport)
        for name in names or ("m",)
    ]
    limits = options.pop("limits", {})
    rules = policy(*models, coalesce="never", **{name: options.pop(name) for name in ours & options.keys()})
    return Router(replace(rules, limits=limits), **options)


Asking = Callable[[Router], Awaitable[object]]


async def _whole(router: Router) -> object:
    return await router.generate("hi")


async def _streamed(router: Router) -> object:
    return [piece async for piece in router.generate_stream("hi")]


async def _embedded(router: Router) -> object:
    return await router.embed_batch(["a", "b"])


ASKING: dict[str, Asking] = {"whole": _whole, "streamed": _streamed, "embedded": _embedded}


class CutShort:
    """Awaits *work*, and cancels the task at the *at*th moment at which it waits: at once, or, if *late*, in the very
    turn of the loop in which what it waits for has come."""

    def __init__(self, work: Awaitable[object], at: int, *, late: bool) -> None:
        self._work = work
        self._at = at
        self._late = late
        self.waits = 0
        self.cut = False

    def __await__(self) -> Generator[Any, Any, object]:
        steps = self._work.__await__()
        throw: BaseException | None = None
        while True:
            try:
                waited = next(steps) if throw is None else steps.throw(throw)
            except StopIteration as stop:
                return stop.value
            self.waits += 1
            if self.waits == self._at:
                self.cut = True
                task = asyncio.current_task()
                assert task is not None
                if self._late and waited is not None:
                    waited.add_done_callback(lambda _, task=task: task.cancel())
                else:
                    asyncio.get_running_loop().call_soon(task.cancel)
            throw = None
            try:
                yield waited
            except BaseException as error:  # noqa: BLE001 - handed on to the call
                throw = error
