"""Answers with status 200 that are wrong, and servers that are not there or never done: what comes in one piece."""

from __future__ import annotations

import gzip
import json
from typing import Any

from devsynth_providers import (
    ContentFiltered,
    EmptyResponse,
    MalformedResponse,
    ModelNotFound,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
    Timeouts,
    ToolCall,
)

from ..loopback import Answer, as_json, sse, whole
from .rows import AGAIN, NEXT, WHOLE, Row, on_both, row

TEXT = "w0 w1 w2"
_SOON = Timeouts(first_token_s=0.5, idle_s=0.5, total_s=2.0)
_DEAF = Timeouts(connect_s=0.3, first_token_s=20, idle_s=20, total_s=30)
_NOT_STREAMED = ("generate", "embed", "embed_batch")


def _body(**changes: Any) -> Answer:
    """A whole answer, with some of its keys otherwise, or left out where they are ``...``."""
    body = {**json.loads(whole().body), **changes}
    return as_json({name: value for name, value in body.items() if value is not ...})


def _usage(prompt: Any, completion: Any, **more: Any) -> Answer:
    return _body(usage={"prompt_tokens": prompt, "completion_tokens": completion, **more})


def _choice(**changes: Any) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop", **changes}
    return _body(choices=[choice])


def _raw(body: bytes, kind: str = "application/json", then: str = "close", **more: Any) -> Answer:
    return Answer([body], content_type=kind, then=then, **more)


def _error(streamed: bool = False, **error: Any) -> Any:
    body = {"error": {"message": "no", **error}}
    return (as_json(body), sse(body))


_CHUNKED = {"transfer-encoding": "chunked"}
_GOOD = whole().body
_CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"x": 1}'}}
_CALLS = (ToolCall("c1", "find", '{"x": 1}'),)

# fmt: off
ANSWERS: list[Row] = [
    *on_both(
        [
            row(28, "out of tokens", whole(TEXT, finish="length"), TEXT, ways=WHOLE, finish="length"),
            row(29, "null content", whole(None), EmptyResponse, AGAIN, ways=WHOLE, told=(4, 3)),
            row(32, "a page", _raw(b"<html>hi</html>", "text/html"), MalformedResponse, NEXT, "U", says="web page"),
            row(36, "cut JSON", _raw(b'{"id": "1", "cho'), MalformedResponse, NEXT, ways=_NOT_STREAMED),
            row(59, "no usage", whole(usage=None), TEXT, ways=WHOLE, estimated=True),
            row(60, "negative usage", _usage(-5, 1), TEXT, ways=WHOLE, estimated=True),
        ]
    ),
    row(26, "withheld", whole("", finish="content_filter"), ContentFiltered, ways=WHOLE, told=(4, 3)),
    row(26, "withheld, null", whole(None, finish="content_filter"), ContentFiltered, ways=WHOLE, told=(4, 3)),
    row(27, "a refusal", whole(None, message={"refusal": "No, never."}), ContentFiltered, ways=WHOLE,
        says="No, never."),
    row(30, "no choices", _body(choices=[]), EmptyResponse, AGAIN, "U", ways=WHOLE),
    row(30, "null choices", _body(choices=None), MalformedResponse, NEXT, "U", ways=WHOLE),
    row(30, "choices left out", _body(choices=...), MalformedResponse, NEXT, "U", ways=WHOLE),
    row(31, "a tool call", _choice(message={"content": None, "tool_calls": [_CALL]}, finish_reason="tool_calls"), "",
        ways=WHOLE, finish="tool_calls", calls=_CALLS),
    row(34, "an empty body", _raw(b"", content_length=0), EmptyResponse, AGAIN, "U"),
    row(34, "an empty text", whole(""), EmptyResponse, AGAIN, ways=WHOLE, told=(4, 3)),
    row(35, "an error, 429", _error(code=429), RateLimitError, AGAIN, "N", status=429),
    row(35, "an error, 502", _error(code=502), ProviderUnavailable, AGAIN, "U", status=502),
    row(35, "an error, 503", _error(code=503), ProviderUnavailable, AGAIN, "N", status=503),
    row(35, "an error, no quota", _error(code="insufficient_quota"), QuotaExhausted, NEXT, "N"),
    row(35, "an error, no model", _error(code="model_not_found"), ModelNotFound, NEXT, "N"),
    row(35, "an error, 429 as text", _error(code="429"), RateLimitError, AGAIN, "N", status=429),
    row(35, "an error that is text", as_json({"error": "oops"}), ProviderUnavailable, AGAIN, "U", ways=_NOT_STREAMED),
    row(35, "ended in an error", whole("half", finish="error"), ProviderUnavailable, AGAIN, "U", ways=WHOLE),
    row(36, "JSON and more", _raw(_GOOD + b"{}"), MalformedResponse, NEXT, ways=WHOLE),
    row(36, "JSON that is null", _raw(b"null"), MalformedResponse, NEXT, "U", ways=_NOT_STREAMED),
    row(36, "JSON that is a list", _raw(b"[1]"), MalformedResponse, NEXT, "U", ways=_NOT_STREAMED),
    row(36, "deep JSON", _raw(b'{"choices":' + b"[" * 100_000), MalformedResponse, NEXT, ways=_NOT_STREAMED),
    row(36, "a choice that is text", _body(choices=["x"]), MalformedResponse, NEXT, ways=WHOLE),
    row(36, "content that is none", _choice(message={"content": [{"type": "text", "text": "x"}]}), MalformedResponse,
        NEXT, ways=WHOLE),
    row(37, "shorter than told", _raw(_GOOD, content_length=len(_GOOD) + 9), ProviderUnavailable, AGAIN, "U",
        ways=_NOT_STREAMED),
    row(37, "longer than told", _raw(_GOOD, content_length=len(_GOOD) - 9), MalformedResponse, NEXT, "U",
        ways=_NOT_STREAMED),
    row(37, "a last chunk that is missing", _raw(b"%x\r\n%s\r\n" % (len(_GOOD), _GOOD), headers=_CHUNKED),
        ProviderUnavailable, AGAIN, "U", ways=_NOT_STREAMED),
    row(37, "a chunk that is cut", _raw(b"%x\r\n%s" % (len(_GOOD), _GOOD[:40]), headers=_CHUNKED),
        ProviderUnavailable, AGAIN, "U", ways=_NOT_STREAMED),
    row(37, "a chunk size that is none", _raw(b"zz\r\n%s\r\n" % _GOOD, headers=_CHUNKED), MalformedResponse, NEXT,
        "U", ways=_NOT_STREAMED, says="HTTP"),
    row(37, "a chunk size that is none, later", Answer([b"5\r\n%s\r\n" % _GOOD[:5], b"zz\r\n"], headers=_CHUNKED,
        pause_s=0.05), MalformedResponse, NEXT, "U", ways=_NOT_STREAMED, says="HTTP"),
    row(37, "in chunks", _raw(b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (_GOOD[:5], len(_GOOD) - 5, _GOOD[5:]),
        headers=_CHUNKED), TEXT, ways=WHOLE),
    row(37, "broken gzip", _raw(gzip.compress(_GOOD)[:-20], headers={"content-encoding": "gzip"}), MalformedResponse,
        NEXT, "U", ways=_NOT_STREAMED),
    row(37, "gzip that is none", _raw(_GOOD, headers={"content-encoding": "gzip"}), ProviderUnavailable, AGAIN, "U",
        ways=_NOT_STREAMED),
    row(38, "invalid UTF-8", _raw(_GOOD.replace(b"w1", b"w\xff")), MalformedResponse, NEXT, ways=WHOLE),
    row(38, "half a letter", _raw(_GOOD.replace(b"w1", b"w\xc3")), MalformedResponse, NEXT, ways=WHOLE),
    row(39, "50 MB", Answer([b" " * 1024 * 1024] * 50), MalformedResponse, NEXT, ways=WHOLE, says="bytes", status=200),
    row(51, "no finish reason", whole(finish=None), MalformedResponse, NEXT, ways=WHOLE, says="finish reason"),
    row(60, "usage of zero", _usage(0, 0), TEXT, ways=WHOLE, estimated=True),
    row(60, "usage of null", _body(usage=None), TEXT, ways=WHOLE, estimated=True),
    row(60, "absurd usage out", _usage(4, 10**9), TEXT, ways=WHOLE, estimated=True),
    row(60, "absurd usage in", _usage(10**9, 3), TEXT, ways=WHOLE, estimated=True),
    row(60, "usage above all floats", _usage(10**330, 3), TEXT, ways=WHOLE, estimated=True),
    row(60, "more cached than asked", _usage(4, 3, prompt_tokens_details={"cached_tokens": 5}), TEXT, ways=WHOLE,
        estimated=True),
    row(60, "more thought than said", _usage(4, 3, completion_tokens_details={"reasoning_tokens": 5}), TEXT, ways=WHOLE,
        estimated=True),
    row(60, "a total that is no sum", _usage(4, 3, total_tokens=99), TEXT, ways=WHOLE),
    row(60, "usage that is a list", _body(usage=[1]), TEXT, ways=WHOLE, estimated=True, lanes=("direct",)),
    row(60, "usage as text", _usage("4", "3"), TEXT, ways=WHOLE, estimated=True, lanes=("direct",)),
    row(76, "another model", _body(model="gpt-of-yesterday"), TEXT, ways=WHOLE, served="gpt-of-yesterday"),
]
# fmt: on
"""What a server that works says wrong."""

# fmt: off
CONNECTIONS: list[Row] = [
    *on_both(
        [
            row(42, "refused", None, ProviderUnavailable, AGAIN, "N", where="closed", requests=False),
            row(43, "reset before headers", Answer([], headless=True, then="reset"), ProviderUnavailable, AGAIN, "U"),
            row(41, "hangs", Answer([], headless=True, then="hang"), ProviderTimeout, NEXT, "U", ways=_NOT_STREAMED,
                clocks=_SOON, hangs=True),
        ]
    ),
    row(42, "no connection in time", None, ProviderTimeout, AGAIN, "N", where="deaf", requests=False, clocks=_DEAF),
    row(42, "no such name", None, ProviderUnavailable, AGAIN, "N", where="nobody's name", requests=False),
    row(42, "TLS where there is none", None, ProviderUnavailable, NEXT, "N", where="no TLS", requests=False),
    row(42, "TLS of a stranger", None, ProviderUnavailable, NEXT, "N", where="stranger", requests=False),
    row(42, "no HTTP", None, MalformedResponse, NEXT, "U", where="mail", requests=False),
    row(43, "closed before headers", Answer([], headless=True), ProviderUnavailable, AGAIN, "U"),
    row(43, "closed within the status", Answer([b"HTTP/1.1 20"], headless=True), ProviderUnavailable, AGAIN, "U"),
    row(43, "closed within headers", Answer([b"HTTP/1.1 200 OK\r\ncontent-ty"], headless=True), ProviderUnavailable,
        AGAIN, "U"),
    row(43, "a status that is none", Answer([b"HTTP/1.1 OK\r\n\r\n"], headless=True), MalformedResponse, NEXT, "U"),
    row(44, "reset after headers", Answer([], then="reset", content_length=50), ProviderUnavailable, AGAIN, "U",
        ways=_NOT_STREAMED),
    row(44, "reset within the body", _raw(_GOOD[:60], then="reset", content_length=len(_GOOD)), ProviderUnavailable,
        AGAIN, "U", ways=_NOT_STREAMED),
    row(40, "drips", Answer([_GOOD[at : at + 1] for at in range(60)], pause_s=0.05), ProviderTimeout, NEXT, "U",
        ways=_NOT_STREAMED, clocks=_SOON),
    row(40, "drips its headers", Answer([bytes([each]) for each in b"HTTP/1.1 200 OK\r\nx-y: " + b"z" * 40],
        headless=True, pause_s=0.05), ProviderTimeout, NEXT, "U", ways=_NOT_STREAMED, clocks=_SOON),
    row(41, "hangs after headers", Answer([], then="hang", content_length=50), ProviderTimeout, NEXT, "U",
        ways=_NOT_STREAMED, clocks=_SOON, hangs=True),
]
# fmt: on
"""What goes wrong with a connection, whatever comes over it."""

ROWS = ANSWERS + CONNECTIONS
