"""An event loop of its own, in a thread of its own, for what is called from code without one."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
Meanwhile = Callable[[concurrent.futures.Future[Any]], None]
"""What the calling thread does until the future is done."""

_AT_EXIT_S = 5.0
_LOOK_S = 0.1
_running: weakref.WeakSet[OwnLoop] = weakref.WeakSet()


@atexit.register  # for those that begin when the interpreter ends already: it does not hear of others any more
def _stop_all() -> None:
    """Before the interpreter ends: what a loop holds, connections for one, can only be let go of while it runs."""
    for each in list(_running):
        each.stop(_AT_EXIT_S)


def _stop_first() -> None:
    """As ``_stop_all``, but before whoever was told of the end earlier: they take the spans of what is left."""
    _stop_all()


class OwnLoop:
    """The thread starts when there is something to do, and ends by ``stop``, or when this is forgotten; what comes
    after ``stop`` starts another. Any number of threads may use it at once; a child that was forked has its own."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """Begin with no loop and no thread; in a forked child too, where the thread has stayed behind."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._forgotten: weakref.finalize[Any, OwnLoop] | None = None

    def begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Have *work* done there, beside what is under way. Raises ``RuntimeError`` at the end of the interpreter."""
        return self._begin(work)[0]

    @property
    def running(self) -> bool:
        """Whether there is a loop."""
        return self._loop is not None and self._pid == os.getpid()

    def begun(self) -> asyncio.AbstractEventLoop:
        """The loop, which begins if there is none."""
        with self._locked():
            return self._here()

    def serves(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether *loop*, which was ``begun``, is still there."""
        return self._loop is loop and self._pid == os.getpid()

    def tell(self, loop: asyncio.AbstractEventLoop, told: Callable[[threading.Event], object]) -> None:
        """Call *told* on *loop*, and wait until it has set what it is given. A garbage collector may do so anywhere, so
        there is no lock; on the loop's own thread there must be no waiting for the loop; after ``stop`` the loop has
        seen to it already; and when the interpreter ends, or in a forked child, the loop's thread is gone."""
        thread = self._thread
        if not self.serves(loop) or thread is None or sys.is_finalizing():
            return
        done = threading.Event()
        try:
            loop.call_soon_threadsafe(told, done)
        except RuntimeError:  # it ends at this moment, and sees to it
            return
        while thread is not threading.current_thread() and thread.is_alive() and not done.wait(_LOOK_S):
            pass

    def end(self, closing: Coroutine[Any, Any, object]) -> None:
        """Do *closing*, the last thing there, and end the thread."""
        closed, thread = self._begin(closing)
        with contextlib.suppress(concurrent.futures.CancelledError):  # another thread closes it, too
            closed.result()
        self.stop()
        if thread is not None:
            thread.join()  # what was closed may have stopped it from inside, and could not wait for it

    def stop(self, wait_s: float | None = None) -> None:
        """End the thread, and whatever it still has to do. Waits for that, but for no longer than *wait_s* seconds."""
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

    def _begin(self, work: Coroutine[Any, Any, T]) -> tuple[concurrent.futures.Future[T], threading.Thread | None]:
        """What becomes of *work*, and the thread that does it."""
        try:
            with self._locked():
                return asyncio.run_coroutine_threadsafe(work, self._here()), self._thread
        except BaseException:
            work.close()
            raise

    def _locked(self) -> threading.Lock:
        if self._pid != os.getpid():
            self._forget()
        return self._lock

    def _here(self) -> asyncio.AbstractEventLoop:
        """The loop, which begins if there is none. Under the lock."""
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_serve, args=(loop,), name="devsynth-providers", daemon=True)
            try:
                thread.start()
            except BaseException:  # the interpreter ends, or there are too many
                loop.close()
                raise
            self._loop, self._thread = loop, thread
            self._forgotten = weakref.finalize(self, _end, loop, self._pid)
            self._forgotten.atexit = False
            _running.add(self)
            atexit.unregister(_stop_first)
            atexit.register(_stop_first)
        return self._loop


def outcome_of(begun: concurrent.futures.Future[T], meanwhile: Meanwhile | None = None) -> T:
    """What comes of what has *begun*, for which the calling thread waits, by doing *meanwhile* first if that is given.
    Raises ``CancelledError`` if the loop was stopped before."""
    try:
        if meanwhile is not None:
            meanwhile(begun)
        return begun.result()
    except BaseException:  # Ctrl-C in the calling thread ends it in the other one too
        begun.cancel()
        raise


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
