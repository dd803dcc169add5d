"""What a hand can get wrong: every mistake has an error of ours, which says what is wrong, and where."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devsynth_providers import (
    AuthenticationError,
    ConfigurationError,
    DevSynthError,
    InvalidRequest,
    LiteLLMProvider,
    LMStudioProvider,
    Model,
    ModelNotFound,
    Network,
    OpenAIProvider,
    PolicyError,
    ProviderFactory,
    ProviderPort,
    ProviderRegistry,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimitError,
    Router,
    SyncRouter,
    Timeouts,
    TokenCounter,
)

from .helpers import model, policy
from .loopback import Answer, Loopback, failure, stream, talker, whole

ROOT = Path(__file__).parent.parent


def wrong(make: Any) -> Callable[[], Any]:
    """A call that type checkers would refuse."""
    made: Callable[[], Any] = make
    return made


@pytest.mark.parametrize(
    ("make", "kind", "why"),
    [
        (wrong(lambda: OpenAIProvider(5)), ConfigurationError, "model is a name or a Model, not 5"),  # type: ignore[arg-type]
        (lambda: OpenAIProvider("m", api_key=5), ConfigurationError, "api_key is text, not int"),  # type: ignore[arg-type]
        (
            lambda: OpenAIProvider("m", api_key="k", base_url=5),  # type: ignore[arg-type]
            ConfigurationError,
            "base_url is text",
        ),
        (lambda: OpenAIProvider("m", timeout="x"), ConfigurationError, "timeout must be a number"),  # type: ignore[arg-type]
        (lambda: OpenAIProvider("m", timeout=0), ConfigurationError, "timeout must be a number of seconds above 0"),
        (lambda: OpenAIProvider("m", network="x"), ConfigurationError, "network is a Network"),  # type: ignore[arg-type]
        (
            lambda: OpenAIProvider("m", transport="litelm"),  # type: ignore[arg-type]
            ConfigurationError,
            "transport of m is 'auto' or 'litellm', not 'litelm'",
        ),
        (lambda: Timeouts(total_s="a"), ConfigurationError, "total_s must be a number"),  # type: ignore[arg-type]
        (lambda: Model(name="", provider="x"), ConfigurationError, "a model's name is text"),
        (
            lambda: Model(name="x", provider="x", price="cheap"),  # type: ignore[arg-type]
            ConfigurationError,
            "price of x is a Price",
        ),
        (
            lambda: Model(name="x", provider="x", context_window="8k"),  # type: ignore[arg-type]
            ConfigurationError,
            "context_window of x is a whole number",
        ),
        (lambda: SyncRouter("ci"), ConfigurationError, "SyncRouter takes a provider"),  # type: ignore[arg-type]
        (lambda: Router.from_policy(5), PolicyError, "a policy is named by a path or a name, not int"),  # type: ignore[arg-type]
        (
            lambda: ProviderFactory.create("openai", config="x"),  # type: ignore[arg-type]
            ConfigurationError,
            "config is a mapping of settings, not str",
        ),
        (
            lambda: TokenCounter("gpt-4o").count_messages([], tools=["x"]),  # type: ignore[list-item]
            InvalidRequest,
            "a list of tools",
        ),
        (lambda: LiteLLMProvider("gemni/gemini-2.5-pro"), ConfigurationError, "did you mean gemini/gemini-2.5-pro"),
        (lambda: LiteLLMProvider("gemini/m", network=Network(proxy="")), ConfigurationError, "take no network"),
    ],
)
def test_a_wrong_argument_is_told_at_once(make: Callable[[], Any], kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        make()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tools": {"a": 1}}, "tools is a list of tools"),
        ({"tools": ["a"]}, "tools is a list of tools"),
        ({"foo": object()}, "can not be sent as JSON"),
        ({"foo": float("nan")}, "can not be sent as JSON"),
    ],
)
async def test_so_is_one_of_a_request(server: Loopback, options: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        await OpenAIProvider("m", base_url=server.url).generate("hi", **options)
    assert server.requests == []


class TestModelsOfAPolicy:
    def test_what_is_there_and_wrong_is_raised_and_no_other_model_hides_it(self) -> None:
        url = model("bad", provider="openai", base_url="127.0.0.1:1/v1")
        name = model("worse", provider="litellm", model="gpt-4o")
        with pytest.raises(ConfigurationError, match=r"bad: base_url must start with.*worse: provider litellm wants"):
            Router(policy(url, name, model("good", provider="stub")))

    def test_what_is_missing_only_leaves_its_model_out(self) -> None:
        router = Router(policy(model("bad", provider="openai"), model("good", provider="stub")))
        assert router.unavailable == {"bad": "OPENAI_API_KEY is not set, and no api_key is given"}
        with router.sync as sync:
            assert sync.generate("hi") == "[stub:stub-llm] hi"

    def test_a_class_of_ones_own_that_can_not_be_made_is_named(self) -> None:
        class Broken(ProviderPort):
            def __init__(self, _: Model) -> None:
                raise OSError("no disk")

            model = send = None  # type: ignore[assignment]

        registry = ProviderRegistry()
        registry.register("acme", Broken)
        with pytest.raises(ConfigurationError, match=r"m: provider 'acme' can not be made: OSError: no disk"):
            Router(policy(model("m", provider="acme")), registry=registry)


class TestServers:
    async def test_a_wrong_path_is_told_as_one(self, server: Loopback) -> None:
        server.script(Answer([b'{"detail": "Not Found"}'], status=404))
        with pytest.raises(ModelNotFound, match=r"HTTP 404: Not Found: is the path in base_url right\?"):
            await OpenAIProvider("m", base_url=server.url).generate("hi")
        server.script(failure(404, "The model `m` does not exist", "model_not_found"))
        with pytest.raises(ModelNotFound, match=r"HTTP 404: The model `m` does not exist$"):
            await OpenAIProvider("m", base_url=server.url).generate("hi")

    async def test_a_server_without_tls_is_told_as_one(self) -> None:
        with (
            talker(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port,
            pytest.raises(ProviderUnavailable, match=r"does not speak TLS; is it http://\?") as caught,
        ):
            await OpenAIProvider("m", base_url=f"https://127.0.0.1:{port}/v1", retry_attempts=3).generate("hi")
        assert "SSLContext" not in str(caught.value)
        assert len(caught.value.attempts) == 1

    async def test_litellm_without_a_key_or_with_a_name_it_does_not_know_is_no_outage(self) -> None:
        for name, kind in (("gemini/gemini-2.5-pro", AuthenticationError), ("zzzz/some-model", ModelNotFound)):
            with pytest.raises(DevSynthError) as caught:
                await LiteLLMProvider(name, retry_attempts=3).generate("hi")
            assert type(caught.value) is kind, caught.value
            assert len(caught.value.attempts) == 1

    async def test_lm_studio_without_a_name_fails_as_it_does_with_one(self, server: Loopback) -> None:
        server.script(failure(429, "slow down", **{"retry-after": "0"}))
        with pytest.raises(RateLimitError, match="slow down") as caught:
            await LMStudioProvider(base_url=server.url, retry_attempts=2).generate("hi")
        assert (caught.value.status, len(caught.value.attempts)) == (429, 2)
        server.script(Answer([], status=307, headers={"location": "http://x.test/"}, content_length=0))
        with pytest.raises(DevSynthError, match=r"redirect to x\.test"):
            await LMStudioProvider(base_url=server.url, retry_attempts=1).generate("hi")

    async def test_finding_out_what_is_loaded_is_within_the_deadline(self, server: Loopback) -> None:
        import asyncio

        server.script(Answer([], then="hang"))
        started = asyncio.get_running_loop().time()
        with pytest.raises(ProviderTimeout):
            await LMStudioProvider(base_url=server.url, retry_attempts=1, timeout=0.4).generate("hi")
        assert asyncio.get_running_loop().time() - started < 1.5


LEAVING = """
import sys
from devsynth_providers import ChatRequest, OpenAIProvider, SyncRouter
provider = SyncRouter(OpenAIProvider("m", base_url=sys.argv[1], transport=sys.argv[2]))
print(provider.generate("hi"))
if sys.argv[3] == "in the middle":
    stream = provider.generate_stream("hi")
    print(next(stream))
"""


@pytest.mark.parametrize("how", ["after an answer", "in the middle"])
@pytest.mark.parametrize("transport", ["auto", "litellm"])
def test_a_script_that_closes_nothing_ends_without_a_word(how: str, transport: str) -> None:
    with Loopback(keep_alive=True) as server:
        server.script((whole(), stream()))
        ran = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-c", LEAVING, server.url, transport, how],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            check=True,
        )
    assert ran.stdout.startswith("w0 w1 w2")
    assert ran.stderr == ""
