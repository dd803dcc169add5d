"""A ledger on a server: what connections and servers do to it, and what it does to the server."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest
import trustme

from devsynth_providers import ConfigurationError
from devsynth_providers.errors import LedgerUnavailable
from devsynth_providers.stores.entries import Hit, Outcome, Purse, Reserved, Spent
from devsynth_providers.stores.redis_ledger import AT_ONCE, DAY_S, RedisLedger

from .ledgers import OnServer, adds_up, entry, on_server
from .servers import CUTS, MISSING, PASSWORD, Cut, Late, RedisServer, Shears, Wire, program

PURSE = Purse("project:billing", "2026-11-26", 1000)
ROOM = Reserved()
PAID = Outcome(cost_micros=10, basis="computed")

pytestmark = pytest.mark.skipif(program() is None, reason=MISSING)


@pytest.fixture
def store(redis_server: RedisServer) -> OnServer:
    return on_server(redis_server.url())()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """One to break."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def quick_server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that is not killed, and waits for no disk."""
    (place := tmp_path / "quick").mkdir()
    with RedisServer(place, "--appendonly", "no") as server:
        yield server


class TestLostAnswers:
    @pytest.mark.parametrize("silently", [False, True])
    async def test_are_asked_for_again_and_nothing_is_done_twice(
        self, redis_server: RedisServer, store: OnServer, silently: bool
    ) -> None:
        warns = Purse("project:billing", "total", 150, binding=False)
        async with Wire(redis_server.port) as wire:
            ledger = RedisLedger(wire.url("socket_timeout=0.5"), prefix=store.prefix)
            await ledger.reserve(entry("before"), [PURSE, warns])
            await ledger.settle("before", 1, Outcome(cost_micros=100, basis="computed"))
            wire.losing, wire.silently = 1, silently
            assert await ledger.reserve(entry(), [PURSE, warns]) == Reserved(over=(Spent(warns, 200),))
            assert await ledger.spent_micros(PURSE) == 200
            wire.losing = 1
            assert await ledger.settle("c", 1, PAID)
            assert await ledger.spent_micros(PURSE) == 110
            assert not wire.losing
            assert not await ledger.settle("c", 1, PAID)
            await ledger.aclose()
        adds_up(store)

    async def test_twice_are_said_and_what_was_reserved_is_given_back(
        self, redis_server: RedisServer, store: OnServer
    ) -> None:
        async with Wire(redis_server.port) as wire:
            ledger = RedisLedger(wire.url(), prefix=store.prefix)
            await ledger.reserve(entry("before"), [PURSE])
            wire.losing = 2
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(entry(), [PURSE])
            assert store.balances() == {PURSE[:2]: 200}
            assert await ledger.spent_micros(PURSE) == 100
            assert await ledger.reserve(entry(), [PURSE]) == ROOM
            wire.losing = 2
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(entry("last"), [PURSE])
            await ledger.aclose()
        assert {each["call"] for each in store.entries()} == {"before", "c"}
        adds_up(store)

    async def test_of_what_is_there_already_give_back_nothing_of_others(
        self, redis_server: RedisServer, store: OnServer
    ) -> None:
        async with Wire(redis_server.port) as wire:
            ledger, other = RedisLedger(wire.url(), prefix=store.prefix), store.open()
            await other.reserve(entry(), [PURSE])
            await other.reserve(entry("settled"), [PURSE])
            await other.settle("settled", 1, PAID)
            await ledger.spent_micros(PURSE)
            for call in ("c", "settled"):
                wire.losing = 2
                with pytest.raises(LedgerUnavailable, match=r"can not be used: (?!this attempt)"):
                    await ledger.reserve(entry(call), [PURSE])
                assert await ledger.spent_micros(PURSE) == 110
            await other.aclose()
            await ledger.aclose()
        adds_up(store)

    async def test_twice_of_what_is_settled_settle_it_once(self, redis_server: RedisServer, store: OnServer) -> None:
        async with Wire(redis_server.port) as wire:
            ledger = RedisLedger(wire.url(), prefix=store.prefix)
            for n in range(3):
                await ledger.reserve(entry(f"c{n}"), [PURSE])
            for n, losing in ((0, 2), (1, 1)):
                wire.losing = losing
                with suppress(LedgerUnavailable):
                    await ledger.settle(f"c{n}", 1, PAID)
            assert await ledger.spent_micros(PURSE) == 120
            wire.losing = 2
            with pytest.raises(LedgerUnavailable):
                await ledger.settle("c2", 1, PAID)
            await ledger.aclose()
        assert {each["state"] for each in store.entries()} == {"settled"}
        adds_up(store)

    async def test_of_a_command_that_comes_too_late_are_none(self, redis_server: RedisServer, store: OnServer) -> None:
        async with Late(redis_server.port, b"too-late") as wire:
            ledger = RedisLedger(wire.url(), prefix=store.prefix)
            await ledger.reserve(entry("before"), [PURSE])
            left = asyncio.create_task(ledger.reserve(entry("too-late"), [PURSE]))
            await wire.held.wait()
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            assert await ledger.spent_micros(PURSE) == 100
            wire.go.set()
            await wire.answered.wait()
            assert await ledger.spent_micros(PURSE) == 100
            await ledger.aclose()
        assert {each["call"] for each in store.entries()} == {"before"}

    async def test_of_a_call_that_was_cancelled_reach_nobody_else(
        self, redis_server: RedisServer, store: OnServer
    ) -> None:
        async with Wire(redis_server.port) as wire:
            ledger = RedisLedger(wire.url("max_connections=1"), prefix=store.prefix)
            await ledger.reserve(entry("before"), [PURSE])
            wire.losing, wire.silently = 1, True
            cut = asyncio.create_task(ledger.reserve(entry(), [PURSE]))
            await wire.lost.wait()
            cut.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cut
            assert await ledger.spent_micros(PURSE) == 100
            assert await ledger.settle("before", 1, PAID)
            await ledger.aclose()

    @pytest.mark.parametrize("at_s", [0.0, 0.0003, 0.001, 0.003])
    async def test_of_a_reservation_that_was_cancelled_leave_nothing_reserved(
        self, store: OnServer, at_s: float
    ) -> None:
        ledger = store.open()
        await ledger.spent_micros(PURSE)
        cancelled = Outcome(cost_micros=0, basis="free", error="cancelled")
        for number in range(20):
            task = asyncio.ensure_future(ledger.reserve(entry(f"c{number}", worst=10), [PURSE]))
            await asyncio.sleep(at_s)
            task.cancel()
            await asyncio.wait([task])
            await ledger.settle(f"c{number}", 1, cancelled)
        assert {each["state"] for each in store.entries()} <= {"settled"}
        assert await ledger.spent_micros(PURSE) == 0
        await ledger.aclose()
        adds_up(store)


class TestCuts:
    """A connection that breaks at the n-th command, or the n-th answer, for every n of a small story."""

    @pytest.mark.parametrize("cut", CUTS)
    async def test_at_any_one_message_change_nothing_of_what_comes_of_it(
        self, quick_server: RedisServer, cut: Cut
    ) -> None:
        for at in itertools.count(1):
            store = await _with_what_was_left(quick_server)
            async with Shears(quick_server.port, cut, at) as wire:
                told = await _story(wire.url(), store.prefix)
            assert told == _TOLD, (cut, at)
            assert _written(store) == _COMES_OF_IT, (cut, at)
            assert list(store.hits().values()) == [1], (cut, at)
            adds_up(store)
            if not wire.done:
                break
        assert at > 12

    @pytest.mark.parametrize(("cut", "times"), [("command", 2), ("answer", 2), ("answer", 5)])
    async def test_at_several_in_a_row_lose_nothing_that_was_said_and_count_nothing_twice(
        self, quick_server: RedisServer, cut: Cut, times: int
    ) -> None:
        failed = 0
        for at in itertools.count(1):
            store = await _with_what_was_left(quick_server)
            async with Shears(quick_server.port, cut, at, times=times) as wire:
                told = await _story(wire.url(), store.prefix)
            failed += told.count(None)
            await _holds(store, told)
            if not wire.done:
                break
        assert failed >= at // 2


_STORY: tuple[tuple[str, int], ...] = (
    *(("reserve a", 400), ("settle a", 30), ("reserve b", 500), ("reserve c", 500)),
    *(("recover", 0), ("settle b", 500), ("reserve d", 300), ("settle d", 40)),
)
_TOLD = [ROOM, True, ROOM, Reserved(refused=Spent(PURSE, 600)), 0, True, ROOM, True]
_COMES_OF_IT = {"left": ("estimated", 70), "a": ("settled", 30), "b": ("settled", 500), "d": ("settled", 40)}


async def _with_what_was_left(server: RedisServer) -> OnServer:
    """A store with an entry of a process that has ended, on a server that knows no script."""
    store = on_server(server.url())()
    ledger = store.open()
    await ledger.reserve(entry("left", worst=70, lease_s=-1.0), [PURSE])
    await ledger.aclose()
    with server.client() as behind:
        key = f"{{{store.prefix}}}:entry:left:1"
        behind.hset(key, "process", re.sub(r"\d+$", "1", str(behind.hget(key, "process"))))
        behind.script_flush()
    return store


async def _story(url: str, prefix: str) -> list[object]:
    """What each step has told; ``None`` where it has failed."""
    ledger, told = RedisLedger(url, prefix=prefix), list[object]()
    for step, micros in _STORY:
        what, _, call = step.partition(" ")
        try:
            if what == "reserve":
                told.append(await ledger.reserve(entry(call, worst=micros), [PURSE]))
            elif what == "settle":
                told.append(await ledger.settle(call, 1, Outcome(cost_micros=micros, basis="computed")))
            else:
                told.append(await ledger.recover())
        except LedgerUnavailable:
            told.append(None)
    ledger.hit(Hit("openai", "m"))
    there = False
    while not there:  # what it does not know, it asks for when the server is there again
        with suppress(LedgerUnavailable):
            there = await ledger.spent_micros(PURSE) >= 0
    await ledger.aclose()
    return told


def _written(store: OnServer) -> dict[str, tuple[str, int]]:
    return {each["call"]: (each["state"], each.get("cost_micros", each["reserved_micros"])) for each in store.entries()}


async def _holds(store: OnServer, told: list[object]) -> None:
    """What was said is there, what was not said is there once or not at all, and the purse is not overrun."""
    adds_up(store)
    written = _written(store)
    assert sum(store.balances().values()) <= PURSE.limit_micros
    assert sum(store.hits().values()) <= 1
    for (step, micros), said in zip(_STORY, told, strict=True):
        what, _, call = step.partition(" ")
        if what == "reserve":
            assert (call in written) == (isinstance(said, Reserved) and said.refused is None)
        if what == "settle" and said:
            assert written[call] == ("settled", micros)
    ledger = store.open()
    for (step, micros), said in zip(_STORY, told, strict=True):
        what, _, call = step.partition(" ")
        if what == "settle":
            again = await ledger.settle(call, 1, Outcome(cost_micros=micros, basis="computed"))
            assert again == (call in written and written[call][0] == "reserved")
            assert not (again and said)
    await ledger.recover()
    await ledger.aclose()
    paid = {call: micros for call, (state, micros) in _written(store).items() if state != "reserved"}
    assert paid.items() >= {"left": 70}.items()
    assert paid.items() <= {call: micros for call, (_, micros) in _COMES_OF_IT.items()}.items()
    adds_up(store)


class TestServers:
    async def test_that_are_killed_keep_what_they_acknowledged(self, own_server: RedisServer) -> None:
        store = on_server(own_server.url())()
        ledger = store.open()
        for n in range(5):
            assert await ledger.reserve(entry(f"c{n}"), [PURSE]) == ROOM
        assert await ledger.settle("c0", 1, PAID)
        own_server.kill()
        async with asyncio.timeout(30):
            for asking in (ledger.reserve(entry("meanwhile"), [PURSE]), ledger.settle("c1", 1, PAID)):
                with pytest.raises(LedgerUnavailable) as caught:
                    await asking
                assert PASSWORD not in repr(caught.value)
                assert caught.value.__context__ is None
        own_server.start()
        assert await ledger.spent_micros(PURSE) == 320  # c1 is settled, now that it can be
        assert not await ledger.settle("c1", 1, PAID)
        assert await ledger.reserve(entry("after"), [PURSE]) == ROOM
        assert {each["call"] for each in store.entries()} == {"c0", "c1", "c2", "c3", "c4", "after"}
        await ledger.aclose()
        adds_up(store)

    async def test_that_are_no_longer_the_master_are_left_for_the_one_that_is(
        self, own_server: RedisServer, quick_server: RedisServer
    ) -> None:
        async with Wire(own_server.port) as wire:
            ledger = RedisLedger(wire.url())
            assert await ledger.reserve(entry("first"), [PURSE]) == ROOM
            wire.behind = quick_server.port  # as a name that leads to another host; what is connected stays so
            with own_server.client() as behind:
                behind.replicaof("127.0.0.1", 1)
            assert await ledger.reserve(entry("second"), [PURSE]) == ROOM
            await ledger.aclose()
        assert {each["call"] for each in OnServer(quick_server.url(), "devsynth").entries()} == {"second"}

    async def test_that_hang_are_given_up(self, own_server: RedisServer) -> None:
        ledger = RedisLedger(own_server.url("socket_timeout=0.2"))
        await ledger.spent_micros(PURSE)
        own_server.signal(signal.SIGSTOP)
        async with asyncio.timeout(30):
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(entry(), [PURSE])
        own_server.signal(signal.SIGCONT)
        await ledger.aclose()

    def test_that_are_killed_again_and_again_under_many_processes_lose_nothing(
        self, own_server: RedisServer, tmp_path: Path
    ) -> None:
        """4 processes fill a purse for 400 calls, while the server is killed three times."""
        store = on_server(own_server.url())()
        context = multiprocessing.get_context("spawn")
        with context.Pool(4) as pool:
            working = pool.starmap_async(_fill, [(store, number, str(tmp_path)) for number in range(4)])
            for kill in range(3):
                while _acknowledged(tmp_path) < 60 * (kill + 1):
                    assert not working.ready()
                    time.sleep(0.01)
                own_server.kill()
                time.sleep(0.1)
                own_server.start()
            disturbed = working.get(timeout=90)
        told = {call for file in tmp_path.glob("told-*") for call in file.read_text().split()}
        written = {each["call"] for each in store.entries()}
        assert told <= written
        assert store.balances() == {("router", "total"): 40_000}
        assert len(written) == 400
        assert len(written - told) <= sum(disturbed)
        adds_up(store)

    async def test_with_a_full_memory_write_nothing_and_say_so(self, own_server: RedisServer) -> None:
        store = on_server(own_server.url())()
        ledger = store.open()
        with own_server.client() as behind:
            behind.config_set("maxmemory", "1")
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(entry(), [PURSE])
            assert await ledger.spent_micros(PURSE) == 0
            behind.config_set("maxmemory", "0")
        assert await ledger.spent_micros(PURSE) == 0
        assert not store.entries()
        await ledger.aclose()

    async def test_that_forget_what_they_have_no_room_for_are_refused(self, own_server: RedisServer) -> None:
        ledger = RedisLedger(own_server.url())
        with own_server.client() as behind:
            behind.config_set("maxmemory", "100mb")
            behind.config_set("maxmemory-policy", "volatile-lru")
            with pytest.raises(ConfigurationError, match="noeviction"):
                await ledger.reserve(entry(), [PURSE])
            behind.config_set("maxmemory-policy", "noeviction")
        assert await ledger.reserve(entry(), [PURSE]) == ROOM
        await ledger.aclose()

    async def test_that_know_another_password_are_said_without_ours(self, redis_server: RedisServer) -> None:
        ledger = RedisLedger(redis_server.url().replace(PASSWORD, "wrong-canary%2F1"))
        with pytest.raises(LedgerUnavailable) as caught:
            await ledger.reserve(entry(), [PURSE])
        assert f"redis://127.0.0.1:{redis_server.port}/0" in str(caught.value)
        assert "canary" not in str(caught.value)
        await ledger.aclose()

    async def test_of_a_cluster_have_all_keys_in_one_place(self, tmp_path: Path) -> None:
        with RedisServer(tmp_path, "--cluster-enabled", "yes") as server:
            with server.client() as behind:
                behind.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                while "cluster_state:ok" not in str(behind.execute_command("CLUSTER", "INFO")):
                    await asyncio.sleep(0.05)
            store = on_server(server.url())()
            ledger, other = store.open(), Purse("router", "total", 5000)
            assert await ledger.reserve(entry(), [PURSE, other]) == ROOM
            assert await ledger.settle("c", 1, PAID)
            await ledger.reserve(entry("elsewhere", lease_s=-1.0), [PURSE, other])
            assert [await ledger.spent_micros(purse) for purse in (PURSE, other)] == [110, 110]
            with server.client() as behind:
                assert len({behind.execute_command("CLUSTER", "KEYSLOT", key) for key in behind.scan_iter()}) == 1
            await ledger.aclose()

    async def test_are_spoken_to_in_secret_and_only_if_they_are_who_they_should_be(self, tmp_path: Path) -> None:
        authority, own, (key, chain) = trustme.CA(), tmp_path / "ca.pem", (tmp_path / "key.pem", tmp_path / "chain.pem")
        issued = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(own)
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(chain)
        files = ["--tls-cert-file", str(chain), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
        with RedisServer(tmp_path, *files, "--tls-ca-cert-file", str(own), scheme="rediss") as server:
            for url in (server.url(), server.url(f"ssl_ca_certs={own}").replace("127.0.0.1", "localhost")):
                ledger = RedisLedger(url)
                with pytest.raises(LedgerUnavailable, match=r"(?i)certificate"):
                    await ledger.reserve(entry(), [PURSE])
                await ledger.aclose()
            ledger = RedisLedger(server.url(f"ssl_ca_certs={own}").replace("rediss", "valkeys"))
            assert await ledger.reserve(entry(), [PURSE]) == ROOM
            await ledger.aclose()


class TestKeeping:
    async def test_lasts_as_long_as_was_said_and_balances_beyond_their_period(
        self, redis_server: RedisServer, store: OnServer
    ) -> None:
        ledger, total = store.open(kept_s=7 * DAY_S), Purse("router", "total", 5000)
        await ledger.reserve(entry("held", lease_s=600.0), [PURSE, total])
        await ledger.reserve(entry("paid"), [PURSE, total])
        await ledger.settle("paid", 1, PAID)
        await ledger.aclose()
        with redis_server.client() as behind:
            lasts = {key.split(":", 1)[1]: behind.ttl(key) for key in behind.scan_iter(f"{{{store.prefix}}}:*")}
            assert behind.zrange(f"{{{store.prefix}}}:reserved", 0, -1) == [f"{{{store.prefix}}}:entry:held:1"]
        week = int(7 * DAY_S)
        assert week - 60 <= lasts["entry:paid:1"] <= week
        assert week + 540 <= lasts["entry:held:1"] <= week + 600
        assert 62 * DAY_S < lasts["balance:10:2026-11-26:project:billing"] <= 100 * DAY_S
        assert lasts["balance:5:total:router"] == -1

    async def test_settles_an_entry_whose_balance_is_gone_without_making_one(
        self, redis_server: RedisServer, store: OnServer
    ) -> None:
        ledger = store.open()
        await ledger.reserve(entry(), [PURSE])
        with redis_server.client() as behind:
            behind.delete(*store.keys(behind, "balance"))
        assert await ledger.settle("c", 1, PAID)
        assert await ledger.spent_micros(PURSE) == 0
        assert not store.balances()
        await ledger.aclose()


class TestRecovery:
    async def test_waits_for_the_lease_and_for_the_process(self, redis_server: RedisServer, store: OnServer) -> None:
        now = [1000.0]
        ledger = store.open(clock=lambda: now[0])
        for call in ("ours", "far", "gone", "settled"):
            await ledger.reserve(entry(call, worst=50, lease_s=60.0), [PURSE])
        await ledger.settle("settled", 1, PAID)
        with redis_server.client() as behind:
            process = str(behind.hget(f"{{{store.prefix}}}:entry:ours:1", "process"))
            behind.hset(f"{{{store.prefix}}}:entry:far:1", "process", f"far{process}")
            behind.hset(f"{{{store.prefix}}}:entry:gone:1", "process", re.sub(r"\d+$", "1", process))
            behind.hset(f"{{{store.prefix}}}:entry:settled:1", "process", f"far{process}")
            behind.zadd(f"{{{store.prefix}}}:reserved", {f"{{{store.prefix}}}:entry:settled:1": 0.0})  # as in a race
            now[0] += 59
            assert await ledger.recover() == 0
            now[0] += 1
            assert await ledger.recover() == 2
            assert await ledger.recover() == 0
            assert behind.zrange(f"{{{store.prefix}}}:reserved", 0, -1) == [f"{{{store.prefix}}}:entry:ours:1"]
        told = {each["call"]: (each["state"], each.get("error"), each.get("latency_s")) for each in store.entries()}
        assert told["ours"][:2] == ("reserved", None)
        assert told["far"] == ("estimated", "lease_ended", "60.000")
        assert told["gone"] == ("estimated", "process_ended", "60.000")
        assert told["settled"][0] == "settled"
        assert told["settled"][2] == "0.0"
        assert [await ledger.settle(call, 1, PAID) for call in ("far", "ours")] == [False, True]
        assert await ledger.spent_micros(PURSE) == 120
        await ledger.aclose()
        adds_up(store)

    async def test_takes_very_many_in_parts(self, quick_server: RedisServer) -> None:
        store = on_server(quick_server.url())()
        ledger, purse = store.open(), Purse("router", "total", 10**6)
        for n in range(AT_ONCE + 50):
            await ledger.reserve(entry(f"c{n}", lease_s=-1.0), [purse])
        with quick_server.client() as behind, behind.pipeline() as together:
            for key in store.keys(behind, "entry"):
                together.hset(key, "process", "elsewhere/1/1")
            together.execute()
        assert await ledger.recover() == AT_ONCE + 50
        assert {each["state"] for each in store.entries()} == {"estimated"}
        await ledger.aclose()
        adds_up(store)


class TestConnections:
    def test_end_with_their_loops_or_before(self, redis_server: RedisServer, store: OnServer) -> None:
        ledger = RedisLedger(redis_server.url(f"client_name={store.prefix}"), prefix=store.prefix)

        async def work(closes: bool) -> int:
            await asyncio.gather(*(ledger.spent_micros(PURSE) for _ in range(40)))
            there = held()
            if closes:
                await ledger.aclose()
                await _until(lambda: not held())
            return there

        def held() -> int:
            return len([each for each in behind.client_list() if each["name"] == store.prefix])

        with redis_server.client() as behind:
            for closes in (True, False):
                assert 0 < asyncio.run(work(closes)) <= 16
                asyncio.run(_until(lambda: not held()))

    def test_of_a_parent_are_not_those_of_a_child(self, redis_server: RedisServer, store: OnServer) -> None:
        script = """
            import asyncio, gc, logging, os, sys
            from devsynth_providers.stores.entries import Purse
            from tests.ledgers import OnServer, entry

            logging.getLogger("asyncio").addFilter(lambda each: not each.getMessage().startswith("Executing"))
            purse = Purse("router", "total", 1000)
            ledger = OnServer(*sys.argv[1:]).open()

            async def reserve(call):
                await ledger.reserve(entry(call), [purse])
                return await ledger.spent_micros(purse)

            async def forget():
                global ledger
                del ledger
                gc.collect()

            def in_child(work):
                child = os.fork()
                if child == 0:
                    asyncio.run(work)
                    os._exit(0)
                work.close()
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

            async def main():
                assert await reserve("parent") == 100
                in_child(reserve("child"))
                assert await ledger.spent_micros(purse) == 200
                assert await reserve("again") == 300
                in_child(forget())
                assert await reserve("and again") == 400
                await ledger.aclose()

            asyncio.run(main())
        """
        command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c"]
        done = subprocess.run(
            [*command, textwrap.dedent(script), redis_server.url("socket_timeout=30"), store.prefix],
            timeout=60,
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def _acknowledged(where: Path) -> int:
    return sum(file.read_text().count("\n") for file in where.glob("told-*"))


def _fill(store: OnServer, number: int, where: str) -> int:
    """Reserve until the purse is full, and write down what was acknowledged; how often the server was not there."""

    async def work(told: TextIO) -> int:
        ledger, purse, disturbed = store.open(), Purse("router", "total", 40_000), 0
        for n in range(100_000):
            try:
                if (await ledger.reserve(entry(f"{number}-{n}"), [purse])).refused:
                    break
            except LedgerUnavailable:
                disturbed += 1
                await asyncio.sleep(0.02)
            else:
                told.write(f"{number}-{n}\n")
        await ledger.aclose()
        return disturbed

    with Path(where, f"told-{number}").open("a", buffering=1) as told:
        return asyncio.run(work(told))
