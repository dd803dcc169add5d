"""What a batch has come to: a file with a line for each answer, which outlives a kill."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import ConfigurationError, InvalidRequest

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps a second process from writing the same file
    fcntl = None  # type: ignore[assignment]

Record = dict[str, Any]

_BEGINNING = b'{"line": '
"""How every line begins."""
_SYNC_S = 1.0


class Answers:
    """The file *path*, which no other process writes as long as this is open. Lines are appended whole."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise InvalidRequest(f"{path}: what is answered is read again, so it has to be in a file")
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._synced_at = time.monotonic()
        try:
            self._ours_alone()
        except BaseException:
            os.close(self._file)
            raise

    def _ours_alone(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"{self.path}: another process writes it at this moment") from None
        except OSError:  # a file system without locks
            return

    def records(self) -> Iterator[Record]:
        """The lines so far. Once the last is taken, what a kill has left of one after it is cut off."""
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                record = _record(line)
                if record is not None:
                    yield record
                elif line.endswith(b"\n") or not (whole or line.startswith(_BEGINNING[: len(line)])):
                    raise InvalidRequest(f"{self.path}:{number}: this is no line that a batch has written")
                else:
                    return os.ftruncate(self._file, whole)
                whole += len(line)
                if not line.endswith(b"\n"):
                    return self._write(b"\n")

    def append(self, record: Record) -> None:
        """Add a line. From then on a kill does not lose it; nor does a power cut, after ``sync``."""
        self._write(json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

    def _write(self, data: bytes) -> None:
        before = os.fstat(self._file).st_size
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, before)
            error.filename = str(self.path)
            raise

    @property
    def sync_is_due(self) -> bool:
        return time.monotonic() >= self._synced_at + _SYNC_S

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        self._synced_at = time.monotonic()
        os.fsync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sync()
        finally:
            os.close(self._file)


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
        what = next((key for key in ("error", "text") if key in record), "vectors")
        said = isinstance(record[what], list if what == "vectors" else str)
        cost = record["cost_usd"]
        known = record["line"] >= 1 and int(record["digest"], 16) >= 0 and (cost is None or cost >= 0)
    except (KeyError, TypeError, ValueError):
        return None
    return record if said and known else None
