"""A SQLite file that several processes write: what is done stays done, and nobody waits on an event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from devsynth_providers.stores.database import CHECKPOINT, LOCKED_S, Database
from devsynth_providers.stores.sqlite_ledger import SqliteLedger

from .ledgers import entry


def _tables(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE IF NOT EXISTS t (a TEXT)")


def test_what_is_written_is_not_taken_for_failed_because_the_log_can_not_be_put_in_its_place(tmp_path: Path) -> None:
    database = Database(tmp_path / "f", _tables)

    def work() -> str:
        for _ in range(CHECKPOINT):
            with database.writing() as connection:
                connection.execute("INSERT INTO t VALUES ('a')")
        connection.execute("PRAGMA query_only = ON")  # as good as a disk that is full from now on
        return "done"

    assert database.patiently(work) == "done"
    database.close()


def test_whoever_brings_the_file_up_to_date_while_its_log_is_put_in_its_place_is_not_undone(tmp_path: Path) -> None:
    database, version, found = Database(tmp_path / "f", _tables), 0, list[int]()

    def meanwhile(statement: str) -> None:
        nonlocal version
        other = sqlite3.connect(tmp_path / "f", timeout=0, isolation_level=None)
        with closing(other), suppress(sqlite3.OperationalError):  # it has to wait
            found.append(other.execute("PRAGMA user_version").fetchone()[0] - version)
            other.execute(f"PRAGMA user_version = {version + 1}")
            version += 1

    def work() -> None:
        for number in range(CHECKPOINT):
            _write(database, str(number))
        database.opened().set_trace_callback(meanwhile)

    database.patiently(work)
    database.opened().set_trace_callback(None)
    assert set(found) == {0}
    database.close()


def test_a_log_does_not_grow_with_every_process_that_ends_early(tmp_path: Path) -> None:
    sizes, stays = list[int](), Database(tmp_path / "f", _tables)
    stays.opened()
    for _ in range(4):
        brief = Database(tmp_path / "f", _tables)
        for _ in range(20):
            with brief.writing() as connection:
                connection.execute("INSERT INTO t VALUES (?)", ("a" * 4000,))
        brief.close()
        sizes.append((tmp_path / "f-wal").stat().st_size)
    assert sizes[-1] < 2 * sizes[0]
    stays.close()


async def test_after_a_total_too_the_loop_waits_for_no_other_process(tmp_path: Path) -> None:
    ledger, clock = SqliteLedger(tmp_path / "f"), asyncio.get_running_loop().time
    await asyncio.wrap_future(ledger.total_micros(None))
    with closing(sqlite3.connect(tmp_path / "f", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = clock()
        reserving = asyncio.ensure_future(ledger.reserve(entry("a")))
        await asyncio.sleep(0)
        assert clock() - began < LOCKED_S
        other.execute("ROLLBACK")
        await reserving
    await ledger.aclose()


_OPEN_AND_CLOSE = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    print(*(name for (name,) in database.execute("SELECT a FROM t ORDER BY a")))
database.close()
"""


def _seen_by_another(file: Path) -> str:
    """What a process finds that opens *file* and, as the last one would, puts its log away if nobody has it open."""
    done = subprocess.run(
        [sys.executable, "-c", _OPEN_AND_CLOSE, str(file)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _write(database: Database, what: str) -> None:
    with database.writing() as connection:
        connection.execute("INSERT INTO t VALUES (?)", (what,))


def test_that_a_file_is_opened_twice_in_a_process_takes_no_lock_from_the_first(tmp_path: Path) -> None:
    """The system forgets all locks that a process has on a file as soon as it closes any descriptor of it."""
    first, second = Database(tmp_path / "f", _tables), Database(tmp_path / "f", _tables)
    _write(first, "1")
    second.opened()
    assert _seen_by_another(tmp_path / "f") == "1"
    _write(first, "2")
    _write(second, "3")
    assert _seen_by_another(tmp_path / "f") == "1 2 3"
    first.close()
    second.close()


def test_one_that_is_forgotten_is_closed(tmp_path: Path) -> None:
    """Since Python 3.13 a connection complains that is not."""
    database = Database(tmp_path / "f", _tables)
    connection = database.opened()
    del database
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        connection.execute("SELECT 1")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_has_locks_of_its_own(tmp_path: Path) -> None:
    database = Database(tmp_path / "f", _tables)
    _write(database, "1")
    (told, tells), (goes_on, go_on) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _write(database, "2")
            os.write(tells, b"x")
            os.read(goes_on, 1)
            _write(database, "3")
            os._exit(0)
        finally:
            os._exit(1)
    os.read(told, 1)
    database.close()
    assert _seen_by_another(tmp_path / "f") == "1 2"
    os.write(go_on, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for each in (told, tells, goes_on, go_on):
        os.close(each)
    assert _seen_by_another(tmp_path / "f") == "1 2 3"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_can_not_open_the_file_does_not_use_what_its_parent_has_opened(tmp_path: Path) -> None:
    full = False

    def prepare(connection: sqlite3.Connection) -> None:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        _tables(connection)

    database = Database(tmp_path / "f", prepare)
    _write(database, "1")
    child = os.fork()
    if child == 0:
        try:
            full = True
            for _ in range(2):
                with suppress(sqlite3.OperationalError):
                    _write(database, "2")
                    os._exit(2)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _seen_by_another(tmp_path / "f") == "1"
    database.close()
