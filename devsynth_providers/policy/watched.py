"""A policy on disk, which somebody may be writing at this moment."""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ..errors import PolicyError, Problem
from .file import load_policy, policy_files
from .policy import Policy

SETTLE_S = 0.05
"""How long a file must stay as it is before what is in it counts: writers who truncate are done by then."""
_ATTEMPTS = 10
_RACY_NS = 2_000_000_000
"""A file may change twice within one tick of the file system's clock: times as young as this prove nothing."""


class WatchedPolicy:
    """The policy *source*, to be read again whenever one of its files has changed.

    Reading it blocks: on an event loop, do so in a thread. Raises ``PolicyError`` if it is wrong to begin with.
    """

    def __init__(self, source: str | Path, providers: Collection[str]) -> None:
        self._providers = providers
        self._files = tuple(file.absolute() for file in policy_files(source))  # whatever the working directory will be
        self.path = self._files[0]
        """Its own file."""
        self._seen = _look(self._files)  # before it is read: what is written meanwhile is a change
        self.policy = load_policy(source, providers=providers)
        """As it was at first."""

    @property
    def version(self) -> object:
        """What its files had in them when they were last read; equal only if it is the same."""
        return self._seen.digests

    @property
    def changed(self) -> bool:
        """Whether its files have changed since they were last read. Reads them only if something speaks for it."""
        if not self._seen.racy and self._seen.states == tuple(map(_state, self._files)):
            return False
        now = _look(self._files)
        if now.digests != self._seen.digests:
            return True
        self._seen = now
        return False

    def read(self, wait: Callable[[float], object] = time.sleep) -> Policy:
        """The policy as it is now. It has stayed so while it was read, and for some time before that, which *wait*
        lets pass. Raises ``PolicyError``."""
        for _ in range(_ATTEMPTS):
            files = self._own_files()
            seen = _look(files)
            wait(SETTLE_S)
            failed: PolicyError | None = None
            try:
                policy = self._load()
            except PolicyError as error:
                failed = error
            now = _look(files)
            if (now.states, now.digests) != (seen.states, seen.digests):
                continue
            self._files, self._seen = files, seen
            if failed is not None:
                raise failed
            return policy
        raise PolicyError(str(self.path), [Problem("it is being written all the time: it changed while it was read")])

    def _load(self) -> Policy:
        if not self.path.exists():
            raise PolicyError(str(self.path), [Problem("the file is not there any more")])
        return load_policy(self.path, providers=self._providers)

    def _own_files(self) -> tuple[Path, ...]:
        """Its file and those it builds on; where it does not tell, those that it built on before."""
        if not self.path.exists():
            return self._files
        try:
            return tuple(file.absolute() for file in policy_files(self.path))
        except PolicyError:
            return self._files


@dataclass(frozen=True, slots=True)
class _Look:
    """What files are like at one moment. *racy* says that their times are too young to show the next change."""

    states: tuple[tuple[int, ...] | None, ...]
    digests: tuple[bytes | None, ...]
    racy: bool


def _look(files: tuple[Path, ...]) -> _Look:
    states = tuple(map(_state, files))
    youngest = max((max(state[:2]) for state in states if state), default=0)
    return _Look(states, tuple(map(_digest, files)), racy=time.time_ns() - youngest < _RACY_NS)


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        known = file.stat()
    except OSError:
        return None
    return known.st_mtime_ns, known.st_ctime_ns, known.st_size, known.st_ino, known.st_dev, known.st_mode


def _digest(file: Path) -> bytes | None:
    """A hash of what is in *file*; ``None`` if it can not be read, or is no file: a pipe would be waited for."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return None
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return None
