"""Where processes share what they have sent: on a server for a URL, and in a file for anything else."""

from __future__ import annotations

from pathlib import Path

from .places import on_server
from .redis_shared import RedisShared
from .shared import Shared
from .sqlite_shared import SqliteShared


def shared_at(where: str | Path) -> Shared:
    """What is shared at *where*, a file or the URL of a server of Redis or Valkey.

    Raises ``ConfigurationError`` for a URL of another kind, and where the package redis is needed and missing.
    """
    if on_server(where):
        return RedisShared(where)  # which refuses what is none of its own
    return SqliteShared(where)
