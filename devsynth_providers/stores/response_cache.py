"""Answers that were given before, on disk: a key of one tenant in, bytes out, or nothing. It never fails a call."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigurationError
from .places import cache_directory
from .secret import secret_of
from .strict_disk import DATABASE, Refused, StrictDisk, inspect
from .worker import Worker

T = TypeVar("T")

MAC_BYTES = 32
LOCKED_S = 0.25
"""How long to wait for another process that writes; then it is a miss, or is not kept."""
LARGEST_BYTES = 8 * 1024 * 1024
"""An entry that is larger is not kept."""
_log = logging.getLogger("devsynth_providers")


@dataclass(slots=True)
class CacheStatistics:
    """What a cache has done since it was made. *dropped* are entries that could not be kept, *refused* those found that
    were not as we had left them."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    dropped: int = 0
    refused: int = 0


class ResponseCache:
    """Keeps JSON values for *ttl* seconds, at most *size_limit_bytes* of them; the oldest go first.

    Every call names a *scope*, whose entries no other scope ever sees: a tenant, or ``""`` if there is only one. Each
    entry is signed with a key that is kept outside of *directory* (*secret*, or the file that ``secret_of`` makes):
    one that somebody has changed, moved or made is a miss. *directory* must be ours alone (mode 0700); by default it is
    ``devsynth_providers/answers`` among the user's caches.

    Raises ``ConfigurationError`` for a directory that is not ours, and a *ttl* that is none. After that nothing here
    raises: a database that is broken is put aside, a full disk keeps nothing. Any thread and event loop may use it.
    """

    def __init__(
        self,
        ttl: float = 3600.0,
        *,
        directory: str | Path | None = None,
        size_limit_bytes: int = 256 * 1024 * 1024,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ttl_s = _seconds(ttl)
        self.directory = private(Path(directory) if directory is not None else default_directory())
        self.statistics = CacheStatistics()
        self._size_limit_bytes = size_limit_bytes
        self._secret = secret_of() if secret is None else secret
        self._clock = clock
        self._worker = Worker("devsynth-cache")
        self._disk: Any = None
        self._pid = os.getpid()
        self._warned = False

    async def get(self, scope: str, key: str) -> Any | None:
        """The value that *scope* has at *key*; ``None`` if there is none, or none any more."""
        return (await self.get_many(scope, [key])).get(key)

    async def get_many(self, scope: str, keys: Sequence[str]) -> Mapping[str, Any]:
        """The values that *scope* has at *keys*, as far as there are any."""
        found: Mapping[str, Any] | None = await self._safely(lambda: self._found(scope, keys))
        self.statistics.hits += len(found or ())
        self.statistics.misses += len(keys) - len(found or ())
        return found or {}

    async def set(self, scope: str, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep *value*, which must be JSON, for *ttl* seconds."""
        await self._safely(lambda: self._kept(scope, key, value, self.ttl_s if ttl is None else _seconds(ttl)))

    def put(self, scope: str, key: str, value: Any, ttl: float | None = None) -> None:
        """As ``set``, and nobody waits for it: ``flush`` does."""
        ttl_s = self.ttl_s if ttl is None else _seconds(ttl)
        with suppress(RuntimeError):  # at the end of the interpreter
            self._worker.put(lambda: self._guarded(lambda: self._kept(scope, key, value, ttl_s)))

    async def clear(self, scope: str | None = None) -> int:
        """Forget everything, or what *scope* has; how many entries that were."""
        return await self._safely(lambda: self._cleared(scope)) or 0

    async def flush(self) -> None:
        """Wait until what was put so far is kept."""
        await self._worker.done(lambda: None)

    async def aclose(self) -> None:
        """Let go of the database. Whoever asks again opens it again."""
        with suppress(RuntimeError):
            await self._worker.done(self._close)
        self._worker.close()

    @property
    def size_bytes(self) -> int:
        """What is on the disk."""
        return sum(file.stat().st_size for file in self.directory.glob(f"{DATABASE}*"))

    async def _safely(self, work: Callable[[], T]) -> T | None:
        try:
            return await self._worker.done(lambda: self._guarded(work))
        except RuntimeError:  # at the end of the interpreter
            return None

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """What *work* returns, ``None`` if the database will not have it; one that is broken is put aside."""
        try:
            return work()
        except (sqlite3.OperationalError, OSError, TimeoutError) as error:
            self._drop(f"{type(error).__name__}: {error}")
        except (sqlite3.DatabaseError, Refused) as error:
            self._put_aside(str(error))
        except Exception as error:  # noqa: BLE001 - diskcache's own, and whatever a tampered row leads to
            self._drop(type(error).__name__)
        return None

    def _found(self, scope: str, keys: Sequence[str]) -> Mapping[str, Any]:
        disk, now = self._opened(), self._clock()
        found: dict[str, Any] = {}
        for key in keys:
            row = self._row(scope, key)
            try:
                entry = disk.get(row)
                if entry is not None:
                    expires, value = json.loads(self._proved(row, entry))
                    if expires > now:
                        found[key] = value
            except (Refused, ValueError, TypeError, RecursionError):
                self.statistics.refused += 1
                disk.delete(row)
        return found

    def _kept(self, scope: str, key: str, value: Any, ttl_s: float) -> None:
        row = self._row(scope, key)
        entry = json.dumps([self._clock() + ttl_s, value], allow_nan=False, separators=(",", ":")).encode()
        if len(entry) > min(LARGEST_BYTES, self._size_limit_bytes // 2):
            self.statistics.dropped += 1
            return
        self._opened().set(row, self._mac(row, entry) + entry, expire=ttl_s)
        self.statistics.stored += 1

    def _cleared(self, scope: str | None) -> int:
        disk = self._opened()
        rows = [row for row in disk if scope is None or row.startswith(self._tenant(scope))]
        return sum(bool(disk.delete(row)) for row in rows)

    def _row(self, scope: str, key: str) -> str:
        """Where *key* of *scope* stands: both behind a hash, so that the file tells neither."""
        tenant = self._tenant(scope)
        return tenant + hmac.new(self._secret, f"{tenant}{key}".encode(), hashlib.sha256).hexdigest()

    def _tenant(self, scope: str) -> str:
        if not isinstance(scope, str):
            raise ConfigurationError(f"the scope of a cache is text, not {type(scope).__name__}")
        return hmac.new(self._secret, f"scope {scope}".encode(), hashlib.sha256).hexdigest()[:32] + "/"

    def _mac(self, row: str, entry: bytes) -> bytes:
        return mac_of(self._secret, row, entry)

    def _proved(self, row: str, entry: bytes) -> bytes:
        return proved(self._secret, row, entry)

    def _opened(self) -> Any:
        if self._disk is None or self._pid != os.getpid():
            import diskcache  # type: ignore[import-untyped]  # noqa: PLC0415 - only for those who keep answers

            private(self.directory)
            inspect(self.directory)
            limits = {"size_limit": self._size_limit_bytes, "cull_limit": 50, "statistics": 0, "sqlite_mmap_size": 0}
            self._disk = diskcache.Cache(str(self.directory), timeout=LOCKED_S, disk=StrictDisk, **limits)
            self._pid = os.getpid()
        return self._disk

    def _close(self) -> None:
        disk, self._disk = self._disk, None
        if disk is not None and self._pid == os.getpid():
            disk.close()

    def _drop(self, why: str) -> None:
        self.statistics.dropped += 1
        self._warn(f"answers are not kept in {self.directory}: {why}")

    def _put_aside(self, why: str) -> None:
        with suppress(Exception):
            self._close()
        self._disk = None
        self.statistics.refused += 1
        aside = f"{DATABASE}.broken-{int(self._clock())}"
        with suppress(OSError):
            os.replace(self.directory / DATABASE, self.directory / aside)
            for rest in ("-wal", "-shm"):
                (self.directory / f"{DATABASE}{rest}").unlink(missing_ok=True)
        self._warn(f"the cache in {self.directory} is begun anew, the old one is {aside}: {why}")

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("%s", what)


def default_directory() -> Path:
    """Where the user's caches are, by the XDG base directories."""
    return cache_directory() / "answers"


def private(directory: Path) -> Path:
    """*directory*, made if it is not there. Raises ``ConfigurationError`` if others could put something into it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the cache can not be in {directory}: {error.strerror}") from None
    return ours_alone(directory)


def ours_alone(directory: Path) -> Path:
    """*directory*, which is there. Raises ``ConfigurationError`` as ``private`` does."""
    try:
        found = directory.lstat()
    except OSError as error:
        raise ConfigurationError(f"the cache can not be in {directory}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{directory} is no directory, or a link to one: a cache is in one of its own")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise ConfigurationError(f"{directory} belongs to another user: whoever owns it decides what it answers")
    if os.name == "posix" and found.st_mode & 0o077:
        raise ConfigurationError(f"others may read or write {directory}: chmod 700 it, or name another directory")
    return directory


def mac_of(secret: bytes, row: str, entry: bytes) -> bytes:
    """What proves that whoever has *secret* put *entry* at *row*."""
    return hmac.new(secret, row.encode() + b"\0" + entry, hashlib.sha256).digest()


def proved(secret: bytes, row: str, entry: bytes) -> bytes:
    """What stands in *entry* behind its proof. Raises ``Refused`` if that is wrong."""
    mac, rest = entry[:MAC_BYTES], entry[MAC_BYTES:]
    if not hmac.compare_digest(mac, mac_of(secret, row, rest)):
        raise Refused("an entry that we did not write, or not there")
    return rest


def _seconds(ttl: float) -> float:
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl < math.inf:
        raise ConfigurationError(f"ttl is a number of seconds above 0, not {ttl!r}")
    return float(ttl)
