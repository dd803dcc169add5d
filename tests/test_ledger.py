"""The ledger, in a file and on a server: no purse is overrun, nothing is settled twice, what was said is not lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devsynth_providers import ConfigurationError, Usage
from devsynth_providers.errors import LedgerUnavailable
from devsynth_providers.stores.database import LOCKED_S, PAGE_BYTES
from devsynth_providers.stores.entries import Hit, Ledger, Outcome, Purse, Reserved, Spent, ends_at, period_of
from devsynth_providers.stores.ledger_reader import read_ledger
from devsynth_providers.stores.ledger_upkeep import check
from devsynth_providers.stores.ledgers import ledger_of
from devsynth_providers.stores.migrations import MIGRATIONS
from devsynth_providers.stores.process import identity
from devsynth_providers.stores.redis_ledger import RedisLedger
from devsynth_providers.stores.sqlite_ledger import SqliteLedger

from .ledgers import InFile, Store, adds_up, entry, on_server

PURSE = Purse("project:billing", "2026-11-26", 1000)
ROOM = Reserved()
OLD = (
    "provider, model, project, role, task, policy, rule, tags, reason, cost_micros, basis, input_tokens, output_tokens,"
    " cached_input_tokens, cache_write_tokens, reasoning_tokens, usage_estimated, error, latency_s, first_token_s,"
    " finish_reason"
)
PAID = Outcome(cost_micros=10, basis="computed", usage=Usage(3, 4))


@pytest.fixture(scope="module", params=["file", "server"])
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Store]:
    """Makes stores; what must hold of one kind must of the other."""
    if request.param == "server":
        return on_server(request.getfixturevalue("redis_server").url())
    return lambda: InFile(tmp_path_factory.mktemp("l") / "books" / "ledger.db")


@pytest.fixture
def store(stores: Callable[[], Store]) -> Store:
    return stores()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "books" / "ledger.db"


def rows(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(sql).fetchall()


class TestReserve:
    async def test_takes_the_worst_case_out_of_every_purse(self, store: Store) -> None:
        ledger, other = store.open(), Purse("router", "total", 5000)
        assert await ledger.reserve(entry(worst=400), [PURSE, other]) == ROOM
        assert [await ledger.spent_micros(purse) for purse in (PURSE, other)] == [400, 400]
        await ledger.aclose()

    async def test_refuses_what_one_purse_has_too_little_for_and_takes_nothing(self, store: Store) -> None:
        ledger, small = store.open(), Purse("role:intern", "total", 50)
        assert await ledger.reserve(entry(worst=60), [PURSE, small]) == Reserved(refused=Spent(small, 0))
        assert [await ledger.spent_micros(purse) for purse in (PURSE, small)] == [0, 0]
        assert not store.entries()
        await ledger.aclose()

    async def test_fills_a_purse_to_its_limit_and_not_beyond(self, store: Store) -> None:
        ledger = store.open()
        told = [await ledger.reserve(entry(f"c{n}", worst=300), [PURSE]) for n in range(5)]
        assert told == [ROOM, ROOM, ROOM, *[Reserved(refused=Spent(PURSE, 900))] * 2]
        assert await ledger.reserve(entry("last", worst=100), [PURSE]) == ROOM
        await ledger.aclose()

    async def test_takes_from_a_purse_that_only_warns_and_says_that_it_is_over(self, store: Store) -> None:
        ledger, warns = store.open(), Purse("project:lab", "total", 150, binding=False)
        told = [await ledger.reserve(entry(f"c{n}"), [warns, PURSE]) for n in range(3)]
        assert told == [ROOM, Reserved(over=(Spent(warns, 200),)), Reserved(over=(Spent(warns, 300),))]
        assert [await ledger.spent_micros(purse) for purse in (warns, PURSE)] == [300, 300]
        await ledger.aclose()

    async def test_that_a_binding_purse_refuses_takes_nothing_from_one_that_only_warns(self, store: Store) -> None:
        ledger, warns, small = store.open(), Purse("a", "total", 50, binding=False), Purse("b", "total", 50)
        assert await ledger.reserve(entry(), [warns, small]) == Reserved(refused=Spent(small, 0))
        assert [await ledger.spent_micros(purse) for purse in (warns, small)] == [0, 0]
        await ledger.aclose()

    async def test_of_an_attempt_that_is_there_already_is_refused_whole(self, store: Store) -> None:
        ledger = store.open()
        await ledger.reserve(entry(), [PURSE])
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(entry(), [PURSE])
        assert await ledger.spent_micros(PURSE) == 100
        assert await ledger.settle("c", 1, PAID)
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(entry(), [PURSE])
        assert await ledger.spent_micros(PURSE) == 10
        await ledger.aclose()


class TestSettle:
    async def test_puts_the_cost_in_place_of_the_worst_case(self, store: Store) -> None:
        ledger = store.open()
        await ledger.reserve(entry(project="billing", role="dev", rule="r", tags=("a", "b"), reason="retry"), [PURSE])
        assert await ledger.settle("c", 1, PAID)
        assert await ledger.spent_micros(PURSE) == 10
        facts = {"state": "settled", "cost_micros": 10, "basis": "computed", "input_tokens": 3, "output_tokens": 4}
        facts |= {"usage_estimated": 0, "project": "billing", "tags": '["a", "b"]', "reason": "retry"}
        (written,) = store.entries()
        assert written.items() >= facts.items()
        await ledger.aclose()

    async def test_keeps_what_is_empty_or_zero_and_what_is_not_known_apart(self, store: Store) -> None:
        ledger = store.open()
        await ledger.reserve(entry("empty", project="", role="0", task="NULL"))
        await ledger.settle("empty", 1, Outcome(cost_micros=0, basis="free", error="", first_token_s=0.0))
        await ledger.reserve(entry("unknown"))
        await ledger.settle("unknown", 1, Outcome(cost_micros=0, basis="free"))
        await ledger.aclose()
        written = {each["call"]: each for each in store.entries()}
        told = {"project": "", "role": "0", "task": "NULL", "error": ""}
        assert written["empty"].items() >= told.items()
        assert float(written["empty"]["first_token_s"]) == 0.0
        assert not written["unknown"].keys() & {*told, "first_token_s"}

    async def test_happens_once(self, store: Store) -> None:
        ledger = store.open()
        await ledger.reserve(entry(), [PURSE])
        assert [await ledger.settle("c", 1, PAID) for _ in range(3)] == [True, False, False]
        assert not await ledger.settle("unknown", 1, PAID)
        assert await ledger.spent_micros(PURSE) == 10
        await ledger.aclose()

    async def test_goes_on_where_nobody_waits_for_it_and_is_done_when_the_ledger_is_closed(self, store: Store) -> None:
        ledger = store.open()
        for n in range(20):
            await ledger.reserve(entry(f"c{n}", worst=50), [PURSE])
        settling = [asyncio.ensure_future(ledger.settle(f"c{n}", 1, PAID)) for n in range(20)]
        await ledger.aclose()
        assert {each["state"] for each in store.entries()} == {"settled"}
        assert all(await asyncio.gather(*settling))

    async def test_without_a_known_price_keeps_what_was_reserved(self, store: Store) -> None:
        ledger = store.open()
        await ledger.reserve(entry(), [PURSE])
        await ledger.settle("c", 1, Outcome(cost_micros=None, basis="unknown"))
        assert await ledger.spent_micros(PURSE) == 100
        await ledger.aclose()

    def test_that_waits_for_the_thread_when_its_loop_ends_is_written(self, file: Path) -> None:
        ledger, go_on = SqliteLedger(file), threading.Event()

        async def main() -> None:
            await ledger.reserve(entry("a"))
            ledger._worker.put(go_on.wait)
            settling = asyncio.ensure_future(ledger.settle("a", 1, PAID))
            await asyncio.sleep(0)
            assert not settling.done()

        asyncio.run(main())
        go_on.set()
        ledger.close()
        assert rows(file, "SELECT state FROM entries") == [("settled",)]

    async def test_belongs_to_the_period_in_which_it_was_reserved(self, store: Store) -> None:
        ledger, tomorrow = store.open(), Purse("project:billing", "2026-11-27", 1000)
        await ledger.reserve(entry(), [PURSE])
        await ledger.reserve(entry("next"), [tomorrow])
        await ledger.settle("c", 1, PAID)
        assert [await ledger.spent_micros(purse) for purse in (PURSE, tomorrow)] == [10, 100]
        await ledger.aclose()

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 500), st.integers(0, 700), st.booleans()), max_size=30))
    def test_whatever_comes_the_balance_is_the_sum_of_the_entries(
        self, stores: Callable[[], Store], steps: list[tuple[int, int, int, bool]]
    ) -> None:
        store = stores()

        async def work() -> None:
            ledger = store.open()
            worst_of: dict[int, int] = {}
            for call, worst, cost, settles in steps:
                if settles:
                    cost_micros = min(cost, worst_of.get(call, 0))
                    await ledger.settle(f"{call}", 1, Outcome(cost_micros=cost_micros, basis="computed"))
                elif call not in worst_of and await ledger.reserve(entry(f"{call}", worst=worst), [PURSE]) == ROOM:
                    worst_of[call] = worst
                assert await ledger.spent_micros(PURSE) <= PURSE.limit_micros
            await ledger.spent_micros(PURSE)
            await ledger.aclose()

        asyncio.run(work())
        adds_up(store)


class TestHits:
    HIT = Hit("openai", "m", project="billing", role="dev", task="review", policy="p", rule="r")

    async def test_are_counted_by_who_asked_and_the_minute(self, store: Store) -> None:
        now, nobody = [1_800_000_059.9], Hit("openai", "m")
        ledger = store.open(clock=lambda: now[0])
        for hit in (self.HIT, nobody, self.HIT, nobody._replace(project=""), self.HIT._replace(project="\u00e9'\x00")):
            ledger.hit(hit)
        await ledger.spent_micros(PURSE)
        now[0] += 0.1
        ledger.hit(self.HIT)
        await ledger.aclose()
        assert store.hits() == {
            (1_800_000_000, *self.HIT): 2,
            (1_800_000_000, *nobody): 1,
            (1_800_000_000, *nobody._replace(project="")): 1,
            (1_800_000_000, *self.HIT._replace(project="\u00e9'\x00")): 1,
            (1_800_000_060, *self.HIT): 1,
        }

    async def test_are_no_attempts_and_cost_nothing(self, store: Store) -> None:
        ledger = store.open()
        ledger.hit(self.HIT)
        await ledger.reserve(entry(), [PURSE])
        await ledger.aclose()
        assert len(store.entries()) == sum(store.hits().values()) == 1
        adds_up(store)

    async def test_of_many_are_all_there_when_the_ledger_is_closed(self, store: Store) -> None:
        first, second = store.open(clock=lambda: 1_800_000_000.0), store.open(clock=lambda: 1_800_000_000.0)

        def work(ledger: Ledger) -> None:
            async def many() -> None:
                for number in range(500):
                    ledger.hit(self.HIT)
                    if number % 50 == 0:
                        await ledger.spent_micros(PURSE)
                await ledger.aclose()

            asyncio.run(many())

        await asyncio.gather(*(asyncio.to_thread(work, ledger) for ledger in (first, second, second)))
        assert store.hits() == {(1_800_000_000, *self.HIT): 1500}

    async def test_that_can_not_be_written_fail_nobody_and_are_said_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (blocked := tmp_path / "file").touch()
        for ledger in (SqliteLedger(blocked / "ledger.db"), RedisLedger("redis://127.0.0.1:1")):
            for _ in range(3):
                ledger.hit(self.HIT)
                await asyncio.sleep(0.05)
            await ledger.aclose()
        assert [each.getMessage().partition(":")[0] for each in caplog.records] == [
            "answers out of the cache are not counted in the ledger"
        ] * 2

    def test_that_are_not_written_yet_are_the_parents(self, store: Store) -> None:
        ledger = store.open()

        async def close() -> None:
            await ledger.aclose()

        async def work() -> None:
            ledger.hit(self.HIT)
            child = os.fork()
            if child == 0:
                os._exit(_elsewhere(close))
            assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
            await ledger.aclose()

        asyncio.run(work())
        assert list(store.hits().values()) == [1]


class TestCounting:
    async def test_is_exact_to_the_last_micro_in_nine_billion_dollars(self, store: Store) -> None:
        ledger, purse = store.open(), Purse("router", "total", 2**53 - 1)
        assert await ledger.reserve(entry("much", worst=2**53 - 2), [purse]) == ROOM
        assert await ledger.reserve(entry("one", worst=1), [purse]) == ROOM
        assert await ledger.reserve(entry("more", worst=1), [purse]) == Reserved(refused=Spent(purse, 2**53 - 1))
        assert await ledger.settle("much", 1, Outcome(cost_micros=2**53 - 3, basis="computed"))
        assert await ledger.spent_micros(purse) == 2**53 - 2
        assert await ledger.settle("one", 1, Outcome(cost_micros=0, basis="computed"))
        assert await ledger.spent_micros(purse) == 2**53 - 3
        await ledger.aclose()
        adds_up(store)

    async def test_of_many_small_sums_loses_none(self, store: Store) -> None:
        ledger, purse = store.open(), Purse("router", "total", 10**15 + 10**6)
        await ledger.reserve(entry("much", worst=10**15 - 1), [purse])
        for n in range(100):
            assert await ledger.reserve(entry(f"c{n}", worst=9_999), [purse]) == ROOM
            assert await ledger.settle(f"c{n}", 1, Outcome(cost_micros=n, basis="computed"))
        assert await ledger.spent_micros(purse) == 10**15 - 1 + sum(range(100))
        assert await ledger.settle("much", 1, Outcome(cost_micros=7, basis="computed"))
        assert await ledger.spent_micros(purse) == 7 + sum(range(100))
        await ledger.aclose()

    @pytest.mark.parametrize("micros", [2**70, -1])
    async def test_refuses_what_it_can_not_count_and_takes_nothing(self, store: Store, micros: int) -> None:
        ledger = store.open()
        await ledger.reserve(entry("there"), [PURSE])
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(entry(worst=micros), [PURSE])
        with pytest.raises(LedgerUnavailable):
            await ledger.settle("there", 1, Outcome(cost_micros=micros, basis="computed"))
        assert await ledger.spent_micros(PURSE) == 100
        await ledger.aclose()
        assert len(store.entries()) == 1

    async def test_refuses_names_that_are_no_text(self, store: Store) -> None:
        ledger = store.open()
        with pytest.raises(LedgerUnavailable, match="surrogates"):
            await ledger.reserve(entry(project="\ud800"), [PURSE])
        assert await ledger.reserve(entry(), [PURSE]) == ROOM
        with pytest.raises(LedgerUnavailable, match="surrogates"):
            await ledger.settle("c", 1, Outcome(cost_micros=1, basis="computed", finish_reason="\ud800"))
        assert await ledger.spent_micros(PURSE) == 100
        assert await ledger.settle("c", 1, PAID)
        await ledger.aclose()

    async def test_keeps_accounts_and_periods_apart_whatever_their_names(self, store: Store) -> None:
        ledger = store.open()
        purses = [
            Purse(a, p, 100) for a, p in (("a:1", "x"), ("a", "1:x"), ("x", "a:1"), ("1:x", "a"), ("ä/\U0001f600", "%"))
        ]
        for n, purse in enumerate(purses):
            assert await ledger.reserve(entry(f"c{n}", worst=50 + n), [purse]) == ROOM
            assert await ledger.settle(f"c{n}", 1, Outcome(cost_micros=n, basis="computed"))
        assert [await ledger.spent_micros(purse) for purse in purses] == [0, 1, 2, 3, 4]
        await ledger.aclose()


class TestManyAtOnce:
    def test_processes_and_tasks_never_overrun_a_purse(self, store: Store) -> None:
        """4 processes, 50 tasks each, on a purse for 16 calls: 16 begin."""
        context = multiprocessing.get_context("spawn")
        with context.Pool(4) as pool:
            begun = pool.starmap(_spend, [(store, number) for number in range(4)])
        assert sum(begun) == 16
        assert store.balances() == {("router", "total"): 1600}
        adds_up(store)

    async def test_threads_with_loops_of_their_own_do_not_either(self, store: Store) -> None:
        ledger, purse = store.open(), Purse("router", "total", 1600)

        def spend(number: int) -> int:
            async def work() -> int:
                told = [await ledger.reserve(entry(f"{number}-{n}"), [purse]) for n in range(10)]
                return told.count(ROOM)

            return asyncio.run(work())

        assert sum(await asyncio.gather(*(asyncio.to_thread(spend, number) for number in range(8)))) == 16
        await ledger.aclose()


class TestCrash:
    def test_what_a_killed_process_left_reserved_is_spent_in_full(self, store: Store) -> None:
        script = """
            import asyncio, os, signal, sys
            from devsynth_providers.stores.entries import Purse
            from tests.ledgers import InFile, OnServer, entry, Path

            async def main():
                ledger = eval(sys.argv[1]).open()
                await ledger.reserve(entry("killed", worst=70), [Purse("project:billing", "2026-11-26", 1000)])
                os.kill(os.getpid(), signal.SIGKILL)

            asyncio.run(main())
        """
        given = repr(store).replace("PosixPath", "Path")
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), given], timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL

        async def after() -> tuple[int, bool]:
            ledger = store.open(clock=lambda: time.time() + 61.0)  # its lease is over
            found = await ledger.spent_micros(PURSE), await ledger.settle("killed", 1, PAID)
            await ledger.aclose()
            return found

        assert asyncio.run(after()) == (70, False)
        (written,) = store.entries()
        assert written.items() >= {"state": "estimated", "cost_micros": 70, "error": "process_ended"}.items()
        adds_up(store)

    def test_a_forked_child_has_a_connection_of_its_own(self, store: Store) -> None:
        ledger = store.open()
        asyncio.run(ledger.reserve(entry("parent"), [PURSE]))
        child = os.fork()
        if child == 0:
            asyncio.run(ledger.reserve(entry("child"), [PURSE]))
            os._exit(0 if asyncio.run(ledger.spent_micros(PURSE)) == 200 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        async def settled() -> bool:
            return await ledger.settle("parent", 1, PAID)

        assert asyncio.run(settled())
        asyncio.run(ledger.aclose())


class TestFile:
    def test_that_another_is_just_about_to_make_is_waited_for(self, tmp_path: Path) -> None:
        """SQLite gives up at once there, however long it was told to wait."""
        file, ended = tmp_path / "ledger.db", threading.Event()
        other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"), closing(sqlite3.connect(file)) as mine:
            mine.execute("PRAGMA journal_mode = WAL")

        def end() -> None:
            other.execute("COMMIT")
            ended.set()

        threading.Timer(0.2, end).start()
        ledger = SqliteLedger(file)
        assert asyncio.run(ledger.spent_micros(PURSE)) == 0
        assert ended.is_set()
        ledger.close()
        other.close()

    @pytest.mark.slow
    def test_two_hundred_kills_lose_nothing_that_was_acknowledged(self, file: Path) -> None:
        asyncio.run(SqliteLedger(file).spent_micros(PURSE))
        acknowledged: set[str] = set()
        for number in range(200):
            child = os.fork()
            if child == 0:
                _write_until_killed(file, number)
            acknowledged |= {f"{number}-{n}" for n in _read_until(child, file.parent / f"acknowledged-{number}")}
        asyncio.run(SqliteLedger(file).spent_micros(PURSE))  # recovers
        written = {call for (call,) in rows(file, "SELECT call FROM entries WHERE state != 'reserved'")}
        assert len(acknowledged) > 200
        assert acknowledged <= written
        assert rows(file, "SELECT count(*) FROM entries WHERE state = 'reserved'") == [(0,)]
        assert rows(file, "PRAGMA integrity_check") == [("ok",)]
        adds_up(InFile(file))

    async def test_a_write_that_fails_at_any_step_leaves_all_or_nothing(self, file: Path) -> None:
        ledger = SqliteLedger(file)
        await ledger.reserve(entry("before"), [PURSE])
        failed = 0
        for number, step in enumerate(range(1, 3000, 7)):
            await ledger.spent_micros(PURSE)
            _fail_at(ledger, step)
            try:
                await ledger.reserve(entry(f"r{number}", worst=1), [PURSE])
                await ledger.settle(f"r{number}", 1, Outcome(cost_micros=0, basis="computed"))
            except LedgerUnavailable:
                failed += 1
            else:
                break
            finally:
                _fail_at(ledger, 0)
            adds_up(InFile(file))
        assert failed > 20
        assert await ledger.settle("before", 1, PAID)
        await ledger.aclose()
        adds_up(InFile(file))

    def test_a_disk_that_refuses_any_one_write_leaves_all_or_nothing(self, file: Path) -> None:
        with multiprocessing.get_context("spawn").Pool(1) as process:  # the limit is of a whole process
            settled = process.apply(_with_each_write_refused, (file,))
        assert {each["call"] for each in InFile(file).entries() if each["state"] == "settled"} == settled
        adds_up(InFile(file))

    async def test_a_file_that_can_not_be_written_says_so(self, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.touch()
        for place in (blocked / "ledger.db", tmp_path):
            ledger = SqliteLedger(place)
            with pytest.raises(LedgerUnavailable, match="can not be used"):
                await ledger.reserve(entry())
            await ledger.aclose()

    async def test_a_broken_file_is_left_as_it_is_and_said(self, file: Path) -> None:
        file.parent.mkdir()
        file.write_bytes(b"no database" * 100)
        ledger = SqliteLedger(file)
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(entry())
        assert file.read_bytes() == b"no database" * 100
        await ledger.aclose()

    async def test_a_file_of_a_newer_version_is_refused(self, file: Path) -> None:
        ledger = SqliteLedger(file)
        await ledger.spent_micros(PURSE)
        await ledger.aclose()
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA user_version = 99")
        ledger = SqliteLedger(file)
        with pytest.raises(ConfigurationError, match="version 99, from a newer"):
            await ledger.spent_micros(PURSE)
        await ledger.aclose()


_THEIRS = "call, attempt, at, until, process, reserved_micros, purses, provider, model, policy, rule, tags, reason"
_GIVEN = f"{', '.join('?' * 12)}, 'primary'"
OF_VERSION = {
    1: (f"INSERT INTO entries ({_THEIRS}, state) VALUES ({_GIVEN}, 'reserved')",),
    2: (
        f"INSERT INTO under_way ({_THEIRS}) VALUES ({_GIVEN})",
        f"INSERT INTO ended ({_THEIRS}, state, cost_micros) SELECT {_THEIRS}, 'settled', 7 FROM under_way"
        " WHERE call = ?",
        "DELETE FROM under_way WHERE call = ?",
    ),
}
"""How routers of that version write an attempt down, and what came of it."""


class TestOldFiles:
    """Of version 1, as it wrote them, and of those since."""

    SHARED = "'p', 'm', 'billing', NULL, 'review', 'policy', 'rule', '[\"x\"]', 'retry'"
    TOLD = "'computed', 3, 4, 1, NULL, NULL, 0, 'timeout', 1.5, 0.5, 'stop'"

    @pytest.fixture(params=range(1, len(MIGRATIONS)))
    def version(self, request: pytest.FixtureRequest) -> int:
        return int(request.param)

    @pytest.fixture
    def old(self, file: Path, version: int) -> Path:
        """With two attempts that have ended, and two under way: of this process, and of one that is gone."""
        file.parent.mkdir()
        gone = identity().rsplit("/", 1)[0] + "/0"
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            for statement in MIGRATIONS[0]:
                database.execute(statement)
            for call, at, state, process, micros, told in (
                ("late", 20.0, "estimated", gone, 30, self.TOLD),
                ("early", 10.0, "settled", identity(), 20, self.TOLD),
                ("mine", 30.0, "reserved", identity(), None, None),
                ("left", 40.0, "reserved", gone, None, None),
            ):
                database.execute(
                    f"INSERT INTO entries (call, attempt, at, until, state, process, reserved_micros, purses, {OLD})"
                    f" VALUES (?, 1, ?, 90, ?, ?, 100, ?, {self.SHARED}, ?, {told or ', '.join(['NULL'] * 11)})",
                    (call, at, state, process, '[["project:billing", "2026-11-26"]]', micros),
                )
            database.execute("INSERT INTO balances VALUES ('project:billing', '2026-11-26', 250)")
            for statement in (each for step in MIGRATIONS[1:version] for each in step):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {version}")
        return file

    async def test_are_brought_up_to_date_with_all_that_is_in_them(self, old: Path) -> None:
        before = {each["call"]: each for each in InFile(old).entries()}
        ledger = SqliteLedger(old, clock=lambda: 50.0)
        assert await ledger.spent_micros(PURSE) == 250
        now = {each["call"]: each for each in InFile(old).entries()}
        for call in ("early", "late", "mine"):
            before[call].pop("id", None)  # of version 1
            assert now[call] == before[call]
        ended = {"state": "estimated", "cost_micros": 100, "error": "process_ended", "latency_s": 10.0}
        assert now["left"].items() >= ended.items()
        adds_up(InFile(old))
        await ledger.aclose()

    async def test_settle_what_was_under_way_once_and_take_no_attempt_twice(self, old: Path) -> None:
        ledger = SqliteLedger(old)
        told = [await ledger.settle(call, 1, PAID) for call in ("mine", "mine", "left", "early")]
        assert told == [True, False, False, False]
        for call in ("mine", "early"):
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(entry(call), [PURSE])
        assert await ledger.spent_micros(PURSE) == 20 + 30 + 10 + 100
        await ledger.aclose()
        adds_up(InFile(old))

    @pytest.mark.slow
    async def test_that_another_process_brings_up_to_date_are_waited_for_longer_than_a_writer(self, old: Path) -> None:
        other = sqlite3.connect(old, isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA journal_mode = WAL", "BEGIN IMMEDIATE"):
            other.execute(statement)
        ledger = SqliteLedger(old)
        waiting = asyncio.ensure_future(ledger.spent_micros(PURSE))
        await asyncio.sleep(LOCKED_S + 1)
        assert not waiting.done()
        other.execute("ROLLBACK")
        other.close()
        assert await waiting == 250
        await ledger.aclose()

    async def test_are_written_rightly_or_not_at_all_by_whoever_of_their_version_still_has_them_open(
        self, old: Path, version: int
    ) -> None:
        before, values = OF_VERSION[version], ("theirs", 1, 30.0, 90.0, identity(), 100, "[]", "p", "m", "p", "r", "[]")
        with closing(sqlite3.connect(old, isolation_level=None)) as theirs:
            assert theirs.execute("SELECT count(*) FROM entries").fetchone() == (4,)
            ledger = SqliteLedger(old)
            await ledger.recover()
            if version == 1:
                with pytest.raises(sqlite3.OperationalError, match="is a view"):
                    theirs.execute(before[0], values)
            else:
                for statement, told in zip(before, (values, ("theirs",), ("theirs",)), strict=True):
                    assert theirs.execute(statement, told).rowcount == 1
        assert await ledger.spent_micros(PURSE) == 250
        await ledger.aclose()
        assert check(old).right
        with read_ledger(old) as reader:
            theirs_now = [each for each in reader.entries() if each["call"] == "theirs"]
        assert [(each["cost_micros"], each["complexity"]) for each in theirs_now] == [(7, None)] * (version - 1)

    async def test_are_read_again_once_a_router_has_used_them(self, old: Path, version: int) -> None:
        with pytest.raises(ConfigurationError, match=f"version {version}, from an older"), read_ledger(old):
            pass
        await SqliteLedger(old).spent_micros(PURSE)
        with read_ledger(old) as reader:
            assert [each["call"] for each in reader.entries()] == ["early", "late", "mine", "left"]
            assert reader.total().under_way == 1
        assert check(old).right


class TestPlace:
    def test_is_a_file_or_a_server_by_its_name(self, tmp_path: Path) -> None:
        for where in (tmp_path / "ledger.db", "ledger.db", "redis/ledger.db"):
            assert isinstance(ledger_of(where), SqliteLedger)
        for scheme in ("redis", "rediss", "valkey", "valkeys"):
            assert isinstance(ledger_of(f"{scheme}://user:secret@localhost:6380/3"), RedisLedger)

    @pytest.mark.parametrize(
        "url",
        [
            *("http://u:secret@localhost", "redis://", "redis://u:secret@localhost/name", "redis://u:secret@h:secret"),
            *("redis://u:secret#1@localhost", "redis://u:secret@localhost?no_such=option", "redis://u:secret@[::1"),
            "redis://u:secret@localhost?socket_timeout=secret",
        ],
    )
    def test_that_is_none_is_refused_without_its_password(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            ledger_of(url)
        assert "secret" not in str(caught.value)
        assert caught.value.__context__ is None

    def test_without_the_package_says_what_to_install(self) -> None:
        script = """
            import sys
            sys.modules["redis"] = None
            from devsynth_providers.stores.ledgers import ledger_of
            from devsynth_providers import ConfigurationError
            ledger_of("ledger.db")
            try:
                ledger_of("redis://localhost")
            except ConfigurationError as error:
                assert "pip install 'devsynth_providers[redis]'" in str(error), error
            else:
                raise SystemExit(1)
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=60, check=True)


class TestPeriods:
    BERLIN = ZoneInfo("Europe/Berlin")

    def test_have_names_by_the_clocks_of_a_zone(self) -> None:
        late = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
        names = [period_of(per, late, self.BERLIN) for per in ("hour", "day", "week", "month", "total")]
        assert names == ["2026-12-01T00+0100", "2026-12-01", "2026-W49", "2026-12", "total"]
        assert period_of("day", late, UTC) == "2026-11-30"

    def test_end_where_the_next_begins(self) -> None:
        for per in ("hour", "day", "week", "month"):
            for now in (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2026, 3, 29, 0, 30, tzinfo=UTC)):
                end = ends_at(per, now, self.BERLIN)
                assert end is not None
                assert end > now
                assert period_of(per, end, self.BERLIN) != period_of(per, now, self.BERLIN)
        assert ends_at("total", datetime.now(UTC), UTC) is None

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Africa/Cairo"])
    def test_end_at_the_first_moment_that_has_another_name_also_when_clocks_change(self, zone: str) -> None:
        there, day = ZoneInfo(zone), timedelta(days=1)
        start = datetime(2026, 1, 1, tzinfo=UTC)
        shifts = [
            now
            for now in (start + number * day for number in range(365))
            if now.astimezone(there).utcoffset() != (now + day).astimezone(there).utcoffset()
        ]
        assert len(shifts) == 2
        for now in (shift + timedelta(minutes=15 * number) for shift in shifts for number in range(96)):
            for per in ("hour", "day", "week", "month"):
                end, name = ends_at(per, now, there), period_of(per, now, there)
                assert end is not None
                end = end.astimezone(UTC)
                before = end - timedelta(microseconds=1)
                assert period_of(per, before, there) == name != period_of(per, end, there), (per, now, end)

    def test_the_hour_that_is_there_twice_is_two(self) -> None:
        hours = {period_of("hour", datetime(2026, 10, 25, hour, 30, tzinfo=UTC), self.BERLIN) for hour in (0, 1)}
        assert len(hours) == 2


def _elsewhere(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run *work* on a loop of its own, in a forked child, whose thread has one that belongs to the parent."""
    asyncio.events._set_running_loop(None)
    asyncio.run(work())
    return 0


def _spend(store: Store, number: int) -> int:
    async def work() -> int:
        ledger, purse = store.open(), Purse("router", "total", 1600)
        told = await asyncio.gather(*(ledger.reserve(entry(f"{number}-{n}"), [purse]) for n in range(50)))
        await ledger.aclose()
        return told.count(ROOM)

    return asyncio.run(work())


def _write_until_killed(file: Path, number: int) -> None:
    async def work() -> None:
        ledger = SqliteLedger(file)
        with (file.parent / f"acknowledged-{number}").open("ab", buffering=0) as told:
            for n in range(10_000):
                await ledger.reserve(entry(f"{number}-{n}", worst=1), [PURSE._replace(limit_micros=10**9)])
                await ledger.settle(f"{number}-{n}", 1, Outcome(cost_micros=1, basis="computed"))
                told.write(f"{n}\n".encode())

    try:
        asyncio.run(work())
    finally:
        os._exit(9)


def _read_until(child: int, told: Path) -> list[int]:
    """Kill *child* once it has acknowledged a few, at a moment that nobody has chosen; what it had by then."""
    while not (told.exists() and told.stat().st_size >= 4 + child % 3 * 2):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return [int(line) for line in told.read_text().splitlines() if line]


def _with_each_write_refused(file: Path) -> set[str]:
    """Reserve and settle again and again, on a disk that has no room for the first write to an empty log, then for the
    second, until none is refused; the calls that were settled. A write is a page, or what is said before it."""
    settled = set[str]()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writes = [end for page in range(60) for end in (page * (24 + PAGE_BYTES) + 56, (page + 1) * (24 + PAGE_BYTES) + 32)]

    async def work() -> None:
        ledger = SqliteLedger(file)
        for number, end in enumerate((32, *writes)):
            await ledger.spent_micros(PURSE)
            with closing(sqlite3.connect(file)) as other:
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
            _let_files_grow_to(end - 1)
            try:
                await ledger.reserve(entry(f"r{number}", worst=1), [PURSE])
                if await ledger.settle(f"r{number}", 1, Outcome(cost_micros=0, basis="computed")):
                    settled.add(f"r{number}")
            except LedgerUnavailable:
                continue
            finally:
                _let_files_grow_to(None)
            break
        assert (len(settled), number > 10) == (1, True), (settled, number)
        await ledger.aclose()

    asyncio.run(work())
    return settled


def _let_files_grow_to(size: int | None) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def _fail_at(ledger: SqliteLedger, step: int) -> None:
    """Let the database fail at the *step*th instruction from now on; 0 for never."""
    if ledger._database._connection is None:
        return  # it gave the connection up, and will open another
    left = [step]

    def count() -> int:
        left[0] -= 1
        return int(left[0] < 0)

    ledger._database._connection.set_progress_handler(count if step else None, 1)
