"""One peer in a process of its own: makes as many calls as it is told to, and says what each took."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from peers import BESIDE, INSIDE, INSTRUMENTED, WAYS, Missing, Peer, Way
from workload import TEXTS, check_text, check_vectors

KNOWN = (*WAYS, *BESIDE, *INSIDE, *INSTRUMENTED)


async def _checked(peer: Peer, kind: str) -> None:
    """One call of *kind*, and proof that it answered."""
    if kind == "call":
        check_text(await peer.call())
    elif kind == "stream":
        check_text(await peer.stream())
    elif kind.startswith("embed "):
        count = int(kind.partition(" ")[2])
        check_vectors(await peer.embed(TEXTS[:count]), count)
    else:
        await peer.other(kind)


async def _in_flight(call: Callable[[], Awaitable[None]], concurrency: int, calls: int) -> None:
    async def in_turn(count: int) -> None:
        for _ in range(count):
            await call()

    await asyncio.gather(*(in_turn(calls // concurrency) for _ in range(concurrency)))


async def _measure(peer: Peer, kind: str, concurrency: int, calls: int) -> dict[str, float]:
    """CPU of this whole process and wall, for each of *calls*, with *concurrency* of them at any time; and how much of
    that CPU came when all were answered."""
    first = {"stream": "call", "embed 16": "embed 1"}.get(kind, kind)  # connections that idled are closed by now
    await _in_flight(lambda: _checked(peer, first), concurrency, concurrency)
    await peer.settle()
    gc.collect()
    gc.freeze()  # else some rounds, and not others, would walk through all that was ever imported
    cpu, wall = time.process_time(), time.perf_counter()
    await _in_flight(lambda: _checked(peer, kind), concurrency, calls)
    answered = time.process_time()
    await peer.settle()
    later = time.process_time() - answered
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peer.forget()
    return {"cpu_s": cpu / calls, "wall_s": wall / calls, "later_s": later / calls}


async def _made(way: Way, url: str) -> dict[str, Peer | Missing]:
    peers: dict[str, Peer | Missing] = {}
    for wire in way.wires:
        try:
            peer = way.make(url, wire)
            await peer.open()
            peers[wire] = peer
        except Missing as reason:
            peers[wire] = reason
    return peers


def _obey(way: Way, url: str, say: Callable[[dict[str, Any]], None]) -> None:
    with asyncio.Runner() as runner:
        peers = runner.run(_made(way, url))
        say({"missing": {wire: str(peer) for wire, peer in peers.items() if isinstance(peer, Missing)}})
        for line in sys.stdin:
            told = json.loads(line)
            peer = peers[told.pop("wire")]
            assert isinstance(peer, Peer)
            try:
                say(runner.run(_measure(peer, **told)))
            except Missing as reason:
                say({"missing": str(reason)})


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print is no answer

    def say(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    home, name, url = sys.argv[1:]
    try:
        _obey(next(way for way in KNOWN if (way.home, way.name) == (home, name)), url, say)
    except Exception:  # noqa: BLE001 - the parent tells it, and ends
        say({"failed": traceback.format_exc()})


if __name__ == "__main__":
    main()
