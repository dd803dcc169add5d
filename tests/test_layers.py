"""Each layer by itself, around a provider whose behaviour is written down. Time is virtual: nothing waits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from typing_extensions import override

from devsynth_providers import (
    AllProvidersFailed,
    AuthenticationError,
    BudgetExceeded,
    ChatRequest,
    Chunk,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    EmbedRequest,
    FallbackProvider,
    InvalidRequest,
    Limits,
    Price,
    ProviderError,
    ProviderPort,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimitError,
    Reply,
    Request,
    RequestRejected,
    Response,
    Retry,
    StreamInterrupted,
    Timeouts,
    Usage,
    turns,
)
from devsynth_providers.layers.matched import Matched
from devsynth_providers.layers.metered import Metered
from devsynth_providers.layers.named import Named
from devsynth_providers.layers.retrying import Retrying
from devsynth_providers.layers.timed import Timed
from devsynth_providers.layers.traced import Traced
from devsynth_providers.testing import ScriptedProvider, run_virtually

from .conftest import Ask
from .helpers import NO_WAIT, PRICED, ends_when_forgotten, model

CLOCKS = Timeouts(first_token_s=10, idle_s=5, total_s=100)
STREAM = ChatRequest.of("hi", stream=True)
WHOLE = ChatRequest.of("hi")


def after(seconds: float, work: Callable[[], Awaitable[Any]]) -> None:
    """Check that *work* takes exactly so long on the loop's clock."""

    async def main() -> None:
        started = asyncio.get_running_loop().time()
        await work()
        assert asyncio.get_running_loop().time() - started == pytest.approx(seconds)

    run_virtually(main())


async def late(provider: ProviderPort, request: ChatRequest) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await (await provider.send(request)).read()
    return caught.value


class TestTimed:
    def test_a_stream_that_does_not_begin_is_given_up_at_the_first_token_clock(self) -> None:
        async def work() -> None:
            provider = ScriptedProvider((3600.0, "late"))
            assert isinstance(await late(Timed(provider, CLOCKS), STREAM), ProviderTimeout)
            assert provider.closed == 1

        after(10, work)

    def test_a_whole_answer_begins_when_it_is_done_so_only_its_deadline_counts(self) -> None:
        after(30, lambda: Timed(ScriptedProvider((30.0, "long")), CLOCKS).complete(WHOLE))

        async def work() -> None:
            assert isinstance(await late(Timed(ScriptedProvider((3600.0, "late")), CLOCKS), WHOLE), ProviderTimeout)

        after(100, work)

    def test_keep_alives_do_not_count_as_content(self) -> None:
        pings = [step for _ in range(100) for step in (1.0, Chunk())]

        async def unbegun() -> None:
            assert isinstance(await late(Timed(ScriptedProvider(pings), CLOCKS), STREAM), ProviderTimeout)

        async def stalled() -> None:
            error = await late(Timed(ScriptedProvider(["a", *pings]), CLOCKS), STREAM)
            assert isinstance(error, StreamInterrupted)
            assert error.partial == "a"

        after(10, unbegun)
        after(5, stalled)

    def test_a_slow_stream_that_never_stalls_may_take_until_the_deadline(self) -> None:
        async def work() -> None:
            steps = [step for _ in range(1000) for step in (4.0, "x")]
            error = await late(Timed(ScriptedProvider(steps), CLOCKS), STREAM)
            assert isinstance(error, StreamInterrupted)
            assert error.partial == "x" * 24
            assert "deadline" in str(error)

        after(100, work)

    @pytest.mark.parametrize(("deadline", "ends"), [(7, 7), (700, 100)])
    def test_of_its_own_deadline_and_the_requests_the_sooner_counts(self, deadline: float, ends: float) -> None:
        async def work() -> None:
            await late(Timed(ScriptedProvider((3600.0, "late")), CLOCKS), WHOLE.on(deadline=deadline))

        after(ends, work)

    def test_a_stream_is_not_waited_for_past_the_deadline(self) -> None:
        after(7, lambda: late(Timed(ScriptedProvider((3600.0, "late")), CLOCKS), STREAM.on(deadline=7.0)))

    def test_waiting_for_ones_turn_stops_the_clock_of_the_first_token(self) -> None:
        class Queued(ScriptedProvider):
            @override
            async def send(self, request: Request) -> Reply:
                turns.waiting()
                await asyncio.sleep(60)
                turns.begun(60)
                return await super().send(request)

        after(69, lambda: Timed(Queued((9.0, "in time")), CLOCKS).complete(STREAM))
        after(70, lambda: late(Timed(Queued((11.0, "late")), CLOCKS), STREAM))
        short = Timeouts(first_token_s=10, total_s=65)
        after(65, lambda: late(Timed(Queued((11.0, "late")), short), STREAM))

    def test_a_timeout_error_from_inside_is_not_ours(self) -> None:
        async def work() -> None:
            with pytest.raises(TimeoutError):
                await Timed(ScriptedProvider(TimeoutError("a bug")), CLOCKS).complete(WHOLE)

        after(0, work)

    async def test_leaving_after_the_first_piece_closes_what_is_inside(self) -> None:
        provider = ScriptedProvider(("a", "b"))
        reply = await Timed(provider, CLOCKS).send(STREAM)
        await anext(reply)
        await reply.aclose()
        assert provider.closed == 1
        unread = ScriptedProvider(("a", "b"))
        await (await Timed(unread, CLOCKS).send(STREAM)).aclose()
        assert unread.closed == 1


class TestRetrying:
    async def test_what_may_pass_is_tried_again(self, ask: Ask) -> None:
        provider = ScriptedProvider(RateLimitError("slow"), ProviderUnavailable("down"), "ok")
        assert await ask(Retrying(provider, NO_WAIT)) == "ok"
        assert len(provider.requests) == 3

    async def test_no_more_than_the_attempts_that_are_allowed(self, ask: Ask) -> None:
        provider = ScriptedProvider(*[ProviderUnavailable("down")] * 9)
        with pytest.raises(ProviderUnavailable):
            await ask(Retrying(provider, NO_WAIT))
        assert len(provider.requests) == 3

    @pytest.mark.parametrize("error", [AuthenticationError("no"), RequestRejected("no"), ContextTooLong("no")])
    async def test_what_will_not_pass_is_not_tried_again(self, ask: Ask, error: ProviderError) -> None:
        provider = ScriptedProvider(error, "never")
        with pytest.raises(type(error)):
            await ask(Retrying(provider, NO_WAIT))
        assert len(provider.requests) == 1

    def test_at_least_one_attempt_is_asked_for(self) -> None:
        with pytest.raises(ConfigurationError, match="must be 1 or more"):
            Retry(attempts=0)
        with pytest.raises(ConfigurationError, match="total_s must be a number of seconds above 0"):
            Timeouts(total_s=0)

    async def test_a_bug_is_not_tried_again(self, ask: Ask) -> None:
        provider = ScriptedProvider(TypeError("bug"), "never")
        with pytest.raises(TypeError):
            await ask(Retrying(provider, NO_WAIT))
        assert len(provider.requests) == 1

    async def test_once_text_is_delivered_nothing_is_tried_again(self) -> None:
        provider = ScriptedProvider(("half", ProviderUnavailable("cut")), "never")
        with pytest.raises(StreamInterrupted):
            await (await Retrying(provider, NO_WAIT).send(STREAM)).read()
        assert len(provider.requests) == 1

    def test_a_server_that_says_when_to_come_back_is_obeyed(self) -> None:
        busy = RateLimitError("slow")
        busy.retry_after_s = 6.5
        after(6.5, lambda: Retrying(ScriptedProvider(busy, "ok"), Retry(initial_s=0, cap_s=8)).complete(WHOLE))

    def test_a_wait_beyond_the_cap_or_the_deadline_is_not_waited_for(self) -> None:
        async def work(wait_s: float, deadline: float | None) -> None:
            busy = RateLimitError("slow")
            busy.retry_after_s = wait_s
            error = await late(Retrying(ScriptedProvider(busy, "never"), Retry()), WHOLE.on(deadline=deadline))
            assert error is busy

        after(0, lambda: work(9, None))
        after(0, lambda: work(6, 5.0))

    def test_waits_grow_and_stay_below_their_bound(self) -> None:
        class Highest:
            def uniform(self, low: float, high: float) -> float:
                assert low == 0
                return high

        provider = ScriptedProvider(*[ProviderUnavailable("down")] * 5, "ok")
        layer = Retrying(provider, Retry(attempts=6, initial_s=1, cap_s=3), jitter=Highest())  # type: ignore[arg-type]
        after(1 + 2 + 3 + 3 + 3, lambda: layer.complete(WHOLE))

    async def test_each_try_has_a_number_and_a_reason(self) -> None:
        provider = ScriptedProvider(ProviderUnavailable("a"), ProviderUnavailable("b"), "ok")
        response = await Retrying(Traced(provider), NO_WAIT).complete(WHOLE)
        assert [(a.number, a.reason, a.error) for a in response.attempts] == [
            (1, "primary", "unavailable"),
            (2, "retry", "unavailable"),
            (3, "retry", None),
        ]


class TestFallback:
    async def test_the_next_is_asked_when_one_has_failed(self, ask: Ask) -> None:
        first, second = ScriptedProvider(AuthenticationError("no")), ScriptedProvider("b")
        assert await ask(FallbackProvider([first, second])) == "b"

    async def test_all_failures_are_kept(self, ask: Ask) -> None:
        chain = [ScriptedProvider(RateLimitError("one")), ScriptedProvider(ProviderTimeout("two"))]
        with pytest.raises(AllProvidersFailed) as caught:
            await ask(FallbackProvider(chain))
        assert [type(error) for error in caught.value.exceptions] == [RateLimitError, ProviderTimeout]
        assert str(caught.value).startswith("All providers failed. Last error: two")
        assert isinstance(caught.value, ProviderError)

    async def test_of_one_that_asks_several_each_failure_counts_and_none_is_asked_again(self, ask: Ask) -> None:
        a, b, c = (
            Traced(ScriptedProvider(error, model=model(name)))
            for name, error in (("a", RateLimitError("1")), ("b", ProviderTimeout("2")), ("c", ProviderTimeout("3")))
        )
        with pytest.raises(AllProvidersFailed) as caught:
            await ask(FallbackProvider([FallbackProvider([a, b]), b, c]))
        assert [each.model for each in caught.value.exceptions] == ["a", "b", "c"]
        assert [attempt.reason for attempt in caught.value.attempts] == ["primary", "fallback", "fallback"]

    async def test_a_chain_of_one_raises_its_own_error(self, ask: Ask) -> None:
        with pytest.raises(RateLimitError):
            await ask(FallbackProvider([ScriptedProvider(RateLimitError("one"))]))

    async def test_a_request_that_is_at_fault_itself_is_not_passed_around(self, ask: Ask) -> None:
        second = ScriptedProvider("b")
        first = ScriptedProvider(ProviderUnavailable("down"), model=model("first"))
        chain = [Traced(first), Traced(ScriptedProvider(RequestRejected("bad"))), Traced(second)]
        with pytest.raises(RequestRejected) as caught:
            await ask(FallbackProvider(chain))
        assert second.requests == []
        assert [attempt.number for attempt in caught.value.attempts] == [1, 2]

    async def test_what_a_content_policy_refused_is_shown_to_others_only_where_that_is_said(self, ask: Ask) -> None:
        def chain(stops_at: tuple[str, ...] | None = None) -> FallbackProvider:
            providers = [ScriptedProvider(ContentFiltered("no")), ScriptedProvider("b")]
            return FallbackProvider(providers) if stops_at is None else FallbackProvider(providers, stops_at=stops_at)

        assert await ask(chain(())) == "b"
        with pytest.raises(ContentFiltered):
            await ask(chain())

    async def test_a_refused_key_ends_it_where_that_is_said(self, ask: Ask) -> None:
        second = ScriptedProvider("b")
        with pytest.raises(AuthenticationError):
            await ask(
                FallbackProvider([ScriptedProvider(AuthenticationError("no")), second], stops_at=("authentication",))
            )
        assert second.requests == []

    def test_a_whole_answer_that_hangs_leaves_time_for_the_next(self) -> None:
        async def work() -> None:
            chain = FallbackProvider([Timed(ScriptedProvider((100.0, "late"))), Timed(ScriptedProvider((2.0, "b")))])
            request = WHOLE.begun().on(deadline=asyncio.get_running_loop().time() + 10)
            assert (await chain.complete(request)).text == "b"

        after(7.5 + 2, work)

    def test_who_is_asked_last_has_all_of_the_time(self) -> None:
        async def work() -> None:
            late, down = (ScriptedProvider((9.0, "a")) for _ in range(2)), ScriptedProvider(ProviderUnavailable("down"))
            for chain in ([next(late)], [down, next(late)]):
                providers = [Timed(each) for each in chain]
                request = WHOLE.begun().on(deadline=asyncio.get_running_loop().time() + 10)
                assert (await FallbackProvider(providers).complete(request)).text == "a"

        after(18, work)

    async def test_a_bug_is_not_hidden(self, ask: Ask) -> None:
        with pytest.raises(TypeError):
            await ask(FallbackProvider([ScriptedProvider(TypeError("bug")), ScriptedProvider("b")]))

    async def test_nobody_else_goes_on_once_text_is_delivered(self, ask: Ask) -> None:
        second = ScriptedProvider("b")
        with pytest.raises(StreamInterrupted):
            await ask(FallbackProvider([ScriptedProvider(("half", ProviderUnavailable("cut"))), second]))
        assert second.requests == []

    async def test_after_a_prompt_too_long_only_larger_windows_are_asked(self, ask: Ask) -> None:
        too_long = ContextTooLong("8 tokens", model="small")
        too_long.context_window = 100
        same = ScriptedProvider("never", model=model("same", context_window=100))
        larger = ScriptedProvider("ok", model=model("larger", context_window=101))
        assert await ask(FallbackProvider([ScriptedProvider(too_long), same, larger])) == "ok"
        assert same.requests == []

    async def test_vectors_come_from_one_vector_space(self) -> None:
        a = ScriptedProvider(ProviderUnavailable("down"), model=model("a", model="e5"))
        other = ScriptedProvider("never", model=model("b", model="ada"))
        same = ScriptedProvider("x", model=model("c", model="e5"))
        assert await FallbackProvider([a, other, same]).embed("hi") == [2.0, 1.0]
        assert other.requests == []

    async def test_who_answered_and_that_it_was_not_the_first_is_told(self) -> None:
        chain = [ScriptedProvider(ProviderUnavailable("x"), model=model("a")), ScriptedProvider("b", model=model("b"))]
        response = await FallbackProvider([Traced(each) for each in chain]).complete(WHOLE)
        assert (response.model, response.degraded) == ("b", True)
        assert [(a.number, a.reason, a.model) for a in response.attempts] == [(1, "primary", "a"), (2, "fallback", "b")]

    def test_nobody_is_asked_past_the_deadline(self) -> None:
        async def work() -> None:
            second = ScriptedProvider("never")
            slow = ScriptedProvider((5.0, ProviderUnavailable("down")))
            await late(FallbackProvider([slow, second]), WHOLE.on(deadline=5.0))
            assert second.requests == []

        after(5, work)

    async def test_the_smallest_window_is_the_windows_of_all(self) -> None:
        chain = [ScriptedProvider(model=model(context_window=n)) for n in (900, 100, 500)]
        assert FallbackProvider(chain).max_context_size == 100

    def test_an_empty_chain_is_refused(self) -> None:
        with pytest.raises(InvalidRequest):
            FallbackProvider([])


class TestMetered:
    DEAR = model("dear", price=PRICED)

    async def test_an_attempt_that_could_cost_more_than_the_ceiling_is_not_made(self, ask: Ask) -> None:
        provider = ScriptedProvider("never", model=self.DEAR)
        with pytest.raises(BudgetExceeded, match="dear could cost"):
            await ask(Metered(provider), max_cost_usd=0.029)
        assert provider.requests == []

    async def test_one_that_fits_is(self, ask: Ask) -> None:
        assert await ask(Metered(ScriptedProvider("ok", model=self.DEAR)), max_cost_usd=0.0301) == "ok"

    async def test_what_failed_attempts_have_cost_counts(self) -> None:
        spent = WHOLE.begun()
        spent.call.tally.hold(200)
        roomy, tight = (Limits(max_cost_usd=usd) for usd in (0.0303, 0.0301))
        from dataclasses import replace

        assert (await Metered(ScriptedProvider("ok", model=self.DEAR)).complete(replace(spent, limits=roomy))).text
        with pytest.raises(BudgetExceeded):
            await Metered(ScriptedProvider("never", model=self.DEAR)).complete(replace(spent, limits=tight))

    async def test_what_attempts_under_way_may_cost_counts_until_they_have_ended(self) -> None:
        first, second = (Metered(ScriptedProvider(("a", "b"), "c", model=self.DEAR)) for _ in range(2))
        request = ChatRequest.of("hi", stream=True, max_tokens=100, max_cost_usd=0.005).begun()
        async with await first.send(request):
            with pytest.raises(BudgetExceeded):
                await second.send(request)
        assert (await second.complete(request)).text == "ab"

    async def test_the_worst_is_reckoned_with_the_dearest_class_of_tokens(self, ask: Ask) -> None:
        thinking = model("thinking", price=Price(input_usd_per_1m=1, output_usd_per_1m=1, reasoning_usd_per_1m=100))
        with pytest.raises(BudgetExceeded):
            await ask(Metered(ScriptedProvider("never", model=thinking)), max_cost_usd=0.09)

    async def test_an_attempt_that_may_have_been_billed_whole_counts_as_if_it_were(self) -> None:
        first = ScriptedProvider(ProviderTimeout("late"), "never", model=self.DEAR)
        with pytest.raises(ProviderTimeout) as caught:
            await Retrying(Metered(Traced(first)), NO_WAIT).complete("hi", max_tokens=100, max_cost_usd=0.005)
        (attempt,) = caught.value.attempts
        assert (attempt.cost_micros, attempt.worst_micros, len(first.requests)) == (10, 3010, 1)

    async def test_a_price_that_is_not_known_is_not_taken_for_nothing(self, ask: Ask) -> None:
        with pytest.raises(BudgetExceeded, match="no known price"):
            await ask(Metered(ScriptedProvider("never", model=model(price=None))), max_cost_usd=1)

    async def test_a_retry_that_the_first_try_left_no_money_for_is_not_made(self) -> None:
        provider = ScriptedProvider(ProviderUnavailable("billed perhaps"), "never", model=self.DEAR)
        layers = Retrying(Metered(Traced(provider)), NO_WAIT)
        with pytest.raises(ProviderUnavailable) as caught:
            await layers.complete("word " * 100, max_tokens=100, max_cost_usd=0.0045)
        assert len(provider.requests) == len(caught.value.attempts) == 1

    async def test_what_the_models_before_have_cost_is_not_spent_twice(self) -> None:
        first, second = ScriptedProvider(ProviderUnavailable("x"), model=self.DEAR), ScriptedProvider(model=self.DEAR)
        chain = FallbackProvider([Metered(Traced(first)), Metered(Traced(second))])
        with pytest.raises(BudgetExceeded) as caught:
            await chain.complete("word " * 100, max_tokens=100, max_cost_usd=0.0045)
        assert (len(caught.value.attempts), second.requests) == (1, [])

    async def test_a_cheaper_model_is_asked_where_a_dear_one_can_not_be_paid(self) -> None:
        chain = FallbackProvider(
            [Metered(ScriptedProvider("never", model=self.DEAR)), Metered(ScriptedProvider("ok", model=model("free")))]
        )
        assert (await chain.complete("hi", max_cost_usd=0.01)).model == "free"

    async def test_where_that_fails_too_its_attempt_is_told(self) -> None:
        dear, free = ScriptedProvider(model=self.DEAR), ScriptedProvider(ProviderUnavailable("x"), model=model("free"))
        chain = FallbackProvider([Metered(Traced(each)) for each in (dear, free)])
        with pytest.raises(BudgetExceeded) as caught:
            await chain.complete("hi", max_cost_usd=0.01)
        assert [each.model for each in caught.value.attempts] == ["free"]


PARTS = (Usage(5, 7, cached_input_tokens=10**9), Usage(5, 7, 3, 3), Usage(5, 7, reasoning_tokens=10**9))
"""Usage of which a part is more than the whole."""


class TestTraced:
    async def answered(self, *line: Any, **facts: Any) -> Response:
        usage = facts.pop("usage", Usage(10, 20))
        return await Traced(ScriptedProvider(line, model=model(price=PRICED, **facts), usage=usage)).complete(
            STREAM.begun()
        )

    async def test_an_attempt_tells_model_tokens_and_cost(self) -> None:
        (attempt,) = (await self.answered("a", "b")).attempts
        assert (attempt.model, attempt.usage, attempt.cost_micros) == ("m", Usage(10, 20), 700)
        assert (attempt.cost_basis, attempt.finish_reason, attempt.error) == ("computed", "stop", None)

    async def test_usage_that_was_not_reported_is_estimated_and_marked(self) -> None:
        response = await self.answered("word " * 40, usage=None)
        assert response.usage == Usage(1, 40, estimated=True)
        assert response.cost_basis == "estimated"
        assert response.cost_usd == pytest.approx(0.00121)

    @pytest.mark.parametrize(
        "wrong", [Usage(-5, 7), Usage(5, -7), Usage(5, 7, -1), Usage(10**9, 7), Usage(5, 10**9), *PARTS]
    )
    async def test_usage_that_can_not_be_true_is_estimated(self, wrong: Usage) -> None:
        response = await self.answered("word " * 40, usage=wrong)
        assert response.usage == Usage(1, 40, estimated=True)

    @pytest.mark.parametrize(
        ("line", "used"),
        [
            (Chunk("word " * 40, finish_reason="stop", usage=Usage(10, 20)), Usage(10, 20)),
            ("word " * 40, Usage(1, 40, estimated=True)),
        ],
    )
    @pytest.mark.parametrize("forgotten", [False, True])
    async def test_what_came_is_billed_also_where_nobody_takes_it(
        self, line: str | Chunk, used: Usage, forgotten: bool
    ) -> None:
        """A whole answer is one piece: it was waiting when the caller left, or another was quicker by a moment."""
        request = ChatRequest.of("hi").begun()
        reply = await Traced(ScriptedProvider(line, model=model(price=PRICED))).send(request)
        if forgotten:
            left = [reply]
            del reply
            with pytest.warns(ResourceWarning):
                left.clear()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        else:
            await reply.aclose()
        assert [each.usage for each in request.call.tally.attempts] == [used]

    async def test_vectors_are_not_billed_as_if_they_were_written(self) -> None:
        far = ScriptedProvider("x", model=model(price=PRICED), usage=Usage(3, 10**9))
        response = await Traced(far).complete(EmbedRequest(texts=("a text",)))
        assert response.usage == Usage(2, 0, estimated=True)

    async def test_an_answer_left_early_is_billed_for_what_it_wrote(self) -> None:
        provider = Traced(ScriptedProvider(("word " * 100, "y"), model=model(price=PRICED)))
        async with await provider.send(STREAM.begun()) as reply:
            async for _ in reply:
                break
        (attempt,) = reply.response.attempts
        assert attempt.usage == Usage(1, 100, estimated=True)
        assert (attempt.error, attempt.finish_reason) == (None, None)

    async def test_a_failure_that_may_be_billed_is_counted_and_one_that_is_not_is_free(self) -> None:
        for error, micros in ((ProviderTimeout("late"), 10), (RateLimitError("slow"), 0)):
            with pytest.raises(ProviderError) as caught:
                await self.answered(error)
            (attempt,) = caught.value.attempts
            assert attempt.cost_micros == micros, type(error)
            assert attempt.error_message == str(error)

    async def test_a_stream_that_broke_off_has_its_attempt_in_the_error(self) -> None:
        with pytest.raises(StreamInterrupted) as caught:
            await self.answered("word " * 8, ProviderUnavailable("cut"))
        (attempt,) = caught.value.attempts
        assert (attempt.error, attempt.usage) == ("stream_interrupted", Usage(1, 8, estimated=True))

    def test_times_are_those_of_the_attempt(self) -> None:
        async def work() -> None:
            (attempt,) = (await self.answered(2.0, "a", 3.0, "b")).attempts
            assert attempt.first_token_s == pytest.approx(2)
            assert attempt.latency_s == pytest.approx(5)

        after(5, work)


async def test_named_answers_under_the_name_the_policy_gives(ask: Ask) -> None:
    provider = Named(ScriptedProvider("a", "a"), model("ours", price=PRICED))
    assert (await provider.complete(WHOLE)).model == "ours"
    assert provider.cost_per_1k_tokens == {"input": 0.01, "output": 0.03}
    assert await ask(provider) == "a"


@pytest.mark.parametrize(
    "said",
    [
        (Chunk(vectors=((1.0,),), finish_reason="stop"),),
        (Chunk(vectors=((1.0,), (2.0,), (3.0,)), finish_reason="stop"),),
        (Chunk(vectors=((1.0, 2.0), (3.0,)), finish_reason="stop"),),
        (Chunk(vectors=((1.0,),)), ProviderUnavailable("gone")),
        (Chunk(vectors=((1.0, math.nan), (1.0, 2.0)), finish_reason="stop"),),
        (Chunk(vectors=((1.0, math.inf), (1.0, 2.0)), finish_reason="stop"),),
        (Chunk(vectors=((0.0, 0.0), (1.0, 2.0)), finish_reason="stop"),),
        (Chunk(vectors=((), ()), finish_reason="stop"),),
    ],
)
async def test_vectors_that_do_not_fit_their_texts_are_no_answer_and_the_next_model_is_asked(
    said: tuple[Chunk | ProviderError, ...],
) -> None:
    class Says(ScriptedProvider):
        @override
        async def send(self, request: Request) -> Reply:
            return await super().send(WHOLE)  # the script as it is, vectors and all

    half = Says(said, model=model("m", model="e5"))
    whole = ScriptedProvider("x", model=model("n", model="e5"))
    chain = FallbackProvider([Traced(Matched(half)), Traced(Matched(whole))])
    response = await chain.complete(EmbedRequest(texts=("a", "bbb")))
    assert response.vectors == ((1.0, 1.0), (3.0, 1.0))
    assert [each.model for each in response.attempts] == ["m", "n"]
    assert response.attempts[0].error in ("malformed_response", "unavailable")


async def test_vectors_in_several_pieces_are_one_answer() -> None:
    class Pieces(ScriptedProvider):
        @override
        async def send(self, request: Request) -> Reply:
            return await super().send(WHOLE)

    pieces = Pieces((Chunk(vectors=((1.0,),)), Chunk(vectors=((2.0,),), finish_reason="stop")))
    assert await Matched(pieces).embed_batch(["a", "b"]) == [[1.0], [2.0]]


async def test_embeddings_pass_through_every_layer() -> None:
    layers: ProviderPort = ScriptedProvider("x", model=model(price=PRICED))
    for layer in (Timed, Matched, Traced, Metered, Retrying):
        layers = layer(layers)
    response = await FallbackProvider([layers]).complete(EmbedRequest(texts=("a", "bbb")))
    assert response.vectors == ((1.0, 1.0), (3.0, 1.0))
    assert len(response.attempts) == 1


async def test_an_answer_after_a_failure_ends_at_once_when_it_is_forgotten() -> None:
    """The error before it holds no frame that holds it: nobody has to wait for the garbage collector."""
    failing, other = ScriptedProvider(RateLimitError("no"), model=model("a")), ScriptedProvider("x", model=model("b"))
    stacks = [Retrying(each, Retry(attempts=1)) for each in (failing, other)]
    assert await ends_when_forgotten(FallbackProvider(stacks).send(ChatRequest.of("hi")))
