"""Answers that were given before: the same pieces, at once, for nothing, and only to whom they belong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import (
    AuthenticationError,
    ChatRequest,
    ConfigurationError,
    EmbedRequest,
    Model,
    RequestRejected,
    ResponseCache,
    Retry,
    Router,
    StreamInterrupted,
)
from devsynth_providers.errors import ProviderUnavailable
from devsynth_providers.layers.cached import Cached
from devsynth_providers.stores.ledger_reader import By, read_ledger
from devsynth_providers.testing import ScriptedProvider
from devsynth_providers.types import Chunk, Keep, Tenant, ToolCallPart, Usage, fingerprint

from .conftest import Ask
from .helpers import PRICED, model, policy

PRICEY = model("m", price=PRICED)


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[ResponseCache]:
    kept = ResponseCache(directory=tmp_path / "answers", secret=b"s" * 32)
    yield kept
    await kept.aclose()


def router(cache: ResponseCache, provider: ScriptedProvider, keep: Keep = Keep(), facts: Model = PRICEY) -> Router:
    return Router(policy(facts, cache=keep), {facts.name: provider}, cache=cache)


async def test_an_equal_request_is_answered_from_the_cache(ask: Ask, cache: ResponseCache) -> None:
    provider = ScriptedProvider(("a", "b"))
    asked = router(cache, provider)
    assert [await ask(asked, temperature=0) for _ in range(3)] == ["ab", "ab", "ab"]
    assert len(provider.requests) == 1


async def test_a_kept_answer_says_so_and_costs_nothing(cache: ResponseCache) -> None:
    asked = router(cache, ScriptedProvider("x", usage=Usage(10, 20)))
    first, second = [await asked.complete("hi", temperature=0) for _ in range(2)]
    assert (first.cached, first.cost_usd, len(first.attempts)) == (False, 0.0007, 1)
    assert (second.cached, second.cost_usd, second.cost_basis, second.attempts) == (True, 0.0, "free", ())
    assert (second.text, second.finish_reason, second.model, second.usage) == ("x", "stop", "m", Usage(10, 20))
    assert not second.degraded


async def test_an_answer_of_two_halves_is_of_no_model_and_not_kept(cache: ResponseCache) -> None:
    lost = ProviderUnavailable("the connection was lost")
    provider = ScriptedProvider(("half an ", lost), "answer", ("half an ", lost), "apple")
    asked = Router(policy(PRICEY, cache=Keep(), on_break="continue"), {"m": provider}, cache=cache)
    told = ["".join([piece async for piece in asked.generate_stream("hi", temperature=0)]) for _ in range(2)]
    assert told == ["half an answer", "half an apple"]


async def test_pieces_come_as_they_came(cache: ResponseCache) -> None:
    asked = router(cache, ScriptedProvider(("one ", "two ", "three")))
    told = [[piece async for piece in asked.generate_stream("hi", temperature=0)] for _ in range(2)]
    assert told == [["one ", "two ", "three"]] * 2


async def test_tool_calls_are_kept_whole(cache: ResponseCache) -> None:
    call = (
        Chunk(tool_calls=(ToolCallPart(0, "id", "f", '{"a":'),)),
        Chunk(tool_calls=(ToolCallPart(0, arguments="1}"),)),
    )
    asked = router(cache, ScriptedProvider((*call, Chunk(finish_reason="tool_calls"))))
    first, second = [await asked.complete("hi", temperature=0) for _ in range(2)]
    assert second.cached
    assert second.tool_calls == first.tool_calls
    assert second.tool_calls[0].arguments == '{"a":1}'


async def test_another_tenant_or_another_request_is_asked_anew(cache: ResponseCache) -> None:
    about: list[dict[str, Any]] = [
        {},
        {"project": "a"},
        {"project": "b"},
        {"role": "a"},
        {"project": "None"},
        {"max_tokens": 5},
        {"stop_sequences": ["x"]},
        {"seed": 1},
        {"system_prompt": "be short"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"extra_body": {"a": [1, {"b": None}]}},
    ]
    provider = ScriptedProvider(*[f"{number}" for number in range(len(about))])
    asked = router(cache, provider)
    for _ in range(2):
        assert [await asked.generate("hi", 0, **each) for each in about] == [f"{n}" for n in range(len(about))]
    assert len(provider.requests) == len(about)


async def test_what_is_drawn_by_chance_is_kept_only_where_that_is_said(ask: Ask, cache: ResponseCache) -> None:
    provider = ScriptedProvider("a", "b", "c")
    asked = router(cache, provider)
    assert [await ask(asked), await ask(asked)] == ["a", "b"]
    sampled = router(cache, provider, Keep(sampled=True))
    assert [await ask(sampled), await ask(sampled)] == ["c", "c"]


@pytest.mark.parametrize("finish", ["length", "content_filter", "made_up"])
async def test_an_answer_that_is_not_whole_is_not_kept(ask: Ask, cache: ResponseCache, finish: str) -> None:
    provider = ScriptedProvider(("a", Chunk(finish_reason=finish)), "b")
    asked = router(cache, provider)
    assert [await ask(asked, temperature=0) for _ in range(3)] == ["a", "b", "b"]


async def test_an_answer_that_broke_off_or_was_left_is_not_kept(cache: ResponseCache) -> None:
    provider = ScriptedProvider(("a", ProviderUnavailable("cut")), ("a", "b"), "whole")
    asked = Router(policy(PRICEY, cache=Keep(), coalesce="never"), {"m": provider}, cache=cache)
    with pytest.raises(StreamInterrupted):
        async for _ in asked.generate_stream("hi", temperature=0):
            pass
    async for _ in asked.generate_stream("hi", temperature=0):
        break
    assert await asked.generate("hi", temperature=0) == "whole"


async def test_of_texts_to_embed_only_the_new_ones_are_asked_for(cache: ResponseCache) -> None:
    provider = ScriptedProvider("", "", vectors=lambda text: (float(len(text)), 0.5))
    asked = router(cache, provider)
    assert await asked.embed_batch(["a", "bb"]) == [[1, 0.5], [2, 0.5]]
    assert await asked.embed_batch(["ccc", "bb", "ccc", "a"]) == [[3, 0.5], [2, 0.5], [3, 0.5], [1, 0.5]]
    assert await asked.embed("bb") == [2, 0.5]
    assert [each.text for each in provider.requests] == ["a\nbb", "ccc"]


def vector(text: str) -> tuple[float, ...]:
    return (float(len(text)), 0.5)


async def test_where_new_texts_fail_the_error_has_the_vectors_that_are_kept(cache: ResponseCache) -> None:
    provider = ScriptedProvider("", AuthenticationError("no", status=403), vectors=vector)
    asked = router(cache, provider)
    await asked.embed_batch(["a", "bb"])
    with pytest.raises(AuthenticationError) as raised:
        await asked.embed_batch(["ccc", "bb", "ccc", "a", "dddd"])
    assert raised.value.vectors == (None, vector("bb"), None, vector("a"), None)
    assert {place: str(each) for place, each in raised.value.failures.items()} == {0: "no", 2: "no", 4: "no"}


async def test_what_is_kept_of_several_models_together_is_an_answer(cache: ResponseCache) -> None:
    down = ProviderUnavailable("down", status=503)
    a, b = replace(PRICEY, name="a", model="e"), replace(PRICEY, name="b", model="e", provider="other")
    far = {
        "a": ScriptedProvider("", down, down, model=a, vectors=vector),
        "b": ScriptedProvider("", down, model=b, vectors=vector),
    }
    asked = Router(policy(a, b, cache=Keep(), retry=Retry(attempts=1)), far, cache=cache)
    await asked.embed_batch(["x"])
    await asked.embed_batch(["yy"])
    response = await asked.complete(EmbedRequest(texts=("x", "yy")))
    assert response.vectors == (vector("x"), vector("yy"))
    assert (response.usage, [attempt.error for attempt in response.attempts]) == (Usage(), ["unavailable"] * 2)


@pytest.mark.parametrize("request_", [EmbedRequest(texts=("yy",)), ChatRequest.of("hi", temperature=0.0)])
async def test_what_was_tried_before_somebody_had_it_kept_is_told(
    cache: ResponseCache, request_: EmbedRequest | ChatRequest
) -> None:
    down = ProviderUnavailable("down", status=503)
    a, b = replace(PRICEY, name="a", model="e"), replace(PRICEY, name="b", model="e", provider="other")
    far = {"a": ScriptedProvider(down, down, model=a), "b": ScriptedProvider("yes", model=b)}
    by = policy(a, b, cache=Keep(), coalesce="never", retry=Retry(attempts=1))
    asked = Router(by, far, cache=cache)
    await asked.complete(request_)
    with asked.budget() as run:
        response = await asked.complete(request_)
    assert (response.model, response.cached, len(far["b"].requests)) == ("b", True, 1)
    assert [each.error for each in response.attempts] == ["unavailable"]
    assert response.cost_usd == run.spent_usd > 0


async def test_what_came_of_a_batch_that_failed_in_part_is_kept(cache: ResponseCache) -> None:
    no, texts = RequestRejected("no", status=400), ["x" * length for length in range(1, 99)]
    far = ScriptedProvider("", no, no, "", "", vectors=vector)  # 96 texts, two, each of them; then what lacks
    asked = router(cache, far)
    with pytest.raises(RequestRejected, match=r"^text 97 of 98: no$") as raised:
        await asked.embed_batch(texts)
    assert raised.value.vectors == (*map(vector, texts[:96]), None, vector(texts[97]))
    assert await asked.embed_batch(texts) == [list(vector(text)) for text in texts]
    assert [len(each.texts) for each in far.requests if isinstance(each, EmbedRequest)] == [96, 2, 1, 1, 1]


async def test_what_comes_of_a_batch_in_part_from_whoever_is_asked_is_kept_by_whoever_asks(
    cache: ResponseCache,
) -> None:
    """Here, whoever is asked is a router itself, and keeps nothing."""
    no, texts = RequestRejected("no", status=400), ["x" * length for length in range(1, 4)]
    far = ScriptedProvider(no, "", no, no, "", vectors=vector)
    inner = Router(policy(PRICEY), {"m": far})
    keys = {text: fingerprint(Tenant(None, None), EmbedRequest(texts=(text,)), [PRICEY]) for text in texts}
    with pytest.raises(RequestRejected) as raised:
        await Cached(inner, cache, Keep()).complete(EmbedRequest(texts=tuple(texts)))
    kept = await cache.get_many("(None, None)", [key or "" for key in keys.values()])
    assert raised.value.vectors == tuple(vector(text) if keys[text] in kept else None for text in texts)
    assert len(kept) == 2
    assert {place: str(each) for place, each in raised.value.failures.items()} == {1: "no"}


async def test_vectors_of_one_tenant_are_not_given_to_another(cache: ResponseCache) -> None:
    provider = ScriptedProvider("", "")
    asked = router(cache, provider)
    for project in ("a", "b", "a", "b"):
        await asked.embed("text", project=project)
    assert len(provider.requests) == 2


async def test_the_trace_says_that_it_was_kept(cache: ResponseCache, spans: Callable[[], list[ReadableSpan]]) -> None:
    asked = router(cache, ScriptedProvider("x"))
    for _ in range(2):
        await asked.generate("hi", temperature=0)
    first, attempt, second = spans()
    assert attempt.parent is not None
    assert [dict(span.attributes or {})["devsynth.cache.hit"] for span in (first, second)] == [False, True]
    assert [dict(span.attributes or {}).get("devsynth.cache.tier") for span in (first, second)] == [None, "disk"]
    events = [dict(event.attributes or {}) for event in second.events if event.name == "cache.lookup"]
    assert events == [{"model": "m", "hits": 1, "misses": 0}]


async def test_a_hit_stands_in_the_ledger_and_is_no_attempt(ask: Ask, cache: ResponseCache, tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    far = ScriptedProvider("a", "b", usage=Usage(10, 20))
    async with Router(policy(PRICEY, cache=Keep()), {"m": far}, cache=cache, ledger=file) as asked:
        for project, prompt in (("x", "1"), ("x", "1"), ("x", "1"), ("y", "1"), ("y", "1")):
            await ask(asked, prompt, temperature=0, project=project, role="dev", task="review")
        await ask(asked, "1", temperature=0, project="y", role="dev", task="another")
    with read_ledger(file) as ledger:
        entries, total, projects = list(ledger.entries()), ledger.total(), ledger.groups(By.project)
        rules, tasks = ledger.groups(By.rule), ledger.groups(By.task)
    assert [(each["project"], each["attempt"]) for each in entries] == [("x", 1), ("y", 1)]
    assert (total.attempts, total.calls, total.hits, total.hit_rate) == (2, 2, 4, 4 / 6)
    assert {each.key: (each.calls, each.hits) for each in projects} == {"x": (1, 2), "y": (1, 2)}
    assert {each.key: each.hits for each in (*rules, *tasks)} == {"all": 4, "review": 3, "another": 1}


async def test_vectors_are_a_hit_where_all_of_them_were_kept(cache: ResponseCache, tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    async with Router(policy(PRICEY, cache=Keep()), {"m": ScriptedProvider("", "")}, cache=cache, ledger=file) as asked:
        for texts in (["a", "b"], ["b", "a", "b"], ["b", "c"]):
            await asked.embed_batch(texts)
    with read_ledger(file) as ledger:
        assert (ledger.total().attempts, ledger.total().hits) == (2, 1)


async def test_each_of_equal_requests_at_once_is_a_hit_of_its_own(cache: ResponseCache, tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    async with Router(policy(PRICEY, cache=Keep()), {"m": ScriptedProvider("a")}, cache=cache, ledger=file) as asked:
        await asked.generate("hi", 0)
        told = await asyncio.gather(*(asked.complete("hi", temperature=0) for _ in range(5)))
    assert [(each.cached, each.shared) for each in told] == [(True, False)] * 5
    with read_ledger(file) as ledger:
        assert ledger.total().hits == 5


async def test_what_is_not_kept_is_looked_for_once(cache: ResponseCache) -> None:
    asked = router(cache, ScriptedProvider("a", "b"))
    await asked.complete("hi", temperature=0)
    await asked.complete("hi", temperature=0)
    assert (cache.statistics.misses, cache.statistics.hits) == (1, 1)


async def test_a_ledger_that_can_not_be_written_keeps_nobody_from_a_hit(ask: Ask, cache: ResponseCache) -> None:
    asked = router(cache, ScriptedProvider("a"))
    assert await ask(asked, temperature=0) == "a"
    blocked = Path(cache.directory / "cache.db" / "ledger.db")
    async with Router(policy(PRICEY, cache=Keep()), {"m": ScriptedProvider()}, cache=cache, ledger=blocked) as other:
        assert await ask(other, temperature=0) == "a"


async def test_a_broken_cache_fails_no_call(ask: Ask, cache: ResponseCache, tmp_path: Path) -> None:
    asked = router(cache, ScriptedProvider("a", "b"))
    assert await ask(asked, temperature=0) == "a"
    await cache.flush()
    for file in (tmp_path / "answers").iterdir():
        file.write_bytes(b"rubbish" * 1000)
    assert await ask(asked, temperature=0) in ("a", "b")


async def test_what_another_version_kept_otherwise_is_a_miss(cache: ResponseCache) -> None:
    asked = router(cache, ScriptedProvider("a", "b"))
    await asked.generate("hi", temperature=0)
    await cache.flush()
    key = fingerprint(Tenant(None, None), ChatRequest.of("hi", temperature=0), [PRICEY])
    assert key is not None
    assert await cache.get("(None, None)", key) is not None
    await cache.set("(None, None)", key, {"not": "pieces"})
    assert await asked.generate("hi", temperature=0) == "b"


async def test_a_router_opens_a_cache_only_if_a_rule_wants_one_and_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    Router(policy(PRICEY), {"m": ScriptedProvider()})
    assert list(tmp_path.iterdir()) == []
    for asks in (["a"], []):
        async with Router(policy(PRICEY, cache=Keep()), {"m": ScriptedProvider(*asks)}) as opened:
            assert await opened.generate("hi", 0) == "a"
    (tmp_path / "c" / "devsynth_providers" / "answers").chmod(0o777)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        Router(policy(PRICEY, cache=Keep()), {"m": ScriptedProvider()})
