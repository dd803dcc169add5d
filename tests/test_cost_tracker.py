"""What was spent elsewhere stands in the ledger, in a file or on a server, and what a project has spent is told."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from devsynth_providers import (
    Budget,
    ConfigurationError,
    CostTracker,
    InvalidRequest,
    LedgerUnavailable,
    Router,
    Usage,
)
from devsynth_providers.stores.entries import Hit
from devsynth_providers.testing import ScriptedProvider

from .command import Run
from .filled import filled, hit, written
from .helpers import PRICED, model, policy
from .ledgers import InFile, OnServer, Store, adds_up
from .servers import CUTS, MISSING, PASSWORD, Cut, Late, RedisServer, Shears, program

USED = Usage(10, 20)
COSTS_USD = 10 * 10e-6 + 20 * 30e-6

needs_a_server = pytest.mark.skipif(program() is None, reason=MISSING)


@pytest.fixture(scope="module")
def quick_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that waits for no disk."""
    if program() is None:
        pytest.skip(MISSING)
    with RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "no") as server:
        yield server


@pytest.fixture
def server(quick_server: RedisServer) -> Iterator[RedisServer]:
    yield quick_server
    with quick_server.client() as behind:
        behind.flushdb()


class Place(NamedTuple):
    where: Path | str
    """What users call it."""
    store: Store


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "file":
        yield Place(tmp_path / "ledger.db", InFile(tmp_path / "ledger.db"))
        return
    server: RedisServer = request.getfixturevalue("server")
    yield Place(server.url(), OnServer(server.url(), "devsynth"))


@pytest.fixture
def tracker(place: Place) -> Iterator[CostTracker]:
    with CostTracker(place.where) as tracker:
        yield tracker


class TestWhatIsRecorded:
    async def test_stands_in_the_same_ledger_also_from_inside_a_running_loop(
        self, place: Place, tracker: CostTracker
    ) -> None:
        far = ScriptedProvider("ok", model=model(price=PRICED), usage=USED)
        async with Router(policy(far.model), {"m": far}, ledger=place.where) as router:
            await router.complete("hi", project="a")
        tracker.record("a", input_tokens=5, output_tokens=7, total_cost=0.01)
        tracker.record(project_id=None, input_tokens=1, output_tokens=1, total_cost=0.5)
        assert tracker.total_usd("a") == pytest.approx(COSTS_USD + 0.01)
        assert (tracker.total_usd(None), tracker.total_usd("b"), tracker.total_usd("")) == (0.5, 0.0, 0.0)
        (entry,) = (each for each in place.store.entries() if each["provider"] == "elsewhere" and "project" in each)
        assert (entry["project"], entry["state"], entry["basis"]) == ("a", "settled", "reported")
        assert (entry["cost_micros"], entry["input_tokens"], entry["output_tokens"]) == (10_000, 5, 7)

    def test_is_in_reports(self, cli: Run, place: Place, tracker: CostTracker) -> None:
        tracker.record("a", 5, 7, 0.25, provider="acme", model="acme-1")
        code, out, _ = cli("report", "--ledger", str(place.where), "--json")
        (group,) = json.loads(out)["groups"]
        assert (code, group["key"], group["calls"], group["cost_usd"]) == (0, "acme-1", 1, 0.25)
        assert (group["input_tokens"], group["output_tokens"]) == (5, 7)

    async def test_is_taken_from_no_budget(self, place: Place, tracker: CostTracker) -> None:
        tracker.record("a", 1, 1, 100.0)
        far = ScriptedProvider("ok", model=model(price=PRICED), usage=USED)
        thrifty = replace(policy(far.model), budgets=(Budget(scope="project", limit_usd=1.0),))
        async with Router(thrifty, {"m": far}, ledger=place.where) as router:
            assert await router.generate("hi", project="a") == "ok"
        assert sum(place.store.balances().values()) == round(COSTS_USD * 1e6)
        adds_up(place.store)

    @pytest.mark.parametrize(
        "wrong",
        [
            *((-1, 0, 0.0), (0, 1.5, 0.0), (0, 0, float("nan")), (0, 0, -1), (True, 0, 0)),
            *((2**70, 0, 0.5), (0, 2**70, 0.5), (0, 0, 1e300), (0, 0, float("inf"))),
        ],
    )
    def test_is_refused_if_it_can_not_be(self, tracker: CostTracker, wrong: Any) -> None:
        with pytest.raises(InvalidRequest, match="from 0 on"):
            tracker.record("a", *wrong)
        assert tracker.total_usd("a") == 0

    def test_is_an_error_that_says_so_if_it_is_no_text(self, tracker: CostTracker) -> None:
        with pytest.raises(LedgerUnavailable, match="can not be used"):
            tracker.record("\ud800", 1, 1, 0.1)
        tracker.record("a", 1, 1, 0.1)
        assert tracker.total_usd("a") == 0.1


class TestWhatIsTold:
    def test_is_what_a_report_says(self, cli: Run, place: Place, tracker: CostTracker) -> None:
        """Of more entries than are read at once, of calls with several attempts, and of what is under way."""
        filled(place.where, calls=4)
        entries: list[dict[str, Any]] = [
            {"project": "a", "worst_micros": 5000, "settled": False},
            {"project": "b", "cost_micros": None, "worst_micros": 70, "basis": "unknown"},
            {"project": 'é"\\', "cost_micros": 3},
            *({"project": f"p{number % 3}", "cost_micros": number} for number in range(700)),
        ]
        written(place.where, *entries)
        hit(place.where, Hit("p", "m", "a", rule="all"), Hit("p", "m", "a"), Hit("p", "m7"), Hit("p", "m", "billing"))
        groups = json.loads(cli("report", "--ledger", str(place.where), "--json", "--by", "project")[1])["groups"]
        assert len(groups) == 8
        for group in groups:
            project = group["key"]
            assert tracker.total_usd(project) == pytest.approx(group["cost_usd"] + group["reserved_usd"]), project
            assert (tracker.hits(project), tracker.hit_rate(project)) == (group["hits"], group["hit_rate"]), project

    def test_counts_what_is_under_way_with_its_worst_case(self, place: Place, tracker: CostTracker) -> None:
        written(place.where, {"project": "a", "worst_micros": 5000, "settled": False}, {"project": "a"})
        tracker.record("a", 1, 1, 0.5)
        assert tracker.total_usd("a") == pytest.approx(0.505, abs=2e-3)

    def test_counts_what_the_cache_has_answered_beside_it(self, place: Place, tracker: CostTracker) -> None:
        assert (tracker.hits("billing"), tracker.hit_rate("billing")) == (0, None)
        tracker.record("billing", 10, 20, 0.5)
        assert tracker.hit_rate("billing") == 0.0
        hit(place.where, *(Hit("openai", "m", project=project) for project in ("billing", "billing", "billing", None)))
        assert (tracker.hits("billing"), tracker.hit_rate("billing")) == (3, 0.75)
        assert (tracker.hits(None), tracker.hit_rate(None)) == (1, 1.0)
        assert tracker.total_usd("billing") == 0.5


class TestWhoeverUsesIt:
    def test_may_be_several_threads_and_one_that_closes_it_meanwhile_loses_nothing(
        self, place: Place, tracker: CostTracker
    ) -> None:
        def work(number: int) -> None:
            for _ in range(10):
                tracker.record(f"p{number}", 1, 1, 0.001)
                if number % 2:
                    tracker.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert [round(tracker.total_usd(f"p{number}") * 1000) for number in range(4)] == [10] * 4
        tracker.close()
        assert {each["state"] for each in place.store.entries()} == {"settled"}

    def test_may_close_it_as_often_as_he_likes_and_opens_it_by_using_it(self, place: Place) -> None:
        CostTracker(place.where).close()
        tracker = CostTracker(place.where)
        for number in range(3):
            tracker.record("a", 1, 1, 1.0)
            assert tracker.total_usd("a") == number + 1
            tracker.close()
            tracker.close()
        assert not [each for each in threading.enumerate() if each.name.startswith("devsynth")]

    def test_may_be_a_child_that_was_forked_and_nobody_need_close_it(self, place: Place) -> None:
        done = _as_a_program(
            """
            import asyncio, atexit, gc, os, sys
            from devsynth_providers import CostTracker

            tracker = CostTracker(sys.argv[1])

            def forked(work):
                child = os.fork()
                if child == 0:
                    work()
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

            def record():
                tracker.record("a", 1, 1, 1.0)
                assert tracker.hit_rate("a") == 0.0

            def forget():
                global tracker
                del tracker
                gc.collect()

            async def main():
                record()
                forked(record)
                assert tracker.total_usd("a") == 2.0
                forked(tracker.close)
                record()
                if "://" in sys.argv[1]:  # of connections that are forgotten, those to a server must not be closed
                    forked(forget)
                record()

            asyncio.run(main())
            assert tracker.total_usd("a") == 4.0
            """,
            place,
        )
        assert done == (0, "")
        with CostTracker(place.where) as tracker:
            assert tracker.total_usd("a") == 4.0

    def test_may_record_when_the_interpreter_ends_or_is_told_that_it_can_not(self, place: Place) -> None:
        done = _as_a_program(
            """
            import atexit, sys
            from devsynth_providers import CostTracker, LedgerUnavailable

            @atexit.register
            def last():
                try:
                    tracker.record("a", 1, 1, 1.0)
                except LedgerUnavailable:
                    sys.stdout.write("not recorded")

            tracker = CostTracker(sys.argv[1])
            tracker.record("a", 1, 1, 1.0)
            """,
            place,
        )
        assert done[0] == 0
        assert done[1] in ("", "not recorded")
        with CostTracker(place.where) as tracker:
            assert tracker.total_usd("a") == (1.0 if done[1] else 2.0)


def _as_a_program(script: str, place: Place) -> tuple[int, str]:
    """Its exit code, and what it says."""
    done = subprocess.run(
        [
            *(sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c"),
            *("import logging; logging.getLogger('asyncio').setLevel('ERROR')\n" + textwrap.dedent(script),),
            str(place.where),
        ],
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


class TestAFile:
    def test_that_can_not_be_written_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        tracker = CostTracker(tmp_path / "file" / "ledger.db")
        with pytest.raises(LedgerUnavailable, match="can not be used"):
            tracker.record("a", 1, 1, 0.1)

    def test_is_the_users_own_if_none_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        with CostTracker() as tracker:
            tracker.record("a", 1, 1, 0.1)
        assert (tmp_path / "devsynth_providers" / "ledger.sqlite3").exists()


@needs_a_server
class TestAServer:
    @pytest.fixture
    def own_server(self, tmp_path: Path) -> Iterator[RedisServer]:
        """One to break."""
        with RedisServer(tmp_path) as server:
            yield server

    def test_that_is_killed_is_an_error_and_when_it_is_back_nothing_is_lost_or_there_twice(
        self, own_server: RedisServer
    ) -> None:
        tracker = CostTracker(own_server.url())
        tracker.record("a", 1, 1, 1.0)
        own_server.kill()
        asked: tuple[Callable[[], object], ...] = (
            lambda: tracker.record("a", 1, 1, 100.0),
            lambda: tracker.total_usd("a"),
            lambda: tracker.hits("a"),
        )
        for ask in asked:
            with pytest.raises(LedgerUnavailable, match="can not be used") as caught:
                ask()
            assert PASSWORD not in repr(caught.value)
            assert caught.value.__context__ is None
        tracker.close()
        own_server.start()
        tracker.record("a", 1, 1, 1.0)
        assert tracker.total_usd("a") == 2.0
        assert tracker.hit_rate("a") == 0.0
        tracker.close()

    def test_that_hangs_is_given_up(self, own_server: RedisServer) -> None:
        with CostTracker(own_server.url("socket_timeout=0.5")) as tracker:
            tracker.record("a", 1, 1, 1.0)
            own_server.signal(signal.SIGSTOP)
            with pytest.raises(LedgerUnavailable):
                tracker.total_usd("a")
            own_server.signal(signal.SIGCONT)
            assert tracker.total_usd("a") == 1.0

    @pytest.mark.parametrize("times", [1, 2])
    @pytest.mark.parametrize("cut", CUTS)
    async def test_whose_connection_is_cut_at_any_message_has_what_it_told_once_and_nothing_else(
        self, server: RedisServer, cut: Cut, times: int
    ) -> None:
        failed, store = 0, OnServer(server.url(), "devsynth")
        for at in itertools.count(1):
            async with Shears(server.port, cut, at, times=times) as wire:
                tracker = CostTracker(wire.url())
                told = await asyncio.to_thread(_recorded, tracker)
                failed += not told
                await asyncio.to_thread(tracker.close)
            assert [each["state"] for each in store.entries()] == ["settled"] * told, (cut, at)
            with server.client() as behind:
                behind.flushdb()
            if not wire.done:
                break
        assert at > 3
        assert failed == 0 if times == 1 else failed > 0

    async def test_has_what_is_half_written_taken_by_no_other_host_for_what_was_left(self, server: RedisServer) -> None:
        store = OnServer(server.url(), "devsynth")
        async with Late(server.port, b"reported") as wire:
            tracker = CostTracker(wire.url())
            told = asyncio.create_task(asyncio.to_thread(_recorded, tracker))
            await wire.held.wait()  # it is reserved, and not settled
            with server.client() as behind:
                (key,) = store.keys(behind, "entry")
                behind.hset(key, "process", "elsewhere/1/1")
            other = store.open()
            assert await other.recover() == 0
            await other.aclose()
            wire.go.set()
            assert await told
            await asyncio.to_thread(tracker.close)
        (entry,) = store.entries()
        assert (entry["state"], entry["basis"]) == ("settled", "reported")

    def test_of_another_password_is_said_without_ours(self, server: RedisServer) -> None:
        tracker = CostTracker(server.url().replace(PASSWORD, "wrong-canary%2F1"))
        with pytest.raises(LedgerUnavailable, match=f"redis://127.0.0.1:{server.port}/0") as caught:
            tracker.record("a", 1, 1, 1.0)
        tracker.close()
        assert "canary" not in str(caught.value)

    @pytest.mark.parametrize("url", ["http://user:canary@host/1", "redis://:canary@host/x", "redis://:canary@/0"])
    def test_that_is_none_is_refused_at_once_without_its_password(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="redis://") as caught:
            CostTracker(url)
        assert "canary" not in str(caught.value)

    @pytest.mark.parametrize("key", ["entry:x:1", "hits:2027-01-15"])
    def test_that_has_something_else_there_is_told(self, server: RedisServer, key: str) -> None:
        with server.client() as behind, CostTracker(server.url()) as tracker:
            behind.hset(f"{{devsynth}}:{key}", mapping={"state": "settled", "project": "a"})
            with pytest.raises(LedgerUnavailable):
                tracker.hits("a")


def _recorded(tracker: CostTracker) -> bool:
    try:
        tracker.record("a", 1, 1, 1.0)
    except LedgerUnavailable:
        return False
    return True
