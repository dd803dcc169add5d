"""Anthropic's wire on both lanes: what goes out, what comes back, and what is no answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devsynth_providers import (
    AnthropicProvider,
    AuthenticationError,
    ChatRequest,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    EmptyResponse,
    MalformedResponse,
    ModelNotFound,
    Price,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
    RequestRejected,
    ToolCall,
    Usage,
)

from . import messages
from .conftest import Ask
from .helpers import OLD_LITELLM, model
from .loopback import Answer, Loopback, sse

pytestmark = pytest.mark.litellm

KEY = "sk-ant-canary-0123456789abcdef"
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds.",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    },
}


@pytest.fixture(params=["direct", "unified"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(server: Loopback, lane: str) -> AnthropicProvider:
    return made(server, lane)


def made(server: Loopback, lane: str, **facts: Any) -> AnthropicProvider:
    facts = {"provider": "anthropic", "price": Price(input_usd_per_1m=10, output_usd_per_1m=30), **facts}
    return AnthropicProvider(
        model("claude-sonnet-4-5", **facts),
        base_url=server.url,
        api_key=KEY,
        retry_attempts=1,
        timeout=10,
        transport="auto" if lane == "direct" else "litellm",
    )


def chat(streamed: bool, prompt: str | None = "hi", **options: Any) -> ChatRequest:
    return ChatRequest.of(prompt, stream=streamed, **options)


both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


class TestAnswers:
    @both_ways
    async def test_an_answer_has_text_usage_finish_reason_and_model(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        server.script((messages.whole(), messages.stream()))
        response = await provider.complete(chat(streamed))
        assert response.text == "w0 w1 w2"
        assert response.usage == Usage(4, 3)
        assert response.finish_reason == "stop"
        assert response.response_model == "served-model" or streamed  # LiteLLM forgets it in a stream
        assert server.paths == ["/v1/messages"]

    @both_ways
    async def test_what_is_asked_arrives_in_anthropics_form(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        server.script((messages.whole(), messages.stream()))
        await provider.complete(
            chat(
                streamed,
                "hello",
                system_prompt="Be brief.",
                temperature=0.3,
                max_tokens=7,
                stop_sequences=["END"],
                tools=[TOOL],
                top_k=5,
            )
        )
        (body,), (headers,) = server.requests, server.headers
        assert body["system"] == [{"type": "text", "text": "Be brief."}]
        assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
        assert (body["temperature"], body["max_tokens"], body["stop_sequences"]) == (0.3, 7, ["END"])
        assert body["tools"][0]["input_schema"]["required"] == ["x"]
        assert body["top_k"] == 5
        assert body.get("stream", False) is streamed
        assert headers["x-api-key"] == KEY
        assert "authorization" not in headers
        assert headers["anthropic-version"]

    @both_ways
    async def test_a_conversation_with_a_tool_goes_round(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        use = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"x": 1}}
        server.script(
            (
                messages.whole(blocks=[{"type": "text", "text": "Let me see."}, use], stop="tool_use"),
                sse(
                    messages.start(),
                    *messages.text("Let me ", "see."),
                    *messages.tool("find", '{"x"', ": 1}", index=1),
                    *messages.end("tool_use"),
                ),
            )
        )
        response = await provider.complete(chat(streamed, tools=[TOOL]))
        assert response.text == "Let me see."
        assert [(call.id, call.name, call.arguments.replace(" ", "")) for call in response.tool_calls] == [
            ("toolu_1", "find", '{"x":1}')
        ]
        assert response.finish_reason == "tool_calls"
        server.script((messages.whole("It is 2."), messages.stream("It is 2.")))
        history: list[dict[str, Any]] = [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": response.text,
                "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "find", "arguments": '{"x": 1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "2"},
        ]
        await provider.complete(chat(streamed, None, messages=history, tools=[TOOL]))
        sent = server.requests[-1]["messages"]
        assert sent[1]["content"][-1] == {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"x": 1}}
        assert sent[2]["content"][0]["type"] == "tool_result"
        assert sent[2]["content"][0]["tool_use_id"] == "toolu_1"

    @both_ways
    async def test_a_tool_without_arguments_is_called_with_none(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        use = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {}}
        server.script(
            (
                messages.whole(blocks=[use], stop="tool_use"),
                sse(messages.start(), *messages.tool("find"), *messages.end("tool_use")),
            )
        )
        response = await provider.complete(chat(streamed, tools=[TOOL]))
        assert response.tool_calls == (ToolCall("toolu_1", "find", "{}"),)

    @both_ways
    async def test_tokens_of_the_cache_are_told_apart(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        cached = {"cache_read_input_tokens": 20, "cache_creation_input_tokens": 30}
        whole = messages.whole(usage={"input_tokens": 4, "output_tokens": 3, **cached})
        streaming = sse(messages.start(**cached), *messages.text("x"), *messages.end())
        server.script((whole, streaming))
        response = await provider.complete(chat(streamed))
        assert response.usage == Usage(54, 3, cached_input_tokens=20, cache_write_tokens=30)

    @both_ways
    async def test_what_the_model_thinks_is_not_what_it_says(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
        thinking = [
            messages.event("content_block_start", index=0, content_block={**thought, "thinking": "", "signature": ""}),
            messages.event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Hm."}),
            messages.event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"}),
            messages.event("content_block_stop", index=0),
        ]
        server.script(
            (
                messages.whole(blocks=[thought, {"type": "text", "text": "Yes."}]),
                sse(messages.start(), *thinking, *messages.text("Yes.", index=1), *messages.end()),
            )
        )
        assert (await provider.complete(chat(streamed))).text == "Yes."

    @both_ways
    async def test_an_answer_in_a_schema_comes_as_text(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        server.script((messages.whole('{"x": 1}'), messages.stream('{"x"', ": 1}")))
        response = await provider.complete(chat(streamed, response_format=wanted))
        assert response.text == '{"x": 1}'
        assert "schema" in str(server.requests[0])

    @both_ways
    async def test_an_answer_cut_by_its_token_limit_says_so(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        server.script((messages.whole("half", stop="max_tokens"), messages.stream("half", stop="max_tokens")))
        assert (await provider.complete(chat(streamed))).truncated

    async def test_both_lanes_send_the_same(self, server: Loopback) -> None:
        server.script((messages.whole(), messages.stream()))
        asked: dict[str, Any] = {
            "system_prompt": "Be brief.",
            "temperature": 0.3,
            "max_tokens": 7,
            "stop_sequences": ["END"],
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "find"}},
        }
        for streamed in (False, True):
            for lane in ("direct", "unified"):
                await made(server, lane).complete(chat(streamed, **asked))
            direct, unified = server.requests[-2:]
            assert direct == unified


class TestFailures:
    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (messages.failure(400, "invalid_request_error", "max_tokens: must be positive"), RequestRejected),
            (
                messages.failure(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
                ContextTooLong,
            ),
            (messages.failure(400, "invalid_request_error", "Your credit balance is too low"), QuotaExhausted),
            (messages.failure(401, "authentication_error", "invalid x-api-key"), AuthenticationError),
            (messages.failure(402, "billing_error"), QuotaExhausted),
            (messages.failure(403, "permission_error"), AuthenticationError),
            (messages.failure(404, "not_found_error", "model: claude-9"), ModelNotFound),
            (messages.failure(413, "request_too_large"), ContextTooLong),
            (messages.failure(429, "rate_limit_error", **{"retry-after": "7"}), RateLimitError),
            (messages.failure(500, "api_error"), ProviderUnavailable),
            (messages.failure(504, "timeout_error"), ProviderTimeout),
            (messages.failure(529, "overloaded_error"), ProviderUnavailable),
        ],
    )
    async def test_a_status_and_a_type_say_what_an_error_is(
        self, server: Loopback, provider: AnthropicProvider, ask: Ask, answer: Answer, kind: type[ProviderError]
    ) -> None:
        server.script(answer)
        with pytest.raises(ProviderError) as caught:
            await ask(provider)
        assert type(caught.value) is kind, caught.value
        assert caught.value.status == answer.status
        assert len(server.requests) == 1
        assert KEY not in str(caught.value)
        if kind is RateLimitError:
            assert caught.value.retry_after_s == 7  # type: ignore[attr-defined]

    async def test_leaving_a_stream_early_closes_its_connection(
        self, server: Loopback, provider: AnthropicProvider
    ) -> None:
        server.script(sse(messages.start(), *messages.text("w0 ", "w1")[:3], then="hang"))
        async with await provider.send(chat(True)) as reply:
            async for _ in reply:
                break
        assert await asyncio.to_thread(server.client_left)

    @both_ways
    async def test_a_refusal_is_told_as_one(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        server.script((messages.whole(blocks=[], stop="refusal"), sse(messages.start(), *messages.end("refusal"))))
        lost = OLD_LITELLM and provider.model.transport == "litellm"
        with pytest.raises(EmptyResponse if lost else ContentFiltered):
            await provider.complete(chat(streamed))

    @both_ways
    async def test_an_answer_of_nothing_is_none(
        self, server: Loopback, provider: AnthropicProvider, streamed: bool
    ) -> None:
        server.script((messages.whole(blocks=[]), sse(messages.start(), *messages.end())))
        with pytest.raises(EmptyResponse):
            await provider.complete(chat(streamed))

    async def test_a_whole_answer_without_a_stop_reason_is_none(
        self, server: Loopback, provider: AnthropicProvider
    ) -> None:
        server.script(messages.whole("w0", stop=None))
        with pytest.raises(MalformedResponse, match="finish reason"):
            await provider.complete(chat(False))


class TestAsking:
    async def test_there_are_no_embeddings_and_nobody_is_asked(
        self, server: Loopback, provider: AnthropicProvider
    ) -> None:
        with pytest.raises(RequestRejected, match="anthropic does not take texts to embed") as caught:
            await provider.embed("hi")
        assert caught.value.passes_on
        assert server.requests == []

    async def test_a_parameter_that_it_does_not_take_is_refused_and_another_model_may_be_asked(
        self, server: Loopback, provider: AnthropicProvider
    ) -> None:
        with pytest.raises(RequestRejected, match="seed") as caught:
            await provider.generate("hi", seed=3)
        assert caught.value.passes_on
        assert server.requests == []

    async def test_the_key_of_anthropic_goes_to_anthropic_only(
        self, server: Loopback, lane: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        server.script(messages.whole())
        transport: Any = "auto" if lane == "direct" else "litellm"
        await AnthropicProvider("claude-x", base_url=f"{server.url}", transport=transport).generate("hi")
        assert KEY not in str(server.headers)

    def test_it_needs_a_key_and_a_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY is not set"):
            AnthropicProvider("claude-sonnet-4-5")
        with pytest.raises(ConfigurationError, match="ANTHROPIC_MODEL"):
            AnthropicProvider(api_key=KEY)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_MODEL", "claude-sonnet-4-5")
        known = AnthropicProvider()
        assert known.max_context_size == 200_000
        assert known.cost_per_1k_tokens == {"input": 0.003, "output": 0.015}
