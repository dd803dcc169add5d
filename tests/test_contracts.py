"""What the direct lane expects of LiteLLM: kept by both ends of the range, and a lane that is off where it is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import AnthropicProvider, ChatRequest, Chunk, OpenAIProvider, Usage
from devsynth_providers.providers._litellm import contracts, load
from devsynth_providers.providers._litellm.contracts import CONTRACTS
from devsynth_providers.providers._litellm.dialects import AnthropicMessages, Dialect, OpenAIChat

from . import messages
from .conftest import Ask
from .helpers import model
from .loopback import Loopback

pytestmark = pytest.mark.litellm

KEY = "sk-canary-0123456789-abcdef"
DIALECTS: tuple[Dialect, ...] = (OpenAIChat(), OpenAIChat("openrouter"), AnthropicMessages())


@pytest.fixture(autouse=True)
async def loaded() -> None:
    await load.ready()


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.litellm_name)
def test_the_installed_litellm_keeps_them(dialect: Dialect) -> None:
    assert contracts.broken(dialect) is None


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.litellm_name)
def test_whatever_is_done_otherwise_is_found_and_named(dialect: Dialect) -> None:
    contract = CONTRACTS[dialect.litellm_name]
    data, chunk = contract.whole
    changed = [
        (replace(contract, body={**contract.body, "temperature": 0.4}), "requests changed temperature"),
        (replace(contract, body={**contract.body, "system2": []}), "requests changed system2"),
        (replace(contract, header=("authorization2", "x")), "requests changed the header authorization2"),
        (replace(contract, whole=(data, replace(chunk, text="Hallo"))), "whole answers reads them otherwise"),
        (replace(contract, whole=(data, replace(chunk, usage=Usage(1, 1)))), "whole answers reads them otherwise"),
        (replace(contract, chunks=contract.chunks[:-1]), "streams reads them otherwise"),
        (replace(contract, chunks=[*contract.chunks, Chunk("more")]), "streams reads them otherwise"),
    ]
    assert contracts.compare(dialect, contract) is None
    for each, said in changed:
        assert said in str(contracts.compare(dialect, each))


class Forgetful(OpenAIChat):
    """As if LiteLLM's reader lost the usage."""

    @override
    def usage(self, data: Mapping[str, Any], told: dict[str, Any]) -> Usage | None:
        return None


class Raising(OpenAIChat):
    """As if LiteLLM had renamed what reads its streams."""

    @override
    def iterator(self, config: Any, sent: Any) -> Any:
        raise AttributeError("get_model_response_iterator")


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Forgetful, "its translator of whole answers reads them otherwise"),
        (Raising, "its translators raise MalformedResponse"),
    ],
)
async def test_a_lane_whose_contract_is_broken_is_off_and_the_answer_right(
    server: Loopback, ask: Ask, spans: Callable[[], list[ReadableSpan]], cls: type[OpenAIChat], reason: str
) -> None:
    class Changed(OpenAIProvider):
        @override
        def _dialect(self) -> Dialect:
            return cls()

    provider = Changed(model("m", provider="openai"), base_url=server.url, api_key=KEY)
    assert await provider.why_not_direct() == reason
    assert await ask(provider) == "w0 w1 w2"
    (span,) = spans()
    assert (span.attributes or {})["devsynth.transport"] == "litellm"


async def test_what_is_remembered_of_one_request_is_not_sent_with_another(server: Loopback) -> None:
    """The direct lane asks LiteLLM once for what goes beside the texts."""
    provider = AnthropicProvider(model("claude-sonnet-4-5"), base_url=server.url, api_key=KEY)
    server.script(messages.whole())
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
    for prompt, options in (
        ("one", {"temperature": 0.1}),
        ("two", {"temperature": 0.1, "tools": [tool]}),
        ("three", {"temperature": 0.1}),
        ("four", {"temperature": 0.2, "max_tokens": 9, "stop_sequences": ["END"]}),
        ("five", {"temperature": 0.1}),
    ):
        await provider.complete(ChatRequest.of(prompt, **options))
    said = [body["messages"][-1]["content"][0]["text"] for body in server.requests]
    assert said == ["one", "two", "three", "four", "five"]
    assert [body["temperature"] for body in server.requests] == [0.1, 0.1, 0.1, 0.2, 0.1]
    assert [bool(body.get("tools")) for body in server.requests] == [False, True, False, False, False]
    assert [body.get("stop_sequences") for body in server.requests] == [None, None, None, ["END"], None]
    first, with_tools, *others = server.headers
    assert all(each["x-api-key"] == KEY for each in server.headers)
    each_its_own = dict.fromkeys(("content-length", "traceparent"), "")
    assert others[0] | each_its_own == first | each_its_own
    assert with_tools["x-api-key"] == first["x-api-key"]
