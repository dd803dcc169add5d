"""What a cache needs now and then: to be looked at, exported, and to lose what is old. None is made where there is
none, and one that is broken is left as it is by whoever only looks."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import ConfigurationError
from .places import ours_alone
from .seal import Refused, Seal
from .secret import default_key, secret_of
from .strict_disk import DATABASE, inspect, plain

LOCKED_S = 5.0
"""How long to wait for a router that writes."""
BATCH = 200
"""Entries that are removed at once: a router that waits for longer than a quarter of a second goes without."""
PAUSE_S = 0.02
_ROUNDS = 20
_LAST = 253_402_300_799.0
"""The end of the year 9999: a moment after it is nobody's."""

State = Literal["valid", "expired", "unverified"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What there is. *valid* entries are given to whoever asks for them; *unverified* ones were not signed with the
    key, and are none for its owner. *scopes* have an entry each at least; which they are can not be told. *limit_bytes*
    is that of the router that opened it last. *aside* are files that were found broken, and put aside."""

    directory: Path
    size_bytes: int
    limit_bytes: int | None
    valid: int
    expired: int
    unverified: int
    scopes: int
    oldest_at: float | None
    newest_at: float | None
    aside: int
    aside_bytes: int

    @property
    def entries(self) -> int:
        return self.valid + self.expired + self.unverified


class Kept(NamedTuple):
    """One entry that the key verifies. *row* is a hash of whose it is and of what was asked; moments are in seconds
    since 1970."""

    row: str
    stored_at: float | None
    expires_at: float
    value: Any


class Going(NamedTuple):
    """An entry that is to be removed, if it is still the one that was found."""

    rowid: int
    stored: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Old:
    """Which entries are old: those that have expired, those from *before* then, and the oldest of the others until all
    have room in *size_bytes*. And those that do not verify, if they are *unverified* too."""

    before: float | None = None
    size_bytes: int | None = None
    unverified: bool = False


def key_of(file: Path | None = None) -> bytes | None:
    """The key in *file*, or the user's own; ``None`` if there is none: it is not made."""
    file = file or default_key()
    return secret_of(file) if file.exists() else None


def look(directory: Path, secret: bytes | None, *, clock: Callable[[], float] = time.time) -> Looked:
    """What there is in *directory*. Changes nothing."""
    states: dict[State, int] = {"valid": 0, "expired": 0, "unverified": 0}
    scopes, moments = set[str](), list[float]()
    with _opened(directory, "ro") as database:
        limit = database.execute("SELECT value FROM Settings WHERE key = 'size_limit'").fetchone()
        for row in _rows(database, secret, clock()):
            states[row.state] += 1
            if row.state == "valid":
                scopes.add(row.name.partition("/")[0])
            if (at := _moment(row.stored)) is not None:
                moments = [min([at, *moments]), max([at, *moments])]
    aside = _aside(directory)
    return Looked(
        directory=directory,
        size_bytes=sum(_size(file) for file in _files(directory)),
        limit_bytes=int(limit[0]) if limit else None,
        valid=states["valid"],
        expired=states["expired"],
        unverified=states["unverified"],
        scopes=len(scopes),
        oldest_at=min(moments, default=None),
        newest_at=max(moments, default=None),
        aside=len(aside),
        aside_bytes=sum(_size(file) for file in aside),
    )


@contextmanager
def entries(directory: Path, secret: bytes) -> Iterator[Iterator[Kept]]:
    """All that *secret* verifies, what has expired too; the oldest first. Changes nothing."""
    with _opened(directory, "ro") as database:
        rows = ((row, row.entry) for row in _rows(database, secret, 0.0))
        yield (
            Kept(row.name, _moment(row.stored), min(entry[0], _LAST), entry[1])
            for row, entry in rows
            if entry is not None
        )


def old(directory: Path, secret: bytes | None, wanted: Old, *, clock: Callable[[], float] = time.time) -> int:
    """How many entries ``prune`` would remove; how many have to go for a size is an estimate."""
    with _opened(directory, "ro") as database:
        return len(_going(database, secret, wanted, clock()))


def prune(
    directory: Path,
    secret: bytes | None,
    wanted: Old,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], object] = time.sleep,
) -> int:
    """Remove what is *wanted*; how many entries that were. Routers may use the cache meanwhile."""
    removed = 0
    with _opened(directory, "rw") as database:
        for _ in range(_ROUNDS):  # routers write meanwhile, and how many make up a size shows when they are gone
            going = _going(database, secret, wanted, clock())
            removed += _remove(database, going, sleep)
            if not going or wanted.size_bytes is None:
                break
        _shrink(database)
    return removed


def clear(directory: Path, *, sleep: Callable[[float], object] = time.sleep) -> int:
    """Remove every entry, and files that were put aside; how many entries that were. A database that is broken is
    removed as a file."""
    removed, aside = 0, _aside(directory)
    try:
        with _opened(directory, "rw") as database:
            while going := [Going(*row) for row in database.execute("SELECT rowid, store_time FROM Cache LIMIT 5000")]:
                removed += _remove(database, going, sleep)
            _shrink(database)
    except BrokenCache:
        for file in _files(directory):
            file.unlink(missing_ok=True)
    for file in aside:
        file.unlink(missing_ok=True)
    return removed


class BrokenCache(ConfigurationError):
    """What is there is no database of ours."""


class _Row(NamedTuple):
    rowid: int
    name: str
    stored: Any
    bytes: int
    state: State
    entry: tuple[float, Any] | None
    """When it expires, and what it is; only of what was verified."""


@contextmanager
def _opened(directory: Path, mode: Literal["ro", "rw"]) -> Iterator[sqlite3.Connection]:
    """A connection to the cache in *directory*, which is there, and ours."""
    file = directory / DATABASE
    if not file.exists():
        raise ConfigurationError(
            f"there is no cache in {directory}: a router makes one for rules that say cache; "
            "name another directory with --cache"
        )
    ours_alone(directory)
    try:
        inspect(directory)
        uri = f"{file.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(uri, uri=True, timeout=LOCKED_S, isolation_level=None)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            yield database
    except sqlite3.OperationalError as error:  # it is locked, or the disk is full
        raise ConfigurationError(f"{file} can not be used as a cache: {error}") from None
    except (sqlite3.Error, Refused) as error:
        raise BrokenCache(
            f"{file} can not be used as a cache: {error}; the next router that uses it puts it aside and begins anew, "
            "cache clear removes it"
        ) from None


def _rows(database: sqlite3.Connection, secret: bytes | None, now: float) -> Iterator[_Row]:
    """Every row, the oldest first, one at a time: an answer may be large."""
    query = "SELECT rowid, key, raw, store_time, expire_time, mode, filename, value FROM Cache ORDER BY store_time"
    for rowid, key, raw, stored, expires, mode, filename, value in database.execute(query):
        entry = None
        if secret is not None and isinstance(key, str) and raw == 1:
            entry = _verified(secret, key, mode, filename, value)
        ends = [each for each in (expires, None if entry is None else entry[0]) if isinstance(each, int | float)]
        state: State = "expired" if min(ends, default=now + 1) <= now else "unverified" if entry is None else "valid"
        size = len(value) if isinstance(value, bytes | str) else 0
        yield _Row(rowid, str(key), stored, size + len(str(key)), state, entry)


def _verified(secret: bytes, row: str, mode: Any, filename: Any, value: Any) -> tuple[float, Any] | None:
    try:
        expires, kept = Seal(secret).read(row, plain(mode, filename, value))
        return float(expires), kept
    except (Refused, ValueError, TypeError, RecursionError):
        return None


def _going(database: sqlite3.Connection, secret: bytes | None, wanted: Old, now: float) -> list[Going]:
    going, staying, all_bytes = list[Going](), list[_Row](), 0
    for row in _rows(database, secret, now):
        all_bytes += row.bytes
        at = _moment(row.stored)
        early = wanted.before is not None and (at is None or at < wanted.before)
        if row.state == "expired" or early or (wanted.unverified and row.state == "unverified"):
            going.append(Going(row.rowid, row.stored))
        else:
            staying.append(row._replace(entry=None))
    if wanted.size_bytes is not None and all_bytes:
        scale = _used(database) / all_bytes
        left = scale * sum(row.bytes for row in staying)
        for row in staying:
            if left <= wanted.size_bytes:
                break
            left -= scale * row.bytes
            going.append(Going(row.rowid, row.stored))
    return going


def _remove(database: sqlite3.Connection, going: Sequence[Going], sleep: Callable[[float], object]) -> int:
    """Part by part; what a router has put in their place meanwhile stays."""
    removed = 0
    for first in range(0, len(going), BATCH):
        if first:
            sleep(PAUSE_S)
        database.execute("BEGIN IMMEDIATE")
        try:
            part = going[first : first + BATCH]
            removed += database.executemany("DELETE FROM Cache WHERE rowid = ? AND store_time IS ?", part).rowcount
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
    return removed


def _shrink(database: sqlite3.Connection) -> None:
    """Let the disk have back what is free, if no router reads at this moment; else it has it later."""
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _used(database: sqlite3.Connection) -> int:
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _moment(stored: Any) -> float | None:
    return float(stored) if isinstance(stored, int | float) and 0 <= stored <= _LAST else None


def _files(directory: Path) -> list[Path]:
    return [file for rest in ("", "-wal", "-shm") if (file := directory / f"{DATABASE}{rest}").exists()]


def _aside(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{DATABASE}.broken-*"))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # gone meanwhile
        return 0
