"""Lines that go to a file from a thread of their own, so that whoever writes them neither waits nor fails."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where two processes that rotate one file at once may lose the older one
    fcntl = None  # type: ignore[assignment]

Line = Callable[[], str]
"""Makes the text of a line: in the thread that writes it, not in the one that has it to write."""

_WAITING = 10_000
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT
for _flag in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"):  # not with children; not for the reader of a pipe; as it is
    _FLAGS |= getattr(os, _flag, 0)
_log = logging.getLogger("devsynth_providers")


class LineWriter:
    """Appends lines to the file *path*, each by one write; one that would exceed *max_bytes* begins a new file.

    The thread begins with the first line, and ends by ``close`` or with this object; at the end of the interpreter
    what is left is written. After a fork the child has a thread of its own.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._file = _File(path, max_bytes)
        self._lock = threading.Lock()
        self._thread: _Thread | None = None
        _writers.add(self)

    @property
    def lost(self) -> int:
        return self._file.lost

    def put(self, line: Line) -> None:
        """Have *line* written, soon; count it as lost if too many wait."""
        with self._lock:
            try:
                if self._thread is None or not self._thread.alive:
                    self._thread = _Thread(self._file)
                    weakref.finalize(self, self._thread.stop).atexit = False
                self._thread.waiting.put_nowait(line)
            except queue.Full:
                self._file.lose(1, "it is slower than the requests")
            except RuntimeError:
                self._file.lose(1, "the interpreter ends")

    def flush(self, timeout_s: float) -> bool:
        """Wait until all lines so far are written, or have failed to be."""
        thread = self._thread
        if thread is None:
            return True
        done = threading.Event()
        try:
            thread.waiting.put(done, timeout=timeout_s)
        except queue.Full:
            return False
        return done.wait(timeout_s)

    def close(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.finish()

    def forked(self) -> None:
        """This is a child now: the thread, and the lines that it has, stayed with the parent."""
        self._lock, self._thread = threading.Lock(), None


_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()


def _after_fork() -> None:
    for writer in list(_writers):
        writer.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Thread:
    """Takes what waits and writes it. Knows nothing of whoever puts it there, who may be gone before."""

    def __init__(self, file: _File) -> None:
        self.waiting: queue.Queue[Line | threading.Event | None] = queue.Queue(_WAITING)
        self._file = file
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="devsynth decision log", daemon=True)
        self._thread.start()
        atexit.register(self.finish)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Write what waits, then end; nobody waits for it."""
        if self._pid == os.getpid():
            with contextlib.suppress(queue.Full):  # then it ends with the interpreter
                self.waiting.put_nowait(None)

    def finish(self) -> None:
        """Write what waits, then end; but a disk that hangs is not waited for."""
        self.stop()
        if self._pid == os.getpid():
            self._thread.join(5.0)

    def _run(self) -> None:
        going = True
        while going:
            lines: list[str] = []
            heard: list[threading.Event] = []
            for each in self._taken():
                if each is None:
                    going = False
                elif isinstance(each, threading.Event):
                    heard.append(each)
                else:
                    self._make(each, lines)
            self._file.write(lines)
            for event in heard:
                event.set()
        atexit.unregister(self.finish)

    def _taken(self) -> Iterator[Line | threading.Event | None]:
        """What waits now: one at least, and of the others no more than fit one look at the file."""
        yield self.waiting.get()
        for _ in range(500):
            try:
                yield self.waiting.get_nowait()
            except queue.Empty:
                return

    def _make(self, line: Line, lines: list[str]) -> None:
        try:
            lines.append(line())
        except Exception as error:  # noqa: BLE001 - whatever it is, the other lines are written
            self._file.lose(1, f"a line could not be made ({type(error).__name__})")


class _File:
    """The file, opened for each batch: another process may have put a new one in its place."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._torn = False
        self.lost = 0

    def lose(self, count: int, why: str) -> None:
        if not self.lost:
            _log.warning("decisions are not written to %s: %s; the attribute lost counts them", self._path, why)
        self.lost += count

    def write(self, lines: list[str]) -> None:
        left = deque(lines)
        try:
            while left:
                self._append(left)
        except OSError as error:
            self.lose(len(left), error.strerror or type(error).__name__)

    def _append(self, left: deque[str]) -> None:
        """Write what is *left*, until the file is full; the first line of an empty file is never too long."""
        file = os.open(self._path, _FLAGS, 0o600)
        try:
            if not self._ours_alone(file):
                return
            size = os.fstat(file).st_size
            while left:
                data = left[0].encode("utf-8", "backslashreplace") + b"\n"
                if size and size + len(data) > self._max_bytes:
                    os.replace(self._path, f"{self._path}.1")
                    return
                self._write(file, data)
                left.popleft()
                size += len(data)
        finally:
            _lock(file, on=False)  # a child that was forked meanwhile has the file open too
            os.close(file)

    def _ours_alone(self, file: int) -> bool:
        """Keep other processes out. Whether *file* is still the one: one of them may have made it the older."""
        _lock(file, on=True)
        try:
            return os.path.samestat(self._path.stat(), os.fstat(file))
        except FileNotFoundError:
            return False

    def _write(self, file: int, data: bytes) -> None:
        """All of *data* by one write. What a full disk cut off ends before the next line begins."""
        data = b"\n" + data if self._torn else data
        written = os.write(file, data)
        self._torn = 0 < written < len(data)
        if written < len(data):
            self.lose(1, "the disk is full")


def _lock(file: int, *, on: bool) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX if on else fcntl.LOCK_UN)
