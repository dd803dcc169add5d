"""The file of a ledger, for those who do not spend: where it is, and opening it if this version knows its form."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ..errors import ConfigurationError
from .migrations import MIGRATIONS

LOCKED_S = 5.0
"""How long to wait for whoever holds the file: readers wait for nobody, only ``prune`` does."""


@contextmanager
def opened(file: Path, mode: Literal["ro", "rw"]) -> Iterator[sqlite3.Connection]:
    """A connection to the ledger in *file*, which is there and of this version."""
    if server := re.match(r"(?:redis|valkey)s?:/", str(file)):
        raise ConfigurationError(f"a ledger on a server ({server[0]}/…) can only be reported, shown and exported")
    if not file.exists():
        raise ConfigurationError(
            f"there is no ledger at {file}: a router writes one where its policy has budgets, or where it is made with "
            "ledger=FILE; name another file with --ledger"
        )
    if not file.is_file():
        raise ConfigurationError(f"{file} is not a file; name a ledger with --ledger")
    database: sqlite3.Connection | None = None
    try:
        database = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode={mode}", uri=True, timeout=LOCKED_S, isolation_level=None
        )
        database.execute("PRAGMA trusted_schema = OFF")
        _same_version(database, file)
        yield database
    except sqlite3.Error as error:
        why = str(error)
        raise ConfigurationError(f"{file} can not be used as a ledger: {why}") from None
    finally:
        if database is not None:
            database.close()


def _same_version(database: sqlite3.Connection, file: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    known = len(MIGRATIONS)
    if version == 0:
        raise ConfigurationError(f"{file} is not a ledger; name one with --ledger")
    if version > known:
        raise ConfigurationError(
            f"the ledger {file} is of version {version}, from a newer devsynth_providers; this one knows {known}: "
            "update it, or name another file with --ledger"
        )
    if version < known:
        raise ConfigurationError(
            f"the ledger {file} is of version {version}, from an older devsynth_providers; this one reads {known}: "
            "a router of this version that uses it brings it up to date"
        )


def moment(at: float) -> str:
    """*at*, seconds since 1970, in UTC (ISO 8601)."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
