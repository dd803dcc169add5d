"""Which ledger: on a server for a URL, and in a file for anything else."""

from __future__ import annotations

from pathlib import Path

from .entries import Ledger
from .places import on_server
from .redis_ledger import RedisLedger
from .sqlite_ledger import SqliteLedger


def ledger_of(where: str | Path) -> Ledger:
    """The ledger that is kept at *where*, a file or the URL of a server of Redis or Valkey.

    Raises ``ConfigurationError`` for a URL of another kind, and where the package redis is needed and missing.
    """
    if on_server(where):
        return RedisLedger(where)  # which refuses what is none of its own
    return SqliteLedger(where)
