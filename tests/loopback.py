"""A raw-socket server on loopback that speaks OpenAI's wire, and can break it at any byte.

Each request takes the next scripted answer; the last one repeats. What was asked stands in ``requests``. By ``at`` it
has places with answers and requests of their own, so that what is played at the same time can share it.
"""

from __future__ import annotations

import contextlib
import enum
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


class Signal(enum.Enum):
    """Pieces of an answer that are no bytes."""

    HEARD = enum.auto()
    """Go on when the caller has heard all that came before: ``Place.heard`` is set."""


HEARD = Signal.HEARD
Piece = bytes | Signal


@dataclass
class Answer:
    """Bytes to send, in pieces; then close, or reset, or hang until the client leaves.

    One that is *headless* consists of its pieces alone, without a status line or headers.
    """

    pieces: Sequence[Piece]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    content_length: int | None = None
    then: str = "close"
    pause_s: float = 0.0
    headless: bool = False

    @property
    def body(self) -> bytes:
        """All the bytes of it."""
        return b"".join([piece for piece in self.pieces if isinstance(piece, bytes)])

    def head(self, *, keep_alive: bool = False) -> bytes:
        if self.headless:
            return b""
        kept = keep_alive and self.content_length is not None
        lines = [f"HTTP/1.1 {self.status} X", f"content-type: {self.content_type}"]
        lines.append(f"connection: {'keep-alive' if kept else 'close'}")
        if self.content_length is not None:
            lines.append(f"content-length: {self.content_length}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


Script = Answer | tuple[Answer, Answer] | Callable[[dict[str, Any]], Answer]


def whole(
    text: str | None = "w0 w1 w2",
    *,
    finish: str | None = "stop",
    usage: Any = (4, 3),
    message: dict[str, Any] | None = None,
) -> Answer:
    """A chat completion in one piece."""
    body: dict[str, Any] = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "served-model",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **(message or {})}, "finish_reason": finish}
        ],
    }
    if usage:
        body["usage"] = _usage(*usage)
    return as_json(body)


def as_json(body: Any, status: int = 200, **headers: str) -> Answer:
    data = json.dumps(body).encode()
    return Answer([data], status=status, headers=headers, content_length=len(data))


def failure(status: int, message: str = "no", code: str | None = None, type_: str = "error", **headers: str) -> Answer:
    """An error as OpenAI sends it."""
    return as_json({"error": {"message": message, "type": type_, "code": code, "param": None}}, status, **headers)


def sse(*events: Any, then: str = "close", pause_s: float = 0.0) -> Answer:
    """Server-sent events: dictionaries as JSON, text, bytes and signals as they are."""
    return Answer([_event(event) for event in events], content_type="text/event-stream", then=then, pause_s=pause_s)


def delta(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    content = {} if text is None else {"content": text}
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "served-model",
        "choices": [{"index": 0, "delta": {**content, **more}, "finish_reason": finish}],
    }


def usage_event(prompt: int = 4, completion: int = 3) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "served-model",
        "choices": [],
        "usage": _usage(prompt, completion),
    }


def stream(*texts: str, finish: str = "stop") -> Answer:
    """A complete stream: role, texts, finish reason, usage, [DONE]."""
    texts = texts or ("w0 ", "w1 ", "w2")
    return sse(
        delta(role="assistant", text=""),
        *(delta(text) for text in texts),
        delta(finish=finish),
        usage_event(),
        "[DONE]",
    )


def vectors(*rows: Any, indices: Sequence[int] | None = None) -> Answer:
    rows = rows or ([1.0, 0.0], [0.0, 1.0])
    order = indices if indices is not None else range(len(rows))
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in zip(order, rows, strict=True)]
    return as_json(
        {"object": "list", "model": "served-model", "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    )


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _event(event: Any) -> Piece:
    if isinstance(event, bytes | Signal):
        return event
    text = event if isinstance(event, str) else json.dumps(event)
    return f"data: {text}\n\n".encode()


@contextlib.contextmanager
def talker(says: bytes) -> Iterator[int]:
    """The port of a server that says the same to whatever it is told, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(says)

        threading.Thread(target=talk, daemon=True).start()
        yield listening.getsockname()[1]


class Place:
    """A path of a server, with answers of its own: any chat gets the same three words until it is told otherwise."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._answers: list[Script] = [(whole(), stream())]
        self.heard = threading.Event()
        self.gone = threading.Event()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []

    def script(self, *answers: Script) -> Self:
        """Give these answers in turn; a pair is (to a whole request, to a streamed one), a function makes its own."""
        self._answers = list(answers)
        return self

    def client_left(self, timeout_s: float = 5.0) -> bool:
        """Whether the client closed its connection while an answer was still being sent."""
        return self.gone.wait(timeout_s)

    def answer(self, body: dict[str, Any]) -> Answer:
        """The answer to *body*, whose turn it is."""
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, tuple):
            return answer[bool(body.get("stream"))]
        return answer(body) if callable(answer) else answer


class Loopback(Place):
    """The server.

    With *keep_alive* a connection serves as many requests as come, of answers that say how long they are.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, keep_alive: bool = False) -> None:
        self._tls = tls
        self._keep_alive = keep_alive
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._places: dict[str, Place] = {}
        self._stopping = False
        self.connections = 0
        self.port = int(self._socket.getsockname()[1])
        self._root = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        super().__init__(f"{self._root}/v1")
        threading.Thread(target=self._accept, daemon=True).start()

    def at(self, name: str) -> Place:
        """The place called *name*, a part of a path; what is asked there does not stand in this server's requests."""
        return self._places.setdefault(name, Place(f"{self._root}/{name}/v1"))

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._welcome, args=(connection,), daemon=True).start()

    def _welcome(self, connection: socket.socket) -> None:
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                connection.close()
                return
        with connection, contextlib.suppress(OSError):
            while self._serve(connection) and self._keep_alive:
                pass

    def _serve(self, connection: socket.socket) -> bool:
        asked = self._read(connection)
        if asked is None:
            return False
        place, body = asked
        answer = place.answer(body)
        try:
            connection.sendall(answer.head(keep_alive=self._keep_alive))
            for piece in answer.pieces:
                if isinstance(piece, bytes):
                    connection.sendall(piece)
                else:
                    place.heard.wait(5)
                time.sleep(answer.pause_s)
            if _leaves(connection, answer.then):
                place.gone.set()
        except OSError:
            place.gone.set()
            return False
        return answer.content_length is not None

    def _read(self, connection: socket.socket) -> tuple[Place, dict[str, Any]] | None:
        data = b""
        while b"\r\n\r\n" not in data:
            got = connection.recv(65536)
            if not got:
                return None
            data += got
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        while len(rest) < int(headers.get("content-length", 0)):
            rest += connection.recv(65536)
        body: dict[str, Any] = json.loads(rest) if rest else {}
        path = lines[0].split(" ")[1]
        place = self._places.get(path.split("/")[1], self)
        place.paths.append(path)
        place.headers.append(headers)
        place.requests.append(body)
        return place, body

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._socket.close()


def _leaves(connection: socket.socket, then: str) -> bool:
    """End the answer as it says; whether the client left while it should have waited."""
    if then == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif then == "hang":
        connection.settimeout(30)
        return connection.recv(1) == b""
    return False
