"""What is counted and measured: once, with labels that have an end, in buckets as the conventions advise."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import (
    AuthenticationError,
    Budget,
    BudgetExceeded,
    ChatRequest,
    Hedge,
    Keep,
    Policy,
    ProviderUnavailable,
    RateLimitError,
    RateLimits,
    ResponseCache,
    Retry,
    Router,
    Rule,
    SqliteLedger,
    StreamInterrupted,
    Usage,
    telemetry,
)
from devsynth_providers.telemetry.semconv import Dialect
from devsynth_providers.testing import ScriptedProvider, run_virtually

from .conftest import Ask
from .helpers import PRICED, model, policy
from .points import Points

Measured = Callable[[], Points]
Spans = Callable[[], list[ReadableSpan]]

DURATION = "gen_ai.client.operation.duration"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
PER_CHUNK = "gen_ai.client.operation.time_per_output_chunk"
TOKENS = "gen_ai.client.token.usage"
SECRET = "the merger is on Friday"
MAY_BE_LABELS = {
    *("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.token.type"),
    *("server.address", "server.port", "error.type", "devsynth.attempt.reason", "devsynth.outcome"),
    *("devsynth.cost.basis", "devsynth.policy.name", "devsynth.policy.rule", "devsynth.model", "devsynth.result"),
    *("devsynth.scope", "devsynth.state"),
}


def router(*scripts: ScriptedProvider, **options: Any) -> Router:
    models = [model(name, price=PRICED) for name, _ in zip("abc", scripts, strict=False)]
    return Router(policy(*models, **options), {each.name: script for each, script in zip(models, scripts, strict=True)})


async def test_a_plain_call_is_measured_once(ask: Ask, measured: Measured) -> None:
    used = Usage(10, 20, cached_input_tokens=4, cache_write_tokens=2, reasoning_tokens=5)
    await ask(router(ScriptedProvider("x", usage=used)))
    seen = measured()
    (row,) = seen.of(DURATION)
    assert row.labels == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "test",
        "gen_ai.request.model": "a",
    }
    assert row.times == 1
    assert row.bounds == telemetry.metrics.SECONDS
    assert seen.total(TOKENS, gen_ai__token__type="input") == 10
    assert seen.total(TOKENS, gen_ai__token__type="output") == 20
    usage = "gen_ai.client.inference.usage"
    assert seen.total(f"{usage}.cache_read.input_tokens") == 4
    assert seen.total(f"{usage}.cache_write.input_tokens") == 2
    assert seen.total(f"{usage}.reasoning.output_tokens") == 5
    assert seen.total("devsynth.cost", devsynth__cost__basis="computed") == pytest.approx(0.0007)
    assert seen.total("devsynth.attempts", devsynth__attempt__reason="primary", devsynth__outcome="answered") == 1
    (request,) = seen.of("devsynth.request.duration")
    assert request.labels == {
        "gen_ai.operation.name": "chat",
        "devsynth.policy.name": "test",
        "devsynth.policy.rule": "all",
        "devsynth.outcome": "answered",
    }


async def test_what_was_made_good_counts_as_an_attempt_and_not_as_a_failed_request(
    ask: Ask, measured: Measured
) -> None:
    await ask(router(ScriptedProvider(RateLimitError("slow"), AuthenticationError("no")), ScriptedProvider("ok")))
    seen = measured()
    assert [
        (row.labels["devsynth.attempt.reason"], row.labels.get("error.type"), row.sum)
        for row in sorted(seen.of("devsynth.attempts"), key=lambda row: row.labels["devsynth.attempt.reason"])
    ] == [("fallback", None, 1), ("primary", "rate_limited", 1), ("retry", "authentication", 1)]
    assert [row.labels["devsynth.outcome"] for row in seen.of("devsynth.request.duration")] == ["answered"]
    assert sum(row.times for row in seen.of(DURATION)) == 3


async def test_estimated_tokens_are_not_told_as_reported(ask: Ask, measured: Measured) -> None:
    await ask(router(ScriptedProvider("x", usage=None)))
    seen = measured()
    assert seen.of(TOKENS) == []
    assert seen.total("devsynth.cost", devsynth__cost__basis="estimated") > 0


async def test_a_request_that_fails_says_by_what(ask: Ask, measured: Measured) -> None:
    with pytest.raises(ProviderUnavailable):
        await ask(router(ScriptedProvider(ProviderUnavailable("down")), retry=Retry(attempts=1)))
    (row,) = measured().of("devsynth.request.duration")
    assert (row.labels["devsynth.outcome"], row.labels["error.type"]) == ("failed", "unavailable")


def test_a_stream_has_its_start_and_the_pace_of_its_pieces(measured: Measured) -> None:
    async def streamed() -> None:
        provider = ScriptedProvider((0.5, "a", 0.1, "b", 0.2, "c"))
        async for _ in router(provider).generate_stream("hi"):
            await asyncio.sleep(5)  # a slow reader is not the model's fault

    run_virtually(streamed())
    seen = measured()
    (first,) = seen.of(FIRST_CHUNK)
    assert first.sum == pytest.approx(0.5)
    (pace,) = seen.of(PER_CHUNK)
    assert pace.times == 2
    assert seen.of("devsynth.request.time_to_first_chunk")[0].sum == pytest.approx(0.5)


async def test_a_whole_answer_has_no_pace(measured: Measured) -> None:
    await router(ScriptedProvider("x")).complete("hi")
    seen = measured()
    assert (seen.of(FIRST_CHUNK), seen.of(PER_CHUNK)) == ([], [])


async def test_one_left_and_one_cut_are_told_apart(measured: Measured) -> None:
    async with await router(ScriptedProvider(("a", "b"))).send(ChatRequest.of("hi", stream=True)) as reply:
        async for _ in reply:
            break
    with pytest.raises(StreamInterrupted):
        async for _ in router(ScriptedProvider(("a", ProviderUnavailable("cut")))).generate_stream("hi"):
            pass
    outcomes = {
        row.labels["devsynth.outcome"]: row.labels.get("error.type") for row in measured().of("devsynth.attempts")
    }
    assert outcomes == {"abandoned": None, "failed": "stream_interrupted"}


async def test_embeddings_have_their_own_operation(measured: Measured) -> None:
    await router(ScriptedProvider("x")).embed("x")
    (row,) = measured().of(DURATION)
    assert row.labels["gen_ai.operation.name"] == "embeddings"


async def test_exemplars_lead_to_the_trace(measured: Measured, spans: Spans) -> None:
    await router(ScriptedProvider("x", usage=Usage(1, 1))).complete("hi")
    request = spans()[0]
    assert request.context is not None
    seen = measured()
    for name in (DURATION, TOKENS, "devsynth.request.duration"):
        assert seen.of(name)[0].traces == {request.context.trace_id}


async def test_the_cache_is_counted(measured: Measured, tmp_path: Path) -> None:
    cache = ResponseCache(directory=tmp_path)
    a = model("a", price=PRICED)
    mine = Router(policy(a, cache=Keep()), {"a": ScriptedProvider("x", "y")}, cache=cache)
    for _ in range(3):
        await mine.complete("hi", temperature=0)
    await mine.aclose()
    await cache.aclose()
    seen = measured()
    assert seen.total("devsynth.cache.requests", devsynth__result="miss") == 1
    assert seen.total("devsynth.cache.requests", devsynth__result="hit") == 2
    assert seen.total("devsynth.attempts") == 1


async def test_what_budgets_refuse_is_counted_by_their_scope(measured: Measured, tmp_path: Path) -> None:
    mine = router(ScriptedProvider("x", "y"))
    with pytest.raises(BudgetExceeded), mine.budget(usd=0.000001):
        await mine.complete("hi")
    a = model("a", price=PRICED)
    limited = Policy(
        name="test",
        models={"a": a},
        rules=(Rule(name="all", models=("a",)),),
        budgets=(Budget(scope="project", limit_usd=0.000001),),
    )
    ledger = SqliteLedger(tmp_path / "ledger.db")
    kept = Router(limited, {"a": ScriptedProvider("x")}, ledger=ledger)
    with pytest.raises(BudgetExceeded):
        await kept.complete("hi", project="a project of many")
    await ledger.aclose()
    seen = measured()
    assert {row.labels["devsynth.scope"]: row.sum for row in seen.of("devsynth.budget.rejections")} == {
        "run": 1,
        "project": 1,
    }


async def test_a_breaker_that_opens_is_counted(measured: Measured) -> None:
    with pytest.raises(AuthenticationError):
        await router(ScriptedProvider(AuthenticationError("no", status=401))).complete("hi")
    assert measured().total("devsynth.breaker.transitions", devsynth__state="open", devsynth__model="a") == 1


def test_a_wait_for_a_turn_is_measured_and_is_no_part_of_the_attempts_duration(measured: Measured) -> None:
    a = model("a")
    limited = Policy(
        name="test",
        models={"a": a},
        rules=(Rule(name="all", models=("a",)),),
        limits={"a": RateLimits(concurrent=1)},
    )

    async def both() -> None:
        mine = Router(limited, {"a": ScriptedProvider((2.0, "x"), (2.0, "y"))})
        await asyncio.gather(mine.complete("one"), mine.complete("two"))

    run_virtually(both())
    seen = measured()
    assert seen.total("devsynth.queue.wait") == pytest.approx(2.0)
    assert seen.total(DURATION) == pytest.approx(4.0)


async def test_a_hedge_is_counted_as_two_attempts_and_one_request(measured: Measured) -> None:
    slow, quick = ScriptedProvider((60.0, "late")), ScriptedProvider("quick")
    await router(slow, quick, hedge=Hedge(after=0.01, max_extra=1.0)).complete("hi")
    seen = measured()
    reasons = {
        row.labels["devsynth.attempt.reason"]: row.labels["devsynth.outcome"] for row in seen.of("devsynth.attempts")
    }
    assert reasons == {"primary": "cancelled", "hedge": "answered"}
    assert sum(row.times for row in seen.of("devsynth.request.duration")) == 1


async def test_labels_are_few_and_say_nothing_of_content_or_of_people(ask: Ask, measured: Measured) -> None:
    mine = router(ScriptedProvider(RateLimitError(SECRET), "ok"))
    await ask(mine, SECRET, project="billing", role="intern", task="review", tags=("interactive",))
    for name, rows in measured().rows.items():
        for row in rows:
            assert row.labels.keys() <= MAY_BE_LABELS, name
            assert not {SECRET, "billing", "intern", "review"} & set(map(str, row.labels.values()))


def test_the_newer_dialect_has_counters_and_a_duration_for_each_operation() -> None:
    old, new = Dialect.of(None), Dialect.of("http,gen_ai_latest_experimental")
    assert (old.duration("chat"), new.duration("chat")) == (DURATION, "gen_ai.client.inference.duration")
    assert new.duration("embeddings") == "gen_ai.client.embeddings.duration"
    assert (old.parameters["top_k"][1], new.parameters["top_k"][1]) == (float, int)
    assert Dialect.of("gen_ai_latest_experimental_not") == old


def test_without_an_sdk_no_instrument_is_made() -> None:
    code = """
import asyncio
from devsynth_providers import Router, telemetry
from devsynth_providers.telemetry import metrics
from devsynth_providers.testing import ScriptedProvider
from tests.helpers import model, policy
asyncio.run(Router(policy(model("a")), {"a": ScriptedProvider("x")}).complete("hi"))
print(metrics.gathered())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "None"
