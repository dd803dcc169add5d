"""Answers that were given before, on disk: a key of one tenant in, bytes out, or nothing. It never fails a call."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from .claims import OVER, OVER_S, TAG, Claim
from .places import default_cache, private
from .process import gone, identity
from .seal import Refused, Seal
from .secret import secret_of
from .strict_disk import DATABASE, StrictDisk, inspect, look, reader
from .terms import LARGEST_BYTES, CacheStatistics, seconds
from .worker import Busy, Worker, closed_with_thread

T = TypeVar("T")

FEW, SMALL_BYTES = 16, 64 * 1024
"""What is looked up where it is asked for; for more, and for larger entries, a thread does it."""
LOCKED_S = 0.25
"""How long to wait for another process that writes; then it is a miss, or is not kept."""
_log = logging.getLogger("devsynth_providers")


class ResponseCache:
    """Keeps JSON values for *ttl* seconds, at most *size_limit_bytes* of them; the oldest go first.

    Every call names a *scope*, whose entries no other scope ever sees: a tenant, or ``""`` if there is only one. Each
    entry is signed with a key that is kept outside of *directory* (*secret*, or the file that ``secret_of`` makes):
    one that somebody has changed, moved or made is a miss. *directory* must be ours alone (mode 0700); by default it is
    ``devsynth_providers/answers`` among the user's caches.

    Raises ``ConfigurationError`` for a directory that is not ours, and a *ttl* that is none. After that nothing here
    raises: a database that is broken is put aside, a full disk keeps nothing. Any thread and event loop may use it.
    """

    tier = "disk"

    def __init__(
        self,
        ttl: float = 3600.0,
        *,
        directory: str | Path | None = None,
        size_limit_bytes: int = 256 * 1024 * 1024,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ttl_s = seconds(ttl)
        self.directory = private(Path(directory) if directory is not None else default_cache())
        self.statistics = CacheStatistics()
        self._size_limit_bytes = size_limit_bytes
        self._seal = Seal(secret_of() if secret is None else secret)
        self._clock = clock
        self._worker = Worker("devsynth-cache")
        self._disk: Any = None
        self._reader: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._warned = False

    async def get(self, scope: str, key: str) -> Any | None:
        """The value that *scope* has at *key*; ``None`` if there is none, or none any more."""
        return (await self.get_many(scope, [key])).get(key)

    async def get_many(self, scope: str, keys: Sequence[str]) -> Mapping[str, Any]:
        """The values that *scope* has at *keys*, as far as there are any."""
        found: Mapping[str, Any] | None
        try:
            found = self._worker.at_once(lambda: self._looked_up(scope, keys))
        except Busy:
            found = await self._safely(lambda: self._found(scope, keys))
        self.statistics.hits += len(found or ())
        self.statistics.misses += len(keys) - len(found or ())
        return found or {}

    async def set(self, scope: str, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep *value*, which must be JSON, for *ttl* seconds."""
        await self._safely(lambda: self._kept(scope, key, value, self.ttl_s if ttl is None else seconds(ttl)))

    def put(self, scope: str, key: str, value: Any, ttl: float | None = None) -> None:
        """As ``set``, and nobody waits for it: ``flush`` does."""
        ttl_s = self.ttl_s if ttl is None else seconds(ttl)
        self._later(lambda: self._kept(scope, key, value, ttl_s))

    async def claim(self, scope: str, key: str, lease_s: float) -> Claim | None:
        """Leave to make the call whose answer is to be kept at *key*, for *lease_s* at most; ``None`` while another
        process that is still there makes it. Where that cannot be found out there is leave for everybody."""
        claim: Claim | None = Claim()

        def claimed() -> None:
            nonlocal claim
            claim = self._claimed(scope, key, lease_s)

        try:
            await self._safely(claimed)
        except asyncio.CancelledError:  # it may have been made, or be made yet
            self._later(lambda: None if claim is None else claim.done())
            raise
        return claim

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

    def __del__(self) -> None:
        """Forgotten, it lets go of the database too, in part here, and in part where it was opened."""
        if (opened := getattr(self, "_reader", None)) is not None and self._pid == os.getpid():
            opened.close()

    @property
    def size_bytes(self) -> int:
        """What is on the disk."""
        return sum(file.stat().st_size for file in self.directory.glob(f"{DATABASE}*"))

    async def _safely(self, work: Callable[[], T]) -> T | None:
        try:
            return await self._worker.done(lambda: self._guarded(work))
        except RuntimeError:  # at the end of the interpreter
            return None

    def _later(self, work: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # at the end of the interpreter
            self._worker.put(lambda: self._guarded(work))

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

    def _looked_up(self, scope: str, keys: Sequence[str]) -> Mapping[str, Any]:
        """As ``_found``, of a few small entries that are as they should be. Raises ``Busy`` for anything else."""
        if self._reader is None or self._pid != os.getpid() or len(keys) > FEW:
            raise Busy
        found: dict[str, Any] = {}
        try:
            for key in keys:
                row = self._seal.row(scope, key)
                if (entry := look(self._reader, row, SMALL_BYTES)) is not None:
                    found[key] = self._seal.opened(row, entry, self._clock())
        except (sqlite3.Error, Refused, ValueError, TypeError, RecursionError):
            raise Busy from None  # whoever may wait, and write, sees what is wrong
        return {key: value for key, value in found.items() if value is not None}

    def _found(self, scope: str, keys: Sequence[str]) -> Mapping[str, Any]:
        found = {key: self._value(self._seal.row(scope, key)) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def _value(self, row: str) -> Any | None:
        """What stands in *row*; ``None`` if nothing does, or its time is over. What we did not write is deleted."""
        disk = self._opened()
        try:
            entry = disk.get(row)
            return None if entry is None else self._seal.opened(row, entry, self._clock())
        except (Refused, ValueError, TypeError, RecursionError):
            self.statistics.refused += 1
            disk.delete(row)
            return None

    def _kept(self, scope: str, key: str, value: Any, ttl_s: float) -> None:
        row = self._seal.row(scope, key)
        entry = self._seal.closed(row, value, self._clock() + ttl_s)
        if len(entry) > min(LARGEST_BYTES, self._size_limit_bytes // 2):
            self.statistics.dropped += 1
            return
        self._opened().set(row, entry, expire=ttl_s)
        self.statistics.stored += 1

    def _cleared(self, scope: str | None) -> int:
        disk = self._opened()
        rows = [row for row in disk if scope is None or row.startswith(self._seal.tenant(scope))]
        return sum(bool(disk.delete(row)) for row in rows)

    def _claimed(self, scope: str, key: str, lease_s: float) -> Claim | None:
        row, me = self._seal.row(scope, f"claim {key}"), [identity(), secrets.token_hex(8)]
        disk, until = self._opened(), self._clock() + lease_s
        with disk.transact():
            holder = self._value(row)
            if holder == OVER:
                return Claim()
            if isinstance(holder, list) and not gone(str(holder[0])):
                return None
            disk.set(row, self._seal.closed(row, me, until), expire=lease_s, tag=TAG)
        return Claim(own=True, done=lambda: self._later(lambda: self._released(row, me)))

    def _released(self, row: str, me: list[str]) -> None:
        disk = self._opened()
        with disk.transact():
            if self._value(row) == me:
                disk.set(row, self._seal.closed(row, OVER, self._clock() + OVER_S), expire=OVER_S, tag=TAG)

    def _opened(self) -> Any:
        if self._disk is None or self._pid != os.getpid():
            import diskcache  # type: ignore[import-untyped]  # noqa: PLC0415 - only for those who keep answers

            private(self.directory)
            inspect(self.directory)
            limits = {"size_limit": self._size_limit_bytes, "cull_limit": 50, "statistics": 0, "sqlite_mmap_size": 0}
            self._reader = None
            self._disk = diskcache.Cache(str(self.directory), timeout=LOCKED_S, disk=StrictDisk, **limits)
            closed_with_thread(self._disk._con)
            self._reader = reader(self.directory)
            self._pid = os.getpid()
        return self._disk

    def _close(self) -> None:
        disk, self._disk = self._disk, None
        opened, self._reader = self._reader, None
        if self._pid == os.getpid():
            for each in (opened, disk):
                if each is not None:
                    each.close()

    def _drop(self, why: str) -> None:
        self.statistics.dropped += 1
        self._warn(f"answers are not kept in {self.directory}: {why}")

    def _put_aside(self, why: str) -> None:
        with suppress(Exception):
            self._close()
        self._disk = self._reader = None
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
