"""Equal requests under way at the same time are one call, for as long as anybody listens. Time is virtual."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    AllProvidersFailed,
    AuthenticationError,
    Budget,
    BudgetExceeded,
    ChatRequest,
    Chunk,
    ContentFiltered,
    DevSynthError,
    EmbedRequest,
    Limits,
    ProviderPort,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimitError,
    Reply,
    Request,
    RequestRejected,
    Response,
    Router,
    StreamInterrupted,
    Timeouts,
    Usage,
)
from devsynth_providers.flights import Flights
from devsynth_providers.layers.coalesced import Coalesced
from devsynth_providers.layers.wrapper import Wrapper
from devsynth_providers.testing import ScriptedProvider, VirtualClock, run_virtually
from devsynth_providers.types.tally import Tally

from .helpers import PRICED, model, policy

WHOLE = ChatRequest.of("hi", temperature=0)
STREAM = ChatRequest.of("hi", temperature=0, stream=True)
LINE = (1.0, "one ", 1.0, "two ", 1.0, "three")
"""An answer that begins after a second, and is whole after three."""
KINDS = pytest.mark.parametrize("request_", [WHOLE, STREAM, EmbedRequest(texts=("a", "bb"))], ids=["w", "s", "e"])
CHATS = pytest.mark.parametrize("request_", [WHOLE, STREAM], ids=["whole", "streamed"])


class Home:
    """A router over one provider, and all that it may leave behind."""

    def __init__(self, *script: Any, timeouts: Timeouts = Timeouts(), others: Any = (), **rule: Any) -> None:
        self.far = ScriptedProvider(*script, model=model("a", price=PRICED), usage=Usage(10, 20))
        far = {"a": self.far, **{each.model.name: each for each in others}}
        self.router = Router(policy(*(each.model for each in far.values()), timeouts=timeouts, **rule), far)
        self.flights = self.router._deployments.current.flights

    async def ask(self, request: Request, *, at_s: float = 0.0, reads: int | None = None, pause_s: float = 0) -> Any:
        """The response, or the error; after *reads* pieces it is left."""
        await asyncio.sleep(at_s)
        try:
            async with await self.router.send(request) as reply:
                read = 0
                async for _ in reply:
                    read += 1
                    if read == reads:
                        break
                    await asyncio.sleep(pause_s)
        except DevSynthError as error:
            return error
        return reply.response

    def play(self, main: Coroutine[Any, Any, Any]) -> Any:
        """What *main* returns, when it has left nothing behind."""

        async def watched() -> Any:
            loop = asyncio.get_running_loop()
            complaints: list[Any] = []
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            result = await main
            await asyncio.sleep(0.001)
            assert not complaints
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert len(self.flights) == 0
            assert isinstance(loop, VirtualClock)
            assert loop.timers == 0
            assert self.far.closed == len(self.far.requests)
            return result

        return run_virtually(watched())

    def all_of(self, *asks: Coroutine[Any, Any, Any]) -> list[Any]:
        async def main() -> list[Any]:
            return list(await asyncio.gather(*asks, return_exceptions=True))

        return list(self.play(main()))


def paid(*responses: Response) -> float:
    return sum(response.cost_usd or 0 for response in responses)


ONE_CALL_USD = 10 * 10e-6 + 20 * 30e-6


@KINDS
def test_a_hundred_equal_requests_are_one_call_and_cost_what_one_does(request_: Request) -> None:
    home = Home(LINE)
    answers = home.all_of(*(home.ask(request_) for _ in range(100)))
    assert len(home.far.requests) == 1
    texts, vectors = {each.text for each in answers}, {each.vectors for each in answers}
    assert (texts, len(vectors)) == ({""} if isinstance(request_, EmbedRequest) else {"one two three"}, 1)
    assert [each.shared for each in answers] == [False] + [True] * 99
    assert [len(each.attempts) for each in answers] == [1] + [0] * 99
    assert {each.usage for each in answers} == {Usage(10, 20)}
    assert {each.finish_reason for each in answers} == {"stop"}
    assert [each.cost_usd for each in answers] == [pytest.approx(ONE_CALL_USD)] + [0.0] * 99
    assert {(each.model, each.degraded, each.plan.rule) for each in answers} == {("a", False, "all")}


def test_a_follower_hears_at_once_what_came_before_it_and_then_each_piece_as_it_comes() -> None:
    home = Home(LINE)

    async def main() -> list[tuple[str, float]]:
        leader = asyncio.ensure_future(home.ask(STREAM))
        await asyncio.sleep(2.5)
        async with await home.router.send(STREAM) as reply:
            heard = [(chunk.text, asyncio.get_running_loop().time()) async for chunk in reply]
        response = reply.response
        assert (response.first_token_s, response.latency_s) == (0.0, 0.5)
        assert (await leader).latency_s == 3.0
        return heard

    assert home.play(main()) == [("one ", 2.5), ("two ", 2.5), ("three", 3.0), ("", 3.0)]


def test_one_that_comes_when_the_answer_is_there_asks_anew() -> None:
    home = Home("first", "second")

    async def main() -> list[str]:
        return [(await home.ask(WHOLE)).text for _ in range(2)]

    assert home.play(main()) == ["first", "second"]


def test_a_slow_reader_holds_up_nobody_and_gets_all() -> None:
    home = Home(LINE)
    slow, quick = home.all_of(home.ask(STREAM, pause_s=10), home.ask(STREAM))
    assert slow.text == quick.text == "one two three"
    assert quick.latency_s == 3.0
    assert not slow.shared
    assert slow.attempts[0].latency_s == 3.0, "the model is not measured by how quickly it is read"


OTHERS: list[dict[str, Any]] = [
    {"project": "p"},
    {"role": "r"},
    {"max_tokens": 5},
    {"stop": ("x",)},
    {"parameters": {"seed": 1}},
    {"tools": ({"type": "function", "function": {"name": "f"}},)},
    {"stream": True},
    {"limits": Limits(max_cost_usd=1)},
    {"messages": ChatRequest.of("hi ").messages},
]


@pytest.mark.parametrize("other", OTHERS, ids=[next(iter(each)) for each in OTHERS])
def test_what_is_not_equal_is_not_shared(other: dict[str, Any]) -> None:
    home = Home(LINE, LINE)
    answers = home.all_of(home.ask(WHOLE), home.ask(replace(WHOLE, **other)))
    assert len(home.far.requests) == 2
    assert not any(each.shared for each in answers)


def test_requests_under_two_rules_are_not_shared_though_they_would_ask_the_same() -> None:
    home = Home(LINE, LINE)
    rule = home.router.policy.rules[0]
    when = replace(rule, name="chores", when=replace(rule.when, task=("chores",)))
    home.router = Router(replace(home.router.policy, rules=(when, rule)), {"a": home.far})
    answers = home.all_of(home.ask(WHOLE), home.ask(replace(WHOLE, task="chores")))
    assert len(home.far.requests) == 2
    assert not any(each.shared for each in answers)


@pytest.mark.parametrize(
    ("coalesce", "request_", "calls"),
    [
        ("auto", WHOLE, 1),
        ("auto", STREAM, 1),
        ("auto", EmbedRequest(texts=("a",)), 1),
        ("auto", replace(WHOLE, temperature=0.1), 2),
        ("auto", ChatRequest.of("hi"), 2),
        ("always", ChatRequest.of("hi"), 1),
        ("always", replace(STREAM, temperature=2), 1),
        ("always", replace(WHOLE, parameters={"x": object()}), 2),
        ("never", WHOLE, 2),
        ("never", EmbedRequest(texts=("a",)), 2),
    ],
)
def test_the_rule_says_which_requests_share(coalesce: str, request_: Request, calls: int) -> None:
    home = Home(LINE, LINE, coalesce=coalesce)
    home.all_of(home.ask(request_), home.ask(request_))
    assert len(home.far.requests) == calls


@KINDS
def test_who_began_is_cancelled_and_the_others_get_their_answer(request_: Request) -> None:
    home = Home(LINE)

    async def main() -> list[Any]:
        leader = asyncio.ensure_future(home.ask(request_))
        others = [asyncio.ensure_future(home.ask(request_, at_s=0.1)) for _ in range(3)]
        await asyncio.sleep(0.5)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert asyncio.get_running_loop().time() == 0.5
        return list(await asyncio.gather(*others))

    answers = home.play(main())
    assert len(home.far.requests) == 1
    assert [each.shared for each in answers] == [False, True, True], "the first of them tells of the call now"
    assert [len(each.attempts) for each in answers] == [1, 0, 0]
    assert answers[0].attempts[0].error is None
    assert paid(*answers) == pytest.approx(ONE_CALL_USD)


def test_who_began_leaves_early_and_whoever_listened_longest_tells_of_the_call() -> None:
    home = Home(LINE)
    leader, second, third = home.all_of(
        home.ask(STREAM, reads=1), home.ask(STREAM, at_s=0.1), home.ask(STREAM, at_s=0.2)
    )
    assert (leader.text, leader.finish_reason, leader.attempts, leader.shared) == ("one ", None, (), True)
    assert (second.text, third.text) == ("one two three", "one two three")
    assert (len(second.attempts), second.shared, third.attempts, third.shared) == (1, False, (), True)
    assert paid(leader, second, third) == pytest.approx(ONE_CALL_USD)


def test_attempts_are_told_once_where_some_ended_before_who_began_left() -> None:
    home = Home(RateLimitError("slow"), LINE)

    async def main() -> tuple[Response, Response]:
        leader = asyncio.ensure_future(home.ask(STREAM, reads=1))
        second = asyncio.ensure_future(home.ask(STREAM, at_s=0.1))
        return await leader, await second

    first, second = home.play(main())
    assert [each.error for each in first.attempts] == ["rate_limited"]
    assert [(each.number, each.error) for each in second.attempts] == [(2, None)]
    assert (first.shared, second.shared) == (False, False)
    assert paid(first, second) == pytest.approx(ONE_CALL_USD)


def test_attempts_that_one_request_tells_have_numbers_of_their_own() -> None:
    home = Home("one", "other")
    one, other = (home.all_of(home.ask(WHOLE))[0].attempts for _ in range(2))
    told = Tally()
    told.take_over(one)
    told.ended(replace(one[0], number=told.number()))
    told.take_over(other)
    assert [each.number for each in told.attempts] == [1, 2, 3]


def test_who_left_before_another_model_went_on_has_the_answer_of_the_first() -> None:
    b = ScriptedProvider((1.0, "went on"), model=model("b", price=PRICED))
    home = Home((1.0, "one ", 1.0, "two ", ProviderUnavailable("cut")), others=[b], on_break="continue")
    left, slow, whole = home.all_of(home.ask(STREAM, reads=1), home.ask(STREAM, reads=1, pause_s=9), home.ask(STREAM))
    assert {(each.text, each.model, each.degraded, each.continued_by) for each in (left, slow)} == {
        ("one ", "a", False, ())
    }
    assert (whole.text, whole.model, whole.degraded, whole.continued_by) == ("one two went on", "b", True, ("b",))


@CHATS
def test_when_all_have_left_the_call_is_closed_and_the_last_tells_what_it_cost(request_: ChatRequest) -> None:
    home = Home((1.0, "one ", 3600.0, "late"))

    async def main() -> None:
        tasks = [asyncio.ensure_future(home.ask(request_, at_s=each / 10)) for each in range(3)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
            await asyncio.wait([task])
            assert home.far.closed == (task is tasks[-1])
        assert len(home.flights) == 0

    home.play(main())


def test_the_last_to_leave_a_stream_is_told_what_was_used() -> None:
    home = Home((1.0, "one ", 3600.0, "late"))
    first, last = home.all_of(home.ask(STREAM, reads=1), home.ask(STREAM, reads=1))
    assert (first.attempts, first.shared, first.cost_usd) == ((), True, 0)
    (attempt,) = last.attempts
    assert (attempt.error, attempt.usage.estimated, last.shared) == ("cancelled", True, False)
    assert paid(first, last) == last.cost_usd == attempt.cost_usd


def test_a_new_request_does_not_join_a_call_that_is_being_closed() -> None:
    home = Home((3600.0, "late"), "again")

    async def main() -> Any:
        first = asyncio.ensure_future(home.ask(WHOLE))
        await asyncio.sleep(0.5)
        first.cancel()
        return await home.ask(WHOLE)

    assert home.play(main()).text == "again"


def test_cancelled_at_once_it_leaves_nothing() -> None:
    home = Home(LINE)

    async def main() -> None:
        task = asyncio.ensure_future(home.ask(WHOLE))
        while not len(home.flights):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    home.play(main())


@CHATS
def test_a_follower_that_runs_out_of_time_does_so_alone(request_: ChatRequest) -> None:
    home = Home((2.0, "one ", 2.0, "two"))
    leader, late, later = home.all_of(
        home.ask(request_), home.ask(request_.on(deadline=1.5)), home.ask(request_.on(deadline=3.0))
    )
    assert leader.text == "one two"
    assert isinstance(late, ProviderTimeout)
    assert late.attempts == ()
    if request_.stream:
        assert isinstance(later, StreamInterrupted)
        assert (later.partial, later.attempts) == ("one ", ())
    assert (late.model, late.provider) == ("a", "test")


def test_who_began_runs_out_of_time_and_the_others_do_not() -> None:
    home = Home((2.0, "one"))
    leader, follower = home.all_of(home.ask(WHOLE.on(deadline=1.0)), home.ask(WHOLE))
    assert isinstance(leader, ProviderTimeout)
    assert leader.attempts == ()
    assert (follower.text, len(follower.attempts)) == ("one", 1)


@CHATS
def test_alone_it_runs_out_of_time_as_if_nothing_were_shared(request_: ChatRequest) -> None:
    home = Home(*[(3600.0, "late")] * 3, timeouts=Timeouts(first_token_s=50, total_s=5))
    (error,) = home.all_of(home.ask(request_))
    assert isinstance(error, ProviderTimeout)
    assert [each.error for each in error.attempts] == ["timeout"]
    (early,) = Home((3600.0, "late")).all_of(home.ask(request_.on(deadline=1.0)))
    assert isinstance(early, ProviderTimeout)
    assert [each.error for each in early.attempts] == ["cancelled"]


@CHATS
@pytest.mark.parametrize(
    "error", [AuthenticationError("no", status=401, code="bad"), ContentFiltered("no"), ProviderUnavailable("down")]
)
def test_all_get_an_error_of_the_same_class_each_one_of_its_own(request_: ChatRequest, error: Any) -> None:
    home = Home(*[(1.0, error)] * 3)
    answers = home.all_of(*(home.ask(request_) for _ in range(3)))
    assert {type(each) for each in answers} == {type(error)}
    assert {(str(each), each.status, each.code, each.model) for each in answers} == {
        (str(error), error.status, error.code, "a")
    }
    assert len({id(each) for each in answers}) == 3
    assert [len(each.attempts) for each in answers] == [len(home.far.requests), 0, 0]


@CHATS
def test_when_all_models_failed_each_error_is_a_copy_with_all_in_it(request_: ChatRequest) -> None:
    b = ScriptedProvider(AuthenticationError("b"), model=model("b", price=PRICED))
    home = Home((1.0, AuthenticationError("a")), others=[b])
    first, second = home.all_of(home.ask(request_), home.ask(request_))
    assert isinstance(first, AllProvidersFailed)
    assert isinstance(second, AllProvidersFailed)
    assert str(first) == str(second)
    assert [str(each) for each in second.exceptions] == ["a", "b"]
    assert not set(map(id, first.exceptions)) & set(map(id, second.exceptions))
    assert (len(first.attempts), second.attempts) == (2, ())
    assert [each.attempts for each in second.exceptions] == [(), ()]
    assert len(first.exceptions[1].attempts) == 2


def test_each_is_told_of_a_break_with_what_it_was_delivered_itself() -> None:
    home = Home((1.0, "one ", 1.0, "two ", 1.0, ProviderUnavailable("cut", status=502)))
    answers = home.all_of(home.ask(STREAM), home.ask(STREAM, at_s=2.5), home.ask(STREAM.on(deadline=1.5)))
    assert {type(each) for each in answers} == {StreamInterrupted}
    assert [each.partial for each in answers] == ["one two ", "one two ", "one "]
    assert [str(each) for each in answers] == [
        "the answer broke off after 8 characters: cut",
        "the answer broke off after 8 characters: cut",
        "the answer broke off after 4 characters: past the deadline",
    ]
    assert [each.status for each in answers] == [502, 502, None]
    assert [len(each.attempts) for each in answers] == [1, 0, 0]
    causes = [each.__cause__ for each in answers]
    assert len(set(map(id, causes))) == 3


def test_a_break_that_a_provider_tells_itself_has_the_text_too() -> None:
    home = Home((1.0, "one ", StreamInterrupted("cut")))
    answers = home.all_of(home.ask(STREAM), home.ask(STREAM))
    assert [each.partial for each in answers] == ["one ", "one "]
    assert answers[0] is not answers[1]


def test_what_a_content_policy_let_through_is_told_to_each() -> None:
    home = Home((1.0, "one ", ContentFiltered("stop")))
    answers = home.all_of(home.ask(STREAM), home.ask(STREAM))
    assert [(type(each), each.partial) for each in answers] == [(ContentFiltered, "one ")] * 2
    assert answers[0] is not answers[1]


class OfItsOwnKind(Exception):
    def __init__(self, *, what: str) -> None:
        super().__init__(f"a bug in {what}")


@pytest.mark.parametrize("bug", [TypeError("a bug"), OfItsOwnKind(what="a provider")])
def test_a_bug_surfaces_at_all_of_them(bug: Exception) -> None:
    home = Home((1.0, bug))
    answers = home.all_of(home.ask(STREAM), home.ask(STREAM))
    assert {type(each) for each in answers} == {type(bug)}
    assert {str(each) for each in answers} == {str(bug)}


@CHATS
def test_a_call_that_somebody_else_cancels_is_unavailable_and_cancels_no_listener(request_: ChatRequest) -> None:
    home = Home((1.0, asyncio.CancelledError()))
    answers = home.all_of(home.ask(request_), home.ask(request_))
    assert {type(each) for each in answers} == {ProviderUnavailable}


@CHATS
def test_a_call_that_is_cancelled_before_it_began_leaves_nobody_waiting(request_: ChatRequest) -> None:
    home = Home()

    async def main() -> Any:
        asking = asyncio.ensure_future(home.ask(request_))
        while not len(home.flights):
            before = asyncio.all_tasks()
            await asyncio.sleep(0)
        (flight,) = asyncio.all_tasks() - before
        flight.cancel()
        return await asking

    assert isinstance(home.play(main()), ProviderUnavailable)


def test_money_that_is_not_there_is_missing_for_all() -> None:
    home = Home(*[(1.0, ProviderUnavailable("down"))] * 3)
    request = replace(WHOLE, max_tokens=100, limits=Limits(max_cost_usd=0.005))
    answers = home.all_of(home.ask(request), home.ask(request))
    assert {type(each) for each in answers} == {ProviderUnavailable}
    assert [len(each.attempts) for each in answers] == [1, 0]
    broke = Home((1.0, BudgetExceeded("spent")))
    first, second = broke.all_of(broke.ask(WHOLE), broke.ask(WHOLE))
    assert isinstance(first, BudgetExceeded)
    assert isinstance(second, BudgetExceeded)
    assert (len(first.attempts), second.attempts) == (1, ())


def test_money_that_one_has_not_is_not_missing_for_those_who_need_none() -> None:
    home = Home("for all others")

    async def poor() -> Any:
        with home.router.budget(calls=0):
            return await home.ask(WHOLE)

    async def both() -> Any:
        return await asyncio.gather(poor(), home.ask(WHOLE))

    refused, answered = run_virtually(both())
    assert isinstance(refused, BudgetExceeded)
    assert answered.text == "for all others"


async def test_a_task_whose_budget_is_spent_is_not_asked_for_another(tmp_path: Path) -> None:
    far = ScriptedProvider("first", (0.05, "the other's"), model=model("a", price=PRICED), usage=Usage(10, 20))
    rules = replace(policy(far.model), budgets=(Budget(scope="task", limit_usd=0.001),))
    async with Router(rules, {"a": far}, ledger=tmp_path / "ledger") as router:
        await router.complete("before", task="spent", max_tokens=20)
        refused, answered = await asyncio.gather(
            router.complete("hi", task="spent", temperature=0, max_tokens=20),
            router.complete("hi", task="other", temperature=0, max_tokens=20),
            return_exceptions=True,
        )
    assert isinstance(refused, BudgetExceeded)
    assert isinstance(answered, Response)


def test_a_listener_that_is_dropped_leaves_and_the_last_one_ends_the_call() -> None:
    home = Home((1.0, "one ", 3600.0, "late"))

    async def main() -> None:
        kept = await home.router.send(STREAM)
        dropped = await home.router.send(STREAM)
        del dropped
        gc.collect()
        await asyncio.sleep(0.1)
        assert len(home.flights) == 1
        assert home.far.closed == 0
        del kept
        gc.collect()
        await asyncio.sleep(0.1)
        assert len(home.flights) == 0
        assert home.far.closed == 1

    with pytest.warns(ResourceWarning, match="an answer of a was forgotten"):
        home.play(main())


def test_a_stream_that_is_left_without_closing_it_leaves_too() -> None:
    home = Home((1.0, "one ", 3600.0, "late"))

    async def main() -> None:
        async for _ in home.router.generate_stream("hi", temperature=0):
            break
        gc.collect()
        await asyncio.sleep(0.1)
        assert home.far.closed == 1

    home.play(main())


def test_usage_that_comes_before_the_first_content_is_told_to_all() -> None:
    early = Chunk(usage=Usage(7, 0), model="served")
    home = Home((early, 1.0, "one", Chunk(finish_reason="stop")))
    answers = home.all_of(home.ask(STREAM), home.ask(STREAM))
    assert {each.usage for each in answers} == {Usage(7, 0)}
    assert {each.response_model for each in answers} == {"served"}


def test_a_fallback_is_shared_as_it_is() -> None:
    b = ScriptedProvider((1.0, "from b"), model=model("b", price=PRICED))
    home = Home((1.0, AuthenticationError("no")), others=[b])
    first, second = home.all_of(home.ask(WHOLE), home.ask(WHOLE, at_s=0.5))
    assert (first.text, first.model, first.degraded) == (second.text, second.model, second.degraded)
    assert (second.model, second.degraded) == ("b", True)
    assert (len(first.attempts), second.attempts) == (2, ())


def test_a_policy_that_has_come_meanwhile_begins_calls_of_its_own() -> None:
    home = Home(LINE, LINE)

    async def main() -> list[Any]:
        first = asyncio.ensure_future(home.ask(WHOLE))
        await asyncio.sleep(0.5)
        home.router._succession.follow(home.router.policy, None)
        return [await home.ask(WHOLE), await first]

    assert not any(each.shared for each in home.play(main()))
    assert len(home.far.requests) == 2


def test_each_event_loop_has_calls_of_its_own() -> None:
    home = Home(*[(0.05, "hi")] * 2)
    answers: list[Any] = []

    def work() -> None:
        async def main() -> None:
            answers.extend(await asyncio.gather(home.ask(WHOLE), home.ask(WHOLE)))

        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.text for each in answers] == ["hi"] * 4
    assert sorted(each.shared for each in answers) == [False, False, True, True]
    gc.collect()
    assert len(home.flights) == len(home.flights._of) == 0


def test_a_loop_that_ends_takes_its_calls_along() -> None:
    home = Home((3600.0, "late"))

    async def main() -> None:
        asking = asyncio.ensure_future(home.ask(WHOLE))
        await asyncio.sleep(0.05)
        assert not asking.done()

    asyncio.run(main())
    assert home.far.closed == 1
    assert len(home.flights) == 0


def test_the_trace_of_a_follower_points_to_the_request_that_began(spans: Callable[[], list[ReadableSpan]]) -> None:
    home = Home(LINE)
    home.all_of(home.ask(STREAM, reads=1), home.ask(STREAM, at_s=0.5))
    told = {span.name: span for span in spans()}
    requests = [span for span in spans() if span.name == "chat test"]
    leader, follower = requests
    attempt = told["chat a"]
    assert attempt.parent is not None
    assert leader.context is not None
    assert attempt.parent.span_id == leader.context.span_id
    assert [event.name for event in follower.events] == ["policy.decide", "coalesced"]
    about = leader.attributes or {}
    assert dict(follower.events[1].attributes or {}) == {"leader": about["devsynth.call_id"]}
    assert [link.context.span_id for link in follower.links] == [leader.context.span_id]
    assert not leader.links
    costs = [(span.attributes or {})["devsynth.total.cost.usd_micros"] for span in requests]
    assert costs == [0, round(ONE_CALL_USD * 1e6)], "who stayed tells of the call"


def test_it_works_around_anything_that_answers() -> None:
    async def main() -> list[str]:
        far = ScriptedProvider((1.0, "one ", "two"))
        plan = Router(policy(far.model), {far.model.name: far}).plan("hi")
        flights = Flights()
        one, other = (Coalesced(far, plan, flights) for _ in range(2))
        return list(await asyncio.gather(one.generate("hi", temperature=0), other.generate("hi", temperature=0)))

    assert run_virtually(main()) == ["one two", "one two"]


class Watched(Wrapper):
    """Counts how many calls of a project are under way at once."""

    def __init__(self, inner: ProviderPort) -> None:
        super().__init__(inner)
        self.most: Counter[str | None] = Counter()
        self._now: Counter[str | None] = Counter()

    @override
    async def send(self, request: Request) -> Reply:
        of = request.project
        self._now[of] += 1
        self.most[of] = max(self.most[of], self._now[of])
        try:
            reply = await self.inner.send(request)
        except BaseException:
            self._now[of] -= 1
            raise
        return reply.on_finish(lambda *_: self._now.subtract([of]))


callers = st.lists(
    st.tuples(
        st.integers(0, 40),  # tenths of a second until it comes
        st.none() | st.integers(0, 40),  # until it is cancelled
        st.none() | st.integers(0, 40),  # until its deadline
        st.none() | st.integers(1, 3),  # pieces after which it leaves
        st.sampled_from([0, 0, 0.7]),  # how long it takes over each
        st.booleans(),  # of the first tenant
    ),
    min_size=1,
    max_size=8,
)
lines = st.sampled_from(
    [
        LINE,
        (1.0, "one ", 1.0, ProviderUnavailable("cut")),
        (1.0, RequestRejected("no")),
        (0.5, Chunk(usage=Usage(1, 0)), 0.5, "one "),
        ("at once",),
    ]
)


@settings(max_examples=200, deadline=None)
@given(callers, st.lists(lines, min_size=3, max_size=3))
@pytest.mark.slow
def test_whoever_comes_and_goes_all_are_told_the_truth_and_each_attempt_once(
    asks: list[tuple[int, Any, Any, Any, float, bool]], script: list[Any]
) -> None:
    home = Home(*script * 10, timeouts=Timeouts(total_s=3600, first_token_s=3600, idle_s=3600))
    watched = Watched(home.far)
    home.router = Router(home.router.policy, {"a": watched})

    async def caller(ask: tuple[int, Any, Any, Any, float, bool]) -> Any:
        comes, cancelled, deadline, reads, pause_s, first = ask
        request = replace(STREAM, project="one" if first else "two")
        if deadline is not None:
            request = request.on(deadline=(comes + deadline) / 10)
        work = asyncio.ensure_future(home.ask(request, at_s=comes / 10, reads=reads, pause_s=pause_s))
        if cancelled is not None:
            asyncio.get_running_loop().call_later((comes + cancelled) / 10, work.cancel)
        await asyncio.wait([work])
        return None if work.cancelled() else work.result()

    async def main() -> list[Any]:
        results = await asyncio.gather(*map(caller, asks))
        await asyncio.sleep(10)
        return list(results)

    results = home.play(main())
    told = [attempt for each in results if each is not None for attempt in each.attempts]
    calls = len(home.far.requests)
    assert len(told) == calls or (None in results and len(told) < calls), "cancelled ones tell nobody"
    for tenant in ("one", "two"):
        mine = [each for each in home.far.requests if each.project == tenant]
        assert len(mine) <= sum(first == (tenant == "one") for *_, first in asks)
        assert watched.most[tenant] <= 1, "what is under way is not asked again"
    wholes = {"one two three", "one ", "at once"}
    for ask, each in zip(asks, results, strict=True):
        if isinstance(each, Response):
            assert any(whole.startswith(each.text) for whole in wholes)
            assert each.finish_reason == "stop" or ask[3] is not None
            assert each.shared <= (each.usage is not None)
        elif each is not None:
            assert isinstance(each, ProviderTimeout | RequestRejected | StreamInterrupted)
            if isinstance(each, StreamInterrupted):
                assert each.partial
                assert f"after {len(each.partial)} characters" in str(each)
