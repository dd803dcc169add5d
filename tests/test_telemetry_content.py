"""Prompts and answers on spans: only where the environment and the policy both want them, without keys, and cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import ChatRequest, ProviderUnavailable, Router, StreamInterrupted
from devsynth_providers.policy.sections import Telemetry
from devsynth_providers.telemetry import content, semconv
from devsynth_providers.testing import ScriptedProvider

from .conftest import Ask
from .helpers import model, policy

Spans = Callable[[], list[ReadableSpan]]

PROMPT, ANSWER, SYSTEM = "the merger is on Friday", "then sell on Thursday", "you are discreet"
KEY = "sk-canary-0123456789abcdef"
CONTENT = {semconv.INPUT_MESSAGES, semconv.OUTPUT_MESSAGES, semconv.SYSTEM_INSTRUCTIONS}


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the variable, as if the process had begun with it."""

    def begin(value: str) -> None:
        monkeypatch.setenv(content.VARIABLE, value)
        content.place.cache_clear()

    yield begin
    monkeypatch.delenv(content.VARIABLE, raising=False)
    content.place.cache_clear()


def router(*script: Any, allowed: bool = True) -> Router:
    stated = replace(policy(model("a", context_window=None)), telemetry=Telemetry(content=allowed))
    return Router(stated, {"a": ScriptedProvider(*script)})


def shown(span: ReadableSpan) -> dict[str, Any]:
    return {name: json.loads(str(value)) for name, value in (span.attributes or {}).items() if name in CONTENT}


@pytest.mark.parametrize("value", ["span_only", "SPAN_ONLY", "true"])
async def test_it_stands_on_the_attempt_where_both_want_it(
    ask: Ask, spans: Spans, capture: Callable[[str], None], value: str
) -> None:
    capture(value)
    await ask(router(ANSWER), PROMPT, system_prompt=SYSTEM)
    request, attempt = spans()
    assert shown(attempt) == {
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": PROMPT}]}],
        "gen_ai.system_instructions": [{"type": "text", "content": SYSTEM}],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}
        ],
    }
    assert shown(request) == {}
    assert attempt.events == ()


@pytest.mark.parametrize(("value", "on_span"), [("event_only", False), ("span_and_event", True)])
async def test_or_on_an_event(
    ask: Ask, spans: Spans, capture: Callable[[str], None], value: str, on_span: bool
) -> None:
    capture(value)
    await ask(router(ANSWER), PROMPT)
    attempt = spans()[1]
    (event,) = attempt.events
    assert event.name == "gen_ai.client.inference.operation.details"
    assert event.attributes is not None
    assert event.attributes.keys() == {"gen_ai.input.messages", "gen_ai.output.messages"}
    assert bool(shown(attempt)) is on_span


@pytest.mark.parametrize(
    ("value", "allowed"), [("", True), ("false", True), ("no_content", True), ("yes please", True), ("true", False)]
)
async def test_else_it_is_nowhere(
    ask: Ask, spans: Spans, capture: Callable[[str], None], value: str, allowed: bool
) -> None:
    capture(value)
    await ask(router(ANSWER, allowed=allowed), PROMPT, system_prompt=SYSTEM)
    for text in (PROMPT, ANSWER, SYSTEM):
        assert all(text not in span.to_json() for span in spans())


async def test_keys_are_taken_out_also_where_a_text_is_cut(
    ask: Ask, spans: Spans, capture: Callable[[str], None]
) -> None:
    capture("span_and_event")
    straddling = "x" * (content.LONGEST_PART - 10) + " " + KEY + " " + "y" * 500
    await ask(router(straddling), straddling, system_prompt=KEY)
    told = [span.to_json() for span in spans()]
    assert not [each for each in told if "sk-canary" in each or "sk-can" in each]
    text = shown(spans()[1])["gen_ai.input.messages"][0]["parts"][0]["content"]
    assert len(text) < content.LONGEST_PART + 50
    assert text.endswith(" characters]")


async def test_of_a_long_conversation_the_end_is_kept(spans: Spans, capture: Callable[[str], None]) -> None:
    capture("span_only")
    turns = [{"role": "user", "content": f"{number} " + "x" * 4000} for number in range(50)]
    await router(ANSWER).complete(ChatRequest.of(messages=turns))
    told = shown(spans()[1])["gen_ai.input.messages"]
    assert told[-1]["parts"][0]["content"].startswith("49 ")
    assert 2 < len(told) < 10
    assert sum(len(part["content"]) for message in told for part in message["parts"]) <= content.LONGEST


async def test_calls_of_tools_have_their_own_form(spans: Spans, capture: Callable[[str], None]) -> None:
    capture("span_only")
    call = {"id": "c1", "function": {"name": "weather", "arguments": '{"where": "Paris"}'}}
    history: list[dict[str, Any]] = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
    ]
    await router(ANSWER).complete(ChatRequest.of(messages=history))
    assert shown(spans()[1])["gen_ai.input.messages"][1:] == [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": '{"where": "Paris"}'}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "rain"}]},
    ]


async def test_of_an_answer_that_broke_off_there_is_what_came(spans: Spans, capture: Callable[[str], None]) -> None:
    capture("span_only")
    with pytest.raises(StreamInterrupted):
        async for _ in router((ANSWER, ProviderUnavailable("cut"))).generate_stream(PROMPT):
            pass
    (answer,) = shown(spans()[1])["gen_ai.output.messages"]
    assert answer == {
        "role": "assistant",
        "parts": [{"type": "text", "content": ANSWER}],
        "finish_reason": "error",
    }


async def test_texts_to_embed_are_not_shown(spans: Spans, capture: Callable[[str], None]) -> None:
    capture("span_and_event")
    await router("x").embed(PROMPT)
    assert all(PROMPT not in span.to_json() for span in spans())


async def test_of_what_the_system_says_the_end_is_kept_too(spans: Spans, capture: Callable[[str], None]) -> None:
    capture("span_only")
    told = [{"role": "system", "content": f"part {number} " + "x" * content.LONGEST_PART} for number in range(30)]
    await router(ANSWER).complete(messages=[*told, {"role": "user", "content": PROMPT}])
    *_, attempt = spans()
    written = str((attempt.attributes or {})[semconv.SYSTEM_INSTRUCTIONS])
    assert len(written) < 2 * content.LONGEST
    assert "part 29" in written
    assert "part 0" not in written
