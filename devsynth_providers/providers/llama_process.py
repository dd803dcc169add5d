"""A GGUF model in a process of its own, as seen from here.

Native code can crash, hang or be killed; then only that process is gone, its callers get an error that may be tried
again, and the next call starts another. Requests go in the order in which they come, from any thread and any event
loop: one thread writes them (and starts the process when there is none), one reads the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from .. import turns
from ..errors import (
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimitError,
    RequestRejected,
)
from .llama_pipe import LOAD_LIMIT_S, Event, LlamaPipe
from .wire import CLOSED

Listener = Callable[[Event], None]

CANCEL_GRACE_S = 2.0
"""How long a running computation may take to stop when it is told to, before its process is killed."""

_ERRORS: dict[str, type[ProviderError]] = {
    "too_long": ContextTooLong,
    "rejected": RequestRejected,
    "load": ModelNotFound,
}
_LAST = frozenset(("done", "error", "cancelled"))
_all: weakref.WeakSet[LlamaProcess] = weakref.WeakSet()


class LlamaProcess:
    """One model file, decoding one request at a time. *waiting* callers at the most; the next one is turned away."""

    def __init__(self, path: Path, *, name: str, context_size: int, threads: int, waiting: int = 64) -> None:
        self._settings = {"path": str(path), "n_ctx": context_size, "n_threads": threads}
        self._name = name
        self._waiting = waiting
        self._numbers = itertools.count(1)
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """Begin with nothing: no process, no thread, no caller. In a forked child, whose threads stayed behind."""
        self._lock = threading.Lock()
        self._process: LlamaPipe | None = None
        self._closed: LlamaPipe | None = None
        self._listeners: dict[int, Listener] = {}
        self._sent: dict[int, LlamaPipe] = {}
        self._begun: set[int] = set()
        self._overdue: dict[int, threading.Timer] = {}
        self._writer: _Writer | None = None

    async def ask(self, **request: Any) -> AsyncGenerator[Event, None]:
        """Put *request* in the queue and yield its answers, the last with ``done``. Leaving it early cancels it."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        asked = loop.time()
        number = self._post(request, lambda event: _hand_over(loop, inbox, event))
        turns.waiting()
        try:
            while True:
                event = await inbox.get()
                if "error" in event:
                    raise self._error(event)
                if "begin" in event:
                    turns.begun(loop.time() - asked)
                    continue
                yield event
                if "done" in event:
                    return
        finally:
            self._leave(number)

    def count(self, text: str) -> int:
        """How many tokens *text* is to this model. Blocks: for a moment, or until the model is loaded."""
        if not isinstance(text, str):
            raise InvalidRequest(f"only text has tokens to count, not {type(text).__name__}")
        answer: Future[Event] = Future()
        number = self._post({"do": "count", "text": text}, answer.set_result)
        try:
            event = answer.result(LOAD_LIMIT_S)
        except TimeoutError:
            self.abandon()
            raise ProviderTimeout(
                f"the local model: no sign of life for {LOAD_LIMIT_S:g} s", provider="local", model=self._name
            ) from None
        finally:
            self._leave(number)
        if "error" in event:
            raise self._error(event)
        return int(event["done"]["tokens"])

    def load(self) -> None:
        """Start the process and load the model now. Blocks until that is done."""
        self.count("")

    def close(self) -> None:
        """End the process, and the calls it has. Blocks until it is gone. The next request starts another."""
        with self._lock:
            writer, self._writer = self._writer, None
            self._closed = self._process
        if writer is None:
            return
        writer.stop()
        while writer.thread.is_alive():  # at loading, or held up by a process that reads no more: end that one
            if (process := self._process) is not None:
                self._closed = process
                process.kill()  # it has nothing to lose
            writer.thread.join(0.1)
        with self._lock:
            process, self._process = self._process, None
        for each in filter(None, (process, self._closed)):
            each.kill()
            each.end()

    def abandon(self) -> None:
        """End the process without waiting for it, and without the lock: a garbage collector may call this anywhere."""
        writer, self._writer = self._writer, None  # the next request starts another
        process, self._process = self._process, None
        if writer is not None:
            writer.stop()
        if process is not None:
            process.kill()

    @property
    def process_id(self) -> int | None:
        """The id of the process that has the model, or ``None`` while there is none."""
        process = self._process
        return None if process is None else process.process_id

    def _post(self, request: Event, listener: Listener) -> int:
        try:
            json.dumps(request)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"the request can not be written as JSON: {error}") from None
        with self._lock:
            if len(self._listeners) >= self._waiting:
                raise RateLimitError(
                    f"{len(self._listeners)} callers already wait for this model", provider="local", model=self._name
                )
            number = next(self._numbers)
            self._listeners[number] = listener
            if self._writer is None:
                self._writer = _Writer(self._pass_on)
            self._writer.outbox.put({"id": number, **request})
        return number

    def _leave(self, number: int) -> None:
        """Stop listening; if the answer is not whole, have it stopped, and if it does not stop, stop the process."""
        with self._lock:
            if self._listeners.pop(number, None) is None:
                return
            process = self._sent.get(number)
            if process is None or self._writer is None:  # not sent yet: the writer will see that nobody wants it
                return
            busy = any(self._sent.get(other) is process for other in self._begun)
            if number in self._begun or not busy:  # else it is only another's turn, and this one will be passed over
                timer = self._overdue[number] = threading.Timer(CANCEL_GRACE_S, process.kill)
                timer.daemon = True
                timer.start()
            self._writer.outbox.put({"cancel": number})

    def _pass_on(self, line: Event, stopped: threading.Event) -> None:
        """On the writing thread: bring one line to the process, which is started if there is none."""
        number: int = line["id"] if "id" in line else line["cancel"]
        try:
            if "cancel" in line:
                process = self._sent.get(number)
            elif number not in self._listeners:
                return
            elif stopped.is_set():
                self._deliver({"id": number, "error": "its provider was closed", "kind": "closed"})
                return
            else:
                process = self._process or self._start()
                with self._lock:
                    if number not in self._listeners:
                        return
                    self._sent[number] = process
            if process is not None:
                process.send(line)
        except OSError as error:  # it died a moment ago, or could not start; the reader tells those it had
            self._deliver({"id": number, "error": f"its process is gone: {error}", "kind": "died"})
        except ModelNotFound as error:
            self._deliver({"id": number, "error": str(error), "kind": "load"})
        except Exception as error:  # noqa: BLE001 - this thread serves everybody, and must outlive any one request
            self._deliver({"id": number, "error": f"{type(error).__name__}: {error}", "kind": "died"})

    def _start(self) -> LlamaPipe:
        process = self._process = LlamaPipe()
        try:
            process.load(self._settings)
        except ModelNotFound:
            self._process = None
            raise
        threading.Thread(target=self._read, args=(process,), name="llama-out", daemon=True).start()
        return process

    def _read(self, process: LlamaPipe) -> None:
        """The reading thread: hand every answer to its caller, and at the end tell those who still wait for one."""
        for event in process.events():
            self._deliver(event)
        with self._lock:
            if self._process is process:
                self._process = None
        died_of = process.end()
        with self._lock:
            orphans = [number for number, its in self._sent.items() if its is process]
        last = {"error": f"its process ended: {died_of}", "kind": "died"}
        if self._closed is process:
            last = {"error": "its provider was closed", "kind": "closed"}
        for number in orphans:
            self._deliver({"id": number, **last})

    def _deliver(self, event: Event) -> None:
        number = event["id"]
        with self._lock:
            listener = self._listeners.get(number)
            if "begin" in event:
                self._begun.add(number)
            if not _LAST.isdisjoint(event):
                self._listeners.pop(number, None)
                self._sent.pop(number, None)
                self._begun.discard(number)
                if timer := self._overdue.pop(number, None):
                    timer.cancel()
        if listener is not None and "cancelled" not in event:
            listener(event)

    def _error(self, event: Event) -> ProviderError:
        kind = _ERRORS.get(event.get("kind", ""), ProviderUnavailable)
        error = kind(f"the local model: {event['error']}", provider="local", model=self._name)
        if isinstance(error, ContextTooLong):
            error.context_window = event.get("context_window")
        if event.get("kind") == CLOSED:
            error.code, error.retryable, error.passes_on = CLOSED, False, False
        return error


class _Writer:
    """A thread that passes lines on, one after the other, until it is stopped."""

    def __init__(self, pass_on: Callable[[Event, threading.Event], None]) -> None:
        self.outbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._pass_on = pass_on
        self.thread = threading.Thread(target=self._run, name="llama-in", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Pass nothing on any more, but for telling those whose lines are left that it is over."""
        self._stopped.set()
        self.outbox.put(None)

    def _run(self) -> None:
        while (line := self.outbox.get()) is not None:
            self._pass_on(line, self._stopped)


def _after_fork() -> None:
    for each in _all:
        if each._process is not None:
            each._process.disown()
        each.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _hand_over(loop: asyncio.AbstractEventLoop, inbox: asyncio.Queue[Event], event: Event) -> None:
    with contextlib.suppress(RuntimeError):  # the caller's loop is closed: nobody listens any more
        loop.call_soon_threadsafe(inbox.put_nowait, event)
