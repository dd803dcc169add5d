"""What a router holds does not grow with calls, event loops, threads or keys; and what closing it does and does not."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devsynth_providers import Health, ProviderError, RateLimits, StreamInterrupted, Timeouts
from devsynth_providers.limits import Limiter
from devsynth_providers.measured import Measured

from .holdings import (
    ASKING,
    Asking,
    by_what_is_asked,
    descriptors,
    descriptors_fall_to,
    held,
    provider,
    router,
    settled,
)
from .loopback import Answer, Loopback, delta, sse

pytestmark = [pytest.mark.slow, pytest.mark.loads_litellm, pytest.mark.usefixtures("counted")]

AT_ONCE = 30
KEYS = 150
LOOPS = 50


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(keep_alive=True) as loopback:
        yield loopback.script(by_what_is_asked)


class TestWhatDoesNotGrow:
    @pytest.mark.timeout(600)
    @pytest.mark.parametrize(("lane", "calls"), [("direct", 10_000), ("unified", 600)])
    async def test_with_calls(self, server: Loopback, lane: str, calls: int) -> None:
        patient = Timeouts(connect_s=60, first_token_s=300, idle_s=300, total_s=300)  # a busy machine is no fault
        mine = router(server, lane, limits={"m": RateLimits(concurrent=AT_ONCE)}, timeouts=patient)
        kinds = list(ASKING.values())
        numbers = iter(range(calls))
        halves = []

        async def caller() -> None:
            for number in numbers:
                await kinds[number % 3](mine)
                if number == calls // 2:
                    halves.append(descriptors())

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(caller())
        await settled()
        assert len(server.requests) == calls
        assert server.connections <= 2 * AT_ONCE  # some may have been idle for too long at a standstill
        assert descriptors() <= halves[0] + 1
        now = held()
        assert (now.tasks, now.answers, now.sessions) == (1, 0, 1)
        assert now.timers <= 2  # aiohttp's, for connections that nobody uses any more
        await mine.aclose()
        assert held().sessions == 0

    @pytest.mark.parametrize(
        "closing", ["closed", "closed in a later loop", "left", "left by a loop that is just closed"]
    )
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # as asyncio and Python say of the last of those
    def test_with_event_loops(self, server: Loopback, lane: str, closing: str) -> None:
        mine = router(server, lane)

        async def ask() -> None:
            for kind in ASKING.values():
                await kind(mine)
            if closing == "closed":
                await mine.aclose()

        def run() -> None:
            if closing != "left by a loop that is just closed":
                asyncio.run(ask())
                return
            loop = asyncio.new_event_loop()
            loop.run_until_complete(ask())
            loop.close()

        run()
        run()
        before = held()
        for _ in range(LOOPS):
            run()
            if closing == "closed in a later loop":
                asyncio.run(mine.aclose())
        after = held()
        assert (after.threads - threads_of(server)) <= before.threads
        assert descriptors_fall_to(before.descriptors + 2 * (closing == "left by a loop that is just closed"))
        assert (after.answers, after.sessions) == (0, before.sessions)
        asyncio.run(ask())
        gc.collect()  # what was left by a loop that is just closed is found by the next, and complained of here

    def test_with_threads_that_have_routers_of_their_own(self, server: Loopback, lane: str) -> None:
        def work(number: int) -> None:
            mine = router(server, lane)
            assert mine.sync.generate("hi") == "w0 w1 w2"
            assert "".join(mine.sync.generate_stream("hi")) == "w0 w1 w2"
            if number % 2:  # the others are forgotten
                mine.sync.close()

        def all_of_them(numbers: range) -> None:
            threads = [threading.Thread(target=work, args=(number,)) for number in numbers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        all_of_them(range(4))
        wait_until_flat(2)
        before = descriptors()
        for ten in range(5):
            all_of_them(range(ten * 10, ten * 10 + 10))
        wait_until_flat(2)
        assert descriptors_fall_to(before + 2)

    @pytest.mark.parametrize("closing", [True, False])
    async def test_with_keys(self, server: Loopback, lane: str, closing: bool) -> None:
        async def use(number: int) -> None:
            mine = provider(server, lane, key=f"sk-{number:020}")
            assert await mine.generate("hi") == "w0 w1 w2"
            if closing:
                await mine.aclose()

        await use(0)
        await settled()
        before = held()
        for number in range(1, KEYS + 1):
            await use(number)
        await settled()
        after = held()
        assert len({headers["authorization"] for headers in server.headers}) == KEYS + 1
        assert descriptors_fall_to(before.descriptors + 1)
        assert after.sessions == before.sessions
        last = provider(server, lane)
        await last.generate("hi")
        await last.aclose()
        await settled()
        assert held().sessions == 0


def threads_of(server: Loopback) -> int:
    """The server's own, one for each connection, which end a moment after it."""
    return sum("_welcome" in thread.name for thread in threading.enumerate())


def wait_until_flat(loops: int) -> None:
    """Forgotten loops end in threads of their own."""
    gc.collect()
    deadline = threading.Event()
    for _ in range(300):
        if sum(thread.name == "devsynth-providers" for thread in threading.enumerate()) <= loops:
            return
        deadline.wait(0.1)
    raise AssertionError("loops that were forgotten do not end")


SCRIPT = """
import asyncio, logging, os, sys, threading
from devsynth_providers import *
from tests.holdings import ASKING, by_what_is_asked, router
from tests.loopback import Loopback
logging.getLogger("asyncio").addFilter(lambda each: not each.getMessage().startswith("Executing"))  # slow machines
how, lane = sys.argv[1:]
os.environ["TEST_KEY"] = "sk-canary-0123456789abcdef"
server = Loopback(keep_alive=True).script(by_what_is_asked)
mine = router(server, lane)
async def ask():
    for kind in ASKING.values():
        await kind(mine)
    async for piece in mine.generate_stream("hi"):
        break
    if how == "closed":
        await mine.aclose()
if how == "threads":
    threads = [threading.Thread(target=mine.sync.generate, args=("hi",)) for _ in range(20)]
    for each in threads: each.start()
    for each in threads: each.join()
    stream = mine.sync.generate_stream("hi")
    next(stream)
else:
    for _ in range(5):
        asyncio.run(ask())
print("done")
"""


@pytest.mark.parametrize("how", ["closed", "left", "threads"])
def test_nothing_is_said_when_the_interpreter_ends(lane: str, how: str) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", SCRIPT, how, lane]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=110, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


class TestClosing:
    async def test_it_may_be_closed_twice_and_used_again(self, server: Loopback, lane: str, asking: Asking) -> None:
        mine = router(server, lane)
        for _ in range(2):
            assert await asking(mine)
            await mine.aclose()
            await mine.aclose()
            assert held().sessions == 0
        await asyncio.gather(mine.aclose(), mine.aclose())

    async def test_calls_under_way_end_at_once_and_are_asked_of_nobody_else(
        self, server: Loopback, lane: str, asking: Asking
    ) -> None:
        hanging = (Answer([b"{"], then="hang"), sse(delta("w0 "), then="hang"))
        server.script(lambda body: hanging[bool(body.get("stream"))])
        health = Health()
        mine = router(server, lane, "a", "b", health=health)
        calls = [asyncio.ensure_future(asking(mine)) for _ in range(10)]
        while len(server.requests) < 10:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await mine.aclose()
        async with asyncio.timeout(30):
            failed = await asyncio.gather(*calls, return_exceptions=True)
        assert {(type(each).kind, each.code) for each in failed if isinstance(each, ProviderError)} <= {
            ("unavailable", "closed"),
            (StreamInterrupted.kind, "closed"),
        }
        assert all(isinstance(each, ProviderError) for each in failed)
        assert len(server.requests) == 10
        assert mine.plan("hi").models == ("a", "b")  # the server is no worse for it
        assert held().sessions == 0

    async def test_one_of_two_that_share_what_they_know_does_not_close_the_other(
        self, server: Loopback, lane: str, asking: Asking
    ) -> None:
        shared = {"health": Health(), "measured": Measured(), "limiter": Limiter()}
        one, other = (router(server, lane, limits={"m": RateLimits(concurrent=2)}, **shared) for _ in range(2))
        await asyncio.gather(asking(one), asking(other))
        calls = [asyncio.ensure_future(asking(other)) for _ in range(6)]
        await asyncio.sleep(0)
        await one.aclose()
        assert all(await asyncio.gather(*calls))
        await other.aclose()
        assert held().sessions == 0


@pytest.fixture(params=list(ASKING))
def asking(request: pytest.FixtureRequest) -> Asking:
    return ASKING[request.param]


class TestThreads:
    def test_one_router_serves_loops_in_many_threads_at_once(self, server: Loopback, lane: str) -> None:
        mine = router(server, lane, limits={"m": RateLimits(concurrent=4)})
        failed: list[BaseException] = []

        def work() -> None:
            async def ask() -> None:
                await asyncio.gather(*(kind(mine) for kind in ASKING.values() for _ in range(3)))

            try:
                asyncio.run(ask())
            except BaseException as error:  # noqa: BLE001 - whatever it is
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert failed == []
        assert len(server.requests) == 12 * 9
        assert held().sessions == 0

    async def test_code_that_blocks_a_loop_asks_from_inside_it(self, server: Loopback, lane: str) -> None:
        mine = router(server, lane)
        assert mine.sync.generate("hi") == "w0 w1 w2"
        assert "".join(mine.sync.generate_stream("hi")) == "w0 w1 w2"
        assert await mine.generate("hi") == "w0 w1 w2"
        mine.sync.close()
        await mine.aclose()
        assert held().sessions == 0

    def test_twenty_threads_ask_through_one_loop(self, server: Loopback, lane: str) -> None:
        mine = router(server, lane)
        texts: list[str] = []

        def work() -> None:
            texts.append(mine.sync.generate("hi"))
            texts.append("".join(mine.sync.generate_stream("hi")))

        threads = [threading.Thread(target=work) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert texts == ["w0 w1 w2"] * 40
        assert sum(thread.name == "devsynth-providers" for thread in threading.enumerate()) == 1
        mine.sync.close()
        assert sum(thread.name == "devsynth-providers" for thread in threading.enumerate()) == 0
        assert held().sessions == 0
