"""Where a command writes what it was asked for: to standard output, or into a file that is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..errors import ConfigurationError, InvalidRequest


@contextmanager
def written(output: Path | None, *, never: Path | str) -> Iterator[TextIO]:
    """What to write to. Raises ``InvalidRequest`` if *output* is *never*, or a part of it, which is read from."""
    if output is None:
        yield sys.stdout
        return
    if isinstance(never, Path) and _is_of(Path(os.path.realpath(output)), never):
        what = "in the cache" if never.is_dir() else "the ledger"
        raise InvalidRequest(f"--output is {what} itself: name another file")
    try:
        text = output.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} can not be written: {error.strerror}") from None
    with text:
        yield text


def _is_of(output: Path, never: Path) -> bool:
    """Whether *output* is *never*, by whatever name, or in it, or what SQLite writes beside it."""
    beside = (Path(f"{never}{rest}") for rest in ("", "-wal", "-shm", "-journal"))
    names = {os.path.realpath(each) for each in beside}
    if any(str(each) in names for each in (output, *output.parents)):
        return True
    return output.exists() and never.exists() and output.samefile(never)
