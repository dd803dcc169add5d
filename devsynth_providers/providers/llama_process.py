"""A GGUF model in a process of its own, as seen from here.

Native code can crash, hang or be killed; then only that process is gone, its callers get an error that may be tried
again, and the next call starts another. Requests go in the order in which they come, from any thread and any event
loop: one thread writes them (and starts the process when there is none), one reads the answers.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import os
import queue
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from .. import telemetry
from ..errors import ContextTooLong, ModelNotFound, ProviderError, ProviderUnavailable, RateLimitError, RequestRejected

Event = dict[str, Any]
Listener = Callable[[Event], None]

WORKER = Path(__file__).with_name("llama_worker.py")
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
CANCEL_GRACE_S = 2.0
"""How long a running computation may take to stop when it is told to, before its process is killed."""

_ERRORS: dict[str, type[ProviderError]] = {
    "too_long": ContextTooLong,
    "rejected": RequestRejected,
    "load": ModelNotFound,
}
_LAST = frozenset(("done", "error", "cancelled"))


class LlamaProcess:
    """One model file, decoding one request at a time. *waiting* callers at the most; the next one is turned away."""

    def __init__(self, path: Path, *, name: str, context_size: int, threads: int, waiting: int = 64) -> None:
        self._settings = {"path": str(path), "n_ctx": context_size, "n_threads": threads}
        self._name = name
        self._waiting = waiting
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """Begin with nothing: no process, no thread, no caller. In a forked child too, whose threads stayed behind."""
        self._pid = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._listeners: dict[int, Listener] = {}
        self._begun: set[int] = set()
        self._overdue: dict[int, threading.Timer] = {}
        self._outbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None

    async def ask(self, **request: Any) -> AsyncGenerator[Event, None]:
        """Put *request* in the queue and yield its answers, the last with ``done``. Leaving it early cancels it."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        asked = loop.time()
        number = self._post(request, lambda event: _hand_over(loop, inbox, event))
        try:
            while True:
                event = await inbox.get()
                if "error" in event:
                    raise self._error(event)
                if "begin" in event:
                    telemetry.waited(loop.time() - asked)
                    continue
                yield event
                if "done" in event:
                    return
        finally:
            self._leave(number)

    def count(self, text: str) -> int:
        """How many tokens *text* is to this model. Blocks: for a moment, or until the model is loaded."""
        answer: Future[Event] = Future()
        number = self._post({"do": "count", "text": text}, answer.set_result)
        try:
            event = answer.result()
        finally:
            self._leave(number)
        if "error" in event:
            raise self._error(event)
        return int(event["done"]["tokens"])

    def load(self) -> None:
        """Start the process and load the model now. Blocks until that is done."""
        self.count("")

    def close(self) -> None:
        """End the process. The next request starts another."""
        with self._lock:
            process, self._process = self._process, None
            writer, self._writer = self._writer, None
            self._outbox.put(None)
        if writer is not None:
            writer.join()
        if process is not None:
            _end(process)

    @property
    def process_id(self) -> int | None:
        """The id of the process that has the model, or ``None`` while there is none."""
        process = self._process
        return None if process is None else process.pid

    def _post(self, request: Event, listener: Listener) -> int:
        with self._lock:
            if self._pid != os.getpid():
                self._forget()
            if len(self._listeners) >= self._waiting:
                raise RateLimitError(
                    f"{len(self._listeners)} callers already wait for this model", provider="local", model=self._name
                )
            number = next(self._numbers)
            self._listeners[number] = listener
            self._outbox.put({"id": number, **request})
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, args=(self._outbox,), name="llama-in", daemon=True)
                self._writer.start()
        return number

    def _leave(self, number: int) -> None:
        """Stop listening; if the answer is not whole, have it stopped, and if it does not stop, stop the process."""
        with self._lock:
            if self._listeners.pop(number, None) is None or self._process is None:
                return
            if number in self._begun:
                timer = self._overdue[number] = threading.Timer(CANCEL_GRACE_S, self._kill, (self._process,))
                timer.daemon = True
                timer.start()
            self._outbox.put({"cancel": number})

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()

    def _write(self, outbox: queue.SimpleQueue[Event | None]) -> None:
        """The writing thread: start the process when there is none, and pass on one line after the other."""
        while (line := outbox.get()) is not None:
            try:
                process = self._process or (self._start() if "do" in line else None)
                if process is not None and process.stdin is not None:
                    process.stdin.write(json.dumps(line).encode() + b"\n")
                    process.stdin.flush()
            except OSError as error:  # it died a moment ago, or could not start: the reader tells the others
                self._deliver({"id": line.get("id"), "error": f"its process is gone: {error}", "kind": "died"})
            except ProviderError as error:
                self._deliver({"id": line.get("id"), "error": str(error), "kind": "load"})

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: the folder of the script is no place to import from, it has a module called openai.
        process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not SECRET.search(name)},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
        said: collections.deque[str] = collections.deque(maxlen=5)
        listening = threading.Thread(target=_overhear, args=(process, said), name="llama-err", daemon=True)
        listening.start()
        process.stdin.write(json.dumps(self._settings).encode() + b"\n")
        process.stdin.flush()
        loaded = process.stdout.readline()
        event = json.loads(loaded) if loaded else {"error": "its process ended while loading it"}
        if "error" in event:
            process.stdout.close()
            _end(process)
            listening.join()
            raise ModelNotFound(
                f"{self._settings['path']} can not be loaded: {event['error']} {' '.join(said)}".strip()
            )
        with self._lock:
            self._process = process
        threading.Thread(target=self._read, args=(process, said), name="llama-out", daemon=True).start()
        return process

    def _read(self, process: subprocess.Popen[bytes], said: collections.deque[str]) -> None:
        """The reading thread: hand every answer to its caller, and at the end tell those still waiting."""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._deliver(json.loads(line))
        code = process.wait()
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        with self._lock:
            mine = self._process is process or self._process is None
            if self._process is process:
                self._process = None
            orphans = dict(self._listeners) if mine else {}
            for timer in self._overdue.values():
                timer.cancel()
            self._overdue.clear()
        _end(process)
        for number in orphans:
            last = f" ({said[-1]})" if said else ""
            self._deliver({"id": number, "error": f"its process ended: {why}{last}", "kind": "died"})

    def _deliver(self, event: Event) -> None:
        number = event.get("id")
        if not isinstance(number, int):
            return
        last = not _LAST.isdisjoint(event)
        with self._lock:
            if "begin" in event:
                self._begun.add(number)
            listener = self._listeners.get(number)
            if last:
                self._begun.discard(number)
                self._listeners.pop(number, None)
                if timer := self._overdue.pop(number, None):
                    timer.cancel()
        if listener is not None and "cancelled" not in event:
            listener(event)

    def _error(self, event: Event) -> ProviderError:
        kind = _ERRORS.get(event.get("kind", ""), ProviderUnavailable)
        error = kind(f"the local model: {event['error']}", provider="local", model=self._name)
        if isinstance(error, ContextTooLong):
            error.context_window = event.get("context_window")
        return error


def _hand_over(loop: asyncio.AbstractEventLoop, inbox: asyncio.Queue[Event], event: Event) -> None:
    with contextlib.suppress(RuntimeError):  # the caller's loop is closed: nobody listens any more
        loop.call_soon_threadsafe(inbox.put_nowait, event)


def _overhear(process: subprocess.Popen[bytes], said: collections.deque[str]) -> None:
    """Keep the last lines that native code has printed, for the error if it dies."""
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            said.append(line.decode("utf-8", "replace").strip()[:200])


def _end(process: subprocess.Popen[bytes]) -> None:
    """See *process* off: it leaves by itself when nobody writes to it any more, or is made to."""
    with contextlib.suppress(OSError):  # it was gone before the last line reached it
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(CANCEL_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
