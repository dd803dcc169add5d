"""A SQLite file that several processes write: what is done stays done, and nobody waits on an event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

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
