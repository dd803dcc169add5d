"""The trace of a request, as a receiver decodes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from devsynth_providers import (
    AuthenticationError,
    ChatRequest,
    MalformedResponse,
    NoModelFits,
    OpenAIProvider,
    ProviderUnavailable,
    RateLimitError,
    RequestRejected,
    Retry,
    Router,
    StreamInterrupted,
    Usage,
    telemetry,
    turns,
)
from devsynth_providers.telemetry import semconv
from devsynth_providers.testing import ScriptedProvider

from .conftest import Ask
from .helpers import PRICED, model, policy
from .loopback import Loopback

Spans = Callable[[], list[ReadableSpan]]

SECRET = "the merger is on Friday"


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def router(*scripts: ScriptedProvider, **options: Any) -> Router:
    models = [model(name, price=PRICED) for name, _ in zip("abc", scripts, strict=False)]
    return Router(policy(*models, **options), {each.name: script for each, script in zip(models, scripts, strict=True)})


async def test_a_plain_call_is_a_request_span_over_one_attempt(ask: Ask, spans: Spans) -> None:
    await ask(router(ScriptedProvider("x", usage=Usage(10, 20))), task="review", project="billing", max_tokens=99)
    request, attempt = spans()
    assert (request.name, request.kind, request.parent) == ("chat test", SpanKind.INTERNAL, None)
    assert (attempt.name, attempt.kind) == ("chat a", SpanKind.CLIENT)
    assert attempt.parent is not None
    assert attempt.parent.span_id == request.context.span_id
    assert request.status.status_code is attempt.status.status_code is StatusCode.UNSET

    assert (
        facts(attempt).items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "test",
            "gen_ai.request.model": "a",
            "gen_ai.request.max_tokens": 99,
            "gen_ai.request.temperature": 0.7,
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 20,
            "gen_ai.response.finish_reasons": ("stop",),
            "devsynth.attempt": 1,
            "devsynth.attempt.reason": "primary",
            "devsynth.cost.usd_micros": 700,
            "devsynth.cost.basis": "computed",
        }.items()
    )
    assert (
        facts(request).items()
        >= {
            "devsynth.task": "review",
            "devsynth.project_id": "billing",
            "devsynth.policy.name": "test",
            "devsynth.policy.rule": "all",
            "devsynth.attempts": 1,
            "devsynth.total.input_tokens": 10,
            "devsynth.total.output_tokens": 20,
            "devsynth.total.cost.usd_micros": 700,
            "gen_ai.response.model": "a",
        }.items()
    )
    assert "gen_ai.usage.input_tokens" not in facts(request), "sums over gen_ai.usage.* must not count twice"
    assert request.end_time is not None
    assert attempt.end_time is not None
    assert request.end_time >= attempt.end_time


async def test_the_decision_stands_on_the_request(ask: Ask, spans: Spans) -> None:
    dear, free = model("dear", price=PRICED), model("free")
    decided = Router(policy(dear, free), {"dear": ScriptedProvider("x"), "free": ScriptedProvider("x")})
    await ask(decided, max_cost_usd=0.001)
    (event,) = spans()[0].events
    assert event.name == "policy.decide"
    told = dict(event.attributes or {})
    assert told["devsynth.policy.order"] == ("free",)
    assert told["devsynth.policy.rejected"] == ("dear: over_cost_ceiling",)
    assert told["devsynth.limit.max_cost_usd"] == 0.001


async def test_a_retry_has_a_span_for_each_try_and_a_clean_parent(ask: Ask, spans: Spans) -> None:
    await ask(router(ScriptedProvider(RateLimitError("slow", status=429), "ok")))
    request, first, second = spans()
    assert first.status.status_code is StatusCode.ERROR
    assert facts(first)["error.type"] == "rate_limited"
    assert facts(first)["http.response.status_code"] == 429
    assert [facts(each)["devsynth.attempt"] for each in (first, second)] == [1, 2]
    assert [facts(each)["devsynth.attempt.reason"] for each in (first, second)] == ["primary", "retry"]
    assert request.status.status_code is second.status.status_code is StatusCode.UNSET
    assert "error.type" not in facts(request)
    assert [event.name for event in request.events] == ["policy.decide", "retry.scheduled"]
    assert all(each.parent and each.parent.span_id == request.context.span_id for each in (first, second))


async def test_a_fallback_names_who_failed_and_who_comes_next(ask: Ask, spans: Spans) -> None:
    await ask(router(ScriptedProvider(AuthenticationError("no")), ScriptedProvider("ok")))
    request, first, second = spans()
    assert [facts(each)["devsynth.attempt.reason"] for each in (first, second)] == ["primary", "fallback"]
    fallback = request.events[-1]
    assert (fallback.name, dict(fallback.attributes or {})) == (
        "fallback",
        {"from": "a", "to": "b", "reason": "authentication"},
    )
    assert facts(request)["gen_ai.response.model"] == "b"
    assert facts(request)["devsynth.degraded"] is True


async def test_when_all_fail_the_parent_is_an_error_too(ask: Ask, spans: Spans) -> None:
    down = ScriptedProvider(*[ProviderUnavailable("down")] * 2)
    with pytest.raises(ProviderUnavailable):
        await ask(router(down, retry=Retry(attempts=2, initial_s=0)))
    request = spans()[0]
    assert request.status.status_code is StatusCode.ERROR
    assert facts(request)["error.type"] == "unavailable"
    assert facts(request)["devsynth.attempts"] == 2


async def test_a_request_that_no_model_fits_is_a_span_too(ask: Ask, spans: Spans) -> None:
    with pytest.raises(NoModelFits):
        await ask(router(ScriptedProvider("x")), max_cost_usd=0)
    (request,) = spans()
    assert facts(request)["error.type"] == "no_model_fits"


async def test_a_stream_has_its_span_until_its_last_piece(spans: Spans) -> None:
    async with await router(ScriptedProvider(("a", "b"))).send(ChatRequest.of("hi", stream=True)) as reply:
        async for _ in reply:
            assert spans() == []
    assert len(spans()) == 2


async def test_one_left_early_is_abandoned_and_no_error(spans: Spans) -> None:
    async with await router(ScriptedProvider(("a", "b"))).send(ChatRequest.of("hi", stream=True)) as reply:
        async for _ in reply:
            break
    for span in spans():
        assert span.status.status_code is StatusCode.UNSET
        assert facts(span)["devsynth.stream.abandoned"] is True


async def test_one_that_broke_off_is_an_error_on_both(spans: Spans) -> None:
    with pytest.raises(StreamInterrupted):
        async for _ in router(ScriptedProvider(("a", ProviderUnavailable("cut")))).generate_stream("hi"):
            pass
    assert [facts(span)["error.type"] for span in spans()] == ["stream_interrupted"] * 2


async def test_one_cancelled_is_marked_and_closed(ask: Ask, spans: Spans) -> None:
    provider = ScriptedProvider((3600.0, "late"))
    task = asyncio.ensure_future(ask(router(provider)))
    while not provider.requests:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [facts(span)["devsynth.cancelled"] for span in spans()] == [True, True]


async def test_embeddings_are_traced_by_their_name(spans: Spans) -> None:
    await router(ScriptedProvider("x")).embed_batch(["a", "b"])
    request, attempt = spans()
    assert (request.name, attempt.name) == ("embeddings test", "embeddings a")
    assert "gen_ai.request.temperature" not in facts(attempt)


async def test_spans_of_the_caller_stay_the_callers(spans: Spans) -> None:
    """A request hangs below what is current; what the caller does between two pieces does not hang below it."""
    tracer = trace.get_tracer("service")
    with tracer.start_as_current_span("handler"):
        async for _ in router(ScriptedProvider(("a", "b"))).generate_stream("hi"):
            with tracer.start_as_current_span("mine"):
                pass
    by_name = {span.name: span for span in spans()}
    handler = by_name["handler"].context.span_id
    for name in ("mine", "chat test"):
        assert by_name[name].parent is not None
        assert by_name[name].parent.span_id == handler  # type: ignore[union-attr]


async def test_no_content_reaches_a_span(ask: Ask, spans: Spans) -> None:
    provider = ScriptedProvider(RateLimitError("slow"), f"answer: {SECRET}")
    await ask(router(provider), SECRET, system_prompt=SECRET)
    with pytest.raises(StreamInterrupted):
        await ask(router(ScriptedProvider((SECRET, ProviderUnavailable("cut")))), SECRET)
    assert all(SECRET not in span.to_json() for span in spans())


async def test_nor_does_what_a_provider_says_about_it(ask: Ask, spans: Spans) -> None:
    with pytest.raises(RequestRejected):
        await ask(router(ScriptedProvider(RequestRejected(f"invalid prompt: {SECRET}", status=400, code="bad"))))
    assert all(SECRET not in span.to_json() for span in spans())
    assert spans()[1].status.description == "rejected (HTTP 400, bad)"


async def test_time_spent_waiting_for_a_turn_is_told_apart(spans: Spans) -> None:
    class Queued(ScriptedProvider):
        async def send(self, request: Any) -> Any:  # type: ignore[explicit-override]
            turns.waiting()
            turns.begun(1.5)
            return await super().send(request)

    answer = await router(Queued("x")).complete("hi")
    assert answer.attempts[0].wait_s == 1.5
    assert facts(spans()[1])["devsynth.attempt.wait_s"] == 1.5
    turns.begun(9)  # outside of any attempt: nobody's


def test_an_application_that_has_set_tracing_up_keeps_its_own() -> None:
    before = trace.get_tracer_provider()
    telemetry.configure()
    assert trace.get_tracer_provider() is before


async def test_the_id_of_the_trace_can_be_had_for_a_log(spans: Spans) -> None:
    assert telemetry.trace_id() is None
    with trace.get_tracer("service").start_as_current_span("handler") as span:
        assert telemetry.trace_id() == f"{span.get_span_context().trace_id:032x}"


async def test_what_was_asked_for_stands_on_the_attempt_from_its_start(ask: Ask, spans: Spans) -> None:
    asked = {"top_p": 0.5, "seed": 7, "top_k": 40, "presence_penalty": 1, "frequency_penalty": 0.25, "temperature": 0}
    json_object = {"type": "json_object"}
    await ask(router(ScriptedProvider("{}")), stop_sequences=["END"], response_format=json_object, **asked)
    told = facts(spans()[1])
    assert {
        name.removeprefix("gen_ai."): told[name] for name in told if name.startswith(("gen_ai.req", "gen_ai.out"))
    }.items() >= {
        "request.temperature": 0.0,
        "request.top_p": 0.5,
        "request.seed": 7,
        "request.top_k": 40.0,
        "request.presence_penalty": 1.0,
        "request.frequency_penalty": 0.25,
        "request.stop_sequences": ("END",),
        "output.type": "json",
    }.items()


async def test_parameters_that_are_nothing_like_numbers_do_not_reach_a_span(spans: Spans) -> None:
    await router(ScriptedProvider("x")).complete("hi", seed=1, top_k="many")  # type: ignore[arg-type]
    assert "gen_ai.request.top_k" not in facts(spans()[1])


async def test_tokens_are_told_by_their_classes(ask: Ask, spans: Spans) -> None:
    used = Usage(100, 50, cached_input_tokens=40, cache_write_tokens=10, reasoning_tokens=30)
    await ask(router(ScriptedProvider("x", usage=used)))
    request, attempt = spans()
    assert (
        facts(attempt).items()
        >= {
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.cache_read.input_tokens": 40,
            "gen_ai.usage.cache_write.input_tokens": 10,
            "gen_ai.usage.cache_creation.input_tokens": 10,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.reasoning.output_tokens": 30,
            "devsynth.cost.estimated": False,
        }.items()
    )
    assert not [name for name in facts(request) if name.startswith("gen_ai.usage.")]


async def test_sums_count_each_attempt_once(ask: Ask, spans: Spans) -> None:
    failed = MalformedResponse("a web page")
    await ask(router(ScriptedProvider(failed), ScriptedProvider("ok", usage=Usage(10, 20))))
    request, *attempts = spans()
    for kind in ("input", "output"):
        each = [facts(attempt)[f"gen_ai.usage.{kind}_tokens"] for attempt in attempts]
        assert facts(request)[f"devsynth.total.{kind}_tokens"] == sum(each)
    costs = [facts(attempt)["devsynth.cost.usd_micros"] for attempt in attempts]
    assert facts(request)["devsynth.total.cost.usd_micros"] == sum(costs)


async def test_the_version_of_the_policy_is_told(ask: Ask, spans: Spans) -> None:
    await ask(router(ScriptedProvider("x")))
    await ask(router(ScriptedProvider("x")))
    await ask(router(ScriptedProvider("x"), prefer="cheapest"))
    one, same, other = [facts(span)["devsynth.policy.version"] for span in spans() if span.parent is None]
    assert one == same != other
    assert len(one) == 12


async def test_the_breaker_that_let_an_attempt_through_is_told(ask: Ask, spans: Spans) -> None:
    await ask(router(ScriptedProvider("x")))
    assert facts(spans()[1])["devsynth.breaker.state"] == "closed"


async def test_vectors_tell_how_long_they_are(spans: Spans) -> None:
    await router(ScriptedProvider("x")).embed("a")
    assert [facts(span)["gen_ai.embeddings.dimension.count"] for span in spans()] == [2, 2]


@pytest.mark.loads_litellm
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_id_of_an_answer_and_how_it_was_sent_are_told(
    server: Loopback, spans: Spans, lane: str, streamed: bool
) -> None:
    transport: Any = "auto" if lane == "direct" else "litellm"
    provider = OpenAIProvider("m", base_url=server.url, transport=transport, api_key="k" * 12)
    await provider.complete(ChatRequest.of("hi", stream=streamed))
    await provider.aclose()
    told = facts(spans()[0])
    assert told["gen_ai.response.id"] == "1"
    assert told["devsynth.transport"] == ("direct" if lane == "direct" else "litellm")
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", int(server.url.split(":")[2].split("/")[0]))


async def test_the_newer_dialect_says_error_where_a_finish_was_to_come(newer: None, spans: Spans) -> None:
    with pytest.raises(StreamInterrupted):
        broken = router(ScriptedProvider(("a", ProviderUnavailable("cut"))))
        async for _ in broken.generate_stream("hi", top_k=40, reasoning_effort="low"):
            pass
    attempt = spans()[1]
    assert facts(attempt)["gen_ai.request.reasoning.level"] == "low"
    assert facts(attempt)["gen_ai.response.finish_reasons"] == ("error",)
    assert facts(attempt)["gen_ai.request.top_k"] == 40
    assert facts(attempt)["devsynth.stream.interrupted"] is True


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the process had begun with the newer names."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    semconv.dialect.cache_clear()
    yield
    monkeypatch.delenv("OTEL_SEMCONV_STABILITY_OPT_IN")
    semconv.dialect.cache_clear()
