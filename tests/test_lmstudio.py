"""LM Studio: which model is meant, its true window, and its time to load; over llama.cpp's real server, and over a
listing that is anything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from typing_extensions import override

from devsynth_providers import (
    AuthenticationError,
    ChatRequest,
    Chunk,
    ConfigurationError,
    ContextTooLong,
    EmbedRequest,
    EmptyResponse,
    FallbackProvider,
    LMStudioProvider,
    MalformedResponse,
    Model,
    ModelNotFound,
    OpenAIProvider,
    ProviderError,
    ProviderPort,
    ProviderTimeout,
    ProviderUnavailable,
    Reply,
    Request,
    RequestRejected,
    Response,
    Router,
    SyncRouter,
    Timeouts,
)
from devsynth_providers.layers.timed import Timed
from devsynth_providers.layers.traced import Traced
from devsynth_providers.providers import lmstudio_models, lmstudio_served
from devsynth_providers.providers.lmstudio_models import LMStudioModel
from devsynth_providers.providers.lmstudio_served import Served
from devsynth_providers.testing import ScriptedProvider, run_virtually

from .conftest import Ask
from .helpers import model, policy
from .lmstudio import CHAT, EMBEDDINGS, KEY, MAX_WINDOW, SLEEPER, WINDOW, LMStudio, missing, real_servers
from .loopback import Answer, Loopback, as_json, delta, failure, sse, stream, usage_event, vectors, whole

needs_real_servers = pytest.mark.skipif(missing() is not None, reason=str(missing()))
LANES: dict[str, Any] = {"direct": "auto", "unified": "litellm"}


@pytest.fixture
def studio() -> Iterator[LMStudio]:
    with LMStudio(real_servers()) as shim:
        yield shim


@pytest.fixture(params=list(LANES))
def transport(request: pytest.FixtureRequest) -> Any:
    return LANES[request.param]


def at(studio: LMStudio, name: str | Model | None = CHAT, **options: Any) -> LMStudioProvider:
    options = {"api_key": KEY, "retry_attempts": 1, **options}
    return LMStudioProvider(name, base_url=studio.url, **options)


@needs_real_servers
class TestRealServer:
    async def test_it_answers_on_both_lanes_whole_and_streamed(
        self, studio: LMStudio, ask: Ask, transport: Any
    ) -> None:
        async with at(studio, transport=transport) as provider:
            text = await ask(provider, "Say something.", max_tokens=12, temperature=0)
            assert text == await provider.generate("Say something.", max_tokens=12, temperature=0)
            assert (await provider.why_not_direct() is None) is (transport == "auto")
        assert studio.bodies[0]["model"] == CHAT

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_the_answer_tells_usage_model_and_why_it_ended(
        self, studio: LMStudio, transport: Any, streamed: bool
    ) -> None:
        provider = at(studio, transport=transport)
        request = ChatRequest.of("Count.", system_prompt="Be brief.", max_tokens=5, stream=streamed, temperature=0)
        response = await provider.complete(request)
        assert response.usage.input_tokens > 5
        assert response.usage.output_tokens == 5
        assert not response.usage.estimated
        assert (response.model, response.response_model, response.finish_reason) == (CHAT, CHAT, "length")
        assert [message["role"] for message in studio.bodies[0]["messages"]] == ["system", "user"]

    async def test_texts_become_vectors(self, studio: LMStudio, transport: Any) -> None:
        rows = await at(studio, EMBEDDINGS, transport=transport).embed_batch(["a cat", "a dog", "a cat"])
        assert rows[0] == pytest.approx(rows[2], abs=1e-4)
        assert rows[0] != rows[1]
        assert len(rows[0]) == 576

    async def test_tools_are_taken(self, studio: LMStudio, transport: Any) -> None:
        tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
        assert await at(studio, transport=transport).generate("Find it.", tools=[tool], max_tokens=5)
        assert studio.bodies[0]["tools"] == [tool]

    @pytest.mark.parametrize("name", [CHAT, None])
    async def test_a_wrong_key_is_told_as_one(self, studio: LMStudio, ask: Ask, transport: Any, name: Any) -> None:
        with pytest.raises(AuthenticationError):
            await ask(at(studio, name, api_key="not-the-key-0123", transport=transport))

    async def test_leaving_a_stream_stops_the_model(self, studio: LMStudio, transport: Any) -> None:
        provider = at(studio, transport=transport)
        async with await provider.send(
            ChatRequest.of("Count.", stream=True, max_tokens=400, extra_body={"ignore_eos": True})
        ) as reply:
            async for _ in reply:
                break
            assert studio.real.works(CHAT)
        for _ in range(100):
            if not studio.real.works(CHAT):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it still decodes")

    async def test_many_at_once_get_their_own_answers(self, studio: LMStudio, transport: Any) -> None:
        provider = at(studio, transport=transport)
        asked = [provider.generate("Say something.", max_tokens=4, temperature=0) for _ in range(5)]
        assert len(set(await asyncio.gather(*asked))) == 1
        assert studio.paths.count("/api/v1/models") == 1

    def test_it_serves_code_without_a_loop(self, studio: LMStudio) -> None:
        with SyncRouter(at(studio, None)) as sync:
            assert sync.generate("Say something.", max_tokens=4)
            assert "".join(sync.generate_stream("Say something.", max_tokens=4))
            assert len(sync.embed("a cat")) == 576

    @pytest.mark.parametrize("version", ["v1", "v0", "openai"])
    async def test_the_newest_listing_that_it_has_is_read(self, studio: LMStudio, version: Any) -> None:
        studio.version, studio.models = version, (CHAT, EMBEDDINGS)
        chat, embeddings = await at(studio, None).models()
        assert (chat.key, embeddings.key) == (CHAT, EMBEDDINGS)
        assert embeddings.type == "embeddings"
        if version == "openai":
            assert chat == LMStudioModel(key=CHAT)
        else:
            assert (chat.type, chat.loaded) == ("llm", True)
            assert (chat.context_window, chat.max_context_window) == (WINDOW, MAX_WINDOW)

    @pytest.mark.parametrize("version", ["v1", "v0", "openai"])
    async def test_without_a_name_the_loaded_model_answers(
        self, studio: LMStudio, ask: Ask, transport: Any, version: Any
    ) -> None:
        studio.version, studio.models = version, (EMBEDDINGS, CHAT)
        provider = at(studio, None, transport=transport)
        assert provider.model.name == f"(loaded at {studio.url[7:-3]})"
        assert await ask(provider, "Say something.", max_tokens=3)
        assert provider.model.name == CHAT
        response = await provider.complete(EmbedRequest(texts=("a cat",)))
        assert (response.model, len(response.vectors)) == (EMBEDDINGS, 1)
        assert response.attempts[0].model == EMBEDDINGS
        assert provider.model.name == CHAT

    @pytest.mark.parametrize("version", ["v1", "v0"])
    async def test_the_window_is_the_one_that_the_model_is_loaded_with(
        self, studio: LMStudio, ask: Ask, transport: Any, version: Any
    ) -> None:
        studio.version = version
        provider = at(studio, transport=transport)
        with pytest.raises(ContextTooLong) as caught:
            await ask(provider, "word " * 2000)
        assert caught.value.context_window == provider.max_context_size == WINDOW

    async def test_the_figure_of_a_policy_wins(self, studio: LMStudio) -> None:
        router = Router(policy(model(CHAT, provider="lmstudio", base_url=studio.url, context_window=400)), {})
        assert router.max_context_size == 400
        provider = at(studio, model(CHAT, provider="lmstudio", context_window=400))
        await provider.generate("Say something.", max_tokens=2)
        assert provider.max_context_size == 400

    async def test_a_model_that_was_unloaded_is_loaded_again(self, studio: LMStudio, transport: Any) -> None:
        for _ in range(200):
            if studio.real.sleeps(SLEEPER):
                break
            await asyncio.sleep(0.05)
        provider = at(studio, SLEEPER, transport=transport, ttl_s=300)
        (slept,) = [each for each in await provider.models() if each.key == SLEEPER]
        assert (slept.loaded, slept.context_window) == (False, None)
        assert "".join([piece async for piece in provider.generate_stream("Say something.", max_tokens=3)])
        assert studio.bodies[0]["ttl"] == 300
        assert not studio.real.sleeps(SLEEPER)
        await provider.generate("Say something.", max_tokens=1)
        assert provider.max_context_size == WINDOW

    async def test_a_model_that_is_not_there_is_not_found(self, studio: LMStudio, ask: Ask, transport: Any) -> None:
        with pytest.raises(ModelNotFound):
            await ask(at(studio, "no-such-model", transport=transport))


def listing(*models: dict[str, Any]) -> Answer:
    return as_json({"models": list(models)})


def row(key: str, *, loaded: int = 0, window: int = 4096, type_: str = "llm") -> dict[str, Any]:
    instances = [
        {"id": key if n == 0 else f"{key}:{n + 1}", "config": {"context_length": window}} for n in range(loaded)
    ]
    return {"key": key, "type": type_, "max_context_length": 32768, "loaded_instances": instances}


def served(server: Loopback, models: Answer | Callable[[], Answer], *answers: Any) -> None:
    """Let *server* answer GET with *models*, and calls with *answers* in turn; the last one repeats."""
    left = list(answers or [(whole(), stream())])

    def answer(asked: dict[str, Any]) -> Answer:
        if not asked:
            return models() if callable(models) else models
        now = left.pop(0) if len(left) > 1 else left[0]
        chosen: Answer = now[bool(asked.get("stream"))] if isinstance(now, tuple) else now
        return chosen

    server.script(answer)


def near(server: Loopback, name: str | Model | None = None, **options: Any) -> LMStudioProvider:
    return LMStudioProvider(name, base_url=server.url, **{"retry_attempts": 1, "timeout": 10, **options})


def calls(server: Loopback) -> list[dict[str, Any]]:
    return [body for body in server.requests if body]


DEEP = b'{"models": ' + b"[" * 100_000
LISTINGS = {
    "a web page": Answer([b"<html>" * 1000], content_type="text/html"),
    "not found": failure(404),
    "broken": failure(500),
    "unknown, with 200": as_json({"error": "Unexpected endpoint or method. (GET /api/v1/models)"}),
    "nothing": Answer([], content_length=0),
    "a list": as_json([1, 2]),
    "text": as_json("models"),
    "no list in it": as_json({"models": {"key": "m"}, "data": "x"}),
    "cut": Answer([b'{"models": [{"ke']),
    "deep": Answer([DEEP]),
    "not UTF-8": Answer([b'{"models": "\xff"}']),
    "huge": Answer([b'{"models": ["' + b"x" * 5_000_000 + b'"]}']),
    "elsewhere": Answer([], status=307, headers={"location": "http://example.com/"}),
    "reset": Answer([], then="reset"),
}


class TestListings:
    @pytest.mark.parametrize("answer", LISTINGS.values(), ids=LISTINGS)
    async def test_no_listing_fails_a_call(self, server: Loopback, ask: Ask, answer: Answer) -> None:
        served(server, answer)
        assert await ask(near(server, "m")) == "w0 w1 w2"

    @pytest.mark.parametrize("answer", LISTINGS.values(), ids=LISTINGS)
    async def test_without_one_a_model_has_to_be_named(self, server: Loopback, ask: Ask, answer: Answer) -> None:
        served(server, answer)
        with pytest.raises((MalformedResponse, ProviderUnavailable)):
            await ask(near(server))
        assert not calls(server)

    async def test_one_that_does_not_come_is_not_waited_for(
        self, server: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lmstudio_models, "LISTING_S", 0.05)
        served(server, Answer([], then="hang"))
        assert await near(server, "m").generate("hi") == "w0 w1 w2"
        with pytest.raises(ProviderTimeout, match="no list of models"):
            await near(server).models()

    @pytest.mark.parametrize(
        ("entry", "expected"),
        [
            ({"key": "m"}, LMStudioModel(key="m")),
            ({"key": "m", "loaded_instances": None, "type": 7}, LMStudioModel(key="m")),
            ({"key": "m", "loaded_instances": []}, LMStudioModel(key="m", loaded=False)),
            (
                {"key": "m", "loaded_instances": [{"id": 3, "config": []}, "x"], "max_context_length": "many"},
                LMStudioModel(key="m", loaded=True),
            ),
            (
                {
                    "key": "m",
                    "loaded_instances": [{"config": {"context_length": n}} for n in (-1, True, 1.5, 900, 700)],
                },
                LMStudioModel(key="m", loaded=True, context_window=700),
            ),
            ({"key": "m", "max_context_length": 0, "type": "vlm"}, LMStudioModel(key="m", type="llm")),
            *(({"key": key}, None) for key in (None, 5, "", " ", "a\nb", "\ud800")),
            ("m", None),
            (None, None),
        ],
    )
    async def test_what_is_wrong_with_one_model_leaves_out_no_other(
        self, server: Loopback, entry: Any, expected: LMStudioModel | None
    ) -> None:
        served(server, as_json({"models": [entry, {"key": "other"}]}))
        found = await near(server).models()
        assert found == ((LMStudioModel(key="other"),) if expected is None else (expected, LMStudioModel(key="other")))

    async def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        with pytest.raises(ProviderUnavailable):
            await LMStudioProvider(base_url="http://127.0.0.1:9", retry_attempts=1).generate("hi")

    async def test_it_is_asked_for_once_by_all_who_come_at_once(self, server: Loopback) -> None:
        served(server, listing(row("m", loaded=1)))
        provider = near(server)
        await asyncio.gather(*(provider.generate("hi") for _ in range(10)))
        await provider.generate("hi")
        assert len(server.requests) - len(calls(server)) == 1


class TestWhichModel:
    @pytest.mark.parametrize(
        ("rows", "expected"),
        [
            ([row("a"), row("b", loaded=1), row("c", loaded=1)], "b"),
            ([row("e", loaded=1, type_="embedding"), row("a"), row("b", loaded=2)], "b"),
            ([row("a"), row("e", loaded=1, type_="embedding")], "a"),
            ([{**row("a"), "loaded_instances": [{"id": "mine"}]}], "mine"),
        ],
    )
    async def test_the_first_that_is_loaded_or_the_only_one(
        self, server: Loopback, ask: Ask, rows: Any, expected: str
    ) -> None:
        served(server, listing(*rows))
        provider = near(server)
        await ask(provider)
        assert provider.model.name == calls(server)[0]["model"] == expected

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            ([row("a"), row("b"), row("e", loaded=1, type_="embedding")], "name one of these: a, b"),
            ([row("e", loaded=1, type_="embedding")], "none to name"),
            ([], "none to name"),
        ],
    )
    async def test_if_none_is_loaded_the_error_has_the_names(
        self, server: Loopback, ask: Ask, rows: Any, said: str
    ) -> None:
        served(server, listing(*rows))
        with pytest.raises(ModelNotFound, match=said):
            await ask(near(server))

    async def test_it_stays_the_same_until_it_is_not_there_any_more(self, server: Loopback, ask: Ask) -> None:
        there = [row("a", loaded=1), row("b")]
        served(
            server,
            lambda: listing(*there),
            (whole(), stream()),
            failure(400, code="model_not_found"),
            (whole(), stream()),
        )
        provider = near(server)
        await ask(provider)
        there[:] = [row("b", loaded=1)]
        await ask(provider)
        assert [body["model"] for body in calls(server)] == ["a", "a", "b"]
        assert provider.model.name == "b"

    async def test_the_trace_tells_the_model_that_was_found(self, server: Loopback, spans: Any) -> None:
        served(server, listing(row("a", loaded=1)))
        await near(server).generate("hi")
        assert [span.attributes["gen_ai.request.model"] for span in spans()] == ["a"]

    def test_tokens_are_counted_as_by_other_providers_of_the_same_model(self) -> None:
        text = "Straßenbahnhaltestellenschild " * 3
        assert LMStudioProvider("gpt-4o").count_tokens(text) == OpenAIProvider("gpt-4o", api_key="k").count_tokens(text)

    async def test_each_who_fails_has_an_error_of_its_own(self, server: Loopback) -> None:
        served(server, failure(500))
        provider = near(server)
        asked = [provider.generate("hi") for _ in range(5)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert len({id(error) for error in errors}) == 5
        assert all(isinstance(error, ProviderError) and len(error.attempts) == 1 for error in errors)

    async def test_it_may_be_left_to_a_router_or_a_chain(self, server: Loopback, ask: Ask) -> None:
        served(server, listing(row("a", loaded=1)))
        named = model("ours", provider="lmstudio", context_window=None)
        router = Router(policy(named), {"ours": near(server)})
        response = await router.complete("hi")
        assert (response.model, response.attempts[0].model, calls(server)[0]["model"]) == ("ours", "ours", "a")
        assert router.max_context_size == 4096
        chain = FallbackProvider([LMStudioProvider(base_url="http://127.0.0.1:9", retry_attempts=1), near(server)])
        assert await ask(chain) == "w0 w1 w2"

    async def test_a_listing_that_fails_later_takes_nothing_away(
        self, server: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lmstudio_served, "FRESH_S", 0.0)
        answers = [listing(row("a", loaded=1, window=900)), failure(500)]
        served(server, lambda: answers.pop(0) if len(answers) > 1 else answers[0])
        provider = near(server)
        for _ in range(3):
            await provider.generate("hi")
        assert (provider.model.name, provider.max_context_size) == ("a", 900)
        assert len(server.requests) - len(calls(server)) > 1

    async def test_a_name_in_the_environment_is_a_name(self, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LM_STUDIO_MODEL", "named")
        served(server, listing(row("a", loaded=1)))
        await near(server).generate("hi")
        assert calls(server)[0]["model"] == "named"

    async def test_warming_up_finds_it_and_a_server_that_is_away_is_no_reason_to_fail(self, server: Loopback) -> None:
        served(server, listing(row("a", loaded=1, window=2000)))
        async with near(server) as provider:
            assert (provider.model.name, provider.max_context_size) == ("a", 2000)
        await LMStudioProvider(base_url="http://127.0.0.1:9").warm_up()

    @pytest.mark.parametrize("options", [{"load_s": 0}, {"load_s": float("nan")}, {"ttl_s": 0}, {"ttl_s": 1.5}])
    def test_settings_are_checked(self, options: Any) -> None:
        with pytest.raises(ConfigurationError):
            LMStudioProvider("m", **options)


NOTHING = (whole(None), sse(delta(role="assistant"), delta(finish="stop"), usage_event(3, 0), "[DONE]"))


class TestWindow:
    @pytest.mark.parametrize(("words", "kind"), [(900, ContextTooLong), (100, EmptyResponse)])
    async def test_an_empty_answer_near_the_window_is_an_overflow(
        self, server: Loopback, ask: Ask, transport: Any, words: int, kind: type[ProviderError]
    ) -> None:
        served(server, listing(row("m", loaded=1, window=1000)), NOTHING)
        with pytest.raises(ProviderError) as caught:
            await ask(near(server, "m", transport=transport), "four" * words)
        assert type(caught.value) is kind
        if isinstance(caught.value, ContextTooLong):
            assert caught.value.context_window == 1000

    async def test_what_the_server_counted_goes_before_our_estimate(self, server: Loopback) -> None:
        served(server, listing(row("m", loaded=1, window=1000)), whole(None, usage=(990, 0)))
        with pytest.raises(ContextTooLong) as caught:
            await near(server, "m").generate("short")
        assert caught.value.attempts[0].usage.input_tokens == 990

    async def test_only_a_larger_window_is_asked_next(self, server: Loopback, ask: Ask) -> None:
        served(server, listing(row("m", loaded=1, window=1000)), NOTHING)
        same, larger = (ScriptedProvider("yes", model=model(str(n), context_window=n)) for n in (1000, 4000))
        assert await ask(FallbackProvider([near(server, "m"), same, larger]), "four" * 900) == "yes"
        assert not same.requests

    @pytest.mark.parametrize(
        "message",
        [
            "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with "
            "context length of only 4096 tokens, which is not enough.",
            "Reached context length of 4096 tokens with model (arch: x) that does not currently support it.",
        ],
    )
    async def test_an_overflow_told_inside_an_answer_is_one(
        self, server: Loopback, ask: Ask, transport: Any, message: str
    ) -> None:
        for error in [{"message": message}] + [message] * (transport == "auto"):  # LiteLLM loses mere text
            event = f"event: error\ndata: {json.dumps({'error': error})}\n\n".encode()
            served(server, failure(404), (as_json({"error": error}), sse(event)))
            with pytest.raises(ContextTooLong) as caught:
                await ask(near(server, "m", transport=transport))
        assert caught.value.context_window == 4096

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (as_json({"error": "No models loaded. Please load a model in the developer page."}, 400), ModelNotFound),
            (failure(404, "No models loaded."), ModelNotFound),
            (failure(400, 'Invalid model identifier "m".', "model_not_found"), ModelNotFound),
            (failure(400, "Model is unloaded."), ProviderUnavailable),
            (failure(400, "temperature is no number"), RequestRejected),
        ],
    )
    async def test_a_model_that_is_not_loaded_is_passed_on(
        self, server: Loopback, ask: Ask, transport: Any, answer: Answer, kind: type[ProviderError]
    ) -> None:
        served(server, listing(row("m", loaded=1)), answer)
        with pytest.raises(ProviderError) as caught:
            await ask(near(server, "m", transport=transport))
        assert type(caught.value) is kind
        assert caught.value.passes_on is (kind is not RequestRejected)

    async def test_after_such_a_failure_the_models_are_looked_at_again(self, server: Loopback) -> None:
        served(server, listing(row("m", loaded=1)), failure(400, "Model is unloaded."), (whole(), stream()))
        assert await near(server, "m", retry_attempts=2).generate("hi") == "w0 w1 w2"
        assert len(server.requests) - len(calls(server)) == 2

    async def test_time_to_live_goes_with_each_call(self, server: Loopback, transport: Any, ask: Ask) -> None:
        served(server, listing(row("m", loaded=1)))
        provider = near(server, "m", ttl_s=60, transport=transport)
        await ask(provider)
        await ask(provider, ttl=5)
        assert [body["ttl"] for body in calls(server)] == [60, 5]

    async def test_time_to_live_goes_with_embeddings_on_the_direct_lane(self, server: Loopback) -> None:
        served(server, listing(row("m", loaded=1)), vectors([1.0, 2.0]))
        await near(server, "m", ttl_s=60).embed("a")
        assert calls(server)[0]["ttl"] == 60


class Studio:
    """LM Studio in virtual time: a model is loaded *load_s* after a first call, and answers *work_s* after that."""

    def __init__(self, load_s: float, *, work_s: float = 1.0, loaded: bool = False) -> None:
        self.load_s = load_s
        self.work_s = work_s
        self.ready_at = float("-inf") if loaded else float("inf")
        self.listings = 0

    async def listed(self) -> tuple[LMStudioModel, ...]:
        self.listings += 1
        ready = asyncio.get_running_loop().time() >= self.ready_at
        return (LMStudioModel(key="m", type="llm", loaded=ready, context_window=700 if ready else None),)

    def connect(self, model: Model) -> ProviderPort:
        return _Slow(self, model)

    def port(self, **options: Any) -> Served:
        return Served(
            model("m", context_window=None),
            named=True,
            connect=self.connect,
            listed=self.listed,
            **{"load_s": 120.0, **options},
        )


class _Slow(ProviderPort):
    def __init__(self, studio: Studio, model: Model) -> None:
        self._studio = studio
        self._model = model

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        return await Reply.open(self.model, self._chunks())

    async def _chunks(self) -> AsyncGenerator[Chunk, None]:
        clock = asyncio.get_running_loop().time
        self._studio.ready_at = min(self._studio.ready_at, clock() + self._studio.load_s)
        await asyncio.sleep(max(0.0, self._studio.ready_at - clock()) + self._studio.work_s)
        yield Chunk("yes")
        yield Chunk(finish_reason="stop")


class TestLoading:
    @staticmethod
    def timed(port: ProviderPort, **timeouts: float) -> ProviderPort:
        return Traced(Timed(port, Timeouts(**{"first_token_s": 5.0, "total_s": 600.0, **timeouts})))

    def test_the_time_to_load_is_not_the_first_contents(self) -> None:
        async def main() -> Response:
            return await self.timed(Studio(60).port()).complete(ChatRequest.of("hi", stream=True))

        response = run_virtually(main())
        assert response.text == "yes"
        assert response.attempts[0].wait_s == pytest.approx(60, abs=1)
        assert response.first_token_s == pytest.approx(61)

    @pytest.mark.parametrize(
        ("load_s", "timeouts", "after_s"),
        [(1000, {}, 125), (1000, {"total_s": 30.0}, 30), (10, {"first_token_s": 0.2}, 10.2)],
    )
    def test_it_ends_with_its_allowance_or_the_deadline_or_the_first_content(
        self, load_s: float, timeouts: dict[str, float], after_s: float
    ) -> None:
        async def main() -> float:
            with pytest.raises(ProviderTimeout):
                await self.timed(Studio(load_s).port(), **timeouts).complete(ChatRequest.of("hi", stream=True))
            return asyncio.get_running_loop().time()

        assert run_virtually(main()) == pytest.approx(after_s, abs=0.6)

    def test_a_loaded_model_has_no_such_allowance(self) -> None:
        async def listed() -> tuple[LMStudioModel, ...]:
            return (LMStudioModel(key="m", loaded=True),)

        async def main() -> float:
            port = Served(
                model("m"), named=True, connect=Studio(50).connect, listed=listed, load_s=120.0
            )  # loaded, it says, and hangs
            with pytest.raises(ProviderTimeout):
                await self.timed(port).complete(ChatRequest.of("hi", stream=True))
            return asyncio.get_running_loop().time()

        assert run_virtually(main()) == pytest.approx(5)

    @pytest.mark.parametrize("load_s", [0.1, 20])
    def test_after_the_first_load_its_window_is_known_and_stays_so(self, load_s: float) -> None:
        async def main() -> list[int | None]:
            studio = Studio(load_s, work_s=0.2)
            port = studio.port()
            windows = []
            for _ in range(3):
                await port.complete("hi")
                windows.append(port.model.context_window)
                if len(windows) == 2:
                    await asyncio.sleep(4000)
                    studio.ready_at = float("inf")  # unloaded in the meantime
            return windows

        assert run_virtually(main()) == [None, 700, 700]

    def test_those_who_wait_for_one_model_look_together(self) -> None:
        async def main() -> int:
            studio = Studio(60)
            port = studio.port()

            async def later(n: int) -> None:
                await asyncio.sleep(n / 100)
                await port.complete("hi")

            await asyncio.gather(*(later(n) for n in range(50)))
            return studio.listings

        assert run_virtually(main()) < 130

    def test_it_leaves_no_task_when_it_is_cancelled(self) -> None:
        async def main() -> int:
            asked = asyncio.create_task(Studio(1000).port().complete("hi"))
            await asyncio.sleep(3)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            return len(asyncio.all_tasks())

        assert run_virtually(main()) == 1

    def test_a_busy_provider_does_not_ask_and_an_idle_one_does(self) -> None:
        async def main() -> tuple[int, int, int]:
            studio = Studio(0, loaded=True)
            port = studio.port()
            for _ in range(20):
                await port.complete("hi")
            busy = studio.listings
            await asyncio.sleep(60)
            await port.complete("hi")
            idle = studio.listings
            studio.ready_at, studio.load_s = float("inf"), 30  # unloaded in the meantime
            await asyncio.sleep(4000)
            response = await self.timed(port).complete(ChatRequest.of("hi", stream=True))
            return busy, idle, round(response.attempts[0].wait_s)

        assert run_virtually(main()) == (1, 2, 30)
