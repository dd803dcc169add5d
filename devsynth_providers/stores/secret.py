"""The key that entries of the cache are signed with, in a file of its own, away from what it signs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import ConfigurationError
from .places import state_directory

KEY_BYTES = 32


def default_key() -> Path:
    """``devsynth_providers/cache.key`` in the user's state, by the XDG base directories."""
    return state_directory() / "cache.key"


def secret_of(file: Path | None = None) -> bytes:
    """The key in *file*, made there the first time; by default the user's own. Raises ``ConfigurationError`` if it is
    no key, or others may read it."""
    if file is None:
        file = default_key()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(file)
        with open(os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as key:
            found = os.fstat(key.fileno())
            secret = key.read()
    except OSError as error:
        raise ConfigurationError(f"the key of the cache can not be in {file}: {error.strerror}") from None
    if os.name == "posix" and (found.st_mode & 0o077 or found.st_uid != os.getuid()):
        raise ConfigurationError(f"others may read {file}: chmod 600 it, or remove it, and the cache begins anew")
    if len(secret) != KEY_BYTES:
        raise ConfigurationError(f"{file} is no key of a cache: remove it, and the cache begins anew")
    return secret


def _make(file: Path) -> None:
    """Write a key to *file*, unless there is one: whole or not at all, also where two processes begin at once."""
    if file.exists():
        return
    new = file.with_name(f".{file.name}.{os.getpid()}")
    with contextlib.suppress(FileExistsError):
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as key:
            key.write(os.urandom(KEY_BYTES))
        try:
            os.link(new, file)
        finally:
            new.unlink()
