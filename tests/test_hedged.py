"""Two models for one request: when the second is asked, who answers, and what becomes of the other. Time is virtual."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    AllProvidersFailed,
    Attempt,
    BudgetExceeded,
    ChatRequest,
    ContentFiltered,
    DevSynthError,
    EmbedRequest,
    Health,
    OpenAIProvider,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimitError,
    RateLimits,
    Reply,
    Request,
    RequestRejected,
    Response,
    Retry,
    Router,
    StreamInterrupted,
    Timeouts,
    Tolerance,
)
from devsynth_providers.health import RetryBudget, Verdict
from devsynth_providers.layers.hedged import Hedged
from devsynth_providers.measured import Measured
from devsynth_providers.testing import (
    EchoProvider,
    Fault,
    FaultyProvider,
    Line,
    ScriptedProvider,
    VirtualClock,
    run_virtually,
)
from devsynth_providers.types import Hedge

from .helpers import PRICED, model, policy
from .holdings import settled
from .loopback import Answer, Loopback, stream, whole

T = TypeVar("T")
ALWAYS = Hedge(after=1.0, max_extra=1.0)
ONCE = Retry(attempts=1)
streamed_or_not = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


def now() -> float:
    return asyncio.get_running_loop().time()


def asked(*, streamed: bool, **options: Any) -> ChatRequest:
    return ChatRequest.of("hi", stream=streamed, **options)


class Slow(ScriptedProvider):
    """A script that tells when it was asked, and when each answer was closed."""

    def __init__(self, name: str, *script: Line, **facts: Any) -> None:
        super().__init__(*script, model=model(name, **facts))
        self.asked_at: list[float] = []
        self.closed_at: list[float] = []

    @override
    async def send(self, request: Request) -> Reply:
        self.asked_at.append(now())
        return await super().send(request)

    @override
    async def _chunks(self, request: Request, steps: Any) -> Any:
        chunks = super()._chunks(request, steps)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()
            self.closed_at.append(now())


def router(*servers: Any, hedge: Hedge = ALWAYS, retry: Retry = ONCE, **options: Any) -> Router:
    of_router = {name: options.pop(name) for name in ("health", "measured", "limiter") if name in options}
    limits = options.pop("limits", {})
    made = policy(*(each.model for each in servers), hedge=hedge, retry=retry, **options)
    return Router(replace(made, limits=limits), {each.model.name: each for each in servers}, **of_router)


def virtually(main: Callable[[], Awaitable[T]]) -> T:
    """Run *main*, which leaves no task and no timer behind."""

    async def watched() -> T:
        result = await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClock)
        assert not loop.timers
        return result

    return run_virtually(watched())


def outlines(attempts: Sequence[Attempt]) -> list[tuple[str, str, str | None]]:
    return [(each.model, each.reason, each.error) for each in sorted(attempts, key=lambda each: each.number)]


def events(spans: Callable[[], list[ReadableSpan]]) -> list[tuple[str, dict[str, Any]]]:
    (request,) = [span for span in spans() if span.parent is None]
    return [(event.name, dict(event.attributes or {})) for event in request.events if event.name != "policy.decide"]


@streamed_or_not
class TestWhoAnswers:
    def test_a_first_that_is_in_time_is_the_only_one_asked(self, streamed: bool) -> None:
        a, b = Slow("a", (0.9, "from a")), Slow("b")
        response = virtually(lambda: router(a, b).complete(asked(streamed=streamed)))
        assert (response.text, response.degraded, b.asked_at) == ("from a", False, [])
        assert outlines(response.attempts) == [("a", "primary", None)]

    def test_of_a_slow_first_the_second_answers_and_the_first_is_closed_at_once(self, streamed: bool) -> None:
        a, b = Slow("a", (9.0, "from a")), Slow("b", (0.5, "from ", 2.0, "b"))

        async def main() -> Response:
            async with await router(a, b).send(asked(streamed=streamed)) as reply:
                assert now() == 1.5
                async for _ in reply:
                    pass
                return reply.response

        response = virtually(main)
        assert (response.text, response.model, response.degraded) == ("from b", "b", True)
        assert (a.asked_at, b.asked_at, a.closed_at, b.closed_at) == ([0], [1.0], [1.5], [3.5])
        assert outlines(response.attempts) == [("a", "primary", "cancelled"), ("b", "hedge", None)]

    def test_a_first_that_begins_after_all_is_the_answer_and_the_second_is_closed(self, streamed: bool) -> None:
        a, b = Slow("a", (1.2, "from ", 3.0, "a")), Slow("b", (0.5, "from b"))
        response = virtually(lambda: router(a, b).complete(asked(streamed=streamed)))
        assert (response.text, response.degraded, b.closed_at) == ("from a", False, [1.2])
        assert outlines(response.attempts) == [("a", "primary", None), ("b", "hedge", "cancelled")]

    def test_of_two_that_begin_at_the_same_moment_the_first_answers_and_both_are_paid(self, streamed: bool) -> None:
        a, b = Slow("a", (1.5, "from ", 1.0, "a"), price=PRICED), Slow("b", (0.5, "from b", 9.0, "!"), price=PRICED)
        response = virtually(lambda: router(a, b).complete(asked(streamed=streamed)))
        assert (response.text, response.degraded, a.closed_at, b.closed_at) == ("from a", False, [2.5], [1.5])
        assert [each.model for each in response.attempts] == ["a", "b"]
        assert (response.attempts[1].usage.estimated, response.attempts[1].finish_reason) == (True, None)

    def test_the_loser_is_booked_with_what_it_may_have_used(self, streamed: bool) -> None:
        a, b = Slow("a", (9.0, "from a"), price=PRICED), Slow("b", "from b", price=PRICED)
        response = virtually(lambda: router(a, b).complete(asked(streamed=streamed, max_tokens=100)))
        lost, won = response.attempts
        assert (lost.usage.estimated, lost.cost_basis, lost.cost_micros) == (True, "estimated", 10)
        assert lost.worst_micros == 10 + 100 * 30
        assert response.cost_usd == (10 + (won.cost_micros or 0)) / 1_000_000
        assert response.cost_basis == "estimated"

    def test_an_answer_of_the_second_that_breaks_off_is_final_and_tells_all_attempts(self, streamed: bool) -> None:
        a, b = Slow("a", (9.0, "from a")), Slow("b", ("from ", ProviderUnavailable("cut")))

        async def main() -> None:
            with pytest.raises(StreamInterrupted) as caught:
                await router(a, b).complete(asked(streamed=streamed))
            assert (caught.value.partial, now()) == ("from ", 1.0)
            assert outlines(caught.value.attempts) == [
                ("a", "primary", "cancelled"),
                ("b", "hedge", "stream_interrupted"),
            ]

        virtually(main)

    def test_the_retries_of_the_first_go_on(self, streamed: bool) -> None:
        a = Slow("a", (0.8, ProviderUnavailable("down")), (0.8, "from a"))
        b = Slow("b", (0.9, "from b"))
        both = router(a, b, retry=Retry(attempts=2, initial_s=0))
        response = virtually(lambda: both.complete(asked(streamed=streamed)))
        assert (response.text, a.asked_at, b.asked_at) == ("from a", [0, 0.8], [1.0])
        assert outlines(response.attempts) == [
            ("a", "primary", "unavailable"),
            ("a", "retry", None),
            ("b", "hedge", "cancelled"),
        ]

    def test_it_is_hedged_once_and_only_with_the_second(self, streamed: bool) -> None:
        a, b, c = Slow("a", (7.0, "from a")), Slow("b", (9.0, "from b")), Slow("c")
        assert virtually(lambda: router(a, b, c).complete(asked(streamed=streamed))).text == "from a"
        assert (b.asked_at, c.asked_at) == ([1.0], [])

    def test_where_the_plan_has_only_one_model_there_is_no_hedge(self, streamed: bool) -> None:
        response = virtually(lambda: router(Slow("a", (9.0, "from a"))).complete(asked(streamed=streamed)))
        assert response.text == "from a"


@streamed_or_not
class TestFailures:
    def test_a_first_that_fails_before_the_hedge_is_followed_at_once_as_ever(self, streamed: bool) -> None:
        a, b = Slow("a", (0.2, ProviderUnavailable("down"))), Slow("b", (3.0, "from b"))
        response = virtually(lambda: router(a, b).complete(asked(streamed=streamed)))
        assert (response.text, b.asked_at) == ("from b", [0.2])
        assert outlines(response.attempts) == [("a", "primary", "unavailable"), ("b", "fallback", None)]

    def test_a_hedge_that_fails_leaves_the_first_its_time(self, streamed: bool) -> None:
        a, b = Slow("a", (5.0, "from a")), Slow("b", RequestRejected("bad"))
        response = virtually(lambda: router(a, b).complete(asked(streamed=streamed)))
        assert (response.text, response.degraded) == ("from a", False)
        assert outlines(response.attempts) == [("a", "primary", None), ("b", "hedge", "rejected")]

    def test_a_first_that_fails_leaves_the_hedge_its_time(self, streamed: bool) -> None:
        a, b = Slow("a", (1.5, ProviderUnavailable("down"))), Slow("b", (5.0, "from b"))
        response = virtually(lambda: router(a, b).complete(asked(streamed=streamed)))
        assert (response.text, response.degraded, b.asked_at) == ("from b", True, [1.0])
        assert outlines(response.attempts) == [("a", "primary", "unavailable"), ("b", "hedge", None)]

    @pytest.mark.parametrize("first_fails_after_s", [1.2, 1.8])
    def test_when_both_fail_both_errors_are_told_and_neither_is_asked_again(
        self, first_fails_after_s: float, streamed: bool
    ) -> None:
        def servers() -> tuple[Slow, Slow]:
            return Slow("a", (first_fails_after_s, ProviderUnavailable("down"))), Slow("b", (0.5, RateLimitError("no")))

        async def alone() -> AllProvidersFailed:
            with pytest.raises(AllProvidersFailed) as caught:
                await router(*servers()).complete(asked(streamed=streamed))
            return caught.value

        error = virtually(alone)
        assert [type(each) for each in error.exceptions] == [ProviderUnavailable, RateLimitError]
        assert outlines(error.attempts) == [("a", "primary", "unavailable"), ("b", "hedge", "rate_limited")]
        a, b = servers()
        response = virtually(lambda: router(a, b, Slow("c", "from c")).complete(asked(streamed=streamed)))
        assert (response.text, len(a.asked_at), len(b.asked_at)) == ("from c", 1, 1)
        assert outlines(response.attempts)[-1] == ("c", "fallback", None)

    def test_an_error_of_the_first_that_all_would_repeat_ends_the_hedge(self, streamed: bool) -> None:
        a, b = Slow("a", (1.5, RequestRejected("bad"))), Slow("b", (5.0, "from b"))

        async def main() -> None:
            with pytest.raises(RequestRejected) as caught:
                await router(a, b).complete(asked(streamed=streamed))
            assert (now(), b.closed_at) == (1.5, [1.5])
            assert outlines(caught.value.attempts) == [("a", "primary", "rejected"), ("b", "hedge", "cancelled")]

        virtually(main)

    def test_what_the_first_refuses_the_second_may_answer_only_where_the_rule_says_so(self, streamed: bool) -> None:
        def servers() -> tuple[Slow, Slow]:
            return Slow("a", (1.5, ContentFiltered("no"))), Slow("b", (5.0, "from b"))

        async def refused() -> None:
            with pytest.raises(ContentFiltered):
                await router(*servers()).complete(asked(streamed=streamed))
            assert now() == 1.5

        virtually(refused)
        lenient = router(*servers(), on_content_filter="next")
        assert virtually(lambda: lenient.complete(asked(streamed=streamed))).text == "from b"

    def test_an_error_of_the_hedge_that_all_would_repeat_counts_when_the_first_has_failed(self, streamed: bool) -> None:
        a, b, c = Slow("a", (2.0, ProviderUnavailable("down"))), Slow("b", RequestRejected("bad")), Slow("c")

        async def main() -> None:
            with pytest.raises(RequestRejected) as caught:
                await router(a, b, c).complete(asked(streamed=streamed))
            assert outlines(caught.value.attempts) == [("a", "primary", "unavailable"), ("b", "hedge", "rejected")]

        virtually(main)

    def test_both_have_to_keep_the_deadline(self, streamed: bool) -> None:
        a, b = Slow("a", (99.0, "from a")), Slow("b", (99.0, "from b"))

        async def main() -> None:
            with pytest.raises(AllProvidersFailed) as caught:
                await router(a, b, timeouts=Timeouts(total_s=3)).complete(asked(streamed=streamed))
            assert [type(each) for each in caught.value.exceptions] == [ProviderTimeout, ProviderTimeout]
            end = 3.0 if streamed else 2.25  # of a whole answer's time a quarter is for those who could follow
            assert (now(), a.closed_at, b.closed_at) == (end, [end], [end])

        virtually(main)

    @pytest.mark.parametrize(
        ("a_after_s", "of_b"),
        [(0.5, "from b"), (1.5, (0.5, "from b")), (1.5, (9.0, "from b")), (5.0, TypeError("another"))],
    )
    def test_a_bug_is_no_failure_and_surfaces(self, a_after_s: float, of_b: Line, streamed: bool) -> None:
        a, b = Slow("a", (a_after_s, TypeError("a bug"))), Slow("b", of_b)

        async def main() -> None:
            with pytest.raises(TypeError):
                await router(a, b).complete(asked(streamed=streamed))
            assert len(b.closed_at) == len(b.asked_at)

        virtually(main)


@streamed_or_not
class TestNoHedge:
    """The second is not asked after all: the first is waited for, and if it fails, the chain goes on as ever."""

    def both(self, *a: Line, b: Line = "from b", **options: Any) -> tuple[Slow, Slow, Router]:
        first, second = Slow("a", *a, price=PRICED), Slow("b", b, price=PRICED)
        return first, second, router(first, second, **options)

    def test_where_both_can_not_be_paid(self, streamed: bool, spans: Callable[[], list[ReadableSpan]]) -> None:
        request = asked(streamed=streamed, max_tokens=100, max_cost_usd=0.004)
        _, b, both = self.both((3.0, "from a"))
        assert virtually(lambda: both.complete(request)).text == "from a"
        assert b.asked_at == []
        assert [name for name, _ in events(spans)] == ["hedge.started", "hedge.denied"]
        assert events(spans)[1][1] == {"model": "b", "reason": "budget_exceeded"}
        _, b, both = self.both((3.0, RateLimitError("no")))  # nothing is billed: now the second can be paid
        response = virtually(lambda: both.complete(request))
        assert (response.text, b.asked_at, response.attempts[-1].reason) == ("from b", [3.0], "fallback")

    def test_where_the_second_is_left_alone(self, streamed: bool, spans: Callable[[], list[ReadableSpan]]) -> None:
        health = Health(Tolerance(), chance=lambda: 0.0)
        a, b, both = self.both((3.0, "from a"), health=health)
        circuit = both._deployments.current.circuits["b"]

        async def main() -> Response:
            reply = asyncio.create_task(both.complete(asked(streamed=streamed)))
            await asyncio.sleep(0.5)
            leave = circuit.admit(1.0)
            assert leave is not None
            circuit.settle(leave, Verdict(bad=True, at_once=True, reason="down"))
            return await reply

        response = virtually(main)
        assert (response.text, len(a.asked_at), b.asked_at) == ("from a", 1, [])
        assert events(spans)[-1] == ("hedge.denied", {"model": "b", "reason": "circuit_open"})

    def test_where_the_second_has_no_turn_to_give(
        self, streamed: bool, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        limits = {"b": RateLimits(requests_per_minute=1)}
        _, b, both = self.both((3.0, "from a"), (0.1, ProviderUnavailable("down")), limits=limits)

        async def main() -> Response:
            tight = asked(streamed=streamed).on(deadline=now() + 5)
            await both._deployments.current.stacks["b"].complete(tight)  # uses up the minute
            return await both.complete(tight)

        response = virtually(main)
        assert (response.text, len(b.asked_at)) == ("from a", 1)
        assert outlines(response.attempts) == [("a", "primary", None), ("b", "hedge", "local_limit")]
        assert events(lambda: [each for each in spans() if each.name == "chat test"])[-1] == (
            "hedge.denied",
            {"model": "b", "reason": "local_limit"},
        )

    def test_where_too_little_is_known_of_how_long_the_first_takes(self, streamed: bool) -> None:
        usual = Hedge(after="p95", max_extra=1.0)
        usually = [(0.5, "a"), (0.5, "a"), *[(0.3, "a")] * 8]
        _, b, both = self.both(*usually, (3.0, "from a"), hedge=usual)

        async def main() -> None:
            assert (await both.complete(asked(streamed=not streamed))).text == "a"
            for _ in range(9):
                assert (await both.complete(asked(streamed=streamed))).text == "a"
            assert b.asked_at == []
            began = now()
            assert (await both.complete(asked(streamed=streamed))).text == "from b"
            assert b.asked_at == pytest.approx([began + 0.5])

        virtually(main)

    def test_whole_answers_and_streams_have_their_own_usual_time(self, streamed: bool) -> None:
        usual = Hedge(after="p95", max_extra=1.0)
        _, b, both = self.both((0.5, "a"), (0.5, "a"), *[(0.3, "a")] * 8, (3.0, "from a"), hedge=usual)

        async def main() -> None:
            for _ in range(10):
                await both.complete(asked(streamed=not streamed))
            assert (await both.complete(asked(streamed=streamed))).text == "from a"

        virtually(main)
        assert b.asked_at == []


class TestTheBudget:
    @pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 1.0])
    def test_extra_calls_are_never_more_than_their_share_of_the_requests(self, share: float) -> None:
        a, b = Slow("a", *[(2.0, "from a")] * 1000), Slow("b", *["from b"] * 1000)
        both = router(a, b, hedge=Hedge(after=1.0, max_extra=share))

        async def main() -> None:
            for number in range(1, 1001):
                await both.generate("hi")
                assert len(b.asked_at) <= share * number + 1e-6
            assert len(b.asked_at) >= share * 1000 - 1

        virtually(main)

    def test_what_is_saved_up_is_no_more_than_ten(self) -> None:
        a = Slow("a", *["quick"] * 500, *[(2.0, "from a")] * 50)
        b = Slow("b", *["from b"] * 50)
        both = router(a, b, hedge=Hedge(after=1.0, max_extra=0.1))

        async def main() -> None:
            for _ in range(550):
                await both.generate("hi")

        virtually(main)
        assert len(b.asked_at) == 10 + 4

    def test_a_hedge_that_the_share_does_not_allow_is_told(self, spans: Callable[[], list[ReadableSpan]]) -> None:
        a, b = Slow("a", (2.0, "from a")), Slow("b")
        both = router(a, b, hedge=Hedge(after=1.0, max_extra=0.05))
        assert virtually(lambda: both.generate("hi")) == "from a"
        assert events(spans) == [("hedge.denied", {"model": "b", "reason": "max_extra"})]

    def test_requests_by_rules_without_a_hedge_earn_none(self) -> None:
        health = Health()
        plain = Router(policy(model("a"), model("b")), {"a": Slow("a", "x"), "b": Slow("b")}, health=health)
        virtually(lambda: plain.generate("hi"))
        assert not health.hedges.spend()


class TestLeavingEarly:
    @streamed_or_not
    @pytest.mark.parametrize("after_s", [0.5, 1.5])
    def test_a_caller_that_is_cancelled_cancels_both_at_once(self, after_s: float, streamed: bool) -> None:
        a, b = Slow("a", (9.0, "from a")), Slow("b", (9.0, "from b"))

        async def main() -> None:
            task = asyncio.create_task(router(a, b).complete(asked(streamed=streamed)))
            await asyncio.sleep(after_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (now(), {*a.closed_at, *b.closed_at}) == (after_s, {after_s})

        virtually(main)

    @streamed_or_not
    def test_a_callers_own_timeout_stays_one(self, streamed: bool) -> None:
        async def main() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await router(Slow("a", (9.0, "a")), Slow("b", (9.0, "b"))).complete(asked(streamed=streamed))
            assert now() == 2.0

        virtually(main)

    def test_a_stream_of_the_second_that_is_left_leaves_nothing(self) -> None:
        a, b = Slow("a", (9.0, "from a")), Slow("b", ("from ", 5.0, "b"))

        async def main() -> Response:
            async with await router(a, b).send(asked(streamed=True)) as reply:
                assert (await anext(reply)).text == "from "
            return reply.response

        response = virtually(main)
        assert (a.closed_at, b.closed_at) == ([1.0], [1.0])
        assert outlines(response.attempts) == [("a", "primary", "cancelled"), ("b", "hedge", None)]

    @streamed_or_not
    def test_a_loser_that_is_slow_to_let_go_keeps_nobody_from_the_answer_but_its_end(self, streamed: bool) -> None:
        deaf = FaultyProvider(EchoProvider(model("a"), pace_s=9.0), [Fault("deaf", seconds=4.0)])
        b = Slow("b", ("from ", 1.0, "b"))

        async def main() -> None:
            async with await router(deaf, b).send(asked(streamed=streamed)) as reply:
                assert (await anext(reply)).text == "from "
                assert now() == 1.0
                assert (await anext(reply)).text == "b"
                assert now() == 2.0
                async for _ in reply:
                    pass
            assert (now(), deaf.unclosed) == (5.0, 0)
            assert outlines(reply.response.attempts) == [("a", "primary", "cancelled"), ("b", "hedge", None)]

        virtually(main)

    def test_a_caller_that_is_cancelled_while_the_loser_lets_go_hears_of_it_and_all_is_told(
        self, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        deaf = FaultyProvider(EchoProvider(model("a"), pace_s=9.0), [Fault("deaf", seconds=4.0)])

        async def main() -> None:
            task = asyncio.create_task(router(deaf, Slow("b", "from b")).complete(asked(streamed=False)))
            await asyncio.sleep(2.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert deaf.unclosed == 0

        virtually(main)
        assert len(spans()) == 3

    @streamed_or_not
    def test_a_caller_that_is_cancelled_is_heard_by_a_loser_that_has_not_heard_that_it_lost(
        self, streamed: bool
    ) -> None:
        class Stubborn(Slow):
            @override
            async def send(self, request: Request) -> Reply:
                try:
                    await asyncio.sleep(9.0)
                except asyncio.CancelledError:
                    await asyncio.sleep(100.0)
                raise AssertionError("unreachable")

        async def main() -> None:
            task = asyncio.create_task(router(Stubborn("a"), Slow("b", "from b")).complete(asked(streamed=streamed)))
            await asyncio.sleep(2.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert now() == 2.0

        virtually(main)

    @streamed_or_not
    def test_the_slot_of_the_loser_is_free_at_once(self, streamed: bool) -> None:
        a, b = Slow("a", (9.0, "from a"), "from a"), Slow("b", ("from ", 5.0, "b"))
        both = router(a, b, limits={"a": RateLimits(concurrent=1)})

        async def main() -> None:
            async with await both.send(asked(streamed=streamed)) as reply:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert (await both.complete(asked(streamed=streamed))).text == "from a"
                assert now() == 1.0
            assert reply.degraded

        virtually(main)

    @streamed_or_not
    def test_losing_is_no_failure_to_the_circuit(self, streamed: bool) -> None:
        a, b = Slow("a", *[(9.0, "from a")] * 20), Slow("b", *["from b"] * 20)
        both = router(a, b, health=Health(Tolerance(failures=1, slow=1)))

        async def main() -> None:
            for _ in range(20):
                assert (await both.complete(asked(streamed=streamed))).text == "from b"

        virtually(main)
        assert len(a.asked_at) == 20


class TestEmbeddings:
    def both(self, *models: str) -> tuple[Slow, Slow, Router]:
        a, b = (Slow(name, (3.0 * (name == "a"), "x"), model=known) for name, known in zip("ab", models, strict=True))
        return a, b, router(a, b)

    def test_vectors_of_another_space_are_no_second(self) -> None:
        _, b, both = self.both("e5", "bge")
        assert virtually(lambda: both.embed("text")) == [4.0, 1.0]
        assert b.asked_at == []

    def test_another_server_of_the_same_model_is_one(self) -> None:
        _, b, both = self.both("e5", "e5")
        response = virtually(lambda: both.complete(EmbedRequest(texts=("text",))))
        assert (response.vectors, response.model, b.asked_at) == (((4.0, 1.0),), "b", [1.0])


class TestTheTrace:
    @streamed_or_not
    def test_it_shows_when_the_second_was_asked_who_won_and_whom_the_loser_lost_to(
        self, streamed: bool, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        a, b = Slow("a", (9.0, "from a")), Slow("b", (0.5, "from b"))
        virtually(lambda: router(a, b).complete(asked(streamed=streamed)))
        assert events(spans) == [
            ("hedge.started", {"model": "b", "after_s": 1.0}),
            ("hedge.won", {"model": "b"}),
        ]
        request, lost, won = spans()
        facts = dict(lost.attributes or {})
        assert (facts["devsynth.cancelled"], facts["devsynth.attempt.reason"]) == (True, "primary")
        assert (lost.status.is_unset, request.status.is_unset) == (True, True)
        assert (won.attributes or {})["devsynth.attempt.reason"] == "hedge"
        assert [link.context for link in lost.links] == [won.get_span_context()]
        assert not won.links
        assert [span.parent for span in (lost, won)] == [request.get_span_context()] * 2
        assert (request.attributes or {})["devsynth.attempts"] == 2

    def test_a_first_that_wins_is_not_told_as_won(self, spans: Callable[[], list[ReadableSpan]]) -> None:
        a, b = Slow("a", (2.0, "from a")), Slow("b", (9.0, "from b"))
        virtually(lambda: router(a, b).generate("hi"))
        assert [name for name, _ in events(spans)] == ["hedge.started"]


class TestTheLayerAlone:
    """With providers that write nothing down."""

    def hedged(self, first: ScriptedProvider, second: ScriptedProvider) -> Hedged:
        budget = RetryBudget(lambda: 0.0, floor_per_s=0.0, to_begin_with=5.0)
        return Hedged(first, second, ALWAYS, Measured(), budget)

    def test_both_errors_are_told_by_their_models(self) -> None:
        async def main() -> None:
            with pytest.raises(AllProvidersFailed) as caught:
                await self.hedged(
                    Slow("a", (2.0, ProviderUnavailable("x"))), Slow("b", (2.0, ProviderUnavailable("y")))
                ).generate("hi")
            assert [each.model for each in caught.value.exceptions] == ["a", "b"]

        virtually(main)

    def test_it_holds_what_both_hold_and_opens_and_closes_both(self) -> None:
        class Opened(Slow):
            state = ""

            @override
            async def warm_up(self) -> None:
                self.state += "opened "

            @override
            async def aclose(self) -> None:
                self.state += "closed"

        a, b = Opened("a", context_window=9000), Opened("b", context_window=4000)

        async def main() -> None:
            async with self.hedged(a, b) as both:
                assert both.max_context_size == 4000
            assert (a.state, b.state) == ("opened closed", "opened closed")

        virtually(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks that begin eagerly came with Python 3.12")
@streamed_or_not
def test_a_second_that_has_answered_by_the_time_it_was_asked_is_heard_where_tasks_begin_eagerly(streamed: bool) -> None:
    a, b = Slow("a", (90.0, "from a")), Slow("b", "from b")

    async def main() -> None:
        if sys.version_info >= (3, 12):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        response = await router(a, b).complete(asked(streamed=streamed))
        assert (response.text, now()) == ("from b", 1.0)

    virtually(main)


@pytest.mark.litellm
@streamed_or_not
@pytest.mark.parametrize("transport", ["auto", "litellm"])
async def test_over_a_real_wire_the_connection_of_the_loser_is_closed(transport: Any, streamed: bool) -> None:
    with Loopback() as hangs, Loopback() as well:
        hangs.script(Answer([], then="hang"))

        def when_the_other_was_asked(body: dict[str, Any]) -> Answer:
            """On a slow machine its connection may come later, and would be given up before it is one."""
            for _ in range(500):
                if hangs.requests:
                    break
                time.sleep(0.01)
            return stream("from ", "b") if body.get("stream") else whole("from b")

        well.script(when_the_other_was_asked)
        servers = [
            OpenAIProvider(model(name, provider="openai", base_url=at.url), api_key="k", transport=transport)
            for name, at in (("a", hangs), ("b", well))
        ]
        before = asyncio.all_tasks()
        async with router(*servers, hedge=Hedge(after=0.2, max_extra=1.0)) as both:
            response = await both.complete(asked(streamed=streamed))
            assert (response.text, response.degraded) == ("from b", True)
            assert outlines(response.attempts) == [("a", "primary", "cancelled"), ("b", "hedge", None)]
            assert await asyncio.to_thread(hangs.client_left), "the loop closes it, when it comes to that"
        await settled()
        left = asyncio.all_tasks() - before
        assert not [task for task in left if "litellm" not in repr(task)]  # it has workers of its own


answers = st.tuples(
    st.floats(0, 4).map(lambda seconds: round(seconds, 1)),
    st.sampled_from(("whole", "cut", "fails", "rejected", "filtered")),
)


def script(name: str, delay_s: float, ends: str) -> list[Any]:
    errors = {
        "fails": ProviderUnavailable("down"),
        "rejected": RequestRejected("bad"),
        "filtered": ContentFiltered("no"),
    }
    if ends in errors:
        return [delay_s, errors[ends]]
    return [delay_s, f"{name} ", 0.3, "says ", *([ProviderUnavailable("cut", model=name)] if ends == "cut" else ["it"])]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(answers, min_size=2, max_size=3),
    st.booleans(),
    st.sampled_from((None, 0.004, 0.007, 0.02)),
    st.sampled_from((None, None, 0.7, 1.6, 3.0)),
)
def test_whatever_both_do_one_answers_whole_both_are_paid_and_nothing_is_left(
    given_: list[tuple[float, str]], streamed: bool, ceiling: float | None, leaves_s: float | None
) -> None:
    servers = [Slow(name, script(name, *each), price=PRICED) for name, each in zip("abc", given_, strict=False)]
    request = asked(streamed=streamed, max_tokens=100, **({} if ceiling is None else {"max_cost_usd": ceiling}))
    outcome: list[Response | BaseException] = []

    async def main() -> None:
        try:
            async with asyncio.timeout(leaves_s):
                outcome.append(await router(*servers).complete(request))
        except (DevSynthError, TimeoutError) as error:
            outcome.append(error)

    virtually(main)
    (came,) = outcome
    assert all(len(each.asked_at) <= 1 for each in servers)
    assert [len(each.closed_at) for each in servers] == [len(each.asked_at) for each in servers]
    if isinstance(came, TimeoutError):
        return
    attempts = came.attempts if isinstance(came, Response | ProviderError | BudgetExceeded) else ()
    assert sorted(each.model for each in attempts) == [each.model.name for each in servers if each.asked_at]
    assert ceiling is None or sum(each.worst_micros or 0 for each in attempts) <= ceiling * 1_000_000
    if isinstance(came, Response):
        assert came.text == f"{came.model} says it"
        assert came.cost_usd == sum(each.cost_micros or 0 for each in attempts) / 1_000_000
    elif isinstance(came, StreamInterrupted):
        assert came.partial == f"{came.model} says "


@streamed_or_not
@pytest.mark.slow
def test_where_three_of_a_hundred_are_slow_the_slowest_of_a_hundred_is_not(streamed: bool) -> None:
    def slowest_of_a_hundred(hedge: Hedge | None) -> tuple[float, int]:
        dice = random.Random(7)
        lines = [(5.0 if dice.random() < 0.03 else dice.uniform(0.2, 0.4), "from a") for _ in range(3000)]
        a, b = Slow("a", *lines), Slow("b", *[(0.3, "from b")] * 1000)
        began_after: list[float] = []

        async def main() -> None:
            measured = Measured(asyncio.get_running_loop().time)
            made = policy(a.model, b.model, hedge=hedge)
            both = Router(made, {"a": a, "b": b}, measured=measured)
            for _ in range(3000):
                began = now()
                async with await both.send(asked(streamed=streamed)) as reply:
                    began_after.append(now() - began)
                    async for _ in reply:
                        pass

        virtually(main)
        return sorted(began_after)[int(0.99 * 3000)], len(b.asked_at)

    without, _ = slowest_of_a_hundred(None)
    with_, extra = slowest_of_a_hundred(Hedge(after="p95", max_extra=0.05))
    assert (without, with_ < 0.75) == (5.0, True)
    assert extra <= 150
