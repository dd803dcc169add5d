"""Whatever goes wrong upstream, and however callers behave: each request ends, in time, once, and is told as it was.

What must hold stands in ``tests/simulation/rules.py``. Some schedules are played here, ``scripts/test`` plays 10,000 by
``python -m tests.simulation``. One by its seed: ``SIMULATION_SEED=17 scripts/test -k simulation``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from typing_extensions import override

from devsynth_providers import ProviderError, ProviderPort, ProviderUnavailable, Reply, Request
from devsynth_providers.layers.wrapper import Wrapper
from devsynth_providers.types import Chunk

from .simulation import fails, report, shrunk
from .simulation.schedule import Schedule
from .simulation.world import play

SEED = os.environ.get("SIMULATION_SEED")
SEEDS = range(150) if SEED is None else range(int(SEED), int(SEED) + 1)


pytestmark = pytest.mark.slow


def test_simulation_every_rule_holds_in_every_schedule() -> None:
    failed = [report(schedule, found) for schedule in map(Schedule.of, SEEDS) if (found := fails(schedule))]
    assert not failed, "\n".join(failed)


def test_simulation_of_the_same_seed_is_the_same_to_the_last_digit() -> None:
    assert str(play(Schedule.of(11))) == str(play(Schedule.of(11))) != str(play(Schedule.of(12)))


class HidesACall(Wrapper):
    @override
    async def send(self, request: Request) -> Reply:
        try:
            return await self.inner.send(request)
        except ProviderError:
            return await self.inner.send(request)


class Doubles(Wrapper):
    @override
    async def send(self, request: Request) -> Reply:
        async def doubled(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
            async for chunk in chunks:
                yield replace(chunk, text=chunk.text * 2)

        return (await self.inner.send(request)).through(doubled)


class Splices(Wrapper):
    """Begins anew after a break, in the middle of the text."""

    @override
    async def send(self, request: Request) -> Reply:
        async def spliced(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
            try:
                async for chunk in chunks:
                    yield chunk
            except ProviderError:
                async with await self.inner.send(request) as again:
                    async for chunk in again:
                        yield chunk

        return (await self.inner.send(request)).through(spliced)


class LeavesATask(Wrapper):
    @override
    async def send(self, request: Request) -> Reply:
        asyncio.get_running_loop().create_task(asyncio.sleep(1000))
        return await self.inner.send(request)


class HearsNoCancellation(Wrapper):
    @override
    async def send(self, request: Request) -> Reply:
        try:
            return await self.inner.send(request)
        except asyncio.CancelledError:
            await asyncio.sleep(30)
            raise


class SwallowsCancellation(Wrapper):
    @override
    async def send(self, request: Request) -> Reply:
        try:
            return await self.inner.send(request)
        except asyncio.CancelledError:
            raise ProviderUnavailable("something went wrong") from None


class HasABug(Wrapper):
    @override
    async def send(self, request: Request) -> Reply:
        try:
            return await self.inner.send(request)
        except ProviderError:
            raise TypeError("a bug") from None


class WaitsForNothing(Wrapper):
    @override
    async def send(self, request: Request) -> Reply:
        try:
            return await self.inner.send(request)
        except asyncio.CancelledError:
            await asyncio.Event().wait()
            raise


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (HidesACall, "the far side saw"),
        (Doubles, "is of no model's answer"),
        (Splices, "the far side saw"),
        (LeavesATask, "a task is left"),
        (HearsNoCancellation, "ended at"),
        (SwallowsCancellation, "the far side saw|ended at|TimeoutError|unavailable"),
        (HasABug, "TypeError: a bug"),
        (WaitsForNothing, "deadlock"),
    ],
)
def test_simulation_notices_what_breaks_a_rule(wrong: type[Wrapper], told: str) -> None:
    def around(provider: ProviderPort) -> ProviderPort:
        return wrong(provider)

    found = [what for seed in range(40) for what in fails(Schedule.of(seed), around)]
    assert any(part in what for what in found for part in told.split("|")), found


def test_simulation_shrinks_a_schedule_to_the_requests_that_break_it() -> None:
    schedule = next(each for each in map(Schedule.of, range(40)) if fails(each, HasABug))
    least = shrunk(schedule, HasABug)
    assert len(least.asks) == 1 < len(schedule.asks)
    assert f"SIMULATION_SEED={schedule.seed} scripts/test -k simulation" in report(schedule, ["broken"], HasABug)
