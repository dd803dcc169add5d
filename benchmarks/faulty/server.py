"""The server, a process of its own: plays the script that a request names as its model, and counts what is asked.

A model is ``script--candidate``. Prints its addresses when it listens; ``GET /`` tells what was asked so far.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import socket
import struct
import sys
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))

from faulty import slow, streams, wholes
from faulty.said import Asked, Forever, Play, Script, as_json, sized, well

_LINGER = struct.pack("ii", 1, 0)


def _same(play: Play) -> Script:
    return lambda *_: play


SCRIPTS: dict[str, Script] = {
    "well": well,
    "half": slow.failing(0.5),
    "bad": slow.failing(1.0),
    "tailed": slow.tailed,
    "cutting": slow.cutting,
    "going on": slow.going_on,
    **{f"slow {name}": script for name, script in {**slow.ANY, **slow.STREAMED}.items()},
    **{f"stream {name}": _same(play) for name, play in {**streams.faults(), **streams.harmless()}.items()},
    **{f"whole {name}": _same(play) for name, play in wholes.faults().items()},
    **{f"vectors {name}": _same(play) for name, play in wholes.of_vectors().items()},
}


class Server:
    """Answers one request after the other on each connection."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        self._asked: collections.Counter[str] = collections.Counter()
        self._cut: set[int] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._play(await self._next(reader), reader, writer):
                pass
        writer.close()

    async def reset(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._asked["resets"] += 1
        _reset(writer)

    async def _next(self, reader: asyncio.StreamReader) -> Play:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        body = await reader.readexactly(length)
        if head.startswith(b"GET"):
            return sized(as_json({"asked": self._asked, "cut": sorted(self._cut)}))
        asked: Asked = json.loads(body)
        name = asked["model"].partition("--")[0]
        self._asked[name] += 1
        if name == "cutting" and slow.cut_at(number := slow.number_of(asked)) is not None:
            self._cut.add(number)
        return SCRIPTS[name](asked, self._chance)

    async def _play(self, play: Play, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection is good for another request."""
        for step in play.steps:
            if isinstance(step, float | int):
                await asyncio.sleep(step)
            elif isinstance(step, Forever):
                while True:
                    writer.write(step.data)
                    await writer.drain()
                    await asyncio.sleep(step.every_s)
            else:
                writer.write(step)
                await writer.drain()
        if play.then == "hang":
            await reader.read(1)
        elif play.then == "reset":
            _reset(writer)
        return play.then == "keep"


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    writer.transport.abort()


def _deaf() -> tuple[socket.socket, list[socket.socket]]:
    """A port whose queue is full, so that nobody else gets a connection or a refusal."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    waiting = []
    for _ in range(4):
        caller = socket.socket()
        caller.setblocking(False)
        caller.connect_ex(listening.getsockname())
        waiting.append(caller)
    return listening, waiting


async def _serve(seed: int) -> None:
    server = Server(seed)
    answering = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1024)
    resetting = await asyncio.start_server(server.reset, "127.0.0.1", 0, backlog=1024)
    deaf, waiting = _deaf()
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else gets it
        taken.bind(("127.0.0.1", 0))
        sockets = {"": answering.sockets[0], "resets": resetting.sockets[0], "deaf": deaf, "nobody": taken}
        print(json.dumps({name: f"http://127.0.0.1:{each.getsockname()[1]}" for name, each in sockets.items()}))
        sys.stdout.flush()
        await answering.serve_forever()
    del waiting


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
