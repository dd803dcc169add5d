"""A server on loopback, a process of its own, that speaks OpenAI's wire and Anthropic's from bytes made beforehand.

Streams go out as an inference server sends them: it takes steps, and at each step every open stream gets its next
events, each an HTTP chunk of its own, in one write. ``POST /pace`` says how long a step is and how many events it has,
so that a client that keeps up finds exactly so many at each read.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

from workload import PIECES, TEXT, TEXTS, VECTORS, packed

Stream = tuple[bytes, ...]

_JSON = "content-type: application/json"
_EVENTS = "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\ntransfer-encoding: chunked"


def _whole(body: Any) -> bytes:
    data = json.dumps(body, separators=(",", ":")).encode()
    return f"HTTP/1.1 200 OK\r\n{_JSON}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _openai_whole() -> bytes:
    message = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    return _whole(
        {
            "id": "chatcmpl-BeNcHmArK0000000000000000000",
            "object": "chat.completion",
            "created": 1767225600,
            "model": "m-2026-01-01",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": _openai_usage(),
            "service_tier": "default",
            "system_fingerprint": "fp_0000000000",
        }
    )


def _openai_usage() -> dict[str, Any]:
    return {
        "prompt_tokens": 90,
        "completion_tokens": len(PIECES),
        "total_tokens": 90 + len(PIECES),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _openai_stream() -> Stream:
    def event(choices: list[Any], usage: Any = None) -> bytes:
        body = {
            "id": "chatcmpl-BeNcHmArK0000000000000000000",
            "object": "chat.completion.chunk",
            "created": 1767225600,
            "model": "m-2026-01-01",
            "service_tier": "default",
            "system_fingerprint": "fp_0000000000",
            "choices": choices,
            "usage": usage,
        }
        return _framed(b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n")

    def choice(delta: dict[str, Any], finish: str | None = None) -> list[Any]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

    return (
        event(choice({"role": "assistant", "content": "", "refusal": None})),
        *(event(choice({"content": piece})) for piece in PIECES),
        event(choice({}, "stop")),
        event([], _openai_usage()),
        _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n",
    )


def _anthropic_message(content: list[Any], stop: str | None, output_tokens: int) -> dict[str, Any]:
    return {
        "id": "msg_01BeNcHmArK00000000000000",
        "type": "message",
        "role": "assistant",
        "model": "m-2026-01-01",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 90,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": output_tokens,
            "service_tier": "standard",
        },
    }


def _anthropic_stream() -> Stream:
    def event(kind: str, **more: Any) -> bytes:
        data = json.dumps({"type": kind, **more}, separators=(",", ":"))
        return _framed(f"event: {kind}\ndata: {data}\n\n".encode())

    return (
        event("message_start", message=_anthropic_message([], None, 1)),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("ping"),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in PIECES),
        event("content_block_stop", index=0),
        event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": len(PIECES)},
        ),
        event("message_stop") + b"0\r\n\r\n",
    )


def _embeddings(count: int, coded: bool) -> bytes:
    rows: list[Any] = (
        [base64.b64encode(packed(row)).decode() for row in range(count)] if coded else list(VECTORS[:count])
    )
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": 15 * count, "total_tokens": 15 * count}
    return _whole({"object": "list", "data": data, "model": "m", "usage": usage})


WHOLE = {
    b"/v1/chat/completions": _openai_whole(),
    b"/v1/messages": _whole(_anthropic_message([{"type": "text", "text": TEXT}], "end_turn", len(PIECES))),
}
STREAMS = {b"/v1/chat/completions": _openai_stream(), b"/v1/messages": _anthropic_stream()}
VECTOR_BYTES = {(count, coded): _embeddings(count, coded) for count in (1, len(TEXTS)) for coded in (True, False)}
HEAD = f"HTTP/1.1 200 OK\r\n{_EVENTS}\r\n\r\n".encode()


class Pace:
    """The steps that all open streams take together."""

    def __init__(self) -> None:
        self.step_s = 0.0
        self.events = 1
        self._open: dict[Connection, int] = {}
        self._ticking = False

    def begin(self, connection: Connection) -> None:
        connection.send(HEAD)
        self._open[connection] = 0
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(self.step_s, self._tick, time.perf_counter())

    def forget(self, connection: Connection) -> None:
        self._open.pop(connection, None)

    def _tick(self, due: float) -> None:
        for connection, sent in list(self._open.items()):
            upto = min(sent + self.events, len(connection.stream))
            connection.send(b"".join(connection.stream[sent:upto]))
            self._open[connection] = upto
            if upto == len(connection.stream):
                del self._open[connection]
        self._ticking = bool(self._open)
        if self._ticking:
            loop = asyncio.get_running_loop()
            due = max(due + self.step_s, time.perf_counter())
            loop.call_later(max(due - time.perf_counter(), 0), self._tick, due)


class Connection(asyncio.Protocol):
    """One keep-alive connection: takes a request, answers it, waits for the next."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._received = b""
        self._transport: Any = None
        self.stream: Stream = ()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._pace.forget(self)

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            length = _content_length(head)
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            self._answer(head.split(b" ", 2)[1].split(b"?", 1)[0], json.loads(body))

    def _answer(self, path: bytes, asked: dict[str, Any]) -> None:
        if path == b"/pace":
            self._pace.step_s, self._pace.events = asked["step_s"], asked["events"]
            self.send(_whole({}))
        elif path == b"/v1/embeddings":
            texts = asked["input"]
            count = 1 if isinstance(texts, str) else len(texts)
            self.send(VECTOR_BYTES[count, asked.get("encoding_format") == "base64"])
        elif asked.get("stream"):
            self.stream = STREAMS[path]
            self._pace.begin(self)
        else:
            self.send(WHOLE[path])


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _serve() -> None:
    pace = Pace()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(pace), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
