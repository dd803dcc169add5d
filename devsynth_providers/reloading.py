"""Another policy while the router works: looked for, read and checked beside the calls, and put in its place whole."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import telemetry
from .errors import ConfigurationError
from .policy import Policy
from .providers.threads import in_thread
from .succession import Succession

if TYPE_CHECKING:
    from .policy.watched import WatchedPolicy

log = logging.getLogger("devsynth_providers")


class Reloading:
    """Looks whether the files have changed, at most every *every_s* seconds and only when a request comes; never, if
    *every_s* is ``None``. One look at a time, in a thread of its own that ends with it."""

    def __init__(
        self, succession: Succession, main: WatchedPolicy, shadow: WatchedPolicy | None, every_s: float | None
    ) -> None:
        self._succession = succession
        self._main = main
        self._shadow = shadow
        self._every_s = every_s
        self._next = time.monotonic() + (every_s or 0.0)
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._looking = threading.Lock()
        self.error: Exception | None = None
        self._untold: Exception | None = None
        self._logged: object = None

    def glance(self) -> None:
        """A request has come. It waits for nothing: a look that is due begins beside it."""
        if self._untold is not None:
            failed, self._untold = self._untold, None
            telemetry.event("policy.reload_failed", **{"devsynth.policy.error": str(failed).partition("\n")[0][:200]})
        if self._every_s is None or time.monotonic() < self._next:
            return
        if not self._one_at_a_time().locked():
            self._next = time.monotonic() + self._every_s
            self._succession.background.start(self._look())

    def _one_at_a_time(self) -> threading.Lock:
        if self._pid != os.getpid():
            self._pid, self._looking = os.getpid(), threading.Lock()  # a forked child: the look has stayed behind
        return self._looking

    async def _look(self) -> None:
        stop = self._stop
        await in_thread(lambda: self._look_now(stop))
        await self._succession.close_unused()

    def _look_now(self, stop: threading.Event) -> None:
        if not self._looking.acquire(blocking=False):
            return
        try:
            if self.error is not None or self._main.changed or (self._shadow is not None and self._shadow.changed):
                self._reload(stop)
        except _Stopped:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the calls go on by the policy that there is
            self._failed(error)
        finally:
            self._looking.release()

    async def reload(self) -> None:
        """Do it now, changed or not. Raises what is wrong."""
        stop = self._stop
        await in_thread(lambda: self._reload_now(stop))
        await self._succession.close_unused()

    def _reload_now(self, stop: threading.Event) -> None:
        with self._one_at_a_time():
            try:
                self._reload(stop, anyway=True)
            except _Stopped as error:
                raise ConfigurationError(str(error)) from None
            if self.error is not None:
                raise self.error

    def _reload(self, stop: threading.Event, *, anyway: bool = False) -> None:
        """Take what is right of the two files; of what is wrong, the first mistake is told."""

        def wait(seconds: float) -> None:
            if stop.wait(seconds):
                raise _Stopped("the router was closed while it read its policy again")

        now = self._succession.deployments.current
        failed: list[ConfigurationError] = []
        policy = _read(self._main, now.stated, wait, failed)
        broken = bool(failed)
        shadow = None if self._shadow is None else _read(self._shadow, now.on_trial, wait, failed)
        if (anyway and not broken) or (policy, shadow) != (now.stated, now.on_trial):
            try:
                self._succession.follow(policy := policy or now.stated, shadow)
            except ConfigurationError as error:
                failed.append(error)
            else:
                log.info("requests are decided by policy %r as it is now in %s", policy.name, self._main.path)
        if failed:
            self._failed(failed[0])
        else:
            self.error = self._untold = self._logged = None

    def _failed(self, error: Exception) -> None:
        """Keep *error* to be looked at, and tell it, once for each state of the files."""
        self.error = error
        telling = (str(error), self._main.version, self._shadow and self._shadow.version)
        if telling != self._logged:
            self._logged = telling
            self._untold = error
            log.error("a changed policy file is wrong, and what was in force stays so: %s", error)

    def stop(self) -> None:
        """End a look that has begun. The next request may begin another."""
        self._stop.set()
        self._stop = threading.Event()


class _Stopped(Exception):
    """The look is not to go on."""


def _read(
    watched: WatchedPolicy, now: Policy | None, wait: Callable[[float], None], failed: list[ConfigurationError]
) -> Policy | None:
    """What *watched* is by its file; what it is *now*, if that is wrong."""
    try:
        return watched.read(wait)
    except ConfigurationError as error:
        failed.append(error)
        return now


def interval(seconds: float | None) -> float | None:
    """*seconds*, if one can look so often. Raises ``ConfigurationError``."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ConfigurationError(f"reload_s is a number of seconds from 0 on, or None, not {seconds!r}")
    return seconds
