"""What processes share, in a file and on a server: no gate lets more through than it may, whoever asks."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from devsynth_providers import ConfigurationError, LimitReached, RateLimits, Reply, Request, Router, Timeouts
from devsynth_providers.errors import ProviderUnavailable
from devsynth_providers.hearsay import Commons
from devsynth_providers.stores.redis_shared import RedisShared
from devsynth_providers.stores.servers import server_key
from devsynth_providers.stores.shared import WINDOW_S, Full, Leave, Quota, Shared, SharedUnavailable
from devsynth_providers.stores.shares import shared_at
from devsynth_providers.stores.sqlite_ledger import SqliteLedger
from devsynth_providers.stores.sqlite_shared import SqliteShared
from devsynth_providers.testing import ScriptedProvider

from .conftest import Ask
from .helpers import model, policy
from .ledgers import entry

M = model("m")


@pytest.fixture(params=["file", "server"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Shared]:
    """Makes what is in one place, once for each process that would use it."""
    if request.param == "file":
        return lambda: SqliteShared(tmp_path / "state" / "shared.sqlite3")
    url, prefix = request.getfixturevalue("redis_server").url(), uuid.uuid4().hex
    return lambda: RedisShared(url, prefix=prefix)


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Where something can be shared."""
    if request.param == "file":
        return lambda: str(tmp_path / "shared.sqlite3")
    return lambda: str(request.getfixturevalue("redis_server").url())


async def asked(shared: Shared, quotas: list[Quota], number: int, tokens: int = 10) -> list[bool]:
    return [isinstance(await shared.enter(quotas, tokens, 60), Leave) for _ in range(number)]


class TestAGate:
    async def test_lets_as_many_requests_through_in_a_minute_as_it_may(self, opened: Callable[[], Shared]) -> None:
        one, other, quotas = opened(), opened(), [Quota("g", requests=3)]
        assert await asked(one, quotas, 2) == [True] * 2
        assert await asked(other, quotas, 2) == [True, False]
        assert await asked(one, [Quota("another", requests=3)], 1) == [True]
        full = await one.enter(quotas, 10, 60)
        assert isinstance(full, Full)
        assert WINDOW_S - 5 < full.wait_s <= WINDOW_S + 1
        await closed(one, other)

    async def test_counts_tokens_as_they_were_expected_and_then_as_they_were(
        self, opened: Callable[[], Shared]
    ) -> None:
        shared, quotas = opened(), [Quota("g", tokens=100)]
        leave = await shared.enter(quotas, 80, 60)
        assert isinstance(leave, Leave)
        assert await asked(shared, quotas, 1, tokens=30) == [False]
        shared.left(quotas, leave, 50)
        await settled(shared)
        assert await asked(shared, quotas, 2, tokens=50) == [True, False]
        await closed(shared)

    async def test_lets_one_through_alone_that_is_more_than_a_minutes(self, opened: Callable[[], Shared]) -> None:
        shared, quotas = opened(), [Quota("g", tokens=100)]
        assert await asked(shared, quotas, 2, tokens=500) == [True, False]
        await closed(shared)

    async def test_has_so_many_at_once_and_room_when_one_has_left(self, opened: Callable[[], Shared]) -> None:
        one, other, quotas = opened(), opened(), [Quota("g", concurrent=2)]
        leave = await one.enter(quotas, 10, 60)
        assert isinstance(leave, Leave)
        assert await asked(other, quotas, 2) == [True, False]
        for _ in range(2):
            one.left(quotas, leave, None)  # said twice, it is over once
        await settled(one)
        assert await asked(other, quotas, 2) == [True, False]
        await closed(one, other)

    async def test_lets_nobody_through_one_who_can_not_pass_all(self, opened: Callable[[], Shared]) -> None:
        shared = opened()
        wide, narrow = Quota("wide", requests=5), Quota("narrow", requests=1)
        assert await asked(shared, [wide, narrow], 3) == [True, False, False]
        full = await shared.enter([wide, narrow], 10, 60)
        assert isinstance(full, Full)
        assert full.number == 1
        assert await asked(shared, [wide], 5) == [True] * 4 + [False]
        await closed(shared)

    async def test_is_not_held_for_longer_than_a_lease(self, opened: Callable[[], Shared]) -> None:
        shared, quotas = opened(), [Quota("g", concurrent=1)]
        assert isinstance(await shared.enter(quotas, 10, 0.2), Leave)
        assert await asked(shared, quotas, 1) == [False]
        await asyncio.sleep(0.25)
        assert await asked(shared, quotas, 1) == [True]
        await closed(shared)

    async def test_has_nobody_in_it_who_was_cancelled_at_the_door(self, opened: Callable[[], Shared]) -> None:
        shared, quotas = opened(), [Quota("g", concurrent=1)]
        await asked(shared, [Quota("other")], 1)
        task = asyncio.ensure_future(shared.enter(quotas, 10, 60))
        await asyncio.sleep(0)
        task.cancel()
        (told,) = await asyncio.gather(task, return_exceptions=True)
        await settled(shared)
        assert await asked(shared, quotas, 1) == [not isinstance(told, Leave)]
        await closed(shared)


async def settled(shared: Shared) -> None:
    """Wait until what nobody waits for is done."""
    if isinstance(shared, RedisShared):
        await shared._background.ended()
    await shared.unwell()


async def closed(*opened: Shared | Router | SqliteLedger) -> None:
    for each in opened:
        await each.aclose()


class TestServers:
    async def test_that_one_found_unwell_are_so_for_all(self, opened: Callable[[], Shared]) -> None:
        one, other = opened(), opened()
        assert await other.unwell() == {}
        one.found("server", 30, "unavailable, HTTP 503")
        one.found("brief", 0.05, "?")
        await settled(one)
        await asyncio.sleep(0.1)
        unwell = await other.unwell()
        assert list(unwell) == ["server"]
        assert 25 < unwell["server"].for_s <= 30
        assert unwell["server"].reason == "unavailable, HTTP 503"
        one.found("server", 5, "sooner")
        await settled(one)
        assert (await other.unwell())["server"].until == unwell["server"].until
        other.found("server", 0, "")
        await settled(other)
        assert await one.unwell() == {}
        await closed(one, other)


@given(
    calls=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 60), st.booleans()), min_size=1, max_size=60),
    requests=st.integers(1, 6) | st.none(),
    tokens=st.integers(20, 120) | st.none(),
)
@settings(max_examples=60, deadline=None)
def test_in_no_minute_does_more_pass_than_allowed(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[tuple[float, int, bool]],
    requests: int | None,
    tokens: int | None,
) -> None:
    now = [1_000_000.25]
    shared = SqliteShared(tmp_path_factory.mktemp("s") / "shared.sqlite3", clock=lambda: now[0])
    passed: list[tuple[float, int]] = []

    async def main() -> None:
        quotas = [Quota("g", requests=requests, tokens=tokens)]
        for after_s, wanted, waits in calls:
            now[0] += after_s
            answer = await shared.enter(quotas, wanted, 60)
            if isinstance(answer, Full) and waits:
                now[0] += answer.wait_s + 1e-6
                answer = await shared.enter(quotas, wanted, 60)
                assert isinstance(answer, Leave), "who has waited as long as was said passes"
            if isinstance(answer, Leave):
                passed.append((now[0], wanted))
        await shared.aclose()

    asyncio.run(main())
    assert passed
    for begin, _ in passed:
        minute = [wanted for at, wanted in passed if begin <= at < begin + 60]
        assert requests is None or len(minute) <= requests
        assert tokens is None or sum(minute) <= tokens or len(minute) == 1


def test_what_a_killed_process_had_under_way_is_over_at_each_gate(place: Callable[[], str]) -> None:
    code = """
        import asyncio, os, signal, sys
        from devsynth_providers.stores.shared import Leave, Quota
        from devsynth_providers.stores.shares import shared_at
        async def main():
            shared = shared_at(sys.argv[1])
            for gate in ("killed", "there too"):
                assert isinstance(await shared.enter([Quota(gate, concurrent=1)], 1, 600), Leave)
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """
    where = place()
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code), where], check=False)
    assert killed.returncode == -signal.SIGKILL

    async def main() -> None:
        shared = shared_at(where)
        gates = [[Quota(gate, concurrent=1)] for gate in ("killed", "there too")]
        if isinstance(shared, RedisShared):
            for quotas in gates:
                full = await shared.enter(quotas, 1, 60)
                assert isinstance(full, Full), "the look for those who have ended comes after"
        for quotas in gates:
            assert await asked(shared, quotas, 2) == [True, False]
        await shared.aclose()

    asyncio.run(main())


class TestARouter:
    async def test_waits_for_its_turn_among_all_processes(self, opened: Callable[[], Shared], ask: Ask) -> None:
        limited = replace(policy(M), limits={"test": RateLimits(concurrent=1)})
        servers = [ScriptedProvider((0.1, "a"), (0.1, "b")) for _ in range(2)]
        places = [opened() for _ in servers]
        routers = [Router(limited, {"m": server}, shared=place) for server, place in zip(servers, places, strict=True)]
        told = await asyncio.gather(*(ask(router) for router in routers for _ in range(2)))
        assert sorted(told) == ["a", "a", "b", "b"]
        await closed(*routers, *places)

    async def test_tells_who_has_no_time_to_wait_at_once(self, opened: Callable[[], Shared]) -> None:
        limited = replace(policy(M), limits={"test": RateLimits(requests_per_minute=1)}, timeouts=Timeouts(total_s=20))
        place, other = opened(), opened()
        one, two = (Router(limited, {"m": ScriptedProvider("a")}, shared=each) for each in (place, other))
        assert await one.generate("hi") == "a"
        with pytest.raises(LimitReached, match="test is asked as much as its limits allow") as refused:
            await two.generate("hi")
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s > 20
        assert [attempt.error for attempt in refused.value.attempts] == ["local_limit"]
        await closed(one, two, place, other)

    async def test_holds_the_limits_of_each_project_too(self, opened: Callable[[], Shared]) -> None:
        each = RateLimits(per_project=RateLimits(requests_per_minute=1))
        limited = replace(policy(M), limits={"m": each}, timeouts=Timeouts(total_s=20))
        places = opened(), opened()
        one, two = (Router(limited, {"m": ScriptedProvider("a", "b")}, shared=each) for each in places)
        assert await one.generate("hi", project="p") == "a"
        with pytest.raises(LimitReached, match="m for p is asked"):
            await two.generate("hi", project="p")
        assert await two.generate("hi", project="q") == "a"
        await closed(one, two, *places)

    async def test_answers_by_its_own_limits_where_the_place_can_not_be_reached(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "shared").mkdir()
        limited = replace(policy(M), limits={"test": RateLimits(concurrent=1)})
        async with Router(limited, {"m": ScriptedProvider("a", "b")}, shared=tmp_path / "shared") as router:
            assert [await router.generate("hi") for _ in range(2)] == ["a", "b"]
        assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
        assert "limits hold for this process alone" in caplog.text

    async def test_leaves_alone_what_another_process_has_found_unwell(self, opened: Callable[[], Shared]) -> None:
        n = model("n", provider="other")
        down = ProviderUnavailable("down", status=503)
        down.retry_after_s = 40.0
        places = opened(), opened()
        scripts = [{"m": ScriptedProvider(down), "n": ScriptedProvider("n")}, {"m": ScriptedProvider("m")}]
        scripts[1]["n"] = ScriptedProvider("n")
        one, two = (Router(policy(M, n), script, shared=place) for script, place in zip(scripts, places, strict=True))
        assert await one.generate("hi") == "n"
        await settled(places[0])
        two._commons.hearsay._looked_at = 0.0  # type: ignore[union-attr]
        two._commons.hearsay.glance(two.policy.models, two._deployments.current.circuits)  # type: ignore[union-attr]
        await two._commons.hearsay.ended()  # type: ignore[union-attr]
        assert await two.generate("hi") == "n"
        assert not scripts[1]["m"].requests
        assert "HTTP 503" in two.plan("hi").rejected[0].reason
        await closed(one, two, *places)

    async def test_hears_of_a_finding_once(self, opened: Callable[[], Shared]) -> None:
        shared = opened()
        router = Router(policy(M), {"m": ScriptedProvider("a")}, shared=shared)
        circuits, models = router._deployments.current.circuits, router.policy.models
        shared.found(server_key(M, "model"), 30, "down")
        await settled(shared)
        hearsay = Commons(shared).hearsay
        await hearsay._look(models, circuits)
        assert circuits["m"].refuses
        circuits["m"]._breaker._close(0.0)
        await hearsay._look(models, circuits)
        assert not circuits["m"].refuses
        await closed(router, shared)

    async def test_asks_a_server_again_that_others_have_found_well_before_its_time(
        self, opened: Callable[[], Shared], ask: Ask
    ) -> None:
        shared, other = opened(), opened()
        router = Router(policy(M), {"m": ScriptedProvider("a")}, shared=shared)
        circuits, models = router._deployments.current.circuits, router.policy.models
        hearsay = Commons(shared).hearsay
        for _ in range(2):
            other.found(server_key(M, "model"), 30, "down")
            await settled(other)
            await hearsay._look(models, circuits)
            assert circuits["m"].refuses
            other.found(server_key(M, "model"), 0, "")
            await settled(other)
            await hearsay._look(models, circuits)
            assert circuits["m"].closed
        assert await ask(router) == "a"
        await closed(router, shared, other)


class TestAPlace:
    def test_is_a_file_or_the_url_of_a_server(self, tmp_path: Path) -> None:
        assert isinstance(shared_at(tmp_path / "shared"), SqliteShared)
        assert isinstance(shared_at("redis://127.0.0.1:1/0"), RedisShared)
        with pytest.raises(ConfigurationError, match="URL of a server"):
            shared_at("http://127.0.0.1")

    async def test_of_another_version_is_not_used(self, tmp_path: Path) -> None:
        file = tmp_path / "shared"
        first = SqliteShared(file)
        await first.unwell()
        await first.aclose()
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA user_version = 7")
        other = SqliteShared(file)
        with pytest.raises(SharedUnavailable, match="version 7"):
            await other.unwell()
        await other.aclose()

    async def test_is_no_ledgers_and_a_ledger_is_in_none(self, tmp_path: Path) -> None:
        ledger, shared = SqliteLedger(tmp_path / "ledger"), SqliteShared(tmp_path / "shared")
        await ledger.reserve(entry("a"))
        await shared.unwell()
        await closed(ledger, shared)
        shared, ledger = SqliteShared(tmp_path / "ledger"), SqliteLedger(tmp_path / "shared")
        with pytest.raises(SharedUnavailable, match="name another file"):
            await shared.unwell()
        with pytest.raises(ConfigurationError, match="name another file"):
            await ledger.reserve(entry("a"))
        await closed(ledger, shared)

    async def test_whose_clock_was_far_ahead_is_not_closed_until_then(self, tmp_path: Path) -> None:
        now, quotas = [2e9], [Quota("g", requests=1)]
        shared = SqliteShared(tmp_path / "shared", clock=lambda: now[0])
        assert await asked(shared, quotas, 2) == [True, False]
        now[0] -= 86_400
        assert await asked(shared, quotas, 2) == [True, False]
        await closed(shared)

    async def test_asks_for_no_more_work_where_there_are_many_gates(self, tmp_path: Path) -> None:
        async def steps(gates: int) -> int:
            """What SQLite does for one call, in instructions."""
            shared = SqliteShared(tmp_path / str(gates), clock=lambda: 1e9)
            for number in range(gates):
                await shared.enter([Quota(f"g{number:04}")], 1, 60)
            done = [0]

            def count() -> None:
                done[0] += 1

            await shared.unwell()
            shared._database.opened().set_progress_handler(count, 1)
            await shared.enter([Quota("h")], 1, 60)
            await closed(shared)
            return done[0]

        assert await steps(1000) <= 1.5 * await steps(10)

    async def test_keeps_nothing_for_long_of_gates_that_nobody_asks_at(self, tmp_path: Path) -> None:
        now = [1e9]
        shared = SqliteShared(tmp_path / "shared", clock=lambda: now[0])
        for number in range(50):
            await shared.enter([Quota(f"g{number}")], 1, 60)
        now[0] += WINDOW_S + 2
        for _ in range(52):
            await shared.enter([Quota("h")], 1, 60)
        await shared.aclose()
        with closing(sqlite3.connect(tmp_path / "shared")) as database:
            for table in ("passed", "under_way"):
                assert database.execute(f"SELECT DISTINCT gate FROM {table}").fetchall() == [("h",)]

    async def test_on_a_server_that_is_away_is_told_in_bounded_time(self, tmp_path: Path) -> None:
        shared = RedisShared("redis://127.0.0.1:1/0")
        with pytest.raises(SharedUnavailable, match="can not be used"):
            await shared.enter([Quota("g")], 1, 1)
        shared.found("server", 1, "nobody hears it")
        await shared.aclose()

    def test_tells_nobody_which_servers_there_are_nor_on_whose_account(self) -> None:
        secret = model("m", base_url="https://user:pass@inside.example:8080/v1", api_key_env="TEAM_KEY")
        keys = {server_key(secret, "provider"), server_key(secret, "model"), server_key(secret, "model", "for p")}
        assert len(keys) == 3
        assert not any(word in key for key in keys for word in ("inside", "pass", "TEAM"))
        assert server_key(secret, "provider") == server_key(replace(secret, name="n"), "provider")


@pytest.mark.slow
def test_four_processes_never_have_more_under_way_than_the_limits_of_one(place: Callable[[], str]) -> None:
    """Each asks twenty times as fast as it can; three may be under way at once."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        spans = [span for each in pool.map(_twenty, [place()] * 4) for span in each]
    assert len(spans) == 80
    changes = sorted([(begun, 1) for begun, _ in spans] + [(ended, -1) for _, ended in spans])
    running, most = 0, 0
    for _, change in changes:
        running += change
        most = max(most, running)
    assert most <= 3


def _twenty(place: str) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []

    class Timed(ScriptedProvider):
        @override
        async def send(self, request: Request) -> Reply:
            begun = time.monotonic()
            await asyncio.sleep(0.01)
            spans.append((begun, time.monotonic()))
            return await super().send(request)

    async def main() -> None:
        limited = replace(policy(M), limits={"test": RateLimits(concurrent=3)})
        async with Router(limited, {"m": Timed(*["a"] * 20)}, shared=place) as router:
            await asyncio.gather(*(router.generate("hi") for _ in range(20)))

    asyncio.run(main())
    return spans
