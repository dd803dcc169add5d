"""The cache on a server: what was kept comes back to whoever kept it, on any host, and to nobody else."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from typing_extensions import override

from devsynth_providers import ConfigurationError, Keep, Router, StubProvider
from devsynth_providers.stores.redis_cache import RedisCache
from devsynth_providers.testing import ScriptedProvider

from .conftest import Ask
from .helpers import model, policy
from .servers import RedisServer

SECRET = b"s" * 32


@pytest.fixture
def opened(redis_server: RedisServer) -> Callable[..., RedisCache]:
    prefix = uuid.uuid4().hex

    def opened(**options: Any) -> RedisCache:
        return RedisCache(redis_server.url(), prefix=prefix, **{"secret": SECRET, **options})

    return opened


async def test_what_one_host_keeps_another_finds(opened: Callable[..., RedisCache]) -> None:
    one, other = opened(), opened()
    value = {"text": "é ½ \u2028", "chunks": [["a", None], ["b", "stop"]], "number": 1.5}
    await one.set("tenant", "key", value)
    assert await other.get("tenant", "key") == value
    assert await other.get("another", "key") is None
    assert (other.statistics.hits, other.statistics.misses) == (1, 1)
    await one.aclose()
    await other.aclose()


async def test_what_is_put_is_there_after_a_flush(opened: Callable[..., RedisCache]) -> None:
    cache = opened()
    for number in range(20):
        cache.put("tenant", f"key {number}", number)
    await cache.flush()
    assert await cache.get_many("tenant", [f"key {number}" for number in range(20)]) == {
        f"key {number}": number for number in range(20)
    }
    await cache.aclose()


class Slow(RedisCache):
    """What it keeps is on its way for a while, as a large answer is."""

    @override
    async def set(self, scope: str, key: str, value: Any, ttl: float | None = None) -> None:
        await asyncio.sleep(0.1)
        await super().set(scope, key, value, ttl)


async def test_a_claim_is_over_when_the_answer_is_there(redis_server: RedisServer) -> None:
    slow = Slow(redis_server.url(), secret=SECRET, prefix=uuid.uuid4().hex)
    claim = await slow.claim("tenant", "key", 60)
    assert claim is not None
    slow.put("tenant", "key", "answer")
    claim.done()
    while await slow.claim("tenant", "key", 60) is None:
        await asyncio.sleep(0.01)
    assert await slow.get("tenant", "key") == "answer"
    await slow.aclose()


async def test_what_is_over_is_a_miss(opened: Callable[..., RedisCache]) -> None:
    now = [1e9]
    cache = opened(clock=lambda: now[0])
    await cache.set("tenant", "key", 1, ttl=60)
    assert await cache.get("tenant", "key") == 1
    now[0] += 61
    assert await cache.get("tenant", "key") is None
    await cache.aclose()


async def test_who_has_another_key_finds_nothing_and_overwrites_nothing(opened: Callable[..., RedisCache]) -> None:
    ours, theirs = opened(), opened(secret=b"t" * 32)
    await ours.set("tenant", "key", "ours")
    assert await theirs.get("tenant", "key") is None
    await theirs.set("tenant", "key", "theirs")
    assert await ours.get("tenant", "key") == "ours"
    await ours.aclose()
    await theirs.aclose()


async def test_what_somebody_has_changed_or_moved_is_a_miss(
    opened: Callable[..., RedisCache], redis_server: RedisServer
) -> None:
    cache = opened()
    await cache.set("tenant", "key", "ours")
    await cache.set("tenant", "another", "moved")
    client = redis_server.client()
    row, other = cache._row("tenant", "key"), cache._row("tenant", "another")
    moved = str(client.get(other))
    whole = str(client.get(row))
    for changed in (whole.replace("ours", "evil"), "", "zz" * 40, whole[:10], moved, "é" * 100):
        client.set(row, changed)
        assert await cache.get("tenant", "key") is None
    assert cache.statistics.refused == 6
    client.set(row, whole)
    assert await cache.get("tenant", "key") == "ours"
    await cache.aclose()


async def test_neither_tenants_nor_keys_can_be_read_from_the_server(
    opened: Callable[..., RedisCache], redis_server: RedisServer
) -> None:
    cache = opened()
    await cache.set("canary tenant", "canary key", "value")
    names = [str(name) for name in redis_server.client().scan_iter("*")]
    assert any(name.startswith(cache._prefix) for name in names)
    assert not any("canary" in name for name in names)
    await cache.aclose()


async def test_one_tenant_can_be_forgotten_or_all(opened: Callable[..., RedisCache]) -> None:
    cache = opened()
    for scope in ("one", "two"):
        for key in ("a", "b"):
            await cache.set(scope, key, 1)
    assert await cache.clear("one") == 2
    assert await cache.get("two", "a") == 1
    assert await cache.clear() == 2
    assert await cache.get("two", "a") is None
    await cache.aclose()


async def test_a_server_that_is_away_fails_no_call(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    cache = RedisCache("redis://:canary-password@127.0.0.1:1/0", secret=SECRET)
    router = Router(policy(model("m"), cache=Keep()), {"m": ScriptedProvider("a", "b")}, cache=cache)
    assert [await ask(router, temperature=0) for _ in range(2)] == ["a", "b"]
    assert caplog.text.count("answers are not kept") == 1
    assert "canary" not in caplog.text
    assert cache.statistics.dropped
    await router.aclose()
    await cache.aclose()


async def test_a_router_takes_the_url_of_a_server(redis_server: RedisServer, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    policy_with_cache = policy(model("m"), cache=Keep())
    answers = []
    for _ in range(2):
        async with Router(policy_with_cache, {"m": StubProvider()}, cache=redis_server.url()) as router:
            answers.append(await router.complete(f"hi {tmp_path}", temperature=0))
            assert isinstance(router._opened_cache, RedisCache)
            await router._opened_cache.flush()
    assert [answer.cached for answer in answers] == [False, True]


def test_a_url_that_is_none_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match="URL of a server"):
        RedisCache("http://127.0.0.1", secret=SECRET)
    with pytest.raises(ConfigurationError, match="ttl"):
        RedisCache("redis://127.0.0.1", 0, secret=SECRET)
