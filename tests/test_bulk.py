"""Many requests at once: each has one outcome, in its place, and no more are under way or kept than was said."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any, assert_never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    ChatRequest,
    DevSynthError,
    EmbedRequest,
    InvalidRequest,
    Model,
    ProviderPort,
    ProviderUnavailable,
    RateLimitError,
    Reply,
    Request,
    Response,
    Router,
    StreamInterrupted,
    SyncRouter,
)
from devsynth_providers.bulk import AHEAD, in_order
from devsynth_providers.testing import EchoProvider, run_virtually

from .helpers import model, policy


class Far(ProviderPort):
    """Takes as many seconds as the prompt says, and repeats it; a ``fail`` fails, a ``bug`` is one, whoever is to
    ``leave`` is cancelled."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.under_way = 0
        self.most = 0

    @property
    @override
    def model(self) -> Model:
        return model("far")

    @override
    async def send(self, request: Request) -> Reply:
        self.asked.append(request.text)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            word, _, seconds = request.text.partition(" ")
            await asyncio.sleep(float(seconds or 0))
            match word.rstrip("0123456789"):
                case "fail":
                    raise RateLimitError(request.text, model="far")
                case "bug":
                    raise ZeroDivisionError(request.text)
                case "leave":
                    raise asyncio.CancelledError
            return await EchoProvider("far").send(request)
        finally:
            self.under_way -= 1
            self.ended.append(request.text)


def told(outcome: Response | DevSynthError) -> str:
    match outcome:
        case Response():
            return outcome.text.removeprefix("far: ")
        case DevSynthError():
            return f"{outcome.kind}: {outcome}"
        case _:
            assert_never(outcome)


async def nothing_else_runs() -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return asyncio.all_tasks() == {asyncio.current_task()}


class TestOutcomes:
    @settings(max_examples=60, deadline=None)
    @given(
        kinds=st.lists(st.tuples(st.sampled_from(["ok", "fail"]), st.integers(0, 9)), max_size=40),
        at_once=st.integers(1, 9),
        waiting=st.booleans(),
    )
    def test_there_is_one_for_each_request_in_their_order(
        self, kinds: list[tuple[str, int]], at_once: int, waiting: bool
    ) -> None:
        prompts = [f"{kind}{number} {seconds}" for number, (kind, seconds) in enumerate(kinds)]

        async def slowly() -> AsyncIterator[str]:
            for number, prompt in enumerate(prompts):
                await asyncio.sleep(number % 3)
                yield prompt

        async def main() -> None:
            far = Far()
            requests = slowly() if waiting else prompts
            outcomes = [outcome async for outcome in far.complete_all(requests, at_once=at_once)]
            expected = [f"rate_limited: {each}" if each.startswith("fail") else each for each in prompts]
            assert [told(each) for each in outcomes] == expected
            assert sorted(far.asked) == sorted(prompts)
            assert far.most <= at_once
            assert await nothing_else_runs()

        run_virtually(main())

    async def test_one_that_fails_is_the_error_in_its_place(self) -> None:
        outcomes = [told(each) async for each in Far().complete_all(["a", "fail", "c"])]
        assert outcomes == ["a", "rate_limited: fail", "c"]

    async def test_a_request_that_is_none_fails_alone_and_nobody_is_asked(self) -> None:
        far = Far()
        requests: list[Any] = ["a", "", None, 7, "c"]
        outcomes = [each async for each in far.complete_all(requests)]
        assert [isinstance(each, InvalidRequest) for each in outcomes] == [False, True, True, True, False]
        assert far.asked == ["a", "c"]

    async def test_texts_to_embed_are_requests_like_others(self) -> None:
        echo = EchoProvider("m")
        requests = [EmbedRequest(texts=("a", "bb")), ChatRequest.of("hi"), EmbedRequest(texts=("ccc",))]
        first, second, third = [each async for each in echo.complete_all(requests)]
        assert isinstance(first, Response)
        assert isinstance(second, Response)
        assert isinstance(third, Response)
        assert (first.vectors, second.text, third.vectors) == (((1.0, 1.0), (2.0, 1.0)), "m: hi", ((3.0, 1.0),))

    async def test_options_are_for_all_prompts(self) -> None:
        asked: list[Request] = []

        class Noting(EchoProvider):
            @override
            async def send(self, request: Request) -> Reply:
                asked.append(request)
                return await super().send(request)

        outcomes = [each async for each in Noting().complete_all(["a", "b"], temperature=0, task="review")]
        assert len(outcomes) == 2
        assert [(each.task, each.temperature) for each in asked if isinstance(each, ChatRequest)] == [("review", 0)] * 2

    async def test_an_error_that_is_kept_keeps_no_frames(self) -> None:
        (error,) = [each async for each in Far().complete_all(["fail"])]
        assert isinstance(error, RateLimitError)
        assert error.__traceback__ is None

    async def test_a_router_answers_them_as_it_answers_one(self) -> None:
        router = Router(policy(model("a"), model("b")), {"a": Far(), "b": EchoProvider("b")})
        outcomes = [told(each) async for each in router.complete_all(["one", "fail", "three"], at_once=2)]
        assert outcomes == ["one", "b: fail", "three"]

    async def test_their_spans_are_below_the_one_that_was_current(
        self, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        router = Router(policy(model("a")), {"a": EchoProvider("a")})
        with trace.get_tracer("mine").start_as_current_span("mine") as mine:
            outcomes = [each async for each in router.complete_all(["one", "two"])]
        chats = [each for each in spans() if each.name == "chat test"]
        assert len(chats) == len(outcomes) == 2
        assert {each.parent.span_id for each in chats if each.parent} == {mine.get_span_context().span_id}


class TestWhatIsRefusedAtOnce:
    @pytest.mark.parametrize("requests", ["a prompt", b"bytes", ChatRequest.of("hi"), 5, None])
    def test_what_is_no_list(self, requests: Any) -> None:
        with pytest.raises(InvalidRequest, match="a list of requests"):
            Far().complete_all(requests)
        with pytest.raises(InvalidRequest, match="a list of requests"):
            SyncRouter(Far()).complete_all(requests)

    @pytest.mark.parametrize("at_once", [0, -1, 1.5, True, "16"])
    def test_a_number_that_is_none(self, at_once: Any) -> None:
        with pytest.raises(InvalidRequest, match="at_once is a whole number from 1 on"):
            Far().complete_all([], at_once=at_once)

    def test_options_that_are_wrong_for_all(self) -> None:
        with pytest.raises(InvalidRequest, match="did you mean 'max_cost_usd'"):
            Far().complete_all(["a"], max_cost_us=1)  # type: ignore[call-arg]


class TestBounds:
    def test_those_behind_a_slow_one_go_on_and_time_is_not_lost(self) -> None:
        async def main() -> None:
            far, clock = Far(), asyncio.get_running_loop().time
            prompts = ["slow 60", *(f"quick{n} 1" for n in range(180))]
            moments = [clock() async for _ in far.complete_all(prompts, at_once=4)]
            assert moments == [60.0] * 181  # three others did 180 seconds of work in that time
            assert far.most == 4

        run_virtually(main())

    def test_no_more_is_kept_behind_a_slow_one_than_there_is_room_for(self) -> None:
        async def main() -> None:
            far = Far()
            prompts = (f"a{n} {3600 if n == 0 else 0}" for n in range(100_000))
            async with aclosing(far.complete_all(prompts, at_once=2)) as outcomes:
                task = asyncio.create_task(anext(outcomes))
                await asyncio.sleep(60)
                assert len(far.asked) == 2 * AHEAD
                await task
                await asyncio.sleep(60)
                assert len(far.asked) == 2 * AHEAD + 1
            assert next(prompts) == f"a{2 * AHEAD + 1} 0"

        run_virtually(main())

    def test_requests_are_read_when_they_can_be_asked(self) -> None:
        read: list[int] = []

        def requests() -> Iterator[str]:
            for number in range(10):
                read.append(number)
                yield f"a{number} 1"

        async def main() -> None:
            async with aclosing(Far().complete_all(requests(), at_once=3)) as outcomes:
                assert read == []
                await anext(outcomes)
                assert len(read) <= 6

        run_virtually(main())

    def test_an_outcome_is_given_while_the_next_request_is_waited_for(self) -> None:
        async def requests() -> AsyncIterator[str]:
            yield "first 1"
            await asyncio.sleep(3600)
            yield "second 1"

        async def main() -> None:
            clock = asyncio.get_running_loop().time
            moments = [clock() async for _ in Far().complete_all(requests())]
            assert moments == [1.0, 3601.0]

        run_virtually(main())

    async def test_tens_of_thousands_are_asked_with_few_tasks(self) -> None:
        most = 0

        async def work(number: int) -> int:
            nonlocal most
            most = max(most, len(asyncio.all_tasks())) if number % 1000 == 0 else most
            return number

        total, place = 0, 0
        async for number in in_order(work, range(30_000), at_once=8):
            assert number == place
            place += 1
            total += number
        assert total == sum(range(30_000))
        assert most <= 8 + 2


class TestLeaving:
    def test_by_aclosing_ends_what_is_under_way_before_it_goes_on(self) -> None:
        async def main() -> None:
            far = Far()
            async with aclosing(far.complete_all(["a", *["long 3600"] * 9], at_once=4)) as outcomes:
                assert told(await anext(outcomes)) == "a"
                await asyncio.sleep(1)
                assert far.under_way == 4
            assert (far.under_way, len(far.asked)) == (0, 5)
            assert await nothing_else_runs()
            assert asyncio.get_running_loop().time() == 1

        run_virtually(main())

    async def test_by_break_too_soon_after(self) -> None:
        far = Far()
        async for outcome in far.complete_all(["a", *["long 3600"] * 9], at_once=4):
            assert told(outcome) == "a"
            break
        assert await nothing_else_runs()
        assert far.under_way == 0

    async def test_by_being_cancelled(self) -> None:
        far = Far()

        async def all_of_them() -> None:
            async for _ in far.complete_all(["long 3600"] * 9, at_once=4):
                pass

        task = asyncio.create_task(all_of_them())
        while far.under_way < 4:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (far.under_way, len(far.asked)) == (0, 4)
        assert await nothing_else_runs()

    async def test_before_the_first_asks_nobody(self) -> None:
        far = Far()
        await far.complete_all(["a"]).aclose()
        assert far.asked == []


class TestWhatIsNoOutcome:
    @pytest.mark.parametrize(("word", "raised"), [("bug", ZeroDivisionError), ("leave", asyncio.CancelledError)])
    def test_is_raised_at_once_and_ends_all(self, word: str, raised: type[BaseException]) -> None:
        async def main() -> None:
            far, seen = Far(), []
            with pytest.raises(raised):
                async for outcome in far.complete_all(["a", "long 3600", f"{word} 5", *["long 9"] * 99], at_once=4):
                    seen.append(told(outcome))  # noqa: PERF401 - what came before it counts
            assert seen == ["a"]
            assert asyncio.get_running_loop().time() == 5
            assert (far.under_way, len(far.asked)) == (0, 5)
            assert await nothing_else_runs()

        run_virtually(main())

    def test_nothing_more_is_asked_meanwhile_either(self) -> None:
        async def main() -> None:
            far = Far()
            outcomes = far.complete_all(["a", "bug 1", *["long 2"] * 99], at_once=2)
            await anext(outcomes)
            await asyncio.sleep(60)
            assert len(far.asked) == 3
            with pytest.raises(ZeroDivisionError):
                await anext(outcomes)

        run_virtually(main())

    @pytest.mark.parametrize("waiting", [False, True])
    async def test_what_the_requests_raise_comes_after_the_outcomes_before_it(self, waiting: bool) -> None:
        def broken() -> Iterator[str]:
            yield from ("a", "b", "c")
            raise OSError("the file is gone")

        async def broken_too() -> AsyncIterator[str]:
            for each in broken():
                yield each

        seen = []
        with pytest.raises(OSError, match="the file is gone"):
            async for outcome in Far().complete_all(broken_too() if waiting else broken(), at_once=2):
                seen.append(told(outcome))  # noqa: PERF401 - what came before it counts
        assert seen == ["a", "b", "c"]
        assert await nothing_else_runs()


class TestWithoutALoop:
    @pytest.fixture
    def far(self) -> Iterator[SyncRouter]:
        with SyncRouter(Far()) as sync:
            yield sync

    def test_outcomes_come_in_order(self, far: SyncRouter) -> None:
        prompts = [f"a{n} {0.02 * (n % 3 == 0)}" for n in range(50)] + ["fail"]
        assert [told(each) for each in far.complete_all(iter(prompts), at_once=5)] == [
            *prompts[:-1],
            "rate_limited: fail",
        ]

    def test_requests_are_read_in_the_callers_thread_as_they_can_be_asked(self, far: SyncRouter) -> None:
        read: list[threading.Thread] = []

        def requests() -> Iterator[str]:
            for number in range(1000):
                read.append(threading.current_thread())
                yield str(number)

        outcomes = far.complete_all(requests(), at_once=4)
        assert told(next(outcomes)) == "0"
        assert set(read) == {threading.current_thread()}
        assert len(read) < 4 * AHEAD + 2
        assert len(list(outcomes)) == 999

    def test_what_comes_of_one_can_be_asked_about_in_the_next(self, far: SyncRouter) -> None:
        first = far.complete_all(["a", "b", "c"])
        second = far.complete_all(far.generate(f"{told(each)}").removeprefix("far: ") * 2 for each in first)
        assert [told(each) for each in second] == ["aa", "bb", "cc"]

    def test_what_the_requests_raise_comes_after_the_outcomes_before_it(self, far: SyncRouter) -> None:
        def broken() -> Iterator[str]:
            yield "a"
            raise OSError("the file is gone")

        outcomes = far.complete_all(broken())
        assert told(next(outcomes)) == "a"
        with pytest.raises(OSError, match="the file is gone"):
            next(outcomes)

    def test_leaving_ends_what_is_under_way(self) -> None:
        far = Far()
        with SyncRouter(far) as sync:
            for outcome in sync.complete_all(["a", *["long 3600"] * 9], at_once=4):
                assert told(outcome) == "a"
                break
            assert far.under_way == 0

    def test_ctrl_c_ends_what_is_under_way(self) -> None:
        far = Far()
        with SyncRouter(far) as sync:
            outcomes = sync.complete_all(["a", *["long 3600"] * 9], at_once=4)
            next(outcomes)
            interrupting = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
            interrupting.start()
            with pytest.raises(KeyboardInterrupt):
                next(outcomes)
            interrupting.join()
            assert (far.under_way, list(outcomes)) == (0, [])

    def test_closing_it_from_another_thread_ends_it_with_an_error(self) -> None:
        far = Far()
        sync = SyncRouter(far)
        outcomes = sync.complete_all(["a", *["long 3600"] * 9], at_once=4)
        next(outcomes)
        closing = threading.Timer(0.05, sync.close)
        closing.start()
        with pytest.raises((StreamInterrupted, ProviderUnavailable)):
            next(outcomes)
        closing.join()
        assert far.under_way == 0
