"""Streams that break, stall or lie, on OpenAI's wire and on Anthropic's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devsynth_providers import (
    ContentFiltered,
    EmptyResponse,
    MalformedResponse,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
    Timeouts,
    ToolCall,
)

from .. import messages
from ..loopback import HEARD, Answer, delta, sse, stream, usage_event
from .rows import AGAIN, NEXT, NOW, STREAMED, Row, on_both
from .rows import row as _row

TEXT = "w0 w1"
_SOON = Timeouts(first_token_s=2.0, idle_s=2.0, total_s=10)  # a loaded machine takes half a second to be asked
_SHORT = Timeouts(first_token_s=20, idle_s=20, total_s=4)
_BEGUN = (delta(role="assistant", text=""), delta("w0 "), delta("w1"))
_END = (delta(finish="stop"), usage_event(), "[DONE]")
_BAD = b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'
_CHUNKED = {"transfer-encoding": "chunked"}
_PING = b": keep-alive\n\n"
_ANTHROPIC = (messages.start(), *messages.text("w0 ", "w1")[:3])


def row(number: int, name: str, sent: Answer, comes: Any, then: Any = NOW, bill: Any = "Y", **more: Any) -> Row:
    return _row(number, name, sent, comes, then, bill, **{"ways": STREAMED, **more})


def cut(
    number: int,
    name: str,
    *rest: Any,
    comes: Any = ProviderUnavailable,
    then: str = "close",
    pause_s: float = 0,
    **more: Any,
) -> Row:
    """A stream that goes on with *rest* when its text has been heard, and is interrupted."""
    sent = sse(*_BEGUN, HEARD, *rest, then=then, pause_s=pause_s)
    return row(number, name, sent, comes, partial=TEXT, hangs=then == "hang", **more)


def _error(**error: Any) -> dict[str, Any]:
    return {"error": {"message": "boom", **error}}


def _drip(event: Any, pause_s: float = 0.05, *first: Any) -> Answer:
    return sse(*first, *[event] * 400, pause_s=pause_s)


_PART = {"index": 0, "id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"x"'}}
_REST = {"index": 0, "function": {"arguments": ": 1}"}}
_TOOLS = sse(
    delta(role="assistant"),
    delta(tool_calls=[_PART]),
    delta(tool_calls=[_REST]),
    delta(finish="tool_calls"),
    usage_event(),
    "[DONE]",
)
_CALLS = (ToolCall("c1", "find", '{"x": 1}'),)

# fmt: off
OPENAI: list[Row] = [
    *on_both(
        [
            row(33, "a page", sse(b"<html>hi</html>"), EmptyResponse, AGAIN, "U"),
            row(35, "an error first", sse(_error(code=429)), RateLimitError, AGAIN, "N", status=429),
            row(41, "hangs", Answer([], headless=True, then="hang"), ProviderTimeout, AGAIN, "U", clocks=_SOON,
                hangs=True),
            cut(46, "stalls", comes=ProviderTimeout, then="hang", clocks=_SOON),
            cut(47, "reset", then="reset"),
            cut(48, "ends without a finish reason"),
            cut(49, "[DONE] too early", "[DONE]"),
            row(50, "cut after its finish reason", sse(*_BEGUN, delta(finish="stop")), TEXT, estimated=True),
        ]
    ),
    row(26, "withheld", sse(delta(finish="content_filter"), usage_event(), "[DONE]"), ContentFiltered),
    row(27, "a refusal", sse(delta(refusal="No, "), delta(refusal="never."), delta(finish="stop"), "[DONE]"),
        ContentFiltered, says="No, never."),
    row(28, "out of tokens", stream("w0 ", "w1", finish="length"), TEXT, finish="length"),
    row(29, "null content", sse(delta(role="assistant"), delta(finish="stop"), "[DONE]"), EmptyResponse, AGAIN),
    row(31, "a tool call", _TOOLS, "", finish="tool_calls", calls=_CALLS),
    row(34, "nothing", sse(), EmptyResponse, AGAIN, "U"),
    row(34, "[DONE] alone", sse("[DONE]"), EmptyResponse, AGAIN, "U"),
    row(34, "pings alone", sse(_PING, _PING), EmptyResponse, AGAIN, "U"),
    row(35, "an error first, no quota", sse(_error(code="insufficient_quota")), QuotaExhausted, NEXT, "N"),
    row(36, "cut in its first event", sse(b'data: {"id": "1", "cho'), MalformedResponse, NEXT),
    row(36, "a choice that is text", sse({"choices": ["x"]}, "[DONE]"), MalformedResponse, NEXT),
    row(36, "content that is none", sse(delta(content=[{"type": "text"}]), "[DONE]"), MalformedResponse, NEXT),
    row(38, "invalid UTF-8 first", sse(_BAD), MalformedResponse, NEXT),
    row(39, "an event of 5 MB", sse(b"data: " + b"x" * (5 * 1024 * 1024)), MalformedResponse, NEXT),
    row(40, "drips words until the deadline", _drip(delta("w"), 0.2), ProviderTimeout, clocks=_SHORT, partial="w" * 400,
        somewhere=True),
    row(44, "reset after headers", Answer([], 200, _CHUNKED, "text/event-stream", then="reset"), ProviderUnavailable,
        AGAIN, "U"),
    row(44, "reset after headers, which a close would end", sse(then="reset"), EmptyResponse, AGAIN, "U"),
    row(45, "pings in place of a first token", _drip(_PING), ProviderTimeout, AGAIN, "U", clocks=_SOON),
    row(45, "roles in place of a first token", _drip(delta(role="assistant", text="")), ProviderTimeout, AGAIN, "U",
        clocks=_SOON),
    row(45, "hangs after a role", sse(_BEGUN[0], then="hang"), ProviderTimeout, AGAIN, "U", clocks=_SOON, hangs=True),
    cut(46, "stalls within an event", b'data: {"choi', comes=ProviderTimeout, then="hang", clocks=_SOON),
    cut(47, "closed within an event", b'data: {"id": "1", "cho', comes=MalformedResponse),
    cut(52, "an event that is no JSON", b"data: {nonsense}\n\n", *_END, comes=MalformedResponse),
    cut(52, "an event that is a list", b"data: [1]\n\n", *_END),
    row(53, "an error first, 500", sse(_error(code=500)), ProviderUnavailable, AGAIN, "U", status=500),
    row(53, "an error first, text", sse({"error": "Something went wrong"}), ProviderUnavailable, AGAIN, "U"),
    cut(54, "an error", _error(code=500), status=500),
    cut(54, "an error, 429", _error(code=429), status=429),
    cut(54, "ends in an error", delta(finish="error")),
    cut(55, "pings for ever", *[_PING] * 400, comes=ProviderTimeout, pause_s=0.05, clocks=_SOON),
    cut(55, "nulls for ever", *[delta()] * 400, comes=ProviderTimeout, pause_s=0.05, clocks=_SOON),
    row(55, "pings, nulls and no choices between", sse(_PING, *_BEGUN[:2], _PING, delta(), usage_event(), _BEGUN[2],
        _PING, *_END), TEXT),
    row(56, "a piece twice", stream("w0 ", "w0 ", "w1"), "w0 w0 w1"),
    row(57, "all told twice", sse(*_BEGUN, delta(finish="stop"), delta(finish="stop"), usage_event(9, 9),
        usage_event(4, 3), "[DONE]"), TEXT),
    row(57, "a finish reason twice", sse(*_BEGUN, delta(finish="stop"), *_END), TEXT),
    cut(58, "invalid UTF-8", _BAD, *_END, comes=MalformedResponse),
    row(59, "no usage", sse(*_BEGUN, delta(finish="stop"), "[DONE]"), TEXT, estimated=True),
    row(60, "negative usage", sse(*_BEGUN, delta(finish="stop"), usage_event(-4, 3), "[DONE]"), TEXT, estimated=True),
    row(60, "absurd usage", sse(*_BEGUN, delta(finish="stop"), usage_event(4, 10**9), "[DONE]"), TEXT, estimated=True),
    row(60, "usage of null", sse(*_BEGUN, {**delta(finish="stop"), "usage": None}, "[DONE]"), TEXT, estimated=True),
    row(76, "another model", sse(*[{**each, "model": "gpt-of-yesterday"} for each in (*_BEGUN, *_END[:2])],
        "[DONE]"), TEXT, served="gpt-of-yesterday"),
    row(50, "whole, and left open", sse(*_BEGUN, *_END[:2], then="hang"), TEXT, hangs=True),
]
# fmt: on


def anthropic(number: int, name: str, sent: Answer, comes: Any, then: Any = NOW, bill: Any = "Y", **more: Any) -> Row:
    return row(number, name, sent, comes, then, bill, wire="anthropic", **more)


def broken(
    number: int,
    name: str,
    *rest: Any,
    comes: Any = ProviderUnavailable,
    then: str = "close",
    pause_s: float = 0,
    **more: Any,
) -> Row:
    """A stream of Anthropic's that goes on with *rest* when its text has been heard, and is interrupted."""
    sent = sse(*_ANTHROPIC, HEARD, *rest, then=then, pause_s=pause_s)
    return anthropic(number, name, sent, comes, partial=TEXT, hangs=then == "hang", **more)


def _failed(type_: str) -> bytes:
    return messages.event("error", error={"type": type_, "message": "boom"})


def _without_usage(events: Sequence[bytes]) -> list[bytes]:
    return [each.replace(b'"usage"', b'"abuse"') for each in events]


_STOP = messages.event("content_block_stop", index=0)
_DELTA, _LAST = messages.end()
_ODD = messages.event("content_block_delta", index=0, delta={"type": "text_delta", "text": "w"}).replace(
    b'"w"', b'"\xff"'
)

# fmt: off
ANTHROPIC: list[Row] = [
    *on_both(
        [
            broken(47, "reset", then="reset"),
            broken(48, "ends without a stop reason", _STOP),
            anthropic(50, "cut after its stop reason", sse(*_ANTHROPIC, _STOP, _DELTA), TEXT),
        ]
    ),
    anthropic(34, "message_stop alone", sse(messages.start(), _LAST), EmptyResponse, AGAIN, "U"),
    anthropic(45, "pings in place of a first token", _drip(messages.event("ping"), 0.05, messages.start()),
        ProviderTimeout, AGAIN, "U", clocks=_SOON),
    broken(46, "stalls", comes=ProviderTimeout, then="hang", clocks=_SOON),
    broken(47, "closed within an event", b'event: content_block_delta\ndata: {"ty', comes=MalformedResponse),
    broken(49, "message_stop too early", _STOP, _LAST),
    broken(52, "an event that is no JSON", b"event: content_block_delta\ndata: {nonsense}\n\n", _STOP, _DELTA, _LAST,
        comes=MalformedResponse),
    anthropic(53, "an error first, overloaded", sse(messages.start(), _failed("overloaded_error")),
        ProviderUnavailable, AGAIN, "N", status=529),
    anthropic(53, "an error first, 429", sse(messages.start(), _failed("rate_limit_error")), RateLimitError, AGAIN,
        "N", status=429),
    broken(54, "an error", _failed("overloaded_error"), status=529),
    broken(55, "pings for ever", *[messages.event("ping")] * 400, comes=ProviderTimeout, pause_s=0.05, clocks=_SOON),
    anthropic(55, "pings between", sse(*_ANTHROPIC[:-1], messages.event("ping"), _ANTHROPIC[-1],
        messages.event("ping"), _STOP, _DELTA, _LAST), TEXT),
    anthropic(57, "a stop reason twice", sse(*_ANTHROPIC, _STOP, _DELTA, _DELTA, _LAST), TEXT),
    broken(58, "invalid UTF-8", _ODD, _STOP, _DELTA, _LAST, comes=MalformedResponse),
    anthropic(59, "no usage", sse(*_without_usage(_ANTHROPIC), _STOP, *_without_usage([_DELTA]), _LAST), TEXT,
        estimated=True),
]
# fmt: on
ROWS = OPENAI + ANTHROPIC
