"""Where the user's own things are, by the XDG base directories."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeGuard

from ..errors import ConfigurationError


def state_directory() -> Path:
    """Of what should outlive a restart: keys, ledgers."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "devsynth_providers"


def cache_directory() -> Path:
    """Of what may be lost."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "devsynth_providers"


def default_ledger() -> Path:
    """The file of the ledger, if no other is named."""
    return state_directory() / "ledger.sqlite3"


def on_server(where: object) -> TypeGuard[str]:
    """Whether that is a URL, and no file or directory: of which server, says whoever opens it."""
    return isinstance(where, str) and "://" in where


def ledger_place(said: str | Path | None) -> Path | str:
    """Where a ledger is: a file, the user's own if nothing is *said*, or the URL of a server."""
    if on_server(said):
        return said
    return default_ledger() if said is None else Path(said)


def default_cache() -> Path:
    """The directory of the cache of answers, if no other is named."""
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
