"""Equal requests of several processes at once are one call, whose answer the others find in the cache."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import ProviderPort, Reply, Request, ResponseCache, Router, StubProvider
from devsynth_providers.layers.wrapper import Wrapper
from devsynth_providers.stores.claims import OVER_S
from devsynth_providers.stores.redis_cache import RedisCache
from devsynth_providers.testing import ScriptedProvider
from devsynth_providers.types import Chunk, Keep

from .conftest import Ask
from .helpers import model, policy
from .points import Points

SECRET = b"s" * 32


def on(place: Path) -> ResponseCache:
    """What another process would have: a cache of its own on the same directory."""
    return ResponseCache(directory=place / "answers", secret=SECRET)


@pytest.fixture(params=["directory", "server"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ResponseCache | RedisCache]:
    """Makes caches in one place: one for each process that would use it."""
    if request.param == "directory":
        return lambda: on(tmp_path)
    url, prefix = request.getfixturevalue("redis_server").url(), uuid.uuid4().hex
    return lambda: RedisCache(url, secret=SECRET, prefix=prefix)


async def close(all_of_them: list[Router]) -> None:
    for router in all_of_them:
        assert isinstance(router._cache, ResponseCache)
        await router._cache.aclose()
        await router.aclose()


class Held(Wrapper):
    """Lets calls through when it is told to."""

    def __init__(self, inner: ProviderPort) -> None:
        super().__init__(inner)
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.asked = 0

    @override
    async def send(self, request: Request) -> Reply:
        self.asked += 1
        self.begun.set()
        await self.go_on.wait()
        return await self.inner.send(request)


async def at_once(
    place: Path, provider: ProviderPort, ask: Callable[[Router], Awaitable[object]]
) -> tuple[list[object], int]:
    """What two routers that share a directory tell, the second of which asks while the first is at it; and how often
    the model was asked."""
    held = Held(provider)
    one, other = [Router(policy(model("m"), cache=Keep()), {"m": held}, cache=on(place)) for _ in range(2)]
    first = asyncio.ensure_future(ask(one))
    await held.begun.wait()
    second = asyncio.ensure_future(ask(other))
    assert isinstance(other._cache, ResponseCache)
    while not other._cache.statistics.misses:  # the file is opened first, which takes as long as it takes
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    held.go_on.set()
    told = await asyncio.gather(first, second, return_exceptions=True)
    await close([one, other])
    return list(told), held.asked


async def test_a_request_waits_for_the_answer_of_an_equal_one_of_another_process(tmp_path: Path, ask: Ask) -> None:
    told, asked = await at_once(
        tmp_path, ScriptedProvider(("a", "b"), "another"), lambda router: ask(router, temperature=0)
    )
    assert (told, asked) == (["ab", "ab"], 1)


async def test_vectors_are_waited_for_too(tmp_path: Path) -> None:
    told, asked = await at_once(tmp_path, StubProvider(), lambda router: router.embed_batch(["a text"]))
    assert told[0] == told[1]
    assert asked == 1


async def test_who_waited_for_an_answer_that_is_not_kept_asks_itself(tmp_path: Path) -> None:
    told, asked = await at_once(
        tmp_path,
        ScriptedProvider(Chunk("cut", finish_reason="length"), "whole"),
        lambda router: router.complete("hi", temperature=0),
    )
    assert [getattr(each, "text", each) for each in told] == ["cut", "whole"]
    assert asked == 2


async def test_the_claim_of_a_cancelled_request_is_over(tmp_path: Path) -> None:
    provider = ScriptedProvider("answer", "another")
    held = Held(provider)
    one, other = [
        Router(policy(model("m"), cache=Keep()), {"m": each}, cache=on(tmp_path)) for each in (held, provider)
    ]
    first = asyncio.ensure_future(one.complete("hi", temperature=0))
    await held.begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await asyncio.wait_for(other.complete("hi", temperature=0), 5)).text == "answer"
    await close([one, other])


async def test_a_rule_that_shares_no_calls_waits_for_none(tmp_path: Path) -> None:
    cache, provider = on(tmp_path), Held(ScriptedProvider("one", "two"))
    alone = policy(model("m"), cache=Keep(), coalesce="never")
    one, other = (Router(alone, {"m": provider}, cache=on(tmp_path)) for _ in range(2))
    asked = [asyncio.ensure_future(router.complete("hi", temperature=0)) for router in (one, other)]
    while provider.asked < 2:
        await asyncio.sleep(0.01)
    provider.go_on.set()
    assert {(await each).text for each in asked} == {"one", "two"}
    await close([one, other])
    await cache.aclose()


async def test_the_trace_says_that_it_waited(tmp_path: Path, spans: Callable[[], list[ReadableSpan]], ask: Ask) -> None:
    await at_once(tmp_path, ScriptedProvider("a"), lambda router: ask(router, temperature=0))
    events = [event for span in spans() for event in span.events if event.name == "cache.waited"]
    assert [event.attributes["model"] for event in events if event.attributes] == ["m"]


async def test_who_waited_is_counted_once_as_what_came_of_it(
    tmp_path: Path, measured: Callable[[], Points], ask: Ask
) -> None:
    def counted() -> tuple[float, float]:
        seen = measured()
        hits, misses = (seen.total("devsynth.cache.requests", devsynth__result=each) for each in ("hit", "miss"))
        return hits, misses

    await at_once(tmp_path / "a", ScriptedProvider("a"), lambda router: ask(router, temperature=0))
    assert counted() == (1, 1)
    await at_once(tmp_path / "b", StubProvider(), lambda router: router.embed_batch(["a text", "another"]))
    assert counted() == (2, 2)
    cut = ScriptedProvider(Chunk("cut", finish_reason="length"), "whole")
    await at_once(tmp_path / "c", cut, lambda router: router.complete("hi", temperature=0))
    assert counted() == (0, 2)


async def test_whoever_shares_a_call_within_a_process_has_missed_too(
    tmp_path: Path, measured: Callable[[], Points]
) -> None:
    held, cache = Held(ScriptedProvider("a")), on(tmp_path)
    router = Router(policy(model("m"), cache=Keep()), {"m": held}, cache=cache)
    both = [asyncio.ensure_future(router.complete("hi", temperature=0)) for _ in range(2)]
    while cache.statistics.misses < 2:
        await asyncio.sleep(0.01)
    held.go_on.set()
    await asyncio.gather(*both)
    seen = measured()
    assert held.asked == 1
    assert seen.total("devsynth.cache.requests", devsynth__result="miss") == 2
    assert seen.total("devsynth.cache.requests", devsynth__result="hit") == 0
    await close([router])


class TestAClaim:
    async def test_is_one_processes_until_it_is_done(self, opened: Callable[[], ResponseCache | RedisCache]) -> None:
        one, other = opened(), opened()
        claim = await one.claim("tenant", "key", 60)
        assert claim is not None
        assert claim.own
        assert await other.claim("tenant", "key", 60) is None
        another = await other.claim("another tenant", "key", 60)
        assert another is not None
        assert another.own
        claim.done()
        await one.flush()
        late = await other.claim("tenant", "key", 60)
        assert late is not None
        assert not late.own
        await one.aclose()
        await other.aclose()

    async def test_is_not_the_answer(self, opened: Callable[[], ResponseCache | RedisCache]) -> None:
        cache = opened()
        await cache.claim("tenant", "key", 60)
        assert await cache.get("tenant", "key") is None
        await cache.aclose()

    async def test_of_one_who_was_cancelled_is_over(self, opened: Callable[[], ResponseCache | RedisCache]) -> None:
        cache = opened()
        await cache.get("tenant", "key")
        claiming = asyncio.ensure_future(cache.claim("tenant", "key", 60))
        await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        until = asyncio.get_running_loop().time() + 10
        while await cache.claim("tenant", "key", 60) is None:
            assert asyncio.get_running_loop().time() < until
            await asyncio.sleep(0.01)
        await cache.aclose()

    async def test_ends_with_its_time(self, tmp_path: Path) -> None:
        now = [1e9]
        one, other = (ResponseCache(directory=tmp_path, secret=SECRET, clock=lambda: now[0]) for _ in range(2))
        tmp_path.chmod(0o700)
        await one.claim("tenant", "key", 60)
        now[0] += 61
        claim = await other.claim("tenant", "key", 60)
        assert claim is not None
        assert claim.own
        claim.done()
        await other.flush()
        now[0] += OVER_S + 1
        claim = await one.claim("tenant", "key", 60)
        assert claim is not None
        assert claim.own
        await one.aclose()
        await other.aclose()

    def test_ends_with_its_process(self, tmp_path: Path) -> None:
        code = """
            import asyncio, os, sys
            from devsynth_providers import ResponseCache
            async def main():
                cache = ResponseCache(directory=sys.argv[1], secret=b"s" * 32)
                assert (await cache.claim("tenant", "key", 600)).own
                os._exit(0)
            asyncio.run(main())
        """
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "answers")], check=True, env={**os.environ}
        )

        async def mine() -> bool:
            cache = on(tmp_path)
            claim = await cache.claim("tenant", "key", 60)
            await cache.aclose()
            return claim is not None and claim.own

        assert asyncio.run(mine())

    async def test_is_for_everybody_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        cache = on(tmp_path)
        (tmp_path / "answers" / "cache.db").mkdir()
        assert [await cache.claim("tenant", "key", 60) for _ in range(2)] != [None, None]
        await cache.aclose()


@pytest.mark.slow
def test_of_eight_processes_at_once_one_asks(tmp_path: Path) -> None:
    code = """
        import asyncio, os, sys, time
        from pathlib import Path
        from devsynth_providers import FREE, Keep, Model, Policy, ResponseCache, Router, Rule
        from devsynth_providers.testing import ScriptedProvider

        place = Path(sys.argv[1])
        class Counted(ScriptedProvider):
            async def send(self, request):
                with open(place / "asked", "a") as file:
                    file.write("x")
                await asyncio.sleep(0.5)
                return await super().send(request)

        async def main():
            m = Model(name="m", provider="stub", price=FREE)
            policy = Policy(models={"m": m}, rules=(Rule(name="all", models=("m",), cache=Keep()),))
            cache = ResponseCache(directory=place / "answers", secret=b"s" * 32)
            router = Router(policy, {"m": Counted(*["the answer"] * 4, model=m)}, cache=cache)
            (place / f"ready-{os.getpid()}").touch()
            while not (place / "go").exists():
                await asyncio.sleep(0.005)
            for number in range(4):
                assert (await router.complete(f"question {number}", temperature=0)).text == "the answer"
            await cache.aclose()
        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(8)]
    while len(list(tmp_path.glob("ready-*"))) < 8 and all(process.poll() is None for process in processes):
        pass
    (tmp_path / "go").touch()
    assert [process.wait(60) for process in processes] == [0] * 8
    assert (tmp_path / "asked").read_text() == "x" * 4
