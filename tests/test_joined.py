"""Texts that several callers want embedded at about the same time are one request. Time is virtual."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    FREE,
    AllProvidersFailed,
    AuthenticationError,
    BudgetExceeded,
    ChatRequest,
    Chunk,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    DevSynthError,
    EmbedRequest,
    Keep,
    Limits,
    Model,
    NotPaid,
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
    ResponseCache,
    Router,
    Rule,
    RunBudget,
    StreamInterrupted,
    Timeouts,
    Usage,
)
from devsynth_providers.analysis import estimate_tokens
from devsynth_providers.batches import OTHERS
from devsynth_providers.policy.contradictions import contradictions
from devsynth_providers.stores.sqlite_ledger import SqliteLedger
from devsynth_providers.testing import VirtualClock, run_virtually

from .helpers import model, policy

COSTLY = Price(input_usd_per_1m=1_000_000, output_usd_per_1m=0)
"""A dollar for each token: what was used is what it cost."""


def vector(text: str) -> tuple[float, ...]:
    return (float(len(text)), float(sum(map(ord, text))))


class Embedder(ProviderPort):
    """Embeds after *takes_s*, refuses any request with a bad text in it, and first fails as *failures* say."""

    def __init__(
        self,
        *failures: BaseException,
        takes_s: float = 1.0,
        refusal: Any = None,
        counts: Callable[[Sequence[str]], int] | None = None,
        **facts: Any,
    ) -> None:
        self._model = model("e", **{"price": COSTLY, "abilities": frozenset(("embeddings", "chat")), **facts})
        self._failures = list(failures)
        self._takes_s = takes_s
        self._counts = counts or (lambda texts: sum(map(len, texts)))
        self._refusal = refusal or RequestRejected("a bad text", status=400)
        self.requests: list[Request] = []
        self.under_way = 0

    @property
    @override
    def model(self) -> Model:
        return self._model

    @property
    def batches(self) -> list[tuple[str, ...]]:
        return [each.texts for each in self.requests if isinstance(each, EmbedRequest)]

    @override
    async def send(self, request: Request) -> Reply:
        self.requests.append(request)
        return await Reply.open(self.model, self._chunks(request))

    async def _chunks(self, request: Request) -> AsyncGenerator[Chunk, None]:
        self.under_way += 1
        try:
            await asyncio.sleep(self._takes_s)
            if self._failures:
                raise self._failures.pop(0)
            if "bad" in request.text:
                raise type(self._refusal)(str(self._refusal), status=self._refusal.status)
            if isinstance(request, EmbedRequest):
                used = Usage(self._counts(request.texts), 0)
                yield Chunk(vectors=tuple(map(vector, request.texts)), finish_reason="stop", usage=used)
            else:
                yield Chunk("said", finish_reason="stop", usage=Usage(1, 1))
        finally:
            self.under_way -= 1


class Home:
    """A router over one model that embeds, and all that it may leave behind."""

    def __init__(
        self, *failures: BaseException, window_s: float | None = 0.5, far: Embedder | None = None, **options: Any
    ) -> None:
        self.far = far or Embedder(*failures)
        given = {name: options.pop(name) for name in ("ledger", "cache") if name in options}
        rules = policy(self.far.model, join_embeddings_s=window_s, **options)
        self.router = Router(rules, {"e": self.far}, **given)

    async def ask(self, *texts: str, at_s: float = 0.0, deadline_s: float | None = None, **about: Any) -> Any:
        """The response, or the error."""
        await asyncio.sleep(at_s)
        request = EmbedRequest(texts=texts, **about)
        if deadline_s is not None:
            request = request.on(deadline=asyncio.get_running_loop().time() + deadline_s)
        try:
            return await self.router.complete(request)
        except DevSynthError as error:
            return error

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
            assert len(self.router._deployments.current.flights) == 0
            assert isinstance(loop, VirtualClock)
            assert loop.timers == 0
            assert self.far.under_way == 0
            return result

        return run_virtually(watched())

    def all_of(self, *asks: Coroutine[Any, Any, Any]) -> list[Any]:
        async def main() -> list[Any]:
            return list(await asyncio.gather(*asks))

        return list(self.play(main()))


def right(response: Any, *texts: str) -> bool:
    return isinstance(response, Response) and response.vectors == tuple(map(vector, texts))


class TestOneRequest:
    def test_callers_at_the_same_time_are_asked_for_together_and_each_gets_its_own_vectors(self) -> None:
        home = Home()
        one, two, three = home.all_of(home.ask("aa", "b"), home.ask("cccc", at_s=0.2), home.ask("d", "b", at_s=0.4))
        assert home.far.batches == [("aa", "b", "cccc", "d")]
        assert right(one, "aa", "b")
        assert right(two, "cccc")
        assert right(three, "d", "b")
        assert [each.latency_s for each in (one, two, three)] == pytest.approx([1.5, 1.3, 1.1])
        assert {(each.finish_reason, each.degraded, each.plan.rule) for each in (one, two, three)} == {
            ("stop", False, "all")
        }

    def test_what_it_cost_is_told_once_and_of_the_tokens_each_has_its_share(self) -> None:
        home = Home()
        answers = home.all_of(home.ask("a" * 10), home.ask("b"), home.ask("c" * 7), home.ask("d", "e"))
        (request,) = home.far.batches
        assert [each.shared for each in answers] == [False, True, True, True]
        assert [len(each.attempts) for each in answers] == [1, 0, 0, 0]
        assert [each.cost_usd for each in answers] == [sum(map(len, request)), 0, 0, 0]
        assert [each.usage.input_tokens for each in answers] == [10, 1, 7, 2]
        assert all(each.usage.estimated for each in answers)

    def test_whoever_is_alone_has_waited_and_nothing_else_is_different(self) -> None:
        home = Home()
        (alone,) = home.all_of(home.ask("a", "bb"))
        assert (alone.latency_s, alone.shared, alone.cost_usd, alone.usage) == (1.5, False, 3, Usage(3, 0))
        assert alone.attempts[0].latency_s == 1.0

    def test_one_that_comes_when_the_request_is_sent_waits_for_the_next(self) -> None:
        home = Home()
        home.all_of(home.ask("a"), home.ask("b", at_s=0.6))
        assert home.far.batches == [("a",), ("b",)]

    def test_without_a_word_of_the_rule_nobody_waits(self) -> None:
        home = Home(window_s=None)
        one, two = home.all_of(home.ask("a"), home.ask("b"))
        assert home.far.batches == [("a",), ("b",)]
        assert (one.latency_s, two.latency_s) == (1.0, 1.0)

    def test_a_window_of_nothing_joins_those_of_the_same_moment(self) -> None:
        home = Home(window_s=0)
        answers = home.all_of(*(home.ask(f"t{each}") for each in range(20)), home.ask("late", at_s=0.001))
        assert [len(each) for each in home.far.batches] == [20, 1]
        assert [each.latency_s for each in answers] == pytest.approx([1.0] * 21)

    def test_a_full_batch_goes_at_once_and_the_next_waits_by_itself(self) -> None:
        home = Home()
        texts = [f"t{each}" for each in range(OTHERS.texts + 10)]
        answers = home.all_of(*(home.ask(each) for each in texts))
        assert [len(each) for each in home.far.batches] == [OTHERS.texts, 10]
        assert [each.latency_s for each in answers] == [1.0] * OTHERS.texts + [1.5] * 10
        assert all(right(answer, text) for answer, text in zip(answers, texts, strict=True))

    def test_with_its_last_text_a_batch_goes_though_nobody_comes_after(self) -> None:
        home = Home()
        answers = home.all_of(*(home.ask(f"t{each}") for each in range(OTHERS.texts)))
        assert [each.latency_s for each in answers] == [1.0] * OTHERS.texts

    def test_who_finds_no_room_sends_those_who_wait_on_their_way(self) -> None:
        home = Home()
        many = [f"t{each}" for each in range(OTHERS.texts - 1)]
        first, second = home.all_of(home.ask("a", "b"), home.ask(*many, at_s=0.1))
        assert home.far.batches == [("a", "b"), tuple(many)]
        assert (first.latency_s, second.latency_s) == pytest.approx((1.1, 1.5))

    def test_tokens_fill_a_batch_too(self) -> None:
        home = Home(far=Embedder(context_window=20_000))
        long = "word " * 8_000
        home.all_of(*(home.ask(long + str(each)) for each in range(4)))
        assert [len(each) for each in home.far.batches] == [2, 2]

    def test_a_batch_that_needs_several_requests_waits_for_nobody(self) -> None:
        home = Home()
        texts = [f"t{each}" for each in range(OTHERS.texts + 1)]
        large, _ = home.all_of(home.ask(*texts), home.ask("small"))
        assert right(large, *texts)
        assert large.latency_s == 1.0
        assert sorted(map(len, home.far.batches)) == [1, 1, OTHERS.texts]

    def test_chats_are_left_alone(self) -> None:
        home = Home()

        async def main() -> Response:
            return await home.router.complete(ChatRequest.of("hi"))

        assert home.play(main()).latency_s == 1.0

    def test_equal_requests_share_all_of_it_and_are_one_of_the_callers(self) -> None:
        home = Home()
        answers = home.all_of(home.ask("a"), home.ask("a"), home.ask("b"))
        assert home.far.batches == [("a", "b")]
        assert sum(each.cost_usd for each in answers) == 2
        assert [each.shared for each in answers].count(False) == 1

    def test_it_is_one_of_the_callers_who_tells_where_the_first_were_equal(self) -> None:
        home = Home()
        answers = home.all_of(home.ask("b"), home.ask("a"), home.ask("a"))
        assert [(each.shared, each.cost_usd) for each in answers] == [(False, 2), (True, 0), (True, 0)]

    def test_without_sharing_of_equal_requests_each_text_is_still_asked_once(self) -> None:
        home = Home(coalesce="never")
        one, two = home.all_of(home.ask("a", "a"), home.ask("a"))
        assert home.far.batches == [("a",)]
        assert right(one, "a", "a")
        assert right(two, "a")

    def test_vectors_that_are_kept_are_not_asked_for(self, tmp_path: Path) -> None:
        far = Embedder(takes_s=0)
        kept = policy(far.model, join_embeddings_s=0.01, cache=Keep())
        home = Home(far=far)
        home.router = Router(kept, {"e": far}, cache=ResponseCache(directory=tmp_path))

        async def main() -> list[Any]:
            await home.ask("a")
            return [*await asyncio.gather(home.ask("a"), home.ask("b")), *await asyncio.gather(home.ask("a"))]

        a, b, again = asyncio.run(main())
        assert home.far.batches == [("a",), ("b",)]
        assert right(a, "a")
        assert right(b, "b")
        assert (a.cached, again.cached, again.cost_usd) == (False, True, 0)


OTHER: list[dict[str, Any]] = [
    {"project": "p"},
    {"role": "r"},
    {"task": "index"},
    {"tags": ("nightly",)},
    {"limits": Limits(max_latency_s=60)},
]


class TestWhoIsJoined:
    @pytest.mark.parametrize("other", OTHER, ids=[next(iter(each)) for each in OTHER])
    def test_what_is_not_alike_is_not_joined(self, other: dict[str, Any]) -> None:
        home = Home()
        home.all_of(home.ask("a"), home.ask("b", **other))
        assert home.far.batches == [("a",), ("b",)]

    def test_two_rules_are_two_decisions(self) -> None:
        home = Home()
        rule = home.router.policy.rules[0]
        when = replace(rule, name="marked", when=replace(rule.when, tags=("x",)))
        home.router = Router(replace(home.router.policy, rules=(when, rule)), {"e": home.far})
        home.all_of(home.ask("a"), home.ask("b", tags=("x",)))
        assert len(home.far.batches) == 2

    def test_what_code_may_spend_is_spent_by_its_own_requests_alone(self) -> None:
        home = Home()

        async def within(budget: RunBudget, text: str) -> Any:
            with budget:
                return await home.ask(text)

        async def main() -> tuple[float, float]:
            one, two = home.router.budget(usd=100), home.router.budget(usd=100)
            await asyncio.gather(within(one, "aa"), within(one, "b"), within(two, "ccccc"), home.ask("d"))
            return one.spent_usd, two.spent_usd

        assert home.play(main()) == (3, 5)
        assert home.far.batches == [("aa", "b"), ("ccccc",), ("d",)]

    def test_a_ceiling_of_its_own_is_not_shared(self) -> None:
        home = Home()
        limits = Limits(max_cost_usd=2)
        answers = home.all_of(*(home.ask(each, limits=limits) for each in ("a", "b")))
        assert [each.latency_s for each in answers] == [1.0, 1.0]
        assert home.far.batches == [("a",), ("b",)]

    def test_each_event_loop_has_batches_of_its_own(self) -> None:
        home = Home(far=Embedder(takes_s=0), window_s=0.05)
        answers: dict[str, Any] = {}

        def work(name: str) -> None:
            async def main() -> None:
                texts = [f"{name}{each}" for each in range(10)]
                found = await asyncio.gather(*map(home.ask, texts))
                answers.update(zip(texts, found, strict=True))

            asyncio.run(main())

        threads = [threading.Thread(target=work, args=(name,)) for name in "xyz"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(len(each) for each in home.far.batches) == [10, 10, 10]
        assert {len({text[0] for text in each}) for each in home.far.batches} == {1}
        assert all(right(answer, text) for text, answer in answers.items())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_forked_child_waits_for_nobody_in_its_parent(self) -> None:
        home = Home(far=Embedder(takes_s=0), window_s=0.05)

        async def main() -> None:
            waiting = asyncio.ensure_future(home.ask("of the parent"))
            await asyncio.sleep(0.01)
            if (child := os.fork()) == 0:
                asyncio.events._set_running_loop(None)
                answer = asyncio.run(home.ask("of the child"))
                os._exit(0 if right(answer, "of the child") else 1)
            assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222 - nothing else is to be done here
            assert right(await waiting, "of the parent")

        asyncio.run(main())
        assert home.far.batches == [("of the parent",)]


class TestWhoLeaves:
    def test_a_caller_that_is_cancelled_while_it_waits_is_not_asked_for(self) -> None:
        home = Home()

        async def main() -> Any:
            first = asyncio.ensure_future(home.ask("a"))
            others = [asyncio.ensure_future(home.ask(each, at_s=0.1)) for each in ("b", "c")]
            await asyncio.sleep(0.3)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            return await asyncio.gather(*others)

        b, c = home.play(main())
        assert home.far.batches == [("b", "c")]
        assert right(b, "b")
        assert right(c, "c")
        assert (b.cost_usd, c.cost_usd, b.shared, c.shared) == (2, 0, False, True)

    def test_one_that_is_cancelled_when_it_is_sent_harms_nobody_and_the_next_tells_of_it(self) -> None:
        home = Home()

        async def main() -> Any:
            first, second = (asyncio.ensure_future(home.ask(each)) for each in ("a", "b"))
            await asyncio.sleep(1)
            first.cancel()
            return await second

        second = home.play(main())
        assert right(second, "b")
        assert (second.cost_usd, len(second.attempts)) == (2, 1)

    def test_when_nobody_is_left_the_request_is_ended(self) -> None:
        home = Home(far=Embedder(takes_s=3600))

        async def main() -> None:
            asking = [asyncio.ensure_future(home.ask(each)) for each in "abc"]
            await asyncio.sleep(1)
            assert home.far.under_way == 1
            for each in asking:
                each.cancel()
            await asyncio.wait(asking)
            assert home.far.under_way == 0

        home.play(main())

    def test_when_all_are_gone_before_it_is_sent_nothing_is(self) -> None:
        home = Home()

        async def main() -> None:
            asking = [asyncio.ensure_future(home.ask(each)) for each in "abc"]
            await asyncio.sleep(0.1)
            for each in asking:
                each.cancel()
            await asyncio.wait(asking)

        home.play(main())
        assert home.far.batches == []

    def test_who_runs_out_of_time_does_so_alone_also_if_it_came_first(self) -> None:
        home = Home()
        late, other = home.all_of(home.ask("a", deadline_s=0.9), home.ask("b"))
        assert isinstance(late, ProviderTimeout)
        assert late.attempts == ()
        assert right(other, "b")
        assert len(other.attempts) == 1


class TestErrors:
    @pytest.mark.parametrize(
        "refusal",
        [
            RequestRejected("a bad text", status=400),
            ContextTooLong("a bad text", status=400),
            ContentFiltered("a bad text", status=400),
        ],
        ids=lambda each: each.kind,
    )
    def test_a_text_that_is_refused_fails_its_own_caller_alone(self, refusal: ProviderError) -> None:
        home = Home(far=Embedder(refusal=refusal))
        texts = [f"t{each}" for each in range(11)]
        texts[4] = "a bad one"
        answers = home.all_of(*map(home.ask, texts))
        for text, answer in zip(texts, answers, strict=True):
            if "bad" in text:
                assert type(answer) is type(refusal)
            else:
                assert right(answer, text)
        assert len(home.far.batches) == 1 + 2 * 4, "by halves"
        told = [attempt for each in answers for attempt in each.attempts]
        assert len(told) == len(home.far.batches), "each attempt is told once"
        for each in answers:
            if isinstance(each, Response):
                assert (each.cost_usd or 0) * 1_000_000 == sum(attempt.cost_micros or 0 for attempt in each.attempts)

    def test_of_its_own_texts_the_caller_is_told_which_it_is(self) -> None:
        home = Home()
        wrong, fine = home.all_of(home.ask("a", "b", "bad", "d"), home.ask("e"))
        assert str(wrong) == "text 3 of 4: a bad text"
        assert wrong.vectors == (vector("a"), vector("b"), None, vector("d"))
        assert {place: str(each) for place, each in wrong.failures.items()} == {2: "a bad text"}
        assert right(fine, "e")

    async def test_what_was_kept_is_told_to_whoever_asked_for_it_and_to_nobody_else(self, tmp_path: Path) -> None:
        cache, home = ResponseCache(directory=tmp_path), Home(far=Embedder(takes_s=0))
        kept = policy(home.far.model, join_embeddings_s=0.01, cache=Keep())
        home.router = Router(kept, {"e": home.far}, cache=cache)
        await asyncio.gather(home.ask("a"), home.ask("b"))
        home.far._failures = [AuthenticationError("no", status=403)]
        one, two = await asyncio.gather(home.ask("a", "c", "a"), home.ask("b", "d"))
        await cache.aclose()
        assert home.far.batches == [("a", "b"), ("c", "d")]
        assert (one.vectors, two.vectors) == ((vector("a"), None, vector("a")), (vector("b"), None))
        for told in (one, two):
            assert {place: (type(each), str(each)) for place, each in told.failures.items()} == {
                1: (AuthenticationError, "no")
            }

    def test_what_nobody_is_to_blame_for_goes_to_all_each_by_an_error_of_its_own(self) -> None:
        home = Home(*[ProviderUnavailable("down", status=503)] * 3)
        answers = home.all_of(*map(home.ask, "abc"))
        assert {(type(each), each.status) for each in answers} == {(ProviderUnavailable, 503)}
        assert len(set(map(id, answers))) == 3
        assert [len(each.attempts) for each in answers] == [len(home.far.batches), 0, 0]

    def test_what_a_retry_makes_good_is_made_good_for_all(self) -> None:
        home = Home(RateLimitError("slow"))
        one, two = home.all_of(home.ask("a"), home.ask("b"))
        assert home.far.batches == [("a", "b"), ("a", "b")]
        assert [each.error for each in one.attempts] == ["rate_limited", None]
        assert right(two, "b")

    def test_a_bug_surfaces_at_all_of_them(self) -> None:
        home = Home(TypeError("a bug"))

        async def main() -> list[Any]:
            return list(await asyncio.gather(home.ask("a"), home.ask("b"), return_exceptions=True))

        assert [type(each) for each in home.play(main())] == [TypeError, TypeError]

    def test_another_model_answers_for_all_of_them(self) -> None:
        other = Embedder(price=FREE)
        other._model = replace(other.model, name="f", model="e")
        home = Home(ProviderUnavailable("down"))
        home.router = Router(
            policy(
                home.far.model, other.model, join_embeddings_s=0.5, retry=replace(home.router.policy.retry, attempts=1)
            ),
            {"e": home.far, "f": other},
        )
        answers = home.all_of(home.ask("a"), home.ask("b"))
        assert {(each.model, each.degraded) for each in answers} == {("f", True)}
        assert [each.model for each in answers[0].attempts] == ["e", "f"]


class TestMoney:
    def test_what_can_not_be_paid_for_all_is_paid_for_those_for_whom_it_can(self) -> None:
        words = ["alpha", "beta", "gamma", "delta", "one", "two", "three", "four"]
        all_usd = estimate_tokens("\n".join(words))
        home = Home(far=Embedder(counts=len))

        async def main() -> tuple[list[Any], float]:
            with home.router.budget(usd=all_usd - 1) as budget:
                return await asyncio.gather(*map(home.ask, words)), budget.spent_usd

        answers, spent_usd = home.play(main())
        served = [each for each in answers if isinstance(each, Response)]
        assert {type(each) for each in answers if each not in served} <= {BudgetExceeded}
        assert sum(each.cost_usd or 0 for each in served) == spent_usd == len(served) >= 4
        assert len(home.far.batches) > 1, "all together could have cost too much"

    async def test_the_ledger_has_each_attempt_once_as_it_is_told(self, tmp_path: Path) -> None:
        ledger = SqliteLedger(tmp_path / "ledger.db")
        home = Home(far=Embedder(takes_s=0), window_s=0.01, ledger=ledger)
        texts = ["aa", "b", "bad", "cccc", "b"]
        answers = await asyncio.gather(*(home.ask(each, project="index") for each in texts))
        await ledger.aclose()
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
            booked = database.execute(
                "SELECT model, state, cost_micros, input_tokens, coalesce(error, ''), project FROM entries"
            ).fetchall()
        told = [
            (each.model, "settled", each.cost_micros, each.usage.input_tokens, each.error or "", "index")
            for answer in answers
            for each in answer.attempts
        ]
        assert sorted(booked) == sorted(told)
        assert len(told) == len(home.far.batches) > 1
        cost = sum(each.cost_usd or 0 for each in answers if isinstance(each, Response))
        assert cost * 1_000_000 == sum(row[2] for row in booked) > 0


def test_the_trace_tells_who_waited_for_whom(spans: Callable[[], list[ReadableSpan]]) -> None:
    home = Home()
    home.all_of(home.ask("a"), home.ask("b", at_s=0.1))
    requests = [each for each in spans() if each.name == "embeddings test"]
    (attempt,) = [each for each in spans() if each.name == "embeddings e"]
    leader, other = sorted(requests, key=lambda each: each.start_time or 0)
    assert leader.context is not None
    assert attempt.parent is not None
    assert attempt.parent.span_id == leader.context.span_id
    events = {each.name: dict(each.attributes or {}) for each in leader.events}
    assert events["batch.joined"] == {"requests": 2, "texts": 2}
    about = leader.attributes or {}
    assert [(each.name, dict(each.attributes or {})) for each in other.events][1:] == [
        ("joined", {"leader": about["devsynth.call_id"]})
    ]
    assert [link.context.span_id for link in other.links] == [leader.context.span_id]
    assert [(each.attributes or {})["devsynth.total.cost.usd_micros"] for each in (leader, other)] == [2_000_000, 0]


@pytest.mark.parametrize("wrong", [-0.1, 1.5, True, float("nan")])
def test_a_window_has_bounds(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="join_embeddings_s is a number of seconds from 0 to 1"):
        Rule(name="x", models=("m",), join_embeddings_s=wrong)


def test_a_rule_that_joins_nothing_for_its_ceiling_is_told() -> None:
    told = contradictions(policy(model(), join_embeddings_s=0.01, max_cost_usd=1.0))
    assert [(each.path, each.warning, each.message) for each in told] == [
        (
            ("rules", 0, "join_embeddings_s"),
            True,
            "rule 'all' joins no embeddings: each request has a ceiling of cost of its own",
        )
    ]


callers = st.lists(
    st.tuples(
        st.integers(0, 30),  # tenths of a second until it comes
        st.none() | st.integers(0, 40),  # until it is cancelled
        st.none() | st.integers(0, 40),  # until its deadline
        st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "bad"]), min_size=1, max_size=4),
        st.booleans(),  # of the first tenant
    ),
    min_size=1,
    max_size=10,
)
failures = st.lists(st.sampled_from(["down", "slow", "late"]), max_size=2)


@settings(max_examples=100, deadline=None)
@given(callers, failures, st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from(["auto", "never"]))
@pytest.mark.slow
def test_whoever_comes_and_goes_all_get_their_vectors_and_each_attempt_is_told_once(
    asks: list[tuple[int, Any, Any, list[str], bool]], fails: list[str], window_s: float, coalesce: Any
) -> None:
    errors = {"down": ProviderUnavailable("down"), "slow": RateLimitError("slow"), "late": ProviderTimeout("late")}
    home = Home(
        *(errors[each] for each in fails),
        window_s=window_s,
        coalesce=coalesce,
        timeouts=Timeouts(total_s=3600, first_token_s=3600, idle_s=3600),
    )

    async def caller(ask: tuple[int, Any, Any, list[str], bool]) -> Any:
        comes, cancelled, deadline, texts, first = ask
        deadline_s = None if deadline is None else deadline / 10
        asking = home.ask(*texts, at_s=comes / 10, deadline_s=deadline_s, project="one" if first else "two")
        work = asyncio.ensure_future(asking)
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
    assert len(told) == len(home.far.requests) or (None in results and len(told) < len(home.far.requests))
    for ask, each in zip(asks, results, strict=True):
        texts = ask[3]
        if isinstance(each, Response):
            assert right(each, *texts)
            assert each.shared == (not each.attempts)
            assert (each.cost_usd or 0) * 1_000_000 == sum(attempt.cost_micros or 0 for attempt in each.attempts)
        elif each is not None:
            assert isinstance(each, ProviderError | NotPaid)
            fit = isinstance(each, ProviderTimeout | ProviderUnavailable | RateLimitError | AllProvidersFailed)
            fit |= isinstance(each, StreamInterrupted) and ask[2] is not None  # it came at the moment of the deadline
            assert fit or "bad" in texts, "what one text is to blame for fails nobody else"
    for request in home.far.requests:
        assert isinstance(request, EmbedRequest)
        tenants = {ask[4] for ask in asks if set(ask[3]) & set(request.texts)}
        assert (request.project == "one") in tenants
