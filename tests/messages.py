"""Anthropic's wire for ``Loopback``: messages whole, and their event stream."""

from __future__ import annotations

import json
from typing import Any

from .loopback import Answer, as_json, sse


def whole(
    *texts: str,
    stop: str | None = "end_turn",
    usage: dict[str, Any] | None = None,
    blocks: list[dict[str, Any]] | None = None,
) -> Answer:
    """A message in one piece: *texts*, or *blocks*, one after the other."""
    content = blocks if blocks is not None else [{"type": "text", "text": "".join(texts or ("w0 ", "w1 ", "w2"))}]
    return as_json(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "served-model",
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": usage or {"input_tokens": 4, "output_tokens": 3},
        }
    )


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def start(**usage: int) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "served-model", "content": []}
    counts = {"input_tokens": 4, "output_tokens": 1, **usage}
    return event("message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": counts})


def text(*texts: str, index: int = 0) -> list[bytes]:
    """One block of text, in pieces."""
    return [
        event("content_block_start", index=index, content_block={"type": "text", "text": ""}),
        *(event("content_block_delta", index=index, delta={"type": "text_delta", "text": each}) for each in texts),
        event("content_block_stop", index=index),
    ]


def tool(name: str, *arguments: str, index: int = 0, id_: str = "toolu_1") -> list[bytes]:
    """One block that calls a tool, its arguments in pieces of JSON."""
    block = {"type": "tool_use", "id": id_, "name": name, "input": {}}
    return [
        event("content_block_start", index=index, content_block=block),
        *(
            event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": each})
            for each in ("", *arguments)
        ),
        event("content_block_stop", index=index),
    ]


def end(stop: str = "end_turn", **usage: int) -> list[bytes]:
    counts = {"output_tokens": 3, **usage}
    delta = {"stop_reason": stop, "stop_sequence": None}
    return [event("message_delta", delta=delta, usage=counts), event("message_stop")]


def stream(*texts: str, stop: str = "end_turn") -> Answer:
    """A complete stream, with a ping in it."""
    texts = texts or ("w0 ", "w1 ", "w2")
    return sse(start(), event("ping"), *text(*texts), *end(stop))


def failure(status: int, type_: str, message: str = "no", **headers: str) -> Answer:
    """An error as Anthropic sends it."""
    body = {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}
    return as_json(body, status, **headers)
