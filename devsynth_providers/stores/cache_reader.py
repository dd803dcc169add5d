"""A cache read by whoever only looks: how much is kept, and what of it the key verifies. Nothing is written: none is
made where there is none, and one that is broken is left as it is."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import ConfigurationError
from .claims import TAG
from .places import ours_alone
from .seal import Refused, Seal
from .secret import default_key, secret_of
from .strict_disk import DATABASE, inspect, plain

LOCKED_S = 5.0
"""How long to wait for a router that writes."""
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


class Row(NamedTuple):
    """An entry as it stands in the file: where, since when, how large, and what it is good for."""

    rowid: int
    name: str
    stored: Any
    bytes: int
    state: State
    entry: tuple[float, Any] | None
    """When it expires, and what it is; only of what was verified."""

    @property
    def stored_at(self) -> float | None:
        return float(self.stored) if isinstance(self.stored, int | float) and 0 <= self.stored <= _LAST else None


def key_of(file: Path | None = None) -> bytes | None:
    """The key in *file*, or the user's own; ``None`` if there is none: it is not made."""
    file = file or default_key()
    return secret_of(file) if file.exists() else None


def look(directory: Path, secret: bytes | None, *, clock: Callable[[], float] = time.time) -> Looked:
    """What there is in *directory*. Changes nothing."""
    states: dict[State, int] = {"valid": 0, "expired": 0, "unverified": 0}
    scopes, moments = set[str](), list[float]()
    with opened(directory, "ro") as database:
        limit = database.execute("SELECT value FROM Settings WHERE key = 'size_limit'").fetchone()
        for row in rows(database, secret, clock()):
            states[row.state] += 1
            if row.state == "valid":
                scopes.add(row.name.partition("/")[0])
            if (at := row.stored_at) is not None:
                moments = [min([at, *moments]), max([at, *moments])]
    broken = put_aside(directory)
    return Looked(
        directory=directory,
        size_bytes=sum(_size(file) for file in files(directory)),
        limit_bytes=limit[0] if limit and isinstance(limit[0], int) else None,
        valid=states["valid"],
        expired=states["expired"],
        unverified=states["unverified"],
        scopes=len(scopes),
        oldest_at=min(moments, default=None),
        newest_at=max(moments, default=None),
        aside=len(broken),
        aside_bytes=sum(_size(file) for file in broken),
    )


@contextmanager
def entries(directory: Path, secret: bytes) -> Iterator[Iterator[Kept]]:
    """All that *secret* verifies, what has expired too; the oldest first. Changes nothing."""
    with opened(directory, "ro") as database:
        found = ((row, row.entry) for row in rows(database, secret, 0.0))
        yield (
            Kept(row.name, row.stored_at, min(entry[0], _LAST), entry[1]) for row, entry in found if entry is not None
        )


class BrokenCache(ConfigurationError):
    """What is there is no database of ours."""


@contextmanager
def opened(directory: Path, mode: Literal["ro", "rw"]) -> Iterator[sqlite3.Connection]:
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
            database.text_factory = lambda text: text.decode("utf-8", "replace")  # anybody may have written it
            yield database
    except sqlite3.OperationalError as error:  # it is locked, or the disk is full
        raise ConfigurationError(f"{file} can not be used as a cache: {error}") from None
    except (sqlite3.Error, Refused) as error:
        raise BrokenCache(
            f"{file} can not be used as a cache: {error}; the next router that uses it puts it aside and begins anew, "
            "cache clear removes it"
        ) from None


def rows(database: sqlite3.Connection, secret: bytes | None, now: float) -> Iterator[Row]:
    """Every row but claims, the oldest first, one at a time: an answer may be large."""
    query = "SELECT rowid, key, raw, store_time, expire_time, tag, mode, filename, value FROM Cache ORDER BY store_time"
    for rowid, key, raw, stored, expires, tag, mode, filename, value in database.execute(query):
        entry = None
        if secret is not None and isinstance(key, str) and raw == 1:
            entry = _verified(secret, key, mode, filename, value)
        if tag == TAG and (secret is None or entry is not None):
            continue  # a word that is not signed does not hide what is not ours
        ends = [each for each in (expires, None if entry is None else entry[0]) if isinstance(each, int | float)]
        state: State = "expired" if min(ends, default=now + 1) <= now else "unverified" if entry is None else "valid"
        size = len(value) if isinstance(value, bytes | str) else 0
        yield Row(rowid, str(key), stored, size + len(str(key)), state, entry)


def _verified(secret: bytes, row: str, mode: Any, filename: Any, value: Any) -> tuple[float, Any] | None:
    try:
        expires, kept = Seal(secret).read(row, plain(mode, filename, value))
        return float(expires), kept
    except (Refused, ValueError, TypeError, RecursionError):
        return None


def files(directory: Path) -> list[Path]:
    """What SQLite has there."""
    return [file for rest in ("", "-wal", "-shm") if (file := directory / f"{DATABASE}{rest}").exists()]


def put_aside(directory: Path) -> list[Path]:
    """What routers have found broken there."""
    return sorted(directory.glob(f"{DATABASE}.broken-*"))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # gone meanwhile
        return 0
