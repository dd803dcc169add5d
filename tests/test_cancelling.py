"""A call is cancelled at every moment at which it waits: it ends at once, as it was cancelled, and leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import Health, RateLimits, Retry, Router, Tolerance
from devsynth_providers.health import Verdict

from .holdings import ASKING, Asking, CutShort, by_what_is_asked, descriptors_fall_to, held, router, settled
from .loopback import Answer, Loopback, delta, failure, sse

pytestmark = [pytest.mark.slow, pytest.mark.loads_litellm, pytest.mark.usefixtures("counted")]

Spans = Callable[[], list[ReadableSpan]]
MOMENTS = 200
OF_LITELLM = pytest.mark.filterwarnings("ignore:coroutine 'OpenAIChatCompletion:RuntimeWarning")
"""It has half of a call made in a thread, which comes too late with it if the call was cancelled meanwhile."""


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(keep_alive=True) as loopback:
        loopback.script(by_what_is_asked)
        yield loopback


@pytest.fixture(params=list(ASKING))
def asking(request: pytest.FixtureRequest) -> Asking:
    return ASKING[request.param]


@pytest.fixture(params=["at once", "late"])
def late(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "late")


async def cut_short_everywhere(
    ask: Callable[[], Any], *, late: bool, prepare: Callable[[], None] = lambda: None
) -> int:
    """Cut what *ask* begins short at its first moment of waiting, at its second, and so on until it is not cut any
    more. Returns how many there were."""
    for at in range(1, MOMENTS):
        prepare()
        call = CutShort(ask(), at, late=late)

        async def run(call: CutShort = call) -> object:
            return await call

        task = asyncio.create_task(run())
        try:
            await task
        except asyncio.CancelledError:
            assert task.cancelled()
            assert task.cancelling() == 1
        if not call.cut:
            return at - 1
        await settled()
    raise AssertionError(f"more than {MOMENTS} moments")


@OF_LITELLM
async def test_a_call_cancelled_anywhere_leaves_no_slot_task_timer_or_descriptor(
    server: Loopback, lane: str, asking: Asking, late: bool, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    """One slot, so that any that is left behind would stop the next call; and a circuit that would open at the first
    failure that a cancellation is taken for."""
    health = Health(Tolerance(failures=1))
    mine = router(server, lane, health=health, limits={"m": RateLimits(concurrent=1)})
    await asking(mine)
    await settled()
    before = held()
    moments = await cut_short_everywhere(lambda: asking(mine), late=late)
    assert moments >= 2
    await settled()
    after = held()
    assert (after.tasks, after.answers) == (before.tasks, before.answers)
    assert descriptors_fall_to(before.descriptors + 1)
    assert mine.plan("hi").models == ("m",)
    assert all(circuit.changes == 0 for circuit in mine._deployments.current.circuits.values())
    requests = [span for span in spans() if span.parent is None]
    assert len(requests) == moments + 2  # and the one before, and the one that was not cut
    told = [dict(span.attributes or {}) for span in spans() if span.parent is not None]
    assert len(told) >= len(server.requests)
    for each in told:
        assert int(str(each["gen_ai.usage.input_tokens"])) > 0
        assert int(str(each["devsynth.cost.usd_micros"])) > 0
        assert each.get("devsynth.cancelled") or not each["devsynth.usage.estimated"]
    assert "ended span" not in caplog.text
    await mine.aclose()


def failing_first(kind: Answer) -> Callable[[dict[str, Any]], Answer]:
    """Answers every other request, and fails the one before."""
    asked: list[object] = []

    def answer(body: dict[str, Any]) -> Answer:
        asked.append(body)
        return kind if len(asked) % 2 else by_what_is_asked(body)

    return answer


class TestWhereItWaits:
    async def test_between_two_tries(self, server: Loopback, asking: Asking, late: bool, spans: Spans) -> None:
        mine = router(server, retry=Retry(attempts=2, initial_s=0.01), limits={"m": RateLimits(concurrent=1)})
        await asking(mine)

        def prepare() -> None:
            server.script(failing_first(failure(500)))

        moments = await cut_short_everywhere(lambda: asking(mine), late=late, prepare=prepare)
        assert moments >= 2
        await asyncio.sleep(0.2)  # a request that was cut may come to the server late, and be the one that fails
        prepare()
        await asking(mine)
        assert any(event.name == "retry.scheduled" for span in spans() for event in span.events)
        await nothing_is_left(mine, asking)

    async def test_on_the_way_to_the_next_model(self, server: Loopback, asking: Asking, late: bool) -> None:
        mine = router(server, "direct", "a", "b", retry=Retry(attempts=1), limits={"a": RateLimits(concurrent=1)})
        await asking(mine)

        def prepare() -> None:
            server.script(failing_first(failure(500)))

        if asking is ASKING["embedded"]:
            pytest.skip("vectors are of one model")
        assert await cut_short_everywhere(lambda: asking(mine), late=late, prepare=prepare) >= 2
        await nothing_is_left(mine, asking)

    async def test_in_the_queue_before_a_limit(self, server: Loopback, asking: Asking, late: bool) -> None:
        mine = router(server, limits={"m": RateLimits(concurrent=1)})
        await asking(mine)
        first: list[asyncio.Task[object]] = []

        def prepare() -> None:
            first.append(asyncio.ensure_future(asking(mine)))

        async def second() -> object:
            await asyncio.sleep(0)  # the first is before
            return await asking(mine)

        assert await cut_short_everywhere(second, late=late, prepare=prepare) >= 2
        await asyncio.gather(*first)
        await nothing_is_left(mine, asking)

    async def test_for_a_server_that_is_left_alone(self, server: Loopback, asking: Asking, late: bool) -> None:
        health = Health(Tolerance(open_s=0.1), waiting=1)  # long enough for a slow machine to come to the wait
        mine = router(server, health=health)
        await asking(mine)
        (circuit,) = mine._deployments.current.circuits.values()

        def prepare() -> None:
            leave = circuit.admit(1.0)
            if leave is not None:
                circuit.settle(leave, Verdict(bad=True, at_once=True))

        assert await cut_short_everywhere(lambda: asking(mine), late=late, prepare=prepare) >= 2
        await nothing_is_left(mine, asking)


async def nothing_is_left(mine: Router, asking: Asking) -> None:
    """The only slot is free, no task is left, and the model may be asked."""
    await settled()
    assert len(asyncio.all_tasks()) == 1
    async with asyncio.timeout(30):
        assert await asking(mine)
    await settled()
    assert len(asyncio.all_tasks()) == 1
    await mine.aclose()
    assert held().sessions == 0


class TestWhoCancels:
    """The caller's own ways to stop waiting stay the caller's."""

    HANGING = (Answer([b"{"], content_length=9, then="hang"), sse(delta("w0"), then="hang"))

    @pytest.fixture
    def hanging(self, server: Loopback) -> Loopback:
        return server.script(lambda body: self.HANGING[bool(body.get("stream"))])

    async def test_a_timeout_of_the_callers_is_no_timeout_of_ours(
        self, hanging: Loopback, lane: str, asking: Asking
    ) -> None:
        mine = router(hanging, lane)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.3):
                await asking(mine)
        assert type(caught.value) is TimeoutError
        assert await client_left(hanging)
        await mine.aclose()

    async def test_nor_is_wait_for(self, hanging: Loopback, lane: str, asking: Asking) -> None:
        mine = router(hanging, lane)
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(asking(mine), 0.3)
        assert type(caught.value) is TimeoutError
        assert await client_left(hanging)
        await mine.aclose()

    async def test_a_group_of_tasks_ends_them_all(self, hanging: Loopback, lane: str, asking: Asking) -> None:
        mine = router(hanging, lane, limits={"m": RateLimits(concurrent=2)})
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for _ in range(4):  # two of them in the queue
                    group.create_task(_asked(asking, mine))
                group.create_task(_failing(hanging))
        assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]
        await settled()
        assert await client_left(hanging)
        hanging.script(by_what_is_asked)
        assert await asking(mine)
        await mine.aclose()

    async def test_a_request_that_was_cancelled_is_written_down_with_what_it_may_cost(
        self, hanging: Loopback, lane: str, asking: Asking, spans: Spans
    ) -> None:
        mine = router(hanging, lane)
        task = asyncio.ensure_future(asking(mine))
        while not hanging.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (attempt,) = [dict(span.attributes or {}) for span in spans() if span.parent is not None]
        assert attempt["devsynth.usage.estimated"] is True
        assert attempt["devsynth.cost.basis"] == "estimated"
        assert attempt["devsynth.cost.usd_micros"]
        await mine.aclose()


async def client_left(server: Loopback) -> bool:
    """Whether the server sees that the connection is closed: by the loop, which must not be held up meanwhile."""
    return await asyncio.to_thread(server.client_left)


async def _asked(asking: Asking, mine: Router) -> None:
    await asking(mine)


async def _failing(server: Loopback) -> None:
    while len(server.requests) < 2:
        await asyncio.sleep(0.01)
    raise ZeroDivisionError
