"""Where a command writes what it was asked for: to standard output, or into a file that is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..errors import ConfigurationError, InvalidRequest


@contextmanager
def written(output: Path | None, *, never: Path) -> Iterator[TextIO]:
    """What to write to. Raises ``InvalidRequest`` if *output* is *never*, or in it, which is read from."""
    if output is None:
        yield sys.stdout
        return
    if output.resolve().is_relative_to(never.resolve()):
        what = "in the cache" if never.is_dir() else "the ledger"
        raise InvalidRequest(f"--output is {what} itself: name another file")
    try:
        text = output.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} can not be written: {error.strerror}") from None
    with text:
        yield text
