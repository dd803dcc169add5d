"""A SQLite file that several processes write: opened when it is first needed, and anew in a forked child.

What a few rows take is done where it is asked for, on an event loop too, if nothing has to be waited for; and else on a
thread that may wait, for other processes and for the disk.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from .worker import Busy

LOCKED_S = 5.0
"""How long to wait for other processes that write, each for less than a millisecond; then it is not written."""
AGAIN_S = 0.005
"""How long to leave a file alone that others are about to open too."""
PAGE_BYTES = 2048
"""Of a new file. Whole pages are written, and a transaction changes a few rows of a few hundred bytes: in smaller ones
the longest of those would have no room."""
CHECKPOINT = 2000
"""After so many transactions what they wrote is put in its place in the file, for which the disk is waited for."""
_BUSY = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))
_at_work_elsewhere: list[sqlite3.Connection] = []
"""Connections of a parent that must not even be forgotten, which closes them."""

T = TypeVar("T")


class Database:
    """*file*, in write-ahead mode, readable by its owner alone. *prepare* gets each connection first.

    One thread uses it at a time. Raises what ``sqlite3`` raises.
    """

    def __init__(self, file: Path, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self._file = file
        self._prepare = prepare
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._at_work = False
        self._written = 0

    def quickly(self, work: Callable[[], T]) -> T:
        """What *work* returns, if it has to wait for nothing. Raises ``Busy``, and then has done nothing."""
        if self._connection is None or self._pid != os.getpid() or self._written >= CHECKPOINT:
            raise Busy
        self._at_work = True
        try:
            return work()
        except sqlite3.OperationalError as error:
            if _busy(error):
                raise Busy from None
            raise
        finally:
            self._at_work = False

    def patiently(self, work: Callable[[], T]) -> T:
        """What *work* returns, which may wait: never on an event loop."""
        self.opened().execute(f"PRAGMA busy_timeout = {int(LOCKED_S * 1000)}")
        self._at_work = True
        try:
            done = work()
            if self._written >= CHECKPOINT:
                with suppress(sqlite3.Error):  # what is done is done, and stands in the log: the next goes on
                    self._checkpoint()
            return done
        finally:
            self._at_work = False
            if self._connection is not None:
                self._connection.execute("PRAGMA busy_timeout = 0")

    def opened(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            self._leave_behind()
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _leave_behind(self) -> None:
        """What the parent has opened is closed first, or SQLite takes the parent's locks for those of this process. But
        if it was at work, whoever has its mutex stayed with the parent, and to close it would wait for ever."""
        inherited, self._connection, self._pid = self._connection, None, os.getpid()
        at_work, self._at_work = self._at_work, False
        if inherited is None:
            return
        if at_work:
            _at_work_elsewhere.append(inherited)
            return
        with suppress(sqlite3.Error):
            inherited.close()

    def _open(self) -> sqlite3.Connection:
        """SQLite does not wait, whatever it was told, where a file becomes one with a log: that only one may do."""
        until = time.monotonic() + LOCKED_S
        while True:
            try:
                return self._open_now()
            except sqlite3.OperationalError as error:
                if not _busy(error) or time.monotonic() >= until:
                    raise
            time.sleep(AGAIN_S)

    def writing(self) -> Transaction:
        self._written += 1
        return Transaction(self.opened(), lost=self._forget)

    def close(self) -> None:
        if self._pid != os.getpid():
            self._leave_behind()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        """Forgotten, it is closed: its connection would complain of being left (Python 3.13)."""
        with suppress(Exception):  # at the end of the interpreter there may be nothing left to do it by
            self.close()

    def _forget(self) -> None:
        self._connection = None

    def _checkpoint(self) -> None:
        """With a transaction behind it that begins the log anew: it is synced then, which is not for a quick one."""
        self._written = 0
        connection = self.opened()
        connection.execute("PRAGMA wal_checkpoint").fetchall()
        with Transaction(connection, lost=self._forget) as database:  # no other may bring the file up to date meanwhile
            (version,) = database.execute("PRAGMA user_version").fetchone()
            database.execute(f"PRAGMA user_version = {version}")

    def _open_now(self) -> sqlite3.Connection:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Only one that is not there yet: whoever closes a file drops all locks that this process has on it.
            with suppress(FileExistsError):
                os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise sqlite3.OperationalError(error.strerror or type(error).__name__) from None
        connection = sqlite3.connect(self._file, timeout=LOCKED_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # a process that is killed loses nothing by it
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA wal_checkpoint").fetchall()  # processes that end early come to none of their own
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection


class Transaction:
    """What is done whole, or not at all, and that no other process writes beside. Who rolls it back within it has done
    nothing. *lost* is told where the *connection* had to be closed to undo what was done."""

    def __init__(self, connection: sqlite3.Connection, *, lost: Callable[[], None] = lambda: None) -> None:
        self._connection = connection
        self._lost = lost

    def __enter__(self) -> sqlite3.Cursor:
        """One cursor for all statements: to make one takes as long as the shortest of them."""
        self._cursor = self._connection.cursor()
        try:
            return self._cursor.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._undo()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._undo()
            return
        try:
            if self._connection.in_transaction:
                self._cursor.execute("COMMIT")
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        """Not even that may fail: a connection that is closed has undone what it began."""
        try:
            self._cursor.close()  # an error keeps it, and to let go of it later would wait for whoever is at work then
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
            self._lost()


def _busy(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _BUSY
