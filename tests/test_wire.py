"""The way to a server: redirects, certificates, proxies; and connections that are shared, and let go of."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import gzip
import json
import os
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from devsynth_providers import (
    AnthropicProvider,
    ChatRequest,
    ConfigurationError,
    LiteLLMProvider,
    LMStudioProvider,
    MalformedResponse,
    Network,
    OpenAIProvider,
    OpenRouterProvider,
    ProviderError,
    ProviderPort,
    ProviderUnavailable,
    StreamInterrupted,
    SyncRouter,
    Tls,
    Usage,
)
from devsynth_providers.providers import sessions

from .conftest import Ask
from .helpers import model
from .loopback import Answer, Loopback, as_json, delta, sse, stream, vectors, whole

pytestmark = pytest.mark.litellm

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(params=["direct", "unified"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def provider(server: Loopback, lane: str = "direct", *, url: str | None = None, **options: Any) -> OpenAIProvider:
    options = {"retry_attempts": 1, "timeout": 10, "api_key": KEY, **options}
    transport: Any = "auto" if lane == "direct" else "litellm"
    return OpenAIProvider("m", base_url=url or server.url, transport=transport, **options)


class TestRedirects:
    @pytest.mark.parametrize("cls", [AnthropicProvider, OpenRouterProvider])
    async def test_a_redirect_is_followed_by_no_provider(self, server: Loopback, lane: str, ask: Ask, cls: Any) -> None:
        server.script(Answer([], status=307, headers={"location": "/v1/loop"}, content_length=0))
        transport = "auto" if lane == "direct" else "litellm"
        with pytest.raises(MalformedResponse, match="not followed"):
            await ask(cls("m", base_url=server.url, api_key=KEY, retry_attempts=1, transport=transport))
        assert len(server.requests) == 1


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class TestCertificates:
    @pytest.fixture
    def files(self, authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
        mine = authority.issue_cert("client.test")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        mine.private_key_pem.write_to_path(tmp_path / "key.pem")
        return {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}

    @pytest.fixture
    def context(self, authority: trustme.CA) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    async def test_a_server_that_nobody_vouches_for_is_told_nothing(
        self, context: ssl.SSLContext, lane: str, ask: Ask
    ) -> None:
        with Loopback(tls=context) as server:
            with pytest.raises(ProviderUnavailable, match="certificate is not to be trusted") as caught:
                await ask(provider(server, lane, retry_attempts=3))
            assert server.requests == []
            assert server.connections == 1
        assert not caught.value.retryable
        assert not caught.value.billed

    async def test_nor_is_one_of_another_name(
        self, authority: trustme.CA, files: dict[str, str], lane: str, ask: Ask
    ) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("other.test").configure_cert(context)
        with Loopback(tls=context) as server:
            with pytest.raises(ProviderUnavailable, match="certificate"):
                await ask(provider(server, lane, network=Network(tls=Tls(ca_file=files["ca"]))))
            assert server.requests == []

    async def test_an_authority_of_ones_own_is_trusted(
        self, context: ssl.SSLContext, files: dict[str, str], lane: str, ask: Ask
    ) -> None:
        with Loopback(tls=context) as server:
            mine = provider(server, lane, network=Network(tls=Tls(ca_file=files["ca"])))
            assert await ask(mine) == "w0 w1 w2"
            await mine.aclose()

    async def test_a_server_may_ask_for_our_certificate(
        self, authority: trustme.CA, context: ssl.SSLContext, files: dict[str, str], lane: str, ask: Ask
    ) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
        shown = Tls(ca_file=files["ca"], cert_file=files["cert"], key_file=files["key"])
        with Loopback(tls=context) as server:
            with pytest.raises(ProviderError):
                await ask(provider(server, lane, network=Network(tls=Tls(ca_file=files["ca"]))))
            mine = provider(server, lane, network=Network(tls=shown))
            assert await ask(mine) == "w0 w1 w2"
            await mine.aclose()

    async def test_the_environment_says_how_to_trust(
        self,
        context: ssl.SSLContext,
        files: dict[str, str],
        lane: str,
        ask: Ask,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("DEVSYNTH_TLS_CA_FILE", files["ca"])
        with Loopback(tls=context) as server:
            assert await ask(provider(server, lane)) == "w0 w1 w2"
            monkeypatch.delenv("DEVSYNTH_TLS_CA_FILE")
            monkeypatch.setenv("DEVSYNTH_TLS_VERIFY", "false")
            assert await ask(provider(server, lane)) == "w0 w1 w2"

    def test_files_that_are_not_there_are_told_at_once(
        self, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"ca_file is '/none\.pem'"):
            Tls(ca_file="/none.pem")
        with pytest.raises(ConfigurationError, match="key_file is the key of a cert_file"):
            Tls(key_file=files["key"])
        monkeypatch.setenv("DEVSYNTH_TLS_VERIFY", "perhaps")
        with pytest.raises(ConfigurationError, match="DEVSYNTH_TLS_VERIFY is 'perhaps'"):
            OpenAIProvider(api_key=KEY)

    async def test_a_file_of_something_else_is_told_at_the_first_call(
        self, context: ssl.SSLContext, tmp_path: Path, ask: Ask
    ) -> None:
        (tmp_path / "x.pem").write_text("no certificate")
        with Loopback(tls=context) as server, pytest.raises(ConfigurationError, match="certificates can not be used"):
            await ask(provider(server, network=Network(tls=Tls(ca_file=str(tmp_path / "x.pem")))))


class TestProxies:
    URL = "http://models.invalid/v1"

    async def test_a_proxy_in_the_environment_is_taken(
        self, server: Loopback, lane: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
        assert await ask(provider(server, lane, url=self.URL)) == "w0 w1 w2"
        assert server.paths == [f"{self.URL}/chat/completions"]

    async def test_but_not_for_hosts_that_it_names_as_near_nor_for_this_machine(
        self, server: Loopback, lane: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Loopback() as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
            assert await ask(provider(server, lane)) == "w0 w1 w2"
            monkeypatch.setenv("NO_PROXY", "models.invalid")
            with pytest.raises(ProviderUnavailable):
                await ask(provider(server, lane, url=self.URL))
            assert proxy.connections == 0

    async def test_one_that_is_given_comes_first(
        self, server: Loopback, lane: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        given = Network(proxy=f"http://127.0.0.1:{server.port}")
        assert await ask(provider(server, lane, url=self.URL, network=given)) == "w0 w1 w2"
        with pytest.raises(ProviderUnavailable, match=r"models\.invalid"):
            await ask(provider(server, lane, url=self.URL, network=Network(proxy="")))


class TestAnswers:
    """What is judged by the bytes that came, before anybody reads them otherwise."""

    async def test_a_server_that_does_not_stream_answers_whole(self, server: Loopback) -> None:
        server.script(whole("all of it"))
        assert [piece async for piece in provider(server).generate_stream("hi")] == ["all of it"]

    async def test_what_careless_servers_leave_out_is_not_missed(self, server: Loopback, lane: str, ask: Ask) -> None:
        answer = {"choices": [{"message": {"content": "w0"}, "finish_reason": "stop"}]}
        pieces = [{"choices": [{"delta": {"content": "w0"}}]}, {"choices": [{"delta": None, "finish_reason": "stop"}]}]
        server.script((as_json(answer), sse(*pieces)))
        assert await ask(provider(server, lane)) == "w0"

    async def test_a_compressed_answer_is_read(self, server: Loopback, lane: str, ask: Ask) -> None:
        packed = [gzip.compress(answer.body) for answer in (whole(), stream())]
        kinds = ("application/json", "text/event-stream")
        answers = [
            Answer([body], headers={"content-encoding": "gzip"}, content_type=kind)
            for body, kind in zip(packed, kinds, strict=True)
        ]
        server.script((answers[0], answers[1]))
        assert await ask(provider(server, lane)) == "w0 w1 w2"

    async def test_vectors_may_come_packed(self, server: Loopback) -> None:
        packed = "AACAPwAAAEA="  # 1.0 and 2.0 as 32-bit floats
        server.script(vectors(packed, packed))
        assert await provider(server).embed_batch(["a", "b"]) == [[1.0, 2.0], [1.0, 2.0]]
        server.script(vectors("AACAPwAA", "AACAPwAA"))
        with pytest.raises(MalformedResponse):
            await provider(server).embed_batch(["a", "b"])

    async def test_a_hundred_equal_pieces_are_what_was_said(self, server: Loopback, lane: str) -> None:
        server.script(stream(*["- "] * 150))
        assert len([piece async for piece in provider(server, lane).generate_stream("hi")]) == 150

    async def test_letters_that_arrive_in_halves_are_whole(self, server: Loopback, lane: str) -> None:
        event = sse({**delta("grün 🙂"), "x": "ö"}).body.replace(b"\\u00fc", "ü".encode())
        halves = [event[:90], event[90:]]
        server.script(sse(*halves, delta(finish="stop"), "[DONE]", pause_s=0.01))
        assert [piece async for piece in provider(server, lane).generate_stream("hi")] == ["grün 🙂"]


class TestConnections:
    @pytest.mark.parametrize("how", ["reset", "close", ""])
    async def test_of_one_that_ends_nobody_complains_later(self, server: Loopback, how: str) -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        server.script(*[sse(delta("half an ", role="assistant"), then=how) if how else stream("a") for _ in range(3)])
        async with provider(server, retry_attempts=1) as one:
            for _ in range(3):
                with contextlib.suppress(StreamInterrupted):
                    assert [piece async for piece in one.generate_stream("hi")] == ["a"]
        for _ in range(3):
            await asyncio.sleep(0.02)
            gc.collect()
        assert complaints == []

    @pytest.fixture
    def server(self) -> Iterator[Loopback]:
        with Loopback(keep_alive=True) as loopback:
            loopback.script(whole())
            yield loopback

    async def test_calls_one_after_the_other_share_a_connection(self, server: Loopback, lane: str) -> None:
        first, second = provider(server, lane), provider(server, lane, api_key="sk-another-0123456789")
        for _ in range(5):
            await first.generate("hi")
            await second.generate("hi")
        assert server.connections == 1
        await first.aclose()
        await second.generate("hi")
        assert server.connections == 1
        await second.aclose()
        await first.generate("hi")  # opens what it needs again
        assert server.connections == 2
        await first.aclose()

    async def test_streams_one_after_the_other_share_a_connection(self, server: Loopback, lane: str) -> None:
        answer = stream()
        server.script(
            replace(
                answer,
                content_length=sum(len(piece) for piece in answer.pieces if isinstance(piece, bytes)),
                pause_s=0.01,
            )
        )
        mine = provider(server, lane)
        for _ in range(3):
            response = await mine.complete(ChatRequest.of("hi", stream=True))
            assert (response.usage, response.finish_reason) == (Usage(4, 3), "stop")
        assert server.connections == 1
        await mine.aclose()

    async def test_keys_do_not_cost_descriptors(self, server: Loopback, lane: str) -> None:
        many = [provider(server, lane, api_key=f"sk-{number:020}") for number in range(150)]
        await many[0].generate("hi")
        before = descriptors()
        for each in many:
            await each.generate("hi")
        assert descriptors() - before <= 1
        assert len({headers["authorization"] for headers in server.headers}) == 150
        for each in many:
            await each.aclose()

    def test_nor_do_event_loops(self, server: Loopback, lane: str) -> None:
        one = provider(server, lane)
        asyncio.run(_generate(one))
        gc.collect()
        before = descriptors()
        for _ in range(30):
            assert asyncio.run(_generate(one)) == "w0 w1 w2"
        gc.collect()
        assert descriptors() - before <= 1

    def test_one_provider_serves_several_threads_at_once(self, server: Loopback, lane: str) -> None:
        one = provider(server, lane)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda _: asyncio.run(_generate(one)), range(24)))
        assert texts == ["w0 w1 w2"] * 24

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_a_forked_child_asks_on_connections_of_its_own(self, server: Loopback, lane: str) -> None:
        with SyncRouter(provider(server, lane)) as sync:
            assert sync.generate("parent") == "w0 w1 w2"
            child = os.fork()
            if child == 0:
                os._exit(sync.generate("child") != "w0 w1 w2")
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert sync.generate("parent again") == "w0 w1 w2"
        assert server.connections == 2

    async def test_names_are_looked_up_while_every_thread_of_asyncio_is_busy(self, server: Loopback) -> None:
        released = threading.Event()
        loop = asyncio.get_running_loop()
        busy = [loop.run_in_executor(None, released.wait) for _ in range(64)]
        try:
            named = provider(server, url=f"http://localhost:{server.port}/v1")
            assert await named.generate("hi") == "w0 w1 w2"
            await named.aclose()
        finally:
            released.set()
            await asyncio.gather(*busy)


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("ftp://x/v1", "must start with http"),
            ("http://", "must start with http"),
            ("http://user:secret@x/v1", "must not carry a user name"),
            ("http://x:port/v1", "is not a URL"),
            ("http://x/v1?key=1", "no question mark"),
            ("http://169.254.169.254/v1", "where machines keep their own secrets"),
            ("http://[fd00:ec2::254]/v1", "where machines keep their own secrets"),
            ("http://[::ffff:169.254.169.254]/v1", "where machines keep their own secrets"),
            *(
                (f"http://{host}/v1", "where machines keep")
                for host in ("2852039166", "0xA9FEA9FE", "[64:ff9b::a9fe:a9fe]")
            ),
            ("http://metadata.google.internal/v1", "where machines keep their own secrets"),
            ("http://x/v1/chat/completions", "ends before the name of the call: http://x/v1"),
            ("http://x/v1/messages", "ends before the name of the call: http://x/v1"),
        ],
    )
    @pytest.mark.parametrize("cls", [OpenAIProvider, AnthropicProvider, LMStudioProvider])
    def test_a_key_does_not_go_everywhere(self, cls: Any, url: str, why: str) -> None:
        with pytest.raises(ConfigurationError, match=why):
            cls("m", base_url=url, api_key=KEY)

    @pytest.mark.parametrize("key", ["sk-with\nnewline-inside", "sk-ünicode-0123456789"])
    def test_what_can_be_no_key_is_not_sent(self, key: str) -> None:
        with pytest.raises(ConfigurationError, match="characters in it that no key has") as caught:
            OpenAIProvider("m", api_key=key)
        assert key not in str(caught.value)

    async def test_the_line_break_at_the_end_of_a_file_is_no_part_of_a_key(self, server: Loopback) -> None:
        await provider(server, api_key=f" {KEY}\n").generate("hi")
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"


class TestAnyModelOfLiteLLM:
    def test_the_provider_stands_before_the_name(self) -> None:
        with pytest.raises(ConfigurationError, match="as in gemini/some-model"):
            LiteLLMProvider("some-model")
        with pytest.raises(ConfigurationError, match="provider: openai, model: gpt-4o"):
            LiteLLMProvider("openai/gpt-4o")
        with pytest.raises(ConfigurationError, match="provider: lmstudio, model: m"):
            LiteLLMProvider("lm_studio/m")

    async def test_a_server_of_ones_own_gets_no_key_but_the_one_given(
        self, server: Loopback, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOSTED_VLLM_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        facts = model("m", provider="litellm", model="hosted_vllm/m", base_url=server.url)
        assert await ask(LiteLLMProvider(facts)) == "w0 w1 w2"
        assert KEY not in str(server.headers)
        assert server.requests[0]["model"] == "m"

    async def test_what_litellm_takes_for_itself_is_not_passed_on(self, server: Loopback) -> None:
        facts = model("m", provider="litellm", model="hosted_vllm/m", base_url=server.url)
        odd: dict[str, Any] = {"mock_response": "made up"}
        with pytest.raises(ProviderError, match="mock_response: LiteLLM takes that for itself"):
            await LiteLLMProvider(facts).generate("hi", **odd)
        assert server.requests == []


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


async def _generate(one: ProviderPort) -> str:
    return await one.generate("hi")


class TestHostileServers:
    """What no well-meaning server sends: it ends in an error of ours, with the meaning that its status has."""

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ({"code": "rate_limit_exceeded", "type": "tokens"}, "rate_limited"),
            ({"code": "insufficient_quota", "type": "insufficient_quota"}, "quota_exhausted"),
            ({"code": "invalid_api_key", "type": "invalid_request_error"}, "authentication"),
            ({"code": "model_not_found", "type": "invalid_request_error"}, "model_not_found"),
            ({"code": "429"}, "rate_limited"),
            ({"code": None, "type": "overloaded_error"}, "unavailable"),
        ],
    )
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_an_error_with_status_200_means_what_its_code_says(
        self, server: Loopback, error: dict[str, Any], kind: str, streamed: bool
    ) -> None:
        body = {"error": {"message": "no", **error}}
        server.script((as_json(body), sse(body)))
        with pytest.raises(ProviderError) as caught:
            await provider(server).complete(ChatRequest.of("hi", stream=streamed))
        assert caught.value.kind == kind

    async def test_what_looks_like_an_error_beside_an_answer_is_none(self, server: Loopback, ask: Ask) -> None:
        answer = json.loads(whole("w0").body)
        extras: list[dict[str, Any]] = [{"error": None}, {"error": {}}, {"error": ""}, {"detail": "fine"}]
        for extra in extras:
            event = {**delta("w0"), **extra}
            server.script((as_json({**answer, **extra}), sse(event, delta(finish="stop"), "[DONE]")))
            assert await ask(provider(server)) == "w0"

    @pytest.mark.parametrize(
        ("said", "told"), [("stop", "stop"), ("length", "length"), ("banana", "banana"), ("eos", "eos")]
    )
    async def test_a_finish_reason_that_nobody_knows_is_handed_on(self, server: Loopback, said: str, told: str) -> None:
        server.script((whole("w0", finish=said), stream("w0", finish=said)))
        for streamed in (False, True):
            response = await provider(server).complete(ChatRequest.of("hi", stream=streamed))
            assert response.finish_reason == told

    async def test_odd_usage_costs_no_answer(self, server: Loopback, ask: Ask) -> None:
        odd: list[Any] = [
            {"prompt_tokens": 4, "completion_tokens": 3, "prompt_tokens_details": [1]},
            {"prompt_tokens": "4", "completion_tokens": 3},
            {"prompt_tokens": None, "completion_tokens": 3},
            [1],
            "x",
        ]
        answer = json.loads(whole("w0").body)
        for usage in odd:
            event = {**delta("w0", finish="stop"), "usage": usage}
            server.script((as_json({**answer, "usage": usage}), sse(event, "[DONE]")))
            assert await ask(provider(server)) == "w0"

    async def test_a_stream_has_a_largest_size(self, server: Loopback) -> None:
        server.script(sse(*[delta("x" * 1_000_000)] * 40))
        with pytest.raises(ProviderError, match="a stream of more than"):
            await provider(server).complete(ChatRequest.of("hi", stream=True))

    async def test_large_vectors_do_not_stop_the_loop(self, server: Loopback) -> None:
        server.script(vectors(*[[float(number), 0.5] * 3000 for number in range(1, 20)]))
        rows = await provider(server).embed_batch(["x"] * 19)
        assert [row[0] for row in rows] == [float(number) for number in range(1, 20)]


def test_an_event_loop_that_has_ended_is_forgotten() -> None:
    with Loopback(keep_alive=True) as server:
        for _ in range(5):
            asyncio.run(_generate(provider(server)))
    gc.collect()
    assert not [loop for loop in sessions._open if loop.is_closed()]


def test_a_password_of_a_proxy_is_not_shown() -> None:
    network = Network(proxy="http://me:pa/ss12345@proxy.test:8080")
    assert "ss12345" not in repr(network)
    with pytest.raises(ConfigurationError, match="proxy is the URL of one") as caught:
        Network(proxy="me:pw12345678@proxy.test:8080")
    assert "pw12345678" not in str(caught.value)
