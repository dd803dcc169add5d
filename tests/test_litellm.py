"""Real LiteLLM against a server on loopback: what it makes of a wire, and what we make of that.

These are the facts that the door (``providers/_litellm``) answers to. A new version of LiteLLM that behaves otherwise
fails here first.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import (
    ChatRequest,
    ContextTooLong,
    EmptyResponse,
    InvalidRequest,
    LMStudioProvider,
    MalformedResponse,
    Model,
    OpenAIProvider,
    Price,
    ProviderError,
    ProviderUnavailable,
    ToolCall,
    Usage,
)
from devsynth_providers.providers._litellm import load
from devsynth_providers.scrubbing import scrub

from .conftest import Ask
from .loopback import Answer, Loopback, as_json, delta, failure, sse, stream, usage_event, vectors, whole

pytestmark = pytest.mark.litellm

KEY = "sk-canary-0123456789abcdef"


LANES: dict[str, Any] = {"direct": "auto", "unified": "litellm"}
_transport = "auto"


@pytest.fixture(autouse=True, params=list(LANES))
def lane(request: pytest.FixtureRequest) -> str:
    """Every fact holds on both lanes, or says on which."""
    global _transport  # noqa: PLW0603 - so that a test need not pass it along
    _transport = LANES[request.param]
    return str(request.param)


def provider(server: Loopback, **options: Any) -> OpenAIProvider:
    options = {"retry_attempts": 1, "timeout": 10, "api_key": KEY, "transport": _transport, **options}
    return OpenAIProvider("served-model", base_url=server.url, **options)


async def failed(server: Loopback, ask: Ask, *answers: Answer | tuple[Answer, Answer], **options: Any) -> ProviderError:
    server.script(*answers)
    with pytest.raises(ProviderError) as caught:
        await ask(provider(server, **options))
    return caught.value


class TestAnswers:
    async def test_an_answer_has_text_usage_finish_reason_and_model(self, server: Loopback, ask: Ask) -> None:
        assert await ask(provider(server)) == "w0 w1 w2"
        response = await provider(server).complete(ChatRequest.of("hi", stream=bool(len(server.requests) % 2)))
        assert response.usage == Usage(4, 3)
        assert (response.finish_reason, response.response_model) == ("stop", "served-model")

    async def test_the_attempts_span_says_which_way_it_was_sent(
        self, server: Loopback, ask: Ask, lane: str, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        await ask(provider(server))
        (span,) = spans()
        assert (span.attributes or {})["devsynth.transport"] == ("direct" if lane == "direct" else "litellm")

    async def test_what_is_asked_arrives_as_it_was_meant(self, server: Loopback, ask: Ask) -> None:
        await ask(
            provider(server),
            "hello",
            temperature=0.3,
            max_tokens=7,
            stop_sequences=["END"],
            system_prompt="Be brief.",
            seed=11,
        )
        (body,) = server.requests
        assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
        assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.3, 7, ["END"])
        assert (body["model"], body["seed"]) == ("served-model", 11)
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
        assert server.paths == ["/v1/chat/completions"]

    async def test_tools_go_out_and_calls_come_back(self, server: Loopback) -> None:
        tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
        call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"x": 1}'}}
        half = {"index": 0, "id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"x"'}}
        rest = {"index": 0, "function": {"arguments": ": 1}"}}
        server.script(
            (
                whole(None, finish="tool_calls", message={"tool_calls": [call]}),
                sse(
                    delta(role="assistant"),
                    delta(tool_calls=[half]),
                    delta(tool_calls=[rest]),
                    delta(finish="tool_calls"),
                    "[DONE]",
                ),
            )
        )
        for streamed in (False, True):
            request = ChatRequest.of("look", tools=[tool], stream=streamed)
            response = await provider(server).complete(request)
            assert response.tool_calls == (ToolCall("c1", "find", '{"x": 1}'),)
            assert (response.text, response.finish_reason) == ("", "tool_calls")
        assert server.requests[0]["tools"] == [tool]

    async def test_an_answer_cut_by_its_token_limit_says_so(self, server: Loopback) -> None:
        server.script((whole("half", finish="length"), stream("half", finish="length")))
        for streamed in (False, True):
            assert (await provider(server).complete(ChatRequest.of("x", stream=streamed))).truncated

    async def test_classes_of_tokens_are_told_apart(self, server: Loopback) -> None:
        details = {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 40},
            "completion_tokens_details": {"reasoning_tokens": 30},
        }
        answer = whole()
        body = as_json({**_json(answer), "usage": details})
        server.script((body, sse(delta("x"), delta(finish="stop"), {**usage_event(), "usage": details}, "[DONE]")))
        for streamed in (False, True):
            response = await provider(server).complete(ChatRequest.of("x", stream=streamed))
            assert response.usage == Usage(100, 50, cached_input_tokens=40, reasoning_tokens=30)


class TestFailures:
    async def test_usage_of_an_answer_without_content_is_billed(self, server: Loopback) -> None:
        empty = whole(None, usage=(100, 1000))
        server.script((empty, sse(delta(finish="stop"), usage_event(100, 1000), "[DONE]")))
        model = Model(name="m", provider="openai", price=Price(input_usd_per_1m=10, output_usd_per_1m=30))
        for streamed in (False, True):
            priced = OpenAIProvider(model, base_url=server.url, api_key=KEY, retry_attempts=1)
            with pytest.raises(EmptyResponse) as caught:
                await priced.complete(ChatRequest.of("hello", stream=streamed))
            assert caught.value.attempts[0].cost_micros == 31_000

    async def test_a_server_that_is_not_there_is_unavailable_and_costs_nothing(self, ask: Ask) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        away = OpenAIProvider("m", base_url=f"http://127.0.0.1:{port}/v1", retry_attempts=1)
        with pytest.raises(ProviderUnavailable) as caught:
            await ask(away)
        assert not caught.value.billed
        assert caught.value.status is None
        assert f"127.0.0.1:{port}: " in str(caught.value)

    async def test_leaving_a_stream_early_closes_its_connection(self, server: Loopback) -> None:
        server.script(sse(delta("w0"), then="hang"))
        async with await provider(server).send(ChatRequest.of("hi", stream=True)) as reply:
            async for _ in reply:
                break
        assert await asyncio.to_thread(server.client_left)

    async def test_cancelling_closes_the_connection(self, server: Loopback, ask: Ask) -> None:
        server.script(Answer([], then="hang"))
        task = asyncio.ensure_future(ask(provider(server)))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.client_left)


class TestRetries:
    async def test_we_alone_try_again(self, server: Loopback, ask: Ask) -> None:
        error = await failed(server, ask, failure(503, **{"retry-after": "0"}), retry_attempts=3)
        assert len(server.requests) == 3
        assert [attempt.number for attempt in error.attempts] == [1, 2, 3]

    async def test_we_alone_try_embeddings_again(self, server: Loopback) -> None:
        server.script(failure(503))
        same = provider(server, retry_attempts=2)
        with pytest.raises(ProviderUnavailable):
            await same.embed("a")
        assert len(server.requests) == 2

    async def test_and_only_as_long_as_it_takes(self, server: Loopback, ask: Ask) -> None:
        server.script(failure(503), failure(429, **{"retry-after": "0"}), (whole("ok"), stream("ok")))
        assert await ask(provider(server, retry_attempts=3)) == "ok"
        assert len(server.requests) == 3


class TestEmbeddings:
    async def test_texts_become_vectors(self, server: Loopback) -> None:
        server.script(vectors([1.0, 0.0], [0.0, 1.0]))
        assert await provider(server).embed_batch(["a", "b"]) == [[1.0, 0.0], [0.0, 1.0]]
        assert server.paths == ["/v1/embeddings"]
        assert server.requests[0]["input"] == ["a", "b"]

    async def test_vectors_of_another_dimension_than_before_are_of_another_space(self, server: Loopback) -> None:
        same = provider(server)
        server.script(vectors([1.0, 0.0]), vectors([1.0, 0.0, 0.0]), vectors([0.0, 1.0]))
        assert await same.embed("a") == [1.0, 0.0]
        with pytest.raises(MalformedResponse, match="vectors of 3 numbers; those before had 2"):
            await same.embed("b")
        assert await same.embed("c") == [0.0, 1.0]

    async def test_large_numbers_are_numbers(self, server: Loopback) -> None:
        server.script(vectors([1e308, 1e308]))
        assert await provider(server).embed("a") == [1e308, 1e308]


class TestKeys:
    async def test_the_key_of_openai_goes_to_openai_only(
        self, server: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        await OpenAIProvider("m", base_url=server.url).generate("hi")
        await LMStudioProvider("m", base_url=server.url).generate("hi")
        assert all(KEY not in headers["authorization"] for headers in server.headers)

    async def test_a_model_names_the_variable_of_its_own_key(
        self, server: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VLLM_KEY", "own-key")
        await OpenAIProvider(Model(name="m", provider="openai", base_url=server.url, api_key_env="VLLM_KEY")).generate(
            "hi"
        )
        assert server.headers[0]["authorization"] == "Bearer own-key"

    @pytest.mark.parametrize(
        "name",
        [
            *("base_url", "api_base", "api_key", "timeout", "model", "n", "best_of", "max_completion_tokens"),
            *("num_predict", "max_output_tokens"),
        ],
    )
    async def test_no_parameter_can_redirect_a_call_or_undo_a_limit(self, server: Loopback, name: str) -> None:
        for parameters in ({name: "x"}, {"extra_body": {name: "x"}}):
            options: dict[str, Any] = dict(parameters)
            with pytest.raises(InvalidRequest, match="is not a parameter of a request"):
                await provider(server).generate("hi", **options)
        assert server.requests == []

    @pytest.mark.parametrize("name", ["max_tokens", "messages", "temperature", "tools", "max_new_tokens"])
    async def test_nor_can_what_goes_into_the_body_as_it_is(self, server: Loopback, name: str) -> None:
        with pytest.raises(InvalidRequest, match="is not a parameter of a request"):
            await provider(server).generate("hi", extra_body={name: 100_000})
        assert server.requests == []

    @pytest.mark.parametrize("body", [{"options": {"num_predict": 9}}, {"generationConfig": {"maxOutputTokens": 9}}])
    async def test_nor_what_stands_deeper_there(self, server: Loopback, body: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequest, match="say max_tokens"):
            await provider(server).generate("hi", extra_body=body)
        await provider(server).generate("hi", extra_body={"metadata": {"model": "x", "prompt": "y"}})
        assert len(server.requests) == 1

    async def test_parameters_that_litellm_would_obey_itself_only_reach_the_body(self, server: Loopback) -> None:
        with Loopback() as elsewhere:
            controls: dict[str, Any] = {
                "fallbacks": [{"model": "openai/x", "api_base": elsewhere.url}],
                "mock_response": "made up",
                "headers": {"x": "y"},
                "top_k": 3,
                "extra_body": {"min_tokens": 1},
            }
            assert await provider(server).generate("hi", **controls) == "w0 w1 w2"
            assert elsewhere.requests == []
        (body,) = server.requests
        assert (body["mock_response"], body["top_k"], body["min_tokens"]) == ("made up", 3, 1)

    async def test_no_key_gets_into_the_code_of_an_error(self, server: Loopback, ask: Ask) -> None:
        error = await failed(server, ask, failure(400, "no", f"key_{KEY}"))
        assert KEY not in (error.code or "")

    async def test_a_prompt_too_long_says_which_window_it_did_not_fit(self, server: Loopback) -> None:
        server.script(failure(400, "too long", "context_length_exceeded"))
        small = Model(name="m", provider="openai", context_window=4000)
        with pytest.raises(ContextTooLong) as caught:
            await OpenAIProvider(small, base_url=server.url, api_key=KEY).generate("hi")
        assert caught.value.context_window == 4000

    async def test_the_organization_goes_with_the_call(self, server: Loopback) -> None:
        await provider(server, organization="org-1").generate("hi")
        assert server.headers[0]["openai-organization"] == "org-1"

    def test_whatever_looks_like_a_key_is_scrubbed(self) -> None:
        assert scrub("a sk-abcdefgh12345 b Bearer abcdefgh123 c AIzaSyA1234567890 d", []) == "a [key] b [key] c [key] d"
        assert scrub("https://h/x?api_key=0123456789abcdef0&n=1", []) == "https://h/x?api_key=[key]&n=1"
        assert scrub("""x-api-key: a-0123456789.abcdef {"token":"abcdef-0123456789"}""") == (
            """x-api-key: [key] {"token":"[key]"}"""
        )
        assert scrub("secret_access_key=wJalrXUtnFEMI/K7MDENG+bPx=, client_secret: 0123456789abcdef") == (
            "secret_access_key=[key], client_secret: [key]"
        )
        for harmless in (
            "sorted(them, key=operator.itemgetter2_for_all) token: 12",
            "primary_key: users-by-region-v2, cache_key='claude-3-5-sonnet-20241022', key: gpt-4o-mini-2024-07-18",
            "monkey: 2024-01-01-some-thing",
        ):
            assert scrub(harmless) == harmless
        assert scrub("my-own-secret is my-own-secret", ["my-own-secret"]) == "[key] is [key]"
        assert len(scrub("x" * 9999)) < 500


class TestLoading:
    async def test_loading_it_changes_what_it_would_do_by_itself(self) -> None:
        litellm = await load.ready()
        assert litellm.telemetry is False
        assert litellm.num_retries == 0
        assert litellm.disable_hf_tokenizer_download is True
        assert (litellm.success_callback, litellm.failure_callback, litellm.callbacks) == ([], [], [])
        assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"

    async def test_it_is_loaded_once_by_whoever_comes_first(self) -> None:
        first, *others = await asyncio.gather(*(load.ready() for _ in range(5)))
        assert all(each is first for each in others)


def _json(answer: Answer) -> dict[str, Any]:
    import json

    return dict(json.loads(answer.body))
