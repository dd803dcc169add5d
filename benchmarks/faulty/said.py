"""What the server says when nothing is wrong, as values, and as bytes. Answers are held against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

PIECES = tuple(
    "Größe zählt nicht: α sieht man, β rät kaum, 東京 liegt weit, naïve Köche würzen früh, "  # noqa: RUF001
    "jedes Wort kommt genau einmal vor, sonst fiele «Ende» keinem auf.".replace(" ", " \0").split("\0")
)
"""No word comes twice, and some have characters of more than one byte."""
TEXT = "".join(PIECES)
TEXTS = ("the first text", "the second text", "the third text")
VECTORS = ((0.5, -0.25, 0.125, 1.0), (0.25, 0.75, -0.5, 0.0625), (-1.0, 0.5, 0.5, 0.25))
PROMPT = "Request {number}: say in one sentence what matters."

JSON = "content-type: application/json"
EVENTS = "content-type: text/event-stream; charset=utf-8"


@dataclass(frozen=True)
class Forever:
    """The same bytes again and again."""

    data: bytes
    every_s: float


Step = bytes | float | Forever
"""Bytes to send, or seconds to wait."""


@dataclass(frozen=True)
class Play:
    """What happens on a connection once a request has come; *then* it is kept, closed, reset, or nothing happens."""

    steps: Sequence[Step]
    then: str = "close"


Asked = Mapping[str, Any]
Script = Callable[[Asked, Random], Play]
"""What is played for a request; chance is the server's, and seeded."""


def head(*lines: str, status: int = 200) -> bytes:
    return ("\r\n".join((f"HTTP/1.1 {status} X", *lines)) + "\r\n\r\n").encode()


def sized(data: bytes, *lines: str, status: int = 200, kind: str = JSON) -> Play:
    """*data* with its length, on a connection that serves on."""
    return Play((head(kind, f"content-length: {len(data)}", *lines, status=status) + data,), "keep")


def as_json(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def failure(status: int, *lines: str, code: str | None = None) -> Play:
    error = {"error": {"message": "no", "type": "server_error", "code": code, "param": None}}
    return sized(as_json(error), *lines, status=status)


def event(delta: Mapping[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return said({**_BASE, "choices": [choice], **more})


def said(body: Any) -> bytes:
    return b"data: " + as_json(body) + b"\n\n"


def texts(pieces: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(event({"content": piece}) for piece in pieces)


_BASE = {"id": "c1", "object": "chat.completion.chunk", "created": 1767225600, "model": "m"}
_USAGE = {"prompt_tokens": 12, "completion_tokens": len(PIECES), "total_tokens": 12 + len(PIECES)}
ROLE = event({"role": "assistant", "content": ""})
STOP = event(finish="stop")
USAGE = said({**_BASE, "choices": [], "usage": _USAGE})
DONE = b"data: [DONE]\n\n"
STREAM = (ROLE, *texts(PIECES), STOP, USAGE, DONE)
"""A whole stream, event by event; the role is the first, and the first text the second."""


def completion(text: str | None = TEXT, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "logprobs": None,
        "finish_reason": finish,
    }
    return {**_BASE, "object": "chat.completion", "choices": [choice], "usage": _USAGE}


def embeddings(rows: Sequence[Any] = VECTORS, order: Sequence[int] | None = None) -> dict[str, Any]:
    indices = range(len(rows)) if order is None else order
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in zip(indices, rows, strict=True)]
    return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED_HEAD = head(EVENTS, "transfer-encoding: chunked")


def chunked(events: Sequence[bytes], *, ended: bool = True, then: str = "keep") -> Play:
    """Each event as a chunk of HTTP; where they are not *ended*, the end is missing."""
    last = (b"0\r\n\r\n",) if ended else ()
    return Play((CHUNKED_HEAD, *(chunk(each) for each in events if each), *last), then if ended else "close")


def until_closed(events: Sequence[bytes], then: str = "close") -> Play:
    """As older servers stream: the end of the connection is the end of the answer."""
    pause: tuple[Step, ...] = (0.02,) if then == "reset" else ()
    return Play((head(EVENTS, "connection: close"), *events, *pause), then)


def well(asked: Asked, _: Random | None = None) -> Play:
    """The right answer to whatever is asked."""
    if "input" in asked:
        return sized(as_json(embeddings()))
    return chunked(STREAM) if asked.get("stream") else sized(as_json(completion()))
