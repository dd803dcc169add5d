"""Which trace asks: it comes down from the caller, and goes on to servers of one's own, never to a vendor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import AnthropicProvider, ChatRequest, LiteLLMProvider, Model, OpenAIProvider, Router, telemetry
from devsynth_providers.errors import DevSynthError
from devsynth_providers.testing import ScriptedProvider

from .helpers import model, policy
from .loopback import Loopback, stream, whole

Spans = Callable[[], list[ReadableSpan]]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_the_span_of_a_web_service_is_the_parent(spans: Spans) -> None:
    """An ASGI application, in the middle of which a request is asked, behind a middleware that opens its span."""
    router = Router(policy(model("a")), {"a": ScriptedProvider("x", ("y", "z"))})
    tracer = trace.get_tracer("service")

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        text = await router.generate("hi")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        async for piece in router.generate_stream("hi"):
            await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def traced(scope: Any, receive: Any, send: Any) -> None:
        carrier = {name.decode(): value.decode() for name, value in scope["headers"]}
        with tracer.start_as_current_span("GET /ask", context=extract(carrier)):
            await endpoint(scope, receive, send)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/ask", "headers": [(b"traceparent", TRACEPARENT.encode())]}
    await traced(scope, None, send)
    assert b"".join(each.get("body", b"") for each in sent) == b"xyz"
    server = next(span for span in spans() if span.name == "GET /ask")
    requests = [span for span in spans() if span.name == "chat test"]
    assert len(requests) == 2
    for span in (server, *requests):
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" == TRACEPARENT.split("-")[1]
    assert all(each.parent and each.parent.span_id == server.context.span_id for each in requests)


@pytest.mark.litellm
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("transport", ["auto", "litellm"])
@pytest.mark.parametrize("cls", [OpenAIProvider, AnthropicProvider])
async def test_a_server_on_this_machine_is_told_which_span_asks(
    server: Loopback, spans: Spans, cls: Any, transport: Any, streamed: bool
) -> None:
    server.script((whole(), stream()))
    provider = cls("m", base_url=server.url, api_key="k" * 12, transport=transport, retry_attempts=1)
    try:
        await provider.complete(ChatRequest.of("hi", stream=streamed))
    except DevSynthError:
        assert cls is AnthropicProvider  # which speaks otherwise than this server answers
    await provider.aclose()
    (attempt,) = spans()
    assert attempt.context is not None
    (told,) = [headers.get("traceparent", "") for headers in server.headers]
    assert told.startswith(f"00-{attempt.context.trace_id:032x}-{attempt.context.span_id:016x}-")
    assert "traceparent" not in str(server.requests)


@pytest.mark.litellm
async def test_litellms_own_calls_tell_it_too(server: Loopback, spans: Spans) -> None:
    server.script((whole(), stream()))
    provider = LiteLLMProvider("hosted_vllm/m", base_url=server.url, api_key="k" * 12, retry_attempts=1)
    await provider.complete("hi")
    await provider.aclose()
    assert [headers.get("traceparent", "")[:3] for headers in server.headers] == ["00-"]


@pytest.mark.litellm
@pytest.mark.parametrize("transport", ["auto", "litellm"])
async def test_one_that_the_policy_says_is_not_to_know_is_not_told(server: Loopback, transport: Any) -> None:
    server.script((whole(), stream()))
    shy = Model(name="m", provider="openai", base_url=server.url, propagate=False, transport=transport)
    provider = OpenAIProvider(shy, api_key="k" * 12, retry_attempts=1)
    await provider.complete("hi")
    await provider.aclose()
    assert ["traceparent" in headers for headers in server.headers] == [False]


@pytest.mark.parametrize(
    ("provider", "base_url", "propagate", "told"),
    [
        ("openai", "https://api.openai.com/v1", None, False),
        ("anthropic", "https://api.anthropic.com", None, False),
        ("litellm", None, None, False),
        ("openai", "https://api.openai.com/v1", True, True),
        ("openai", "http://localhost:8000/v1", None, True),
        ("openai", "http://localhost:8000/v1", False, False),
        ("openai", "http://vllm.localhost/v1", None, True),
        ("openai", "http://10.1.2.3:8000/v1", None, True),
        ("openai", "http://192.168.7.7/v1", None, True),
        ("openai", "http://[fd00::1]:8000/v1", None, True),
        ("openai", "http://[::ffff:8.8.8.8]/v1", None, False),
        ("openai", "http://8.8.8.8/v1", None, False),
        ("openai", "http://10.evil.example/v1", None, False),
        ("openai", "http://localhost.evil.example/v1", None, False),
        ("lmstudio", "http://gpu1:1234/v1", None, True),
    ],
)
def test_vendors_are_told_nothing(provider: str, base_url: str | None, propagate: bool | None, told: bool) -> None:
    asked = Model(name="m", provider=provider, base_url=base_url, propagate=propagate)
    with trace.get_tracer("service").start_as_current_span("handler"):
        assert bool(telemetry.upstream(asked)) is told


def test_where_nothing_is_traced_nobody_is_told() -> None:
    assert telemetry.upstream(Model(name="m", provider="lmstudio")) == {}


def test_baggage_stays_here() -> None:
    from opentelemetry import baggage, context

    token = context.attach(baggage.set_baggage("user", "somebody"))
    try:
        with trace.get_tracer("service").start_as_current_span("handler"):
            assert telemetry.upstream(Model(name="m", provider="lmstudio")).keys() == {"traceparent"}
    finally:
        context.detach(token)
