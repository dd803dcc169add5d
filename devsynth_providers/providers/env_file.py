"""A ``.env`` file, read only where somebody asks for it: its values never get into the environment.

python-dotenv reads what is in it; who may read and write it is looked at here.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigurationError

MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """What one line of the file sets a variable to."""

    value: str = field(repr=False)
    number: int


def read_env_file(path: str | os.PathLike[str]) -> dict[str, Line]:
    """The variables of the file at *path*, as they stand there: nothing is put in for ``${NAME}``.

    Raises ``ConfigurationError`` for a file that others may read, or that is not a file of one's own.
    """
    from dotenv.parser import parse_stream  # noqa: PLC0415 - for those who ask for it

    lines: dict[str, Line] = {}
    for binding in parse_stream(io.StringIO(_text(Path(path)))):
        number = binding.original.line
        if binding.error:
            raise ConfigurationError(f"{path}:{number}: this is not NAME=value")
        if binding.key is not None and binding.value:
            lines[binding.key] = Line(binding.value, number)
    return lines


def _text(path: Path) -> str:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            _must_be_private(path, os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigurationError(f"{path} is a symbolic link: name the file itself") from None
        raise ConfigurationError(f"{path} can not be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"{path} is larger than {MAX_BYTES // 1024} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8: byte {error.start}") from None


def _must_be_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"{path} is not a file")
    if not hasattr(os, "geteuid"):
        return  # Windows: there are no such owners and modes
    if found.st_uid != os.geteuid():
        raise ConfigurationError(f"{path} belongs to another user: make it your own (chown), or copy it")
    if found.st_mode & 0o077:
        raise ConfigurationError(f"{path} can be read or written by others: chmod 600 {path}")
