"""The six scenarios: what is set up for both sides alike, and what is asked. Each returns plain values."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from . import slow, streams, wholes
from .said import PROMPT
from .side import Setup, Side, Told

AT_ONCE = 8
DEADLINE_S = 2.0
Run = Callable[[Side, "Scale", Mapping[str, str]], Awaitable[Any]]


@dataclass(frozen=True)
class Scale:
    """How much of it. What ``--quick`` makes less of is no figure for the documents."""

    warm_s: float = 60.0
    counted_s: float = 60.0
    rate_per_s: float = 4.0
    requests: int = 1000
    timed: int = 1500
    learning: int = 200
    cut: int = 400


QUICK = Scale(warm_s=20, counted_s=15, requests=100, timed=200, learning=100, cut=100)
TIMED_PER_S = 6.0


@dataclass(frozen=True)
class Scenario:
    setup: Setup
    run: Run
    together: bool = True
    """Whether all sides are asked at the same time; where what is measured is a time alone, each has its turn."""


async def _all(asked: list[tuple[str, str, str]], side: Side, at_once: int = AT_ONCE) -> list[Told]:
    """The outcomes of *asked*, so many at a time: kind, group and prompt of each."""
    room = asyncio.Semaphore(at_once)

    async def one(kind: str, group: str, prompt: str) -> Told:
        async with room:
            return await side.ask(kind, group, prompt)

    return await asyncio.gather(*(one(*each) for each in asked))


_SILENT = {
    "stream": (streams.faults(), streams.harmless()),
    "whole": (wholes.faults(), {}),
    "vectors": (wholes.of_vectors(), {}),
}


async def _silent(side: Side, _: Scale, __: Mapping[str, str]) -> Any:
    found = {}
    for kind, (faults, harmless) in _SILENT.items():
        names = [*faults, *harmless]
        told = await _all([(kind, f"{kind} {name}", PROMPT.format(number=0)) for name in names], side)
        found[kind] = {
            name: {**each.as_dict(), "harmless": name in harmless} for name, each in zip(names, told, strict=True)
        }
    return found


_DEADLINE = {
    kind: [*slow.ANY, *(slow.STREAMED if kind == "stream" else ()), *slow.ELSEWHERE]
    for kind in ("stream", "whole", "vectors")
}


def _script(name: str) -> str:
    return name if name in slow.ELSEWHERE else f"slow {name}"


async def _deadline(side: Side, _: Scale, __: Mapping[str, str]) -> Any:
    names = [(kind, name) for kind, each in _DEADLINE.items() for name in each]
    asked = [(kind, f"{kind}, {name}", PROMPT.format(number=0)) for kind, name in names]
    told = await _all(asked, side)
    return [{"kind": kind, "fault": name, **each.as_dict()} for (kind, name), each in zip(names, told, strict=True)]


_OUTAGE = {"500": "slow 500", "resets": "resets", "hangs": "slow hangs"}


async def _outage(side: Side, scale: Scale, addresses: Mapping[str, str]) -> Any:
    """A steady rate of streams to each group; the server is asked for its counts at both ends of what is counted."""
    begun, sent = time.perf_counter(), dict.fromkeys(_OUTAGE, 0)
    tasks: set[asyncio.Task[Told]] = set()
    outcomes: dict[str, list[Told]] = {group: [] for group in _OUTAGE}
    before: Mapping[str, int] | None = None
    ticks = round((scale.warm_s + scale.counted_s) * scale.rate_per_s)
    for tick in range(ticks):
        if before is None and tick >= scale.warm_s * scale.rate_per_s:
            before = (await counts(addresses))["asked"]
        for group in _OUTAGE:
            task = asyncio.create_task(side.ask("stream", group, PROMPT.format(number=tick)))
            tasks.add(task)
            task.add_done_callback(lambda task, group=group: outcomes[group].append(task.result()))  # type: ignore[misc]
            sent[group] += before is not None
        await asyncio.sleep(max(0.0, begun + (tick + 1) / scale.rate_per_s - time.perf_counter()))
    after = (await counts(addresses))["asked"]
    await asyncio.wait(tasks)
    assert before is not None
    return {
        group: {
            "requests": sent[group],
            "calls": after.get(script, 0) - before.get(script, 0),
            "calls while it began": before.get(script, 0),
            "answered": sum(not each.error for each in outcomes[group]),
        }
        for group, script in _OUTAGE.items()
    }


async def _success(side: Side, scale: Scale, _: Mapping[str, str]) -> Any:
    found = {}
    for group in ("half", "bad"):
        asked = [(("stream", "whole")[n % 2], group, PROMPT.format(number=n)) for n in range(scale.requests)]
        told = await _all(asked, side, at_once=16)
        found[group] = {
            "requests": len(told),
            "right": sum(each.right for each in told),
            "silent": sum(each.silent for each in told),
            "errors": _tally(told),
            "slowest_s": max(each.whole_s for each in told),
        }
    return found


async def _tail(side: Side, scale: Scale, addresses: Mapping[str, str]) -> Any:
    """Streams at a steady rate, so that a side that waits longer is not asked less."""

    async def paced(count: int) -> list[Told]:
        begun, tasks = time.perf_counter(), []
        for n in range(count):
            tasks.append(asyncio.create_task(side.ask("stream", "tailed", PROMPT.format(number=n))))
            await asyncio.sleep(max(0.0, begun + (n + 1) / TIMED_PER_S - time.perf_counter()))
        return list(await asyncio.gather(*tasks))

    await paced(scale.learning)
    before = (await counts(addresses))["asked"]["tailed"]
    told = await paced(scale.timed)
    asked = (await counts(addresses))["asked"]["tailed"] - before
    return {
        "requests": len(told),
        "calls": asked,
        "right": sum(each.right for each in told),
        "first_s": sorted(each.first_s for each in told if each.first_s is not None and each.right),
        "whole_s": sorted(each.whole_s for each in told if each.right),
        "errors": _tally(told),
    }


async def _cut(side: Side, scale: Scale, addresses: Mapping[str, str]) -> Any:
    told = await _all([("stream", "cut", PROMPT.format(number=n)) for n in range(scale.cut)], side)
    numbers = (await counts(addresses))["cut"]
    cut = [told[number] for number in numbers]
    return {
        "cut": len(cut),
        "whole": sum(each.right for each in cut),
        "twice": sum(each.twice for each in cut),
        "silent": sum(each.silent and not each.twice for each in cut),
        "errors": _tally(cut),
        "others": len(told) - len(cut),
        "others right": sum(each.right for at, each in enumerate(told) if at not in set(numbers)),
    }


def _tally(told: list[Told]) -> dict[str, int]:
    errors = [each.error for each in told if each.error]
    return {error: errors.count(error) for error in sorted(set(errors))}


async def counts(addresses: Mapping[str, str]) -> Any:
    """What the server has been asked so far."""

    def get() -> Any:
        connection = http.client.HTTPConnection(urlsplit(addresses[""]).netloc)
        connection.request("GET", "/")
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    return await asyncio.to_thread(get)


SCENARIOS: dict[str, Scenario] = {
    "silent": Scenario(
        Setup({f"{kind} {name}": (f"{kind} {name}",) for kind, each in _SILENT.items() for name in each[0] | each[1]}),
        _silent,
    ),
    "deadline": Scenario(
        Setup(
            {f"{kind}, {name}": (_script(name),) * 2 for kind, each in _DEADLINE.items() for name in each},
            total_s=DEADLINE_S,
            first_token_s=1.0,
            idle_s=1.0,
        ),
        _deadline,
        together=False,
    ),
    "outage": Scenario(
        Setup({group: (script,) * 2 for group, script in _OUTAGE.items()}, total_s=10, first_token_s=3), _outage
    ),
    "success": Scenario(
        Setup({"half": ("half", "well"), "bad": ("bad", "well")}, total_s=12, first_token_s=3, idle_s=3), _success
    ),
    "tail": Scenario(Setup({"tailed": ("tailed", "tailed")}, total_s=10, first_token_s=5), _tail),
    "cut": Scenario(Setup({"cut": ("cutting", "going on")}, total_s=10, first_token_s=1, idle_s=0.5), _cut),
}
