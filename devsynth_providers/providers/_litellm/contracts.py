"""What the direct lane expects of LiteLLM's translators, tried on the installed version before they are used.

A version that changes what they take or give fails here, in milliseconds and without a network, and the unified lane
serves in place of the direct one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...types import ChatRequest, Chunk, Message, Model, Role, ToolCallPart, Usage
from ..sse import Event
from ..wire import Wire
from .dialects import Dialect
from .direct import Direct

_TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
_KEY = "contract-key"


@dataclass(frozen=True, slots=True)
class Contract:
    """One dialect's: what a plain request must become, and what answers must be read as."""

    model: str
    body: Mapping[str, Any]
    """What the body must have, beside what it may have."""
    header: tuple[str, str]
    whole: tuple[Mapping[str, Any], Chunk]
    events: Sequence[tuple[str, Mapping[str, Any]]]
    chunks: Sequence[Chunk]


def _openai(model: str) -> Contract:
    head = {"id": "1", "created": 1, "model": "m"}
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}
    counts = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
    fine = counts | {
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }

    def event(delta: Mapping[str, Any], finish: str | None = None) -> tuple[str, Mapping[str, Any]]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return "", {**head, "object": "chat.completion.chunk", "choices": [choice]}

    message = {"role": "assistant", "content": "Hello", "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return Contract(
        model=model,
        body={
            "model": model,
            "temperature": 0.5,
            "max_tokens": 9,
            "stop": ["END"],
            "stream": True,
            "stream_options": {"include_usage": True},
            "tools": [_TOOL],
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        },
        header=("authorization", f"Bearer {_KEY}"),
        whole=(
            {**head, "object": "chat.completion", "choices": [choice], "usage": fine},
            Chunk("Hello", "tool_calls", Usage(9, 7, 4, 0, 3), (), (ToolCallPart(0, "c", "find", '{"a": 1}'),), "m"),
        ),
        events=[
            event({"role": "assistant", "content": ""}),
            event({"content": "Hel"}),
            event({"content": "lo"}),
            event({"tool_calls": [{"index": 0, **call, "function": {"name": "find", "arguments": ""}}]}),
            event({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]}),
            event({}, "tool_calls"),
            ("", {**head, "object": "chat.completion.chunk", "choices": [], "usage": fine}),
        ],
        chunks=[
            Chunk(model="m"),
            Chunk("Hel", model="m"),
            Chunk("lo", model="m"),
            Chunk(tool_calls=(ToolCallPart(0, "c", "find", ""),), model="m"),
            Chunk(tool_calls=(ToolCallPart(0, "", "", '{"a": 1}'),), model="m"),
            Chunk(finish_reason="tool_calls", model="m"),
            Chunk(usage=Usage(9, 7, 4, 0, 3), model="m"),
        ],
    )


def _anthropic(model: str) -> Contract:
    head = {"id": "1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    counts = {"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2, "output_tokens": 7}
    use = {"type": "tool_use", "id": "c", "name": "find", "input": {"a": 1}}

    def event(name: str, **data: Any) -> tuple[str, Mapping[str, Any]]:
        return name, {"type": name, **data}

    return Contract(
        model=model,
        body={
            "model": model,
            "temperature": 0.5,
            "max_tokens": 9,
            "stop_sequences": ["END"],
            "stream": True,
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        },
        header=("x-api-key", _KEY),
        whole=(
            {**head, "content": [{"type": "text", "text": "Hello"}, use], "stop_reason": "tool_use", "usage": counts},
            Chunk("Hello", "tool_calls", Usage(9, 7, 4, 2), (), (ToolCallPart(1, "c", "find", '{"a": 1}'),), "m"),
        ),
        events=[
            event("message_start", message={**head, "content": [], "stop_reason": None, "usage": counts}),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hel"}),
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": "lo"}),
            event("content_block_stop", index=0),
            event("content_block_start", index=1, content_block={**use, "input": {}}),
            event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"a": 1}'}),
            event("content_block_stop", index=1),
            event(
                "message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 7}
            ),
        ],
        chunks=[
            Chunk("Hel"),
            Chunk("lo"),
            Chunk(tool_calls=(ToolCallPart(0, "c", "find", ""),)),
            Chunk(tool_calls=(ToolCallPart(0, "", "", '{"a": 1}'),)),
            Chunk(finish_reason="tool_calls", usage=Usage(9, 7, 4, 2)),
        ],
    )


CONTRACTS = {
    "openai": _openai("gpt-4o"),
    "openrouter": _openai("meta-llama/some-model"),
    "anthropic": _anthropic("claude-sonnet-4-5"),
}
_found: dict[tuple[type, str], str | None] = {}


def broken(dialect: Dialect) -> str | None:
    """What of *dialect*'s contract the installed LiteLLM does not keep; ``None`` if it keeps all of it."""
    key = type(dialect), dialect.litellm_name
    if key not in _found:
        try:
            _found[key] = compare(dialect, CONTRACTS[dialect.litellm_name])
        except Exception as error:  # noqa: BLE001 - whatever it is, the translators are not what they were
            return f"its translators raise {type(error).__name__}"
    return _found[key]


def compare(dialect: Dialect, contract: Contract) -> str | None:
    """What the translators do otherwise than *contract* says; ``None`` if nothing. Raises whatever they raise."""
    model = Model(name=contract.model, provider=dialect.litellm_name)
    lane = Direct(model, dialect, Wire(), api_key=_KEY, base_url="http://contract.invalid")
    request = ChatRequest.of(
        "Hi",
        system_prompt="Be brief.",
        temperature=0.5,
        max_tokens=9,
        stop_sequences=["END"],
        tools=[_TOOL],
        stream=True,
    )
    sent = lane.translated(request)
    wrong = [name for name, value in contract.body.items() if sent.body.get(name) != value]
    if wrong:
        return f"its translator of requests changed {', '.join(wrong)}"
    if not sent.body.get("tools"):
        return "its translator of requests lost the tools"
    header, value = contract.header
    if {name.lower(): each for name, each in sent.headers.items()}.get(header) != value:
        return f"its translator of requests changed the header {header}"
    if _headers_of(dialect, model, "Hi") != _headers_of(dialect, model, "You", "what", "Write me a poem."):
        return "its translator of requests makes headers of what is said"
    data, expected = contract.whole
    if _same(lane.reader(sent).whole(json.dumps(data).encode())) != _same(expected):
        return "its translator of whole answers reads them otherwise"
    reader = lane.reader(sent)
    pieces = [reader.piece(Event(name, json.dumps(event).encode())) for name, event in contract.events]
    if [_same(each) for each in pieces if not each.empty] != [
        _same(each) for each in contract.chunks if not each.empty
    ]:
        return "its translator of streams reads them otherwise"
    return None


def _headers_of(dialect: Dialect, model: Model, *said: str) -> Mapping[str, str]:
    """The headers of a conversation, which ``Direct`` takes to be the same for every other."""
    roles: tuple[Role, ...] = ("user", "assistant", "user")
    lane = Direct(model, dialect, Wire(), api_key=_KEY, base_url="http://contract.invalid")
    messages = [Message(role, text) for role, text in zip(roles, said, strict=False)]
    return lane.translated(ChatRequest.of(messages=messages)).headers


def _same(chunk: Chunk) -> tuple[Any, ...]:
    """All of *chunk* that must be the same; the spaces that JSON allows are not."""
    calls = tuple((part.index, part.id, part.name, part.arguments.replace(" ", "")) for part in chunk.tool_calls)
    return chunk.text, chunk.finish_reason, chunk.usage, calls
