"""What a cache needs now and then: to lose what is old, or everything."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .cache_reader import BrokenCache, Row, files, opened, put_aside, rows
from .claims import TAG

BATCH = 200
"""Entries that are removed at once: a router that waits for longer than a quarter of a second goes without."""
PAUSE_S = 0.02
_ROUNDS = 20
_ALL = "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache WHERE rowid <= ? LIMIT ?)"


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


def old(directory: Path, secret: bytes | None, wanted: Old, *, clock: Callable[[], float] = time.time) -> int:
    """How many entries ``prune`` would remove; how many have to go for a size is an estimate."""
    with opened(directory, "ro") as database:
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
    with opened(directory, "rw") as database:
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
    removed, aside = 0, put_aside(directory)
    try:
        with opened(directory, "rw") as database:
            database.execute("DELETE FROM Cache WHERE tag = ?", (TAG,))  # no entries, and never many
            (last,) = database.execute("SELECT max(rowid) FROM Cache").fetchone()
            while some := database.execute(_ALL, (last, BATCH)).rowcount:
                removed += some
                sleep(PAUSE_S)
            _shrink(database)
    except BrokenCache:
        for file in files(directory):
            file.unlink(missing_ok=True)
    for file in aside:
        file.unlink(missing_ok=True)
    return removed


def _going(database: sqlite3.Connection, secret: bytes | None, wanted: Old, now: float) -> list[Going]:
    going, staying, all_bytes = list[Going](), list[Row](), 0
    for row in rows(database, secret, now):
        all_bytes += row.bytes
        at = row.stored_at
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
