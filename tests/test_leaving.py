"""Streams that nobody hears to their end: left, closed, dropped, or cut from elsewhere. Each is settled, once."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import ChatRequest, ProviderUnavailable, RateLimits, Router, StreamInterrupted

from .holdings import by_what_is_asked, descriptors_fall_to, held, router, settled
from .loopback import Answer, Loopback, delta, sse

pytestmark = [pytest.mark.slow, pytest.mark.loads_litellm, pytest.mark.usefixtures("counted")]

Spans = Callable[[], list[ReadableSpan]]
ENDLESS = sse(delta(role="assistant", text=""), delta("w0 "), delta("w1 "), then="hang")


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(keep_alive=True) as loopback:
        yield loopback.script(ENDLESS)


@pytest.fixture
def unheard() -> Iterator[list[str]]:
    """What was raised where nobody could hear it."""
    told: list[str] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda each: told.append(f"{each.exc_value!r} {each.object!r}")
    yield told
    gc.collect()
    sys.unraisablehook = before


def pieces(mine: Router) -> AsyncGenerator[str, None]:
    return cast("AsyncGenerator[str, None]", mine.generate_stream("hi"))


async def leave_by_break(mine: Router) -> None:
    async for piece in mine.generate_stream("hi"):
        assert piece == "w0 "
        break


async def leave_by_aclose(mine: Router) -> None:
    stream = pieces(mine)
    assert await anext(stream) == "w0 "
    await stream.aclose()
    await stream.aclose()


async def leave_by_aclosing(mine: Router) -> None:
    async with aclosing(pieces(mine)) as stream:
        assert await anext(stream) == "w0 "


async def drop_the_stream(mine: Router) -> None:
    stream = pieces(mine)
    assert await anext(stream) == "w0 "
    del stream


async def drop_it_in_a_circle(mine: Router) -> None:
    circle: list[Any] = [pieces(mine)]
    circle.append(circle)
    assert await anext(circle[0]) == "w0 "
    del circle
    gc.collect()


async def throw_into_it(mine: Router) -> None:
    stream = pieces(mine)
    assert await anext(stream) == "w0 "
    with pytest.raises(ZeroDivisionError):
        await stream.athrow(ZeroDivisionError())


async def fail_in_the_body(mine: Router) -> None:
    with pytest.raises(ZeroDivisionError):
        async with await mine.send(ChatRequest.of("hi", stream=True)) as reply:
            async for chunk in reply:
                raise ZeroDivisionError(chunk)


async def leave_the_answer(mine: Router) -> None:
    async with await mine.send(ChatRequest.of("hi", stream=True)) as reply:
        async for _ in reply:
            break
    await reply.aclose()


async def leave_it_unheard(mine: Router) -> None:
    async with await mine.send(ChatRequest.of("hi", stream=True)):
        pass


async def cancel_whoever_hears_it(mine: Router) -> None:
    async def hear() -> None:
        async for _ in mine.generate_stream("hi"):
            begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(hear())
    await begun.wait()
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def close_it_from_another_task(mine: Router) -> None:
    reply = await mine.send(ChatRequest.of("hi", stream=True))
    heard: list[str] = []

    async def hear() -> None:
        async for chunk in reply:
            heard.append(chunk.text)  # noqa: PERF401 - what was heard when it was closed counts

    task = asyncio.create_task(hear())
    while len(heard) < 2:
        await asyncio.sleep(0.001)
    await settled()  # it waits for the third piece, which never comes
    await reply.aclose()
    with pytest.raises(StreamInterrupted, match="closed while somebody read it") as caught:
        await task
    assert task.cancelling() == 0
    assert caught.value.partial == "w0 w1 "


WAYS = [
    leave_by_break,
    leave_by_aclose,
    leave_by_aclosing,
    drop_the_stream,
    drop_it_in_a_circle,
    throw_into_it,
    fail_in_the_body,
    leave_the_answer,
    leave_it_unheard,
    cancel_whoever_hears_it,
    close_it_from_another_task,
]


async def settled_once(
    server: Loopback, lane: str, way: Callable[[Router], Any], spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    mine = router(server, lane, limits={"m": RateLimits(concurrent=1)})
    server.script(by_what_is_asked)
    await mine.generate("hi")
    await settled()
    before, known = held(), len(spans())
    server.script(ENDLESS)
    await way(mine)
    assert await asyncio.to_thread(server.client_left)
    await settled()
    after = held()
    assert (after.tasks, after.answers, after.sessions) == (before.tasks, 0, 1)
    assert descriptors_fall_to(before.descriptors)
    request, attempt = (dict(span.attributes or {}) for span in spans()[known:])
    assert request["devsynth.attempts"] == 1
    assert attempt["devsynth.usage.estimated"] is True
    assert attempt["devsynth.cost.usd_micros"] == request["devsynth.total.cost.usd_micros"]
    assert int(str(attempt["devsynth.cost.usd_micros"])) > 0
    server.script(by_what_is_asked)
    async with asyncio.timeout(30):
        assert await mine.generate("hi") == "w0 w1 w2"
    assert caplog.messages == []
    await mine.aclose()


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_that_is_left_is_settled_once(
    server: Loopback,
    lane: str,
    way: Callable[[Router], Any],
    spans: Spans,
    caplog: pytest.LogCaptureFixture,
    unheard: list[str],
) -> None:
    await settled_once(server, lane, way, spans, caplog)
    gc.collect()
    assert unheard == []


async def forget_the_answer(mine: Router) -> None:
    reply = await mine.send(ChatRequest.of("hi", stream=True))
    await anext(reply)
    with pytest.warns(ResourceWarning, match="an answer of m was forgotten before its end"):
        del reply


async def forget_it_in_a_circle(mine: Router) -> None:
    circle: list[Any] = [await mine.send(ChatRequest.of("hi", stream=True))]
    circle.append(circle)
    del circle
    with pytest.warns(ResourceWarning, match="an answer of m was forgotten before its end"):
        gc.collect()


async def forget_it_in_another_thread(mine: Router) -> None:
    kept = [await mine.send(ChatRequest.of("hi", stream=True))]
    with pytest.warns(ResourceWarning, match="an answer of m was forgotten before its end"):
        await asyncio.to_thread(kept.clear)


@pytest.mark.parametrize("way", [forget_the_answer, forget_it_in_a_circle, forget_it_in_another_thread])
async def test_an_answer_that_is_forgotten_is_settled_once_with_a_warning(
    server: Loopback,
    lane: str,
    way: Callable[[Router], Any],
    spans: Spans,
    caplog: pytest.LogCaptureFixture,
    unheard: list[str],
) -> None:
    await settled_once(server, lane, way, spans, caplog)
    assert unheard == []


@pytest.mark.parametrize("kept", [False, True])
def test_one_that_outlives_its_loop_is_settled_with_the_next(
    server: Loopback, lane: str, spans: Spans, unheard: list[str], caplog: pytest.LogCaptureFixture, kept: bool
) -> None:
    mine = router(server, lane, limits={"m": RateLimits(concurrent=1)})
    safe: list[Any] = []

    async def forget() -> None:
        reply = await mine.send(ChatRequest.of("hi", stream=True))
        await anext(reply)
        if kept:
            safe.append(reply)

    async def ask() -> str:
        async with mine:
            text = await mine.generate("hi")
        await settled()
        return text

    with pytest.warns(ResourceWarning, match="forgotten before its end"):  # noqa: PT031 - at either of the two
        asyncio.run(forget())
        safe.clear()
    server.script(by_what_is_asked)
    assert asyncio.run(ask()) == "w0 w1 w2"
    assert len([span for span in spans() if span.parent is None]) == 2
    assert (caplog.messages, unheard) == ([], [])


async def test_two_that_close_it_at_once_are_no_trouble(server: Loopback, lane: str) -> None:
    mine = router(server, lane)
    reply = await mine.send(ChatRequest.of("hi", stream=True))
    await asyncio.gather(reply.aclose(), reply.aclose(), reply.aclose())
    assert reply.response.finish_reason is None
    await mine.aclose()


async def test_one_who_hears_of_the_end_and_fails_does_not_keep_it_from_the_others(server: Loopback) -> None:
    mine = router(server)
    heard: list[object] = []

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    reply = await mine.send(ChatRequest.of("hi", stream=True))
    reply.on_finish(fail).on_finish(lambda *told: heard.append(told))
    with pytest.raises(ZeroDivisionError):
        await reply.aclose()
    assert len(heard) == 1
    await mine.aclose()


class TestWithoutALoop:
    def test_a_stream_is_closed_by_whoever_leaves_it(self, server: Loopback, lane: str, spans: Spans) -> None:
        mine = router(server, lane, limits={"m": RateLimits(concurrent=1)})
        for _ in range(3):
            for piece in mine.sync.generate_stream("hi"):
                assert piece == "w0 "
                break
        assert len([span for span in spans() if span.parent is None]) == 3
        mine.sync.close()

    def test_closing_the_router_ends_a_stream_and_says_so(self, server: Loopback, lane: str) -> None:
        mine = router(server, lane)
        stream = iter(mine.sync.generate_stream("hi"))
        assert next(stream) == "w0 "
        mine.sync.close()
        with pytest.raises(StreamInterrupted) as caught:
            next(stream)
        assert caught.value.partial == "w0 "

    def test_closing_the_router_ends_the_calls_of_other_threads(self, server: Loopback, lane: str) -> None:
        mine = router(server, lane)
        failed: list[BaseException] = []

        def ask() -> None:
            try:
                mine.sync.generate("hi")
            except BaseException as error:  # noqa: BLE001 - whatever it is
                failed.append(error)

        server.script(Answer([b"{"], then="hang"))
        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        while len(server.requests) < 5:
            threads[0].join(0.01)
        mine.sync.close()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert [type(each) for each in failed] == [ProviderUnavailable] * 5
