"""Calls that wait because of other processes hold up nobody who need not wait for these. Time is virtual."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import ChatRequest, LimitReached, RateLimits, Router
from devsynth_providers.layers.limited import Limited
from devsynth_providers.layers.ration import Ration
from devsynth_providers.limits import Limiter, Wish
from devsynth_providers.stores.servers import server_key
from devsynth_providers.stores.shared import Full, Leave, Quota, Unwell
from devsynth_providers.testing import run_virtually

from .helpers import model, policy
from .test_limited import Server, all_of, limiter, limits, now

M, N = model("m"), model("n")
PROVIDER, MODEL = server_key(M, "provider", ""), server_key(M, "model", "")


class Elsewhere:
    """What other processes leave to this one: at each gate nothing before a moment, then so many at the same time."""

    def __init__(self, until: Mapping[str, float], most: int = 1000, wait_s: float = 0.1) -> None:
        self.until = until
        self.most = most
        self.wait_s = wait_s
        self.under_way = self.asked = 0
        self._lock = threading.Lock()

    async def enter(self, quotas: Sequence[Quota], tokens: int, lease_s: float) -> Leave | Full:
        self.asked += 1
        for number, quota in enumerate(quotas):
            if (wait_s := self.until.get(quota.gate, 0.0) - now()) > 0:
                return Full(number, wait_s)
        with self._lock:
            if self.under_way >= self.most:
                return Full(0, self.wait_s)
            self.under_way += 1
        return Leave(str(self.asked), 0, tokens)

    def left(self, quotas: Sequence[Quota], leave: Leave, tokens: int | None) -> None:
        with self._lock:
            self.under_way -= 1

    async def unwell(self) -> Mapping[str, Unwell]:
        return {}

    def found(self, server: str, for_s: float, reason: str) -> None:
        """Nobody hears of it."""

    async def aclose(self) -> None:
        """There is nothing to let go of."""


def behind(server: Server, held: Limiter, elsewhere: Elsewhere) -> Limited:
    return Limited(server, held, Ration(held, elsewhere))


def nobody_is_left(held: Limiter, elsewhere: Elsewhere) -> None:
    (entrance,) = held._entrances.values()
    line = entrance._line
    assert {gate.running for each in ("m", "n") for gate in line.gates(Wish(each))} == {0}
    assert (len(line.queue), line._back, entrance._loops, elsewhere.under_way) == (0, {}, {}, 0)


def test_who_finds_no_room_elsewhere_keeps_no_slot_from_those_who_do() -> None:
    async def main() -> None:
        m, n = Server(1.0), Server(1.0, name="n")
        held = limiter(RateLimits(concurrent=2), m=RateLimits(concurrent=2))
        elsewhere = Elsewhere({MODEL: 30})
        layers = [behind(each, held, elsewhere) for each in (m, n)]
        await asyncio.gather(*(layer.generate("hi") for layer in layers for _ in range(4)))
        assert m.asked == pytest.approx([30, 30, 31, 31], abs=0.01)
        assert n.asked == pytest.approx([0, 0, 1, 1], abs=0.01)
        assert elsewhere.asked <= 25
        nobody_is_left(held, elsewhere)

    run_virtually(main())


def test_a_project_whose_share_is_used_up_elsewhere_holds_up_no_other() -> None:
    async def main() -> None:
        server = Server(1.0)
        each = RateLimits(requests_per_minute=50)
        held = limiter(RateLimits(concurrent=1, per_project=each))
        elsewhere = Elsewhere({server_key(M, "provider", "for p"): 30})
        layer = behind(server, held, elsewhere)
        await asyncio.gather(*(layer.generate("hi", project=name) for name in "ppqq"))
        told = list(zip(server.projects, server.asked, strict=True))
        assert told == [("q", 0), ("q", pytest.approx(1)), ("p", pytest.approx(30)), ("p", pytest.approx(31))]

    run_virtually(main())


def test_they_pass_in_the_order_they_came_in_and_projects_in_turn_when_there_is_room_again() -> None:
    async def main() -> None:
        server = Server(1.0)
        held = limiter(RateLimits(concurrent=3))
        elsewhere = Elsewhere({PROVIDER: 30}, most=1)
        layer = behind(server, held, elsewhere)
        order: list[str] = []

        async def ask(name: str) -> None:
            await layer.generate("hi", project=name[0])
            order.append(name)

        await asyncio.gather(*(ask(name) for name in ("p1", "p2", "p3", "p4", "q1", "q2")))
        assert order == ["p1", "q1", "p2", "q2", "p3", "p4"]
        assert server.most_at_once == 1

    run_virtually(main())


def test_room_that_a_call_of_this_process_makes_is_taken_at_once() -> None:
    async def main() -> None:
        server = Server(1.05)
        held, elsewhere = limiter(RateLimits(concurrent=3)), Elsewhere({}, most=2)
        await asyncio.gather(*(behind(server, held, elsewhere).generate("hi") for _ in range(8)))
        assert server.asked == pytest.approx([0, 0, 1.05, 1.05, 2.1, 2.1, 3.15, 3.15], abs=0.001)
        nobody_is_left(held, elsewhere)

    run_virtually(main())


def test_nor_does_anybody_wait_for_more_than_calls_used_that_have_ended() -> None:
    """Until then they are taken to use all that they may, and what is told to who comes next is most of a minute."""

    async def main() -> None:
        server = Server(1.0)
        held = limiter(RateLimits(concurrent=3))
        elsewhere = Elsewhere({}, most=1, wait_s=58)
        layer = behind(server, held, elsewhere)
        patient = asyncio.gather(layer.generate("hi"), layer.generate("hi"))
        await asyncio.sleep(2)
        await layer.generate("hi")
        await patient
        assert server.asked == pytest.approx([0, 1, 2], abs=0.01)
        nobody_is_left(held, elsewhere)

    run_virtually(main())


def test_what_others_did_not_use_is_found_in_a_few_seconds() -> None:
    async def main() -> None:
        server = Server(1.0)
        held = limiter(RateLimits(concurrent=3))
        until = {PROVIDER: 58.0}
        elsewhere = Elsewhere(until)
        waits = asyncio.ensure_future(behind(server, held, elsewhere).generate("hi"))
        await asyncio.sleep(12)
        until[PROVIDER] = 12
        await waits
        assert server.asked == pytest.approx([15], abs=0.01)
        nobody_is_left(held, elsewhere)

    run_virtually(main())


def test_other_limits_hold_at_once_for_those_who_were_sent_back_and_behind_them() -> None:
    async def main() -> None:
        server = Server(1.0)
        held = limiter(RateLimits(concurrent=3))
        until = {PROVIDER: 58.0}
        elsewhere = Elsewhere(until)
        layer = behind(server, held, elsewhere)
        waits = asyncio.ensure_future(layer.generate("hi"))
        await asyncio.sleep(1)
        until.clear()
        held.hold(limits(RateLimits(concurrent=30)))
        await asyncio.gather(waits, layer.generate("hi"))
        assert server.asked == pytest.approx([1, 1], abs=0.01)
        nobody_is_left(held, elsewhere)

    run_virtually(main())


def test_a_call_that_is_left_while_it_asks_the_others_was_never_made() -> None:
    class Slow(Elsewhere):
        @override
        async def enter(self, quotas: Sequence[Quota], tokens: int, lease_s: float) -> Leave | Full:
            await asyncio.sleep(5)
            return await super().enter(quotas, tokens, lease_s)

    async def main() -> None:
        server = Server(1.0)
        held = limiter(RateLimits(requests_per_minute=1))
        layer = behind(server, held, Slow({}))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await layer.generate("hi")
        await layer.generate("hi")
        assert server.asked == pytest.approx([6], abs=0.01)

    run_virtually(main())


def test_who_has_no_time_for_that_is_told_at_once_who_joins_and_who_is_waiting_already() -> None:
    async def main() -> None:
        server, began = Server(5.0), now()
        held = limiter(RateLimits(concurrent=1))
        elsewhere = Elsewhere({})
        layer = behind(server, held, elsewhere)
        first = asyncio.ensure_future(layer.generate("hi"))
        await asyncio.sleep(1)
        elsewhere.until = {PROVIDER: 60}
        patient = asyncio.ensure_future(layer.generate("hi"))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(all_of(layer.send(ChatRequest.of("hi").on(deadline=now() + 40))))
        await first
        (refused,) = await waiting
        assert isinstance(refused, LimitReached)
        assert now() - began == pytest.approx(5, abs=0.1), "as soon as it was known"
        with pytest.raises(LimitReached) as late:
            await layer.send(ChatRequest.of("hi").on(deadline=now() + 40))
        assert late.value.retry_after_s == pytest.approx(55, abs=1)
        assert now() - began == pytest.approx(5, abs=0.1)
        await patient
        assert server.asked == pytest.approx([0, 60], abs=0.1)
        nobody_is_left(held, elsewhere)

    run_virtually(main())


def test_one_that_needs_more_than_there_is_holds_up_the_others_only_while_it_waits() -> None:
    async def main() -> None:
        server = Server(1.0)
        held = limiter(RateLimits(concurrent=4))
        elsewhere = Elsewhere({PROVIDER: 30})
        layer = behind(server, held, elsewhere)
        large = asyncio.ensure_future(layer.generate("hi"))
        await asyncio.sleep(1)
        elsewhere.until = {}
        small = asyncio.ensure_future(layer.generate("hi"))
        await asyncio.sleep(1)
        assert not server.asked
        large.cancel()
        await small
        assert server.asked == pytest.approx([2], abs=0.01)
        await all_of(large)
        nobody_is_left(held, elsewhere)

    run_virtually(main())


def test_the_trace_tells_once_that_it_waited_for_others(spans: Callable[[], list[ReadableSpan]]) -> None:
    async def main() -> None:
        elsewhere = Elsewhere({PROVIDER: 7})
        stated = replace(policy(M), limits={"test": RateLimits(concurrent=1)})
        async with Router(stated, {"m": Server(1.0)}, shared=elsewhere) as router:
            await router.generate("hi")

    run_virtually(main())
    events = [dict(event.attributes or {}) for span in spans() for event in span.events if event.name[:5] == "limit"]
    assert events == [{"limit": "test", "wait_s": pytest.approx(7, abs=0.01), "shared": True}]


def test_threads_that_are_cancelled_while_they_wait_for_others_leave_nothing_behind() -> None:
    held, elsewhere = limiter(RateLimits(concurrent=4)), Elsewhere({}, most=2)
    server, lock = Server(0.0), threading.Lock()
    told: list[object] = []

    async def some(seed: int) -> None:
        layer = behind(server, held, elsewhere)
        tasks = [asyncio.create_task(layer.generate("hi", project=str(number % 3))) for number in range(12)]
        for number, task in enumerate(tasks):
            if (number + seed) % 4 == 0:
                await asyncio.sleep(0.01)
                task.cancel()
        answers = await all_of(*tasks)
        with lock:
            told.extend(answers)

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(some(seed))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(told) == 48
    assert {each if isinstance(each, str) else type(each).__name__ for each in told} <= {"ab", "CancelledError"}
    gc.collect()
    nobody_is_left(held, elsewhere)
