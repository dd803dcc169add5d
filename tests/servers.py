"""A real server of Redis or Valkey on loopback, to be killed and started again, and a wire that loses answers."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

import redis
from typing_extensions import override

FETCHED = Path(sys.prefix, "redis", "usr")
"""Where scripts/test unpacks Debian's package, on a machine without a server."""
PASSWORD = "canary-0123456789abcdef"
MISSING = "needs redis-server or valkey-server: on Debian 'apt-get install redis-server', on macOS 'brew install redis'"


def program() -> str | None:
    """The server's program, if there is one."""
    found = (shutil.which(name) for name in ("redis-server", "valkey-server", str(FETCHED / "bin" / "redis-server")))
    return next((each for each in found if each), None)


def free_port() -> int:
    """One that the system gives to no connection: those would be in the way of a server that is started again. The one
    that is 10,000 further on, where a cluster talks, is free too."""
    while True:
        with socket.socket() as probe, socket.socket() as further, suppress(OSError):
            probe.bind(("127.0.0.1", port := random.randrange(12_000, 22_000)))
            further.bind(("127.0.0.1", port + 10_000))
            return port


class RedisServer:
    """Writes down what it acknowledges, in *directory*: what it said survives that it is killed."""

    def __init__(self, directory: Path, *options: str, scheme: str = "redis") -> None:
        self.port = free_port()
        self._scheme = scheme
        port = ["--port", str(self.port)] if scheme == "redis" else ["--port", "0", "--tls-port", str(self.port)]
        self._command = [
            *(program() or "redis-server", *port, "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always", "--requirepass", PASSWORD, *options),
        ]
        self._log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, *options: str) -> str:
        return f"{self._scheme}://:{PASSWORD}@127.0.0.1:{self.port}/0{'?' if options else ''}{'&'.join(options)}"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=PASSWORD, decode_responses=True)

    def start(self) -> None:
        libraries = ":".join(map(str, FETCHED.glob("lib/*-linux-gnu")))
        paths = ":".join(filter(None, (libraries, os.environ.get("LD_LIBRARY_PATH", ""))))
        with self._log.open("ab") as log:
            environment = {**os.environ, "LD_LIBRARY_PATH": paths}
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        until = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"the server did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                if self._scheme != "redis":
                    return True
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith(b"-NOAUTH")
        except OSError:
            return False


class Wire:
    """Between a client and the server at *port*: loses the next *losing* answers and closes, or *silently* does not."""

    def __init__(self, port: int) -> None:
        self.losing = 0
        self.silently = False
        self.lost = asyncio.Event()
        self.behind = port
        self._tasks = set[asyncio.Task[None]]()

    def url(self, *options: str) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0{'?' if options else ''}{'&'.join(options)}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            there = await asyncio.open_connection("127.0.0.1", self.behind)
            ends.append(there[1])
            await _first_to_end([self._forth(reader, there[1]), self._back(there[0], writer)])
        finally:
            for each in ends:  # both, before it may be cancelled once more
                each.close()
            for each in ends:
                with suppress(OSError):
                    await each.wait_closed()
            self._tasks.discard(task)

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(65536):
            writer.write(said)

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(65536):
            if not self.losing:
                writer.write(said)
                continue
            self.losing -= 1
            self.lost.set()
            if not self.silently:
                return


Cut = Literal["command", "half a command", "answer", "half an answer"]


class Late(Wire):
    """Holds the first command back that has *word* in it, and lets it *go* also where whoever sent it has left."""

    def __init__(self, port: int, word: bytes) -> None:
        super().__init__(port)
        self.held, self.go, self.answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._word = word

    @override
    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(65536):
            if self._word in said and not self.held.is_set():
                self.held.set()
                await self.go.wait()
                writer.write(said)
                await self.answered.wait()
            else:
                writer.write(said)

    @override
    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(65536):
            if self.go.is_set():
                self.answered.set()
            writer.write(said)


CUTS: tuple[Cut, ...] = get_args(Cut)


class Shears(Wire):
    """Cuts the connection at the message number *at* of those that go one way, from 1, and at the *times* - 1 after it:
    before a command has reached the server, or before its answer has come back; or in the midst of either."""

    def __init__(self, port: int, cut: Cut, at: int, *, times: int = 1) -> None:
        super().__init__(port)
        self.done = 0
        """How often it has cut."""
        self._cut = cut
        self._before = at - 1
        self._times = times

    @override
    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passed(reader, writer, "command")

    @override
    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passed(reader, writer, "answer")

    async def _passed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: str) -> None:
        while said := await reader.read(65536):
            if self._cut.endswith(what) and self._due():
                writer.write(said[: len(said) // 2 if self._cut.startswith("half") else 0])
                return
            writer.write(said)

    def _due(self) -> bool:
        if self._before:
            self._before -= 1
        elif self.done < self._times:
            self.done += 1
            return True
        return False


async def _first_to_end(ways: Sequence[object]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
