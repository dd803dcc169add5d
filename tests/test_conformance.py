"""What everything that answers promises: providers, layers, a chain, the router; whole, streamed, embedded, sync.

A new provider or layer is added to ``SUBJECTS``, and must pass.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from devsynth_providers import (
    AnthropicProvider,
    ChatRequest,
    EmbedRequest,
    FallbackProvider,
    Health,
    InvalidRequest,
    LiteLLMProvider,
    LMStudioProvider,
    LocalProvider,
    Model,
    OpenAIProvider,
    OpenRouterProvider,
    ProviderPort,
    ProviderUnavailable,
    RateLimits,
    RequestRejected,
    Response,
    Router,
    StubProvider,
    SyncRouter,
    stack,
)
from devsynth_providers.flights import Flights
from devsynth_providers.layers.breaking import Breaking
from devsynth_providers.layers.coalesced import Coalesced
from devsynth_providers.layers.defaults import Defaults
from devsynth_providers.layers.hedged import Hedged
from devsynth_providers.layers.joined import Joined
from devsynth_providers.layers.limited import Limited
from devsynth_providers.layers.matched import Matched
from devsynth_providers.layers.metered import Metered
from devsynth_providers.layers.named import Named
from devsynth_providers.layers.resuming import Resuming
from devsynth_providers.layers.retrying import Retrying
from devsynth_providers.layers.splitting import Splitting
from devsynth_providers.layers.timed import Timed
from devsynth_providers.layers.traced import Traced
from devsynth_providers.limits import Limiter
from devsynth_providers.measured import Measured
from devsynth_providers.policy.file import load_policy
from devsynth_providers.testing import ScriptedProvider
from devsynth_providers.types import Hedge

from . import lmstudio, messages
from .helpers import model, policy
from .loopback import Answer, Loopback, delta, sse, stream, usage_event, vectors, whole

pytestmark = pytest.mark.litellm

Subject = Callable[[Loopback], ProviderPort]


def scripted(**options: Any) -> ScriptedProvider:
    return ScriptedProvider(*[("one ", "two ", "three")] * 50, **options)


def slow() -> ScriptedProvider:
    return ScriptedProvider(*[(0.01, "one ", "two ", "three")] * 50)


def failing(name: str) -> ScriptedProvider:
    return ScriptedProvider(*[ProviderUnavailable("down")] * 50, model=model(name))


def router(server: Loopback) -> Router:
    return Router(policy(model("a", model="e5"), model("b", model="e5")), {"a": failing("x"), "b": scripted()})


def coalesced(inner: ProviderPort) -> Coalesced:
    plan = Router(policy(inner.model, coalesce="always"), {inner.model.name: inner}).plan("hi")
    return Coalesced(inner, plan, Flights())


def joined(inner: ProviderPort) -> Joined:
    plan = Router(policy(inner.model, join_embeddings_s=0.01), {inner.model.name: inner}).plan("hi")
    return Joined(inner, inner, plan, Flights())


def busy_limiter() -> Limiter:
    held = Limiter()
    held.hold(replace(policy(model()), limits={"test": RateLimits(concurrent=1)}))
    return held


SUBJECTS: dict[str, Subject] = {
    "ScriptedProvider": lambda server: scripted(),
    "StubProvider": lambda server: StubProvider(),
    "OpenAIProvider": lambda server: OpenAIProvider(known("openai", server.url), api_key="k"),
    "OpenAIProvider, unified": lambda server: OpenAIProvider(known("openai", server.url), transport="litellm"),
    "AnthropicProvider": lambda server: AnthropicProvider(known("anthropic", server.url)),
    "AnthropicProvider, unified": lambda server: AnthropicProvider(known("anthropic", server.url), transport="litellm"),
    "OpenRouterProvider": lambda server: OpenRouterProvider(known("openrouter", server.url)),
    "OpenRouterProvider, unified": lambda server: OpenRouterProvider(
        known("openrouter", server.url), transport="litellm"
    ),
    "LiteLLMProvider": lambda server: LiteLLMProvider(known("litellm", server.url, model="hosted_vllm/m")),
    "LMStudioProvider": lambda server: LMStudioProvider(known("lmstudio", server.url)),
    "Breaking": lambda server: Breaking(scripted(), Health().circuit(scripted().identity)),
    "Coalesced": lambda server: coalesced(scripted()),
    "Timed": lambda server: Timed(scripted()),
    "Defaults": lambda server: Defaults(scripted(), temperature=0.1, max_tokens=100),
    "Traced": lambda server: Traced(scripted()),
    "Hedged": lambda server: Hedged(slow(), scripted(), Hedge(after=0.001, max_extra=1), Measured(), Health().hedges),
    "Joined": lambda server: joined(scripted()),
    "Limited": lambda server: Limited(scripted(), busy_limiter()),
    "Matched": lambda server: Matched(scripted()),
    "Metered": lambda server: Metered(scripted()),
    "Named": lambda server: Named(scripted(), model("n")),
    "Resuming": lambda server: Resuming(scripted(), [scripted()]),
    "Retrying": lambda server: Retrying(scripted()),
    "Splitting": lambda server: Splitting(scripted()),
    "stack": lambda server: stack(scripted()),
    "FallbackProvider": lambda server: FallbackProvider([failing("m"), scripted(model=model("m"))]),
    "Router": router,
    "Router over LiteLLM": lambda server: Router(policy(known("openai", server.url))),
    "Router by name": lambda server: Router(load_policy("ci")),
    "LocalProvider": lambda server: LocalProvider(context_size=1024, threads=1),
}
if lmstudio.missing() is None:  # if it is not, test_lmstudio tells what is missing
    SUBJECTS["LMStudioProvider, real server"] = lambda server: LMStudioProvider(
        base_url=lmstudio.shim().url, api_key=lmstudio.KEY
    )


def known(provider: str, url: str, **facts: Any) -> Model:
    return model("m", provider=provider, base_url=url, context_window=1000, **facts)


def answer_by_path(server: Loopback) -> None:
    """Make the server tell wires, chat and embeddings apart, and send as many vectors as there are texts."""

    def answer(asked: dict[str, Any]) -> Answer:
        anthropic = server.paths[-1].endswith("/messages")
        if asked.get("tools"):
            return called_on_anthropics_wire(asked) if anthropic else called(asked)
        if anthropic:
            return messages.stream("one ", "two ", "three") if asked.get("stream") else messages.whole("one two three")
        if "input" not in asked:
            return stream("one ", "two ", "three") if asked.get("stream") else whole("one two three")
        return vectors(*([index + 1.0, 2.0] for index in range(len(asked["input"]))))

    server.script(answer)


def called(asked: dict[str, Any]) -> Answer:
    """The first tool that is offered, called with one argument."""
    name = asked["tools"][0]["function"]["name"]
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": name, "arguments": '{"x":1}'}}
    if not asked.get("stream"):
        return whole(None, finish="tool_calls", message={"tool_calls": [call]})
    pieces = [{**call, "function": {"name": name, "arguments": ""}}]
    pieces += [{"index": 0, "function": {"arguments": part}} for part in ('{"x"', ":1}")]
    deltas = [delta(tool_calls=[piece]) for piece in pieces]
    return sse(delta(role="assistant"), *deltas, delta(finish="tool_calls"), usage_event(), "[DONE]")


def called_on_anthropics_wire(asked: dict[str, Any]) -> Answer:
    name = asked["tools"][0]["name"]
    if not asked.get("stream"):
        use = {"type": "tool_use", "id": "c1", "name": name, "input": {"x": 1}}
        return messages.whole(blocks=[use], stop="tool_use")
    return sse(messages.start(), *messages.tool(name, '{"x"', ":1}", id_="c1"), *messages.end("tool_use"))


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.local if name == "LocalProvider" else ()) for name in SUBJECTS]
)
async def subject(request: pytest.FixtureRequest, server: Loopback) -> AsyncIterator[ProviderPort]:
    answer_by_path(server)
    provider = SUBJECTS[request.param](server)
    yield provider
    await provider.aclose()


def sound(response: Response) -> None:
    assert response.text
    assert response.finish_reason in ("stop", "length")
    assert response.usage.output_tokens > 0
    assert response.model
    assert response.provider
    assert response.first_token_s is not None
    assert 0 <= response.first_token_s <= response.latency_s
    assert response.cost_basis in ("free", "computed", "unknown", "estimated")


async def test_it_answers_whole(subject: ProviderPort) -> None:
    text = await subject.generate("one two three", temperature=0.0, max_tokens=30)
    assert isinstance(text, str)
    assert text


async def test_and_streamed_the_same(subject: ProviderPort) -> None:
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": 30}
    whole_text = await subject.generate("one two three", **options)
    pieces = [piece async for piece in subject.generate_stream("one two three", **options)]
    assert "".join(pieces) == whole_text
    assert all(pieces)
    assert len(pieces) > 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_response_tells_all_there_is_to_tell(subject: ProviderPort, streamed: bool) -> None:
    request = ChatRequest.of("one two three", stream=streamed, max_tokens=30)
    response = await subject.complete(request)
    sound(response)
    async with await subject.send(request) as reply:
        assert reply.response.model
        chunks = [chunk async for chunk in reply]
    assert "".join(chunk.text for chunk in chunks) == reply.response.text
    assert not any(chunk.empty for chunk in chunks)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_system_prompt_comes_before_all_else(subject: ProviderPort, server: Loopback, streamed: bool) -> None:
    request = ChatRequest.of("one two three", system_prompt="Say little.", stream=streamed, max_tokens=30)
    sound(await subject.complete(request))
    for body in filter(None, server.requests):  # of those who speak to it; a listing is asked for without a body
        first = body.get("system") or body["messages"][0]
        assert "Say little." in str(first)
        assert "one two three" not in str(first)


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_offered_and_a_call_comes_back_whole(
    subject: ProviderPort, server: Loopback, streamed: bool
) -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    tool = {"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": parameters}}
    request = ChatRequest.of("one two three", tools=[tool], stream=streamed, max_tokens=30)
    if subject.model.provider == "local":
        with pytest.raises(RequestRejected, match="take no tools"):
            await subject.complete(request)
        return
    response = await subject.complete(request)
    if not server.requests:  # nobody there to call it: the answer is as without
        assert response.text or response.tool_calls
        return
    (call,) = response.tool_calls
    assert (call.id, call.name, json.loads(call.arguments)) == ("c1", "find", {"x": 1})
    assert response.finish_reason == "tool_calls"
    assert response.text == ""


async def test_texts_become_vectors_one_for_each(subject: ProviderPort) -> None:
    if subject.model.provider == "anthropic":
        with pytest.raises(RequestRejected, match="does not take texts to embed"):
            await subject.embed("a")
        return
    rows = await subject.embed_batch(["a", "bb", "ccc"])
    assert len(rows) == 3
    assert len({len(row) for row in rows}) == 1
    assert all(isinstance(number, float) for row in rows for number in row)
    assert await subject.embed("a") == pytest.approx(rows[0], abs=1e-4)
    assert await subject.embed_batch([]) == []
    response = await subject.complete(EmbedRequest(texts=("a", "bb")))
    assert len(response.vectors) == 2
    assert response.finish_reason == "stop"


async def test_many_at_once_do_not_get_in_each_others_way(subject: ProviderPort) -> None:
    texts = await asyncio.gather(*(subject.generate("one two three", temperature=0, max_tokens=6) for _ in range(5)))
    assert len(set(texts)) == 1


async def test_leaving_a_stream_early_leaves_nothing_behind(subject: ProviderPort) -> None:
    before = asyncio.all_tasks()
    async with await subject.send(ChatRequest.of("one two three", stream=True, max_tokens=30)) as reply:
        async for chunk in reply:
            assert chunk.text
            break
    assert reply.response.finish_reason is None
    for _ in range(20):  # LiteLLM leaves a generator to the loop, which closes it in its next turns
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert await subject.generate("one two three", max_tokens=5)


async def test_wrong_arguments_are_refused(subject: ProviderPort) -> None:
    with pytest.raises(InvalidRequest):
        await subject.generate("hi", temperature=9)
    with pytest.raises(InvalidRequest):
        await subject.embed("")
    with pytest.raises(InvalidRequest):
        await subject.embed_batch("not a list")
    with pytest.raises(InvalidRequest):
        await subject.complete(ChatRequest.of("hi"), max_tokens=5)


async def test_it_knows_its_window_its_price_and_how_to_count(subject: ProviderPort) -> None:
    assert subject.max_context_size > 0
    assert set(subject.cost_per_1k_tokens) == {"input", "output"}
    assert subject.count_tokens("") == 0
    assert 1 <= subject.count_tokens("one two three") <= 10
    assert subject.model.name


def test_it_serves_code_without_a_loop(server: Loopback) -> None:
    answer_by_path(server)
    for name, make in SUBJECTS.items():
        with SyncRouter(make(server)) as sync:
            text = sync.generate("one two three", temperature=0, max_tokens=30)
            assert text, name
            assert "".join(sync.generate_stream("one two three", temperature=0, max_tokens=30)) == text, name
            if "Anthropic" not in name:
                assert len(sync.embed_batch(["a", "b"])) == 2, name
                assert len(sync.embed("a")) > 1, name
            sound(sync.complete("one two three", max_tokens=30))
