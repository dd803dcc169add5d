"""Which cache: on a server for a URL, and in a directory for anything else."""

from __future__ import annotations

from pathlib import Path

from .places import on_server
from .redis_cache import RedisCache
from .response_cache import ResponseCache


def cache_at(where: str | Path | None) -> ResponseCache | RedisCache:
    """The cache that is kept at *where*: a directory, by default the user's, or the URL of a server of Redis or Valkey.

    Raises ``ConfigurationError`` for a directory that is not ours, a URL of another kind, and where the package redis
    is needed and missing.
    """
    if on_server(where):
        return RedisCache(where)  # which refuses what is none of its own
    return ResponseCache(directory=where)
