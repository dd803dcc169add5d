"""diskcache without what can be used against its owner: no pickle, and no file that a row of the database names.

diskcache as it comes unpickles what it finds, opens files whose paths stand in its database, and deletes them
(CVE-2025-69872, of which no fixed release is known; its ``JSONDisk`` changes only how values are written). Here a row
is bytes and nothing else, and whatever is not that is refused. Whether the bytes are ours is for the cache to find out.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache  # type: ignore[import-untyped]
from diskcache import core
from typing_extensions import override

from .seal import Refused

DATABASE = "cache.db"
_SETTINGS = frozenset((*core.DEFAULT_SETTINGS, *core.METADATA))
_OBJECTS = frozenset(
    (
        *("Settings", "Cache", "sqlite_autoindex_Settings_1"),
        *("Cache_key_raw", "Cache_expire_time", "Cache_store_time", "Cache_access_time"),
        *("Settings_count_insert", "Settings_count_delete"),
        *("Settings_size_insert", "Settings_size_update", "Settings_size_delete"),
    )
)


_TRIGGER = re.compile(
    r"CREATE TRIGGER \w+ AFTER (?:INSERT|UPDATE|DELETE) ON Cache FOR EACH ROW BEGIN UPDATE Settings"
    r" SET value = value(?: [+-] (?:1|(?:NEW|OLD)\.size))+ WHERE key = \"(?:count|size)\"; END"
)
"""What a trigger of diskcache's does: it counts."""


class StrictDisk(diskcache.Disk):  # type: ignore[misc]
    """Keys are text, values are bytes in the row itself."""

    @override
    def put(self, key: Any) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise Refused("a key is text")
        return key, True

    @override
    def get(self, key: Any, raw: Any) -> str:
        if not isinstance(key, str):
            raise Refused("a key is text")
        return key

    @override
    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, None, bytes]:
        if read or not isinstance(value, bytes):
            raise Refused("a value is bytes")
        return 0, core.MODE_RAW, None, value  # of a file beside the database, that is; this one counts by itself

    @override
    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> bytes:
        if read:
            raise Refused("no value is kept in a file")
        return plain(mode, filename, value)

    @override
    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:
        raise Refused("no value is kept in a file")

    @override
    def remove(self, file_path: Any) -> None:
        """Nothing: there are no files, and what a row calls one is somebody else's."""


def plain(mode: Any, filename: Any, value: Any) -> bytes:
    """The bytes of a row. Raises ``Refused`` if it is of another kind than we write."""
    if mode != core.MODE_RAW or filename is not None or not isinstance(value, bytes):
        raise Refused("a row that is not bytes")
    return value


def inspect(directory: Path) -> None:
    """Raise ``Refused`` if the database in *directory* has tables, triggers or settings that diskcache does not make:
    it would carry them out. ``sqlite3.DatabaseError`` if it is none. Where there is no database, all is well."""
    file = directory / DATABASE
    if not file.exists():
        return
    if not file.is_file():  # to open a pipe would wait for whoever writes into it
        raise Refused("the database is no file")
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as database:
        database.execute("PRAGMA trusted_schema = OFF")
        objects = database.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        if strange := {name for kind, name, sql in objects if name not in _OBJECTS or _does_more(kind, sql)}:
            raise Refused(f"the database has {', '.join(sorted(map(str, strange)))[:100]}, which we did not make")
        if not objects:
            return  # another process is making it
        for key, value in database.execute("SELECT key, value FROM Settings"):
            if key not in _SETTINGS or not isinstance(value, int | str) or not str(value).replace("-", "").isalnum():
                raise Refused("the database has settings that we did not make")


def _does_more(kind: str, sql: str) -> bool:
    """Whether it does anything but keep and count: a trigger may be called as a table is."""
    return kind == "view" or (kind == "trigger" and not _TRIGGER.fullmatch(" ".join(sql.split())))


def reader(directory: Path) -> sqlite3.Connection:
    """A connection to the database in *directory*, for ``look``, that writes nothing and waits for nobody."""
    file = (directory / DATABASE).absolute()
    database = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0.0, check_same_thread=False)
    database.execute("PRAGMA trusted_schema = OFF")
    return database


def look(database: sqlite3.Connection, key: str, largest_bytes: int) -> bytes | None:
    """The value at *key*, by one statement; ``None`` if there is none. Raises ``Refused`` if it is larger, or no bytes
    in the row: then ``diskcache`` is to be asked, by whoever may wait."""
    row = database.execute(
        "SELECT mode, filename, length(value) <= ?, CASE WHEN length(value) <= ? THEN value END FROM Cache"
        " WHERE key = ? AND raw = 1",
        (largest_bytes, largest_bytes, key),
    ).fetchone()
    if row is None:
        return None
    mode, filename, small, value = row
    if not small:
        raise Refused("a row of more than a few bytes")
    return plain(mode, filename, value)
