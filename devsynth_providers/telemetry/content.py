"""What is asked and answered, on spans: only where the environment and the policy both want it, without keys, and cut.

The environment says where, by ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``: ``span_only`` puts it on the span
of each attempt, ``event_only`` on an event of that span, and ``span_and_event`` on both.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.trace import Span

from ..reply import Reply
from ..scrubbing import without_keys
from ..types import ChatRequest, Message, Request, ToolCall
from . import semconv

VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
LONGEST_PART = 4_096
"""Characters of one text."""
LONGEST = 32_768
"""Characters of all the texts of one attribute: of a long conversation, the end is kept."""
_SPAN = frozenset(("span_only", "span_and_event", "true", "1"))
_EVENT = frozenset(("event_only", "span_and_event"))


@functools.cache
def place() -> tuple[bool, bool]:
    """Whether content goes on spans, and on events: what the environment said when it was first asked."""
    said = os.environ.get(VARIABLE, "").strip().lower()
    return said in _SPAN, said in _EVENT


def wanted(request: Request) -> Shown | None:
    """What shows the content of *request*, if the environment wants it; texts to embed are not shown."""
    on_span, on_event = place()
    return Shown(request, on_span, on_event) if (on_span or on_event) and isinstance(request, ChatRequest) else None


class Shown:
    """Puts what one attempt is asked and answers where it is wanted."""

    def __init__(self, request: ChatRequest, on_span: bool, on_event: bool) -> None:
        self._on_span = on_span
        self._on_event = on_event
        self._asked = _asked(request.messages)

    def question(self, span: Span) -> None:
        """What is asked."""
        if self._on_span:
            span.set_attributes(self._asked)

    def answer(self, span: Span, reply: Reply) -> None:
        """What was answered, as far as it came."""
        parts = [*_text(reply.text), *map(_call, reply.tool_calls)]
        whole = {"role": "assistant", "parts": parts, "finish_reason": reply.finish_reason or "error"}
        told = {semconv.OUTPUT_MESSAGES: _json([whole])}
        if self._on_span:
            span.set_attributes(told)
        if self._on_event:
            span.add_event(semconv.DETAILS, {**self._asked, **told})


def _asked(messages: Sequence[Message]) -> dict[str, str]:
    told = _last(message for message in messages if message.role == "system")
    system = [part for message in told for part in _parts(message)]
    others = [
        {"role": message.role, "parts": _parts(message)} for message in _last(m for m in messages if m.role != "system")
    ]
    asked = {semconv.INPUT_MESSAGES: _json(others)}
    if system:
        asked[semconv.SYSTEM_INSTRUCTIONS] = _json(system)
    return asked


def _last(messages: Iterable[Message]) -> list[Message]:
    """The last of *messages* that there is room for, and always the very last."""
    kept: list[Message] = []
    room = LONGEST
    for message in reversed(list(messages)):
        room -= sum(min(len(text), LONGEST_PART) for text in (message.content, *_arguments(message)))
        if kept and room < 0:
            break
        kept.append(message)
    return kept[::-1]


def _arguments(message: Message) -> list[str]:
    return [call.arguments for call in message.tool_calls]


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": _cut(message.content)}]
    return [*_text(message.content), *map(_call, message.tool_calls)]


def _text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "content": _cut(text)}] if text else []


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": _cut(call.arguments)}


def _cut(text: str) -> str:
    text = without_keys(text)  # first: a key that is cut in two looks like none
    return text if len(text) <= LONGEST_PART else f"{text[:LONGEST_PART]}… [{len(text)} characters]"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
