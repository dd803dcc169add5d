"""Large batches: asked for in parts, of which only what failed is asked again. Time is virtual."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import pickle
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
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
    CircuitOpen,
    ContentFiltered,
    ContextTooLong,
    DevSynthError,
    EmbedRequest,
    Hedge,
    Limits,
    MalformedResponse,
    Model,
    OpenAIProvider,
    ProviderError,
    ProviderPort,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimitError,
    Reply,
    Request,
    RequestRejected,
    Router,
    Timeouts,
    Usage,
    stack,
)
from devsynth_providers.analysis import estimate_tokens
from devsynth_providers.batches import OPENAI, OTHERS, Capacity
from devsynth_providers.cli.leaving import failure as failure_as_json
from devsynth_providers.layers.splitting import AT_ONCE, Splitting
from devsynth_providers.stores.ledger_reader import read_ledger
from devsynth_providers.testing import ScriptedProvider, run_virtually
from devsynth_providers.types import Vector

from .helpers import NO_WAIT, PRICED, model, policy
from .loopback import Answer, Loopback, failure, vectors

Fails = Callable[[Sequence[str], int], ProviderError | None]


class Embedder(ProviderPort):
    """Makes a vector of each text in a second; of what *fails* says, by the texts and how often they were asked before,
    it makes that error."""

    def __init__(
        self,
        fails: Fails = lambda texts, before: None,
        *,
        of: Model | None = None,
        size: int = 2,
        takes_s: float = 1.0,
    ) -> None:
        self._model = of or model("a", price=PRICED)
        self._fails = fails
        self._size = size
        self._takes_s = takes_s
        self._before: Counter[tuple[str, ...]] = Counter()
        self.requests: list[EmbedRequest] = []
        self.embedded: Counter[str] = Counter()
        self.under_way = self.most = self.tokens = 0

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        assert isinstance(request, EmbedRequest)
        texts = request.texts
        self.requests.append(request)
        before, self._before[texts] = self._before[texts], self._before[texts] + 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self._takes_s)
        finally:
            self.under_way -= 1
        if (error := self._fails(texts, before)) is not None:
            raise error
        self.embedded.update(texts)
        self.tokens += estimate_tokens(request.text)
        return await Reply.open(self._model, self._chunks(texts))

    async def _chunks(self, texts: Sequence[str]) -> Any:
        rows = tuple(vector(text)[: self._size] for text in texts)
        yield Chunk(
            vectors=rows, finish_reason="stop", usage=Usage(estimate_tokens("\n".join(texts)), 0), model="served"
        )

    @property
    def sizes(self) -> list[int]:
        return [len(request.texts) for request in self.requests]


def vector(text: str) -> Vector:
    return (float(text.partition(" ")[0]), float(len(text)), 1.0)


def batch(texts: int) -> EmbedRequest:
    return EmbedRequest(texts=tuple(f"{number} text" for number in range(texts)))


def rows(request: EmbedRequest) -> tuple[Vector, ...]:
    return tuple(vector(text)[:2] for text in request.texts)


def home(*far: Embedder, ledger: Any = None, budgets: tuple[Budget, ...] = (), **rule: Any) -> Router:
    by = replace(policy(*(each.model for each in far), **rule), budgets=budgets)
    return Router(by, {each.model.name: each for each in far}, ledger=ledger)


def covers(error: DevSynthError, request: EmbedRequest, far: Embedder) -> None:
    """Each text has a vector, or a failure; and it has a vector if one was paid."""
    vectors = error.vectors or (None,) * len(request.texts)
    expected = rows(request)
    assert [place for place, row in enumerate(vectors) if row is None] == sorted(error.failures)
    assert all(row in (None, expected[place]) for place, row in enumerate(vectors))
    assert far.embedded == Counter(text for text, row in zip(request.texts, vectors, strict=True) if row is not None)


def ask(request: Request, *far: Embedder, **rule: Any) -> Any:
    """The response, or the error; and how long it took. Nothing is left behind."""

    async def main() -> Any:
        try:
            result: Any = await home(*far, **rule).complete(request)
        except DevSynthError as error:
            result = error
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not any(each.under_way for each in far)
        return result, asyncio.get_running_loop().time()

    return run_virtually(main())


async def test_what_fits_into_one_request_passes_as_it_is() -> None:
    far = ScriptedProvider("x", "x", "x")
    layer = Splitting(far)
    for whole in (batch(OTHERS.texts), ChatRequest.of("hi"), EmbedRequest(texts=("long " * 100_000,))):
        request = whole.on(id="1")
        await layer.complete(request)
        assert far.requests[-1] is request


def test_a_large_batch_is_asked_for_in_parts_and_answered_as_one() -> None:
    far, request = Embedder(), batch(300)
    response, took_s = ask(request, far)
    assert response.vectors == rows(request)
    assert far.sizes == [96, 96, 96, 12]
    assert [each for part in far.requests for each in part.texts] == list(request.texts)
    assert far.most == AT_ONCE
    assert took_s == 1.0
    assert response.usage == Usage(far.tokens, 0)
    assert response.cost_usd == pytest.approx(far.tokens * 10e-6)
    assert [each.number for each in response.attempts] == [1, 2, 3, 4]
    assert (response.model, response.response_model, response.finish_reason) == ("a", "served", "stop")
    assert (response.degraded, response.shared) == (False, False)
    assert response.latency_s == 1.0


def test_no_more_than_a_few_parts_are_under_way_at_once() -> None:
    far = Embedder()
    _, took_s = ask(batch(96 * 9), far)
    assert (far.most, took_s) == (AT_ONCE, 3.0)


def test_parts_hold_no_more_tokens_than_one_request_may() -> None:
    far = Embedder(of=model("a", context_window=None))
    request = EmbedRequest(texts=tuple(f"{number} {'word ' * (1500 * number)}" for number in range(20)))
    response, _ = ask(request, far)
    assert response.vectors == rows(request)
    assert 1 < len(far.requests) < 20
    assert estimate_tokens(request.texts[-1]) > OTHERS.tokens, "it is for whoever embeds to say that it is too long"
    for part in far.requests:
        assert sum(map(estimate_tokens, part.texts)) <= OTHERS.tokens or len(part.texts) == 1


def test_how_much_a_request_holds_depends_on_who_is_asked() -> None:
    theirs, own = "https://api.openai.com/v1", "http://gpu1:8000/v1"
    assert Capacity.of([model(provider="openai")]) == OPENAI == (2048, 300_000)
    assert Capacity.of([model(provider="openai", base_url=theirs)]) == OPENAI
    assert Capacity.of([model(provider="openai", base_url=own)]) == OTHERS == (96, 20_000)
    assert Capacity.of([model(provider="openai"), model(provider="lmstudio")]) == OTHERS


def test_five_thousand_texts_are_three_requests_to_openai_and_no_window_is_too_small_for_them() -> None:
    far = Embedder(of=model("a", provider="openai", context_window=100))
    response, _ = ask(batch(5000), far)
    assert far.sizes == [2048, 2048, 904]
    assert response.vectors == rows(batch(5000))


def test_a_part_that_failed_is_asked_again_alone() -> None:
    far = Embedder(lambda texts, before: RateLimitError("slow") if "100 text" in texts and before < 2 else None)
    response, _ = ask(batch(300), far)
    assert response.vectors == rows(batch(300))
    assert sorted(far.sizes) == [12, 96, 96, 96, 96, 96]
    assert set(far.embedded.values()) == {1}, "each text is paid for once"
    assert [each.error for each in response.attempts].count("rate_limited") == 2
    assert response.cost_usd == pytest.approx(far.tokens * 10e-6)


def test_a_part_that_failed_passes_on_alone_within_the_vector_space() -> None:
    a = Embedder(lambda texts, _: AuthenticationError("no", status=403) if "0 text" in texts else None)
    b = Embedder(of=model("b", model="a"))
    response, _ = ask(batch(300), a, b)
    assert response.vectors == rows(batch(300))
    assert (a.embedded | b.embedded).total() == 300
    assert b.sizes == [96]
    assert (response.model, response.degraded) == ("b", True)


@pytest.mark.parametrize(
    "error",
    [
        lambda: ContextTooLong("too long", status=413),
        lambda: RequestRejected("too many inputs", status=400),
        lambda: RequestRejected("batch size 96 > maximum allowed batch size 32", status=422),
    ],
)
@pytest.mark.parametrize("texts", [2, 50, 300])
def test_a_part_that_is_too_large_is_halved_until_it_is_taken(error: Callable[[], ProviderError], texts: int) -> None:
    far = Embedder(lambda asked, _: error() if len(asked) > 10 else None)
    response, _ = ask(batch(texts), far)
    assert response.vectors == rows(batch(texts))
    assert set(far.embedded.values()) == {1}
    assert far.most <= AT_ONCE
    assert len(response.attempts) == len(far.requests)


@pytest.mark.parametrize(("texts", "wrong"), [(300, 136), (2, 0), (7, 6), (1000, 999)])
def test_of_a_text_that_is_to_blame_the_error_says_which_and_not_what_it_says(texts: int, wrong: int) -> None:
    said = f"{wrong} text"
    far = Embedder(lambda asked, _: RequestRejected("not like this", status=400, code="bad") if said in asked else None)
    error, _ = ask(batch(texts), far)
    assert type(error) is RequestRejected
    assert str(error) == f"text {wrong + 1} of {texts}: not like this"
    assert (error.status, error.code, error.model) == (400, "bad", "a")
    assert len(error.attempts) == len(far.requests)
    assert max(Counter(far.embedded).values(), default=1) == 1
    assert far.sizes.count(1) <= 3


@pytest.mark.parametrize(
    "no", [RequestRejected("no", status=400), ContentFiltered("no"), ContextTooLong("no", status=413)]
)
@pytest.mark.parametrize(("texts", "wrong"), [(300, (5, 6, 250)), (2, (1,)), (50, (0, 49)), (3, (0, 1, 2))])
def test_a_text_that_is_refused_keeps_no_other_from_its_vector(
    no: ProviderError, texts: int, wrong: Sequence[int]
) -> None:
    said = {f"{each} text" for each in wrong}
    far = Embedder(lambda asked, _: copy.copy(no) if said & set(asked) else None)
    error, _ = ask(batch(texts), far)
    assert (type(error), str(error)) == (type(no), f"text {wrong[0] + 1} of {texts}: no")
    assert {place: (type(each), str(each)) for place, each in error.failures.items()} == {
        place: (type(no), "no") for place in wrong
    }
    expected = [None if place in wrong else row for place, row in enumerate(rows(batch(texts)))]
    assert error.vectors == (tuple(expected) if any(expected) else ())
    assert set(far.embedded.values()) <= {1}
    assert sorted(each.number for each in error.attempts) == list(range(1, len(far.requests) + 1))
    assert not any(getattr(each, "attempts", ()) for each in error.failures.values())


def test_texts_that_are_refused_at_the_beginning_end_nothing() -> None:
    far = Embedder(lambda asked, _: ContextTooLong("no") if any(int(text.split()[0]) < 40 for text in asked) else None)
    error, _ = ask(batch(90), far)
    assert error.vectors == (*[None] * 40, *rows(batch(90))[40:])
    assert list(error.failures) == list(range(40))


@pytest.mark.parametrize("texts", [96, 96 * 200])
def test_who_refuses_every_text_is_not_asked_for_each_of_them(texts: int) -> None:
    far = Embedder(lambda *_: RequestRejected("no", status=400))
    error, _ = ask(batch(texts), far)
    assert str(error).endswith(f" of {texts}: no")
    assert len(far.requests) < 200
    assert error.vectors == ()
    assert len(error.failures) == texts
    assert {str(each) for each in error.failures.values()} == {"no"}


def test_of_a_single_text_the_error_is_as_it_was() -> None:
    far = Embedder(lambda *_: RequestRejected("no", status=400))
    error, _ = ask(batch(1), far)
    assert str(error) == "no"


@pytest.mark.parametrize("error", [RequestRejected("no embeddings"), RequestRejected("no", status=405)])
def test_what_no_half_would_get_is_not_halved(error: ProviderError) -> None:
    far = Embedder(lambda *_: error)
    told, _ = ask(batch(50), far)
    assert str(told) == str(error)
    assert far.sizes == [50]


def test_a_text_that_is_too_long_for_all_models_is_named_too() -> None:
    def too_long(texts: Sequence[str], _: int) -> ProviderError | None:
        return ContextTooLong("too long") if "7 text" in texts else None

    a = Embedder(too_long, of=model("a", context_window=None))
    b = Embedder(too_long, of=model("b", model="a", context_window=None))
    error, _ = ask(batch(20), a, b)
    assert isinstance(error, AllProvidersFailed)
    assert str(error).startswith("text 8 of 20: All providers failed. Last error: too long")
    assert len(error.attempts) == len(a.requests) + len(b.requests)


def test_a_part_that_has_failed_for_good_lets_no_other_begin_and_those_under_way_end() -> None:
    def fails(texts: Sequence[str], _: int) -> ProviderError | None:
        return AuthenticationError("no", status=403) if "100 text" in texts else None

    far = Embedder(fails)
    error, took_s = ask(batch(96 * 20), far)
    assert (type(error), str(error)) == (AuthenticationError, "no")
    assert took_s <= 2.0
    assert AT_ONCE <= len(far.requests) <= 2 * AT_ONCE
    assert len(error.attempts) == len(far.requests)
    assert {text for text, row in zip(batch(96 * 20).texts, error.vectors, strict=True) if row} == set(far.embedded)
    assert {place: str(each) for place, each in error.failures.items()} == {
        place: "no" for place, row in enumerate(error.vectors) if row is None
    }
    assert len(error.failures) == 96 * 20 - far.embedded.total()


def test_parts_under_way_are_let_end_and_no_other_is_begun() -> None:
    class Failing(Embedder):
        @override
        async def send(self, request: Request) -> Reply:
            if "300 text" in request.text.split("\n"):
                raise AuthenticationError("no", status=403)
            return await super().send(request)

    far, request = Failing(), batch(96 * 20)
    error, took_s = ask(request, far)
    assert (type(error), took_s) == (AuthenticationError, 1.0)
    assert far.sizes == [96] * (AT_ONCE - 1)
    assert error.vectors == (*rows(request)[: 96 * 3], *[None] * (96 * 17))
    covers(error, request, far)


def test_what_ends_a_batch_is_told_before_what_was_refused() -> None:
    def fails(texts: Sequence[str], _: int) -> ProviderError | None:
        if "0 text" in texts:
            return RequestRejected("not this", status=400)
        return AuthenticationError("nothing more", status=403) if "4999 text" in texts else None

    error, _ = ask(batch(5000), Embedder(fails))
    assert str(error) == "nothing more"
    assert str(error.failures[0]) == "not this"
    assert str(error.failures[4999]) == "nothing more"
    assert sum(row is not None for row in error.vectors) + len(error.failures) == 5000


def test_a_batch_of_one_part_that_failed_has_a_failure_for_each_text_and_no_vectors() -> None:
    error, _ = ask(batch(3), Embedder(lambda *_: AuthenticationError("no", status=403)))
    assert error.vectors == ()
    assert [(place, str(each), each is error) for place, each in error.failures.items()] == [
        (0, "no", False),
        (1, "no", False),
        (2, "no", False),
    ]
    error, _ = ask(batch(1), Embedder(lambda *_: AuthenticationError("no", status=403)))
    assert error.vectors == ()
    assert [(place, str(each), each is error) for place, each in error.failures.items()] == [(0, "no", False)]


def test_a_bug_ends_all_at_once_and_is_raised_as_it_is() -> None:
    def fails(texts: Sequence[str], _: int) -> None:
        if "0 text" in texts:
            raise ZeroDivisionError("mine")

    far = Embedder(fails)
    with pytest.raises(ZeroDivisionError, match="mine"):
        ask(batch(1000), far)
    assert far.under_way == 0
    assert len(far.requests) <= 2 * AT_ONCE


def test_a_bug_in_a_part_that_began_later_waits_for_none_that_began_before() -> None:
    class Slow(Embedder):
        @override
        async def send(self, request: Request) -> Reply:
            await asyncio.sleep(3600 if "0 text" in request.text.split("\n") else 0)
            return await super().send(request)

    def fails(texts: Sequence[str], _: int) -> None:
        if "800 text" in texts:
            raise ZeroDivisionError("mine")

    async def main() -> float:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await Splitting(Slow(fails)).complete(batch(96 * 9))
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) == 3.0


def test_an_error_that_somebody_raises_again_and_again_is_told_by_each_batch_for_itself() -> None:
    no = RequestRejected("no", status=400)
    first, _ = ask(batch(9), Embedder(lambda asked, _: no if "3 text" in asked else None))
    second, _ = ask(batch(100), Embedder(lambda asked, _: no if "98 text" in asked else None))
    assert (str(first), list(first.failures), len(first.vectors)) == ("text 4 of 9: no", [3], 9)
    assert (str(second), list(second.failures), len(second.vectors)) == ("text 99 of 100: no", [98], 100)


def test_vectors_of_different_dimensions_are_no_answer() -> None:
    a = Embedder(lambda texts, _: AuthenticationError("no", status=403) if "0 text" in texts else None)
    b = Embedder(of=model("b", model="a"), size=3)
    error, _ = ask(batch(300), a, b)
    assert isinstance(error, MalformedResponse)
    assert str(error) == "the parts of a batch do not fit: 300 vectors for 300 texts, of dimensions [2, 3]"
    assert len(error.attempts) == 5
    assert {len(row) for row in error.vectors if row} == {2 if a.embedded.total() > 150 else 3}
    assert sum(row is not None for row in error.vectors) + len(error.failures) == 300
    assert set(map(str, error.failures.values())) == {str(error)}


def test_a_part_that_somebody_else_cancels_is_no_answer_either() -> None:
    def cancels(texts: Sequence[str], _: int) -> None:
        if "0 text" in texts:
            raise asyncio.CancelledError

    far = Embedder(cancels)
    error, _ = ask(batch(300), far)
    assert isinstance(error, MalformedResponse)
    assert error.vectors == (*[None] * 96, *rows(batch(300))[96:])
    assert list(error.failures) == list(range(96))


def test_the_ceiling_holds_over_all_parts_together() -> None:
    texts, worst = batch(300).texts, estimate_tokens(batch(300).text) * 10e-6
    request = EmbedRequest(texts=texts, limits=Limits(max_cost_usd=worst + 1e-5))
    response, _ = ask(request, Embedder())
    assert response.vectors == rows(request)
    far = Embedder(lambda asked, before: ProviderUnavailable("down") if "0 text" in asked and before == 0 else None)
    error, _ = ask(request, far)
    assert isinstance(error, ProviderUnavailable), "to ask again could not be paid"
    assert len(far.requests) == len(error.attempts) == 4
    assert sum(each.worst_micros or 0 for each in error.attempts) <= (worst + 1e-5) * 1e6


def worst_usd(parts: int) -> float:
    """Of so many parts of 96 texts, and a little more."""
    return estimate_tokens(EmbedRequest(texts=batch(96 * parts).texts).text) * 10e-6 + 1e-4


class TestWhatEndsABatch:
    def test_where_a_budget_in_code_ends_in_the_midst_of_it_what_was_paid_is_there(self) -> None:
        far, request = Embedder(), batch(96 * 9)

        async def main() -> tuple[Any, float]:
            router = home(far)
            with router.budget(usd=worst_usd(6)) as budget, pytest.raises(BudgetExceeded) as raised:
                await router.complete(request)
            return raised.value, budget.spent_usd

        error, spent_usd = run_virtually(main())
        assert (error.account, error.limit_usd) == ("run", pytest.approx(worst_usd(6), abs=1e-6))
        assert 4 * 96 <= len(far.embedded) < 9 * 96
        covers(error, request, far)
        assert {type(each) for each in error.failures.values()} == {BudgetExceeded}
        assert sum(each.cost_usd or 0 for each in error.attempts) == pytest.approx(spent_usd)
        assert spent_usd <= worst_usd(6)

    async def test_so_it_is_where_a_budget_of_the_policy_ends_and_the_ledger_agrees(self, tmp_path: Path) -> None:
        far, request = Embedder(takes_s=0), batch(96 * 9)
        budgets = (Budget(scope="project", limit_usd=worst_usd(6)),)
        async with home(far, ledger=tmp_path / "ledger.db", budgets=budgets) as router:
            with pytest.raises(BudgetExceeded) as raised:
                await router.complete(replace(request, project="index"))
        error = raised.value
        assert error.account == "project:index"
        assert error.resets_at is not None
        assert 0 < len(far.embedded) < 9 * 96
        covers(error, request, far)
        with read_ledger(tmp_path / "ledger.db") as ledger:
            entries, total = list(ledger.entries()), ledger.total()
        assert [each["attempt"] for each in entries] == sorted(each.number for each in error.attempts)
        assert total.cost_micros == sum(each.cost_micros or 0 for each in error.attempts) > 0

    def test_where_time_ends_what_came_by_then_is_there(self) -> None:
        far, request = Embedder(), batch(96 * 9)
        error, took_s = ask(request, far, timeouts=Timeouts(total_s=2.5))
        assert (type(error), took_s) == (ProviderTimeout, 2.5)
        covers(error, request, far)
        assert list(error.failures) == list(range(96 * 8, 96 * 9))

    async def test_without_an_event_loop_the_error_is_the_same_one(self) -> None:
        far, request = (
            Embedder(lambda asked, _: ContentFiltered("no") if "3 text" in asked else None, takes_s=0),
            batch(9),
        )
        with home(far).sync as router, pytest.raises(ContentFiltered, match=r"^text 4 of 9: no$") as raised:
            router.embed_batch(request.texts)
        covers(raised.value, request, far)
        assert list(raised.value.failures) == [3]

    @pytest.mark.parametrize("shared", [{}, {"coalesce": "never", "join_embeddings_s": 0.0}])
    def test_so_it_is_where_less_time_was_left_than_the_policy_gives(self, shared: dict[str, Any]) -> None:
        far, request = Embedder(), batch(90)
        far._fails = lambda asked, _: ContextTooLong("no", status=413) if len(asked) > 10 else None
        error, took_s = ask(request.on(deadline=5.5), far, **shared)
        assert (type(error), took_s) == (ProviderTimeout, 5.5)
        covers(error, request, far)
        assert 0 < far.embedded.total() < 90

    @pytest.mark.parametrize("shared", [{}, {"coalesce": "never", "join_embeddings_s": 0.0}])
    def test_vectors_are_an_answer_though_what_they_came_by_has_not_ended_in_time(self, shared: dict[str, Any]) -> None:
        class Clinging(Embedder):
            @override
            async def send(self, request: Request) -> Reply:
                try:
                    await asyncio.sleep(3600)
                finally:
                    await asyncio.sleep(2)
                raise AssertionError("it was cancelled")

        far = Embedder(of=model("b", model="a", price=PRICED))
        response, _ = ask(batch(9).on(deadline=3.0), Clinging(), far, hedge=Hedge(after=1.0, max_extra=1.0), **shared)
        assert response.vectors == rows(batch(9))
        assert (response.model, len(response.attempts)) == ("b", 2)


class OpensAtOnce(Embedder):
    """The part that holds text 200 fails at once, so many times that its circuit opens: others are under way."""

    def __init__(self, times: int = 5) -> None:
        super().__init__()
        self._times = times

    @override
    async def send(self, request: Request) -> Reply:
        if self._times and "200 text" in request.text.split("\n"):
            self._times -= 1
            raise ProviderUnavailable("down")
        return await super().send(request)


class TestACircuitThatOpensInTheMidstOfIt:
    """The part that holds text 200 fails, five times or for ever; those before it have come by then."""

    def fails(self, times: int) -> Embedder:
        return Embedder(
            lambda asked, before: ProviderUnavailable("down") if "200 text" in asked and before < times else None
        )

    def test_after_the_wait_only_what_is_lacking_is_asked_for(self) -> None:
        far = self.fails(5)
        response, took_s = ask(batch(300), far, retry=replace(NO_WAIT, attempts=9))
        assert response.vectors == rows(batch(300))
        assert set(far.embedded.values()) == {1}
        assert sorted(far.sizes) == [12, *[96] * 8]
        assert response.usage == Usage(far.tokens, 0)
        assert len(response.attempts) == len(far.requests)
        assert response.cost_usd == pytest.approx(sum(each.cost_usd or 0 for each in response.attempts))
        assert not response.cached
        assert took_s > 6

    @pytest.mark.parametrize("total_s", [6, 60])
    def test_where_nobody_comes_back_what_came_before_is_there(self, total_s: float) -> None:
        far = self.fails(1000)
        error, _ = ask(batch(300), far, retry=replace(NO_WAIT, attempts=9), timeouts=Timeouts(total_s=total_s))
        assert type(error) is (CircuitOpen if total_s == 6 else ProviderUnavailable)
        covers(error, batch(300), far)
        assert list(error.failures) == list(range(192, 288))
        assert len(error.attempts) == len(far.requests)

    def test_of_the_parts_that_are_lacking_one_finds_out_whether_the_server_is_well_and_the_others_follow(self) -> None:
        far, request = OpensAtOnce(), batch(96 * 30)
        response, took_s = ask(request, far, retry=replace(NO_WAIT, attempts=9))
        assert response.vectors == rows(request)
        assert far.embedded == Counter(request.texts)
        assert response.usage == Usage(far.tokens, 0)
        assert len(response.attempts) == 5 + 30
        assert far.most == AT_ONCE
        assert 9 < took_s < 11

    def test_where_it_finds_out_that_it_is_not_no_other_is_asked_for(self) -> None:
        far, request = OpensAtOnce(times=1000), batch(96 * 30)
        error, _ = ask(request, far, retry=replace(NO_WAIT, attempts=9))
        assert isinstance(error, ProviderUnavailable)
        covers(error, request, far)
        assert far.embedded.total() <= 96 * 4
        assert far.under_way == 0

    @pytest.mark.parametrize("total_s", [6, 7.5, 9])
    def test_where_time_ends_after_a_wait_what_came_by_then_is_there(self, total_s: float) -> None:
        """The call that equal requests share begins after the wait, and would have had more time."""
        far, request = OpensAtOnce(), batch(96 * 30)
        error, took_s = ask(request, far, retry=replace(NO_WAIT, attempts=9), timeouts=Timeouts(total_s=total_s))
        assert (type(error), took_s) == (ProviderTimeout, total_s)
        covers(error, request, far)
        assert 96 * 3 < far.embedded.total() < 96 * 30

    def test_equal_batches_at_the_same_time_wait_and_pay_together(self) -> None:
        far = self.fails(5)

        async def main() -> Any:
            router = home(far, retry=replace(NO_WAIT, attempts=9))
            return await asyncio.gather(*(router.complete(batch(300)) for _ in range(3)))

        assert [each.vectors for each in run_virtually(main())] == [rows(batch(300))] * 3
        assert set(far.embedded.values()) == {1}


class TestWhatAnErrorHolds:
    def error(self) -> DevSynthError:
        """Of a batch of which all came but one text, which two models refused."""
        b = Embedder(lambda asked, _: ContextTooLong("no") if "3 text" in asked else None, of=model("b", model="a"))
        a = Embedder(lambda asked, _: ContextTooLong("no") if "3 text" in asked else None)
        told, _ = ask(batch(100), a, b)
        assert isinstance(told, AllProvidersFailed)
        return told

    def test_of_a_part_no_model_tells(self) -> None:
        error = self.error()
        assert isinstance(error, AllProvidersFailed)
        for each in (*error.exceptions, *error.failures.values()):
            assert (each.vectors, dict(each.failures)) == ((), {})

    def test_no_failure_holds_frames(self) -> None:
        (failure,) = self.error().failures.values()
        assert isinstance(failure, AllProvidersFailed)
        for each in (failure, *failure.exceptions):
            assert (each.__traceback__, each.__cause__, each.__context__) == (None, None, None)

    def test_it_can_be_pickled_and_copied(self) -> None:
        error = self.error()
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert again.vectors == error.vectors
            assert {place: repr(each) for place, each in again.failures.items()} == {
                place: repr(each) for place, each in error.failures.items()
            }

    def test_vectors_are_neither_in_its_text_nor_in_traces_and_logs(
        self, spans: Callable[[], list[ReadableSpan]], caplog: pytest.LogCaptureFixture
    ) -> None:
        error = self.error()
        assert error.vectors[42] == vector("42 text")[:2] == (42.0, 7.0)
        logging.getLogger("x").error("failed: %r", error, exc_info=error)
        traces = [each.to_json() for each in spans()]
        assert traces
        assert "42.0" not in f"{error} {error!r} {caplog.text} {json.dumps(failure_as_json(error))} {traces}"

    @pytest.mark.parametrize("status", [400, 405])
    @pytest.mark.parametrize("layer", [Splitting, home])
    def test_nobody_else_holds_it(self, layer: Callable[[Embedder], ProviderPort], status: int) -> None:
        """A batch is large: it is to end without the garbage collector."""

        async def main() -> Any:
            try:
                await layer(far).complete(batch(100))
            except DevSynthError as error:
                return weakref.ref(error)

        class Refusing(Embedder):
            @override
            async def send(self, request: Request) -> Reply:
                if "3 text" in request.text.split("\n"):
                    raise RequestRejected("no", status=status)
                return await super().send(request)

        far = Refusing()
        gc.disable()
        try:
            assert run_virtually(main())() is None
        finally:
            gc.enable()


async def test_cancelling_it_cancels_all_parts() -> None:
    far = Embedder()
    task = asyncio.ensure_future(home(far).complete(batch(1000)))
    while far.under_way < AT_ONCE:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert far.under_way == 0
    assert len(far.requests) == AT_ONCE


def test_a_batch_that_failed_leaves_no_trace_in_the_task_that_asked_for_it() -> None:
    """Else the caller's own ``asyncio.timeout`` would end in a ``CancelledError``."""
    far = Embedder(lambda *_: AuthenticationError("no", status=403))

    async def main() -> None:
        async with asyncio.timeout(10):
            with pytest.raises(AuthenticationError):
                await Splitting(far).complete(batch(300))
            await asyncio.sleep(3600)

    with pytest.raises(TimeoutError):
        run_virtually(main())


def test_all_attempts_hang_below_one_request_and_the_trace_says_how_it_was_split(
    spans: Callable[[], list[ReadableSpan]],
) -> None:
    far = Embedder(lambda texts, _: ContextTooLong("no") if len(texts) > 50 and "0 text" in texts else None)
    ask(batch(300), far)
    request, *attempts = spans()
    assert len(attempts) == len(far.requests) == 6
    assert request.context is not None
    assert {each.parent.span_id for each in attempts if each.parent} == {request.context.span_id}
    told = {event.name: dict(event.attributes or {}) for event in request.events}
    assert told["batch.split"] == {"texts": 300, "parts": 4}
    assert told["batch.halved"] == {"texts": 96, "reason": "context_too_long"}
    assert (request.attributes or {})["devsynth.attempts"] == 6


def test_two_equal_batches_at_the_same_time_are_one() -> None:
    far = Embedder()

    async def main() -> Any:
        router = home(far)
        return await asyncio.gather(router.complete(batch(300)), router.complete(batch(300)))

    first, second = run_virtually(main())
    assert first.vectors == second.vectors == rows(batch(300))
    assert (len(far.requests), second.shared, second.cost_usd) == (4, True, 0)


def test_two_equal_batches_that_fail_in_part_are_told_the_same_each_by_an_error_of_its_own() -> None:
    far, request = Embedder(lambda asked, _: ContentFiltered("no") if "7 text" in asked else None), batch(300)

    async def main() -> Any:
        router = home(far)
        return [each async for each in router.complete_all([request, request])]

    first, second = run_virtually(main())
    assert first is not second
    for each in (first, second):
        assert str(each) == "text 8 of 300: no"
        covers(each, request, far)
        assert list(each.failures) == [7]
    assert (len(first.attempts), second.attempts) == (len(far.requests), ())


some = st.integers(1, 300)


def embedded(request: EmbedRequest, far: Embedder) -> Any:
    """As ``ask``, without what a router does for a server that fails often."""
    layer = Splitting(stack(far, retry=NO_WAIT))

    async def main() -> Any:
        try:
            return await layer.complete(request)
        except DevSynthError as error:
            return error

    return run_virtually(main())


@settings(max_examples=60, deadline=None)
@given(some, st.sets(st.integers(0, 299), max_size=5), st.integers(8, 200))
def test_any_batch_with_any_failing_parts_is_whole_and_in_order_and_each_text_is_paid_once(
    texts: int, unlucky: set[int], takes: int
) -> None:
    """Whoever holds an unlucky text fails at first, and what holds more texts than it takes is refused."""
    names = {f"{each} text" for each in unlucky}

    def fails(asked: Sequence[str], before: int) -> ProviderError | None:
        if len(asked) > takes:
            return ContextTooLong("no", status=413)
        return RateLimitError("slow") if names & set(asked) and before == 0 else None

    far = Embedder(fails)
    response = embedded(batch(texts), far)
    assert response.vectors == rows(batch(texts))
    assert far.embedded == Counter(batch(texts).texts)
    assert response.usage == Usage(far.tokens, 0)
    assert [each.number for each in response.attempts] == list(range(1, len(far.requests) + 1))


@settings(max_examples=60, deadline=None)
@given(some, st.data())
def test_any_text_that_is_refused_is_found(texts: int, data: st.DataObject) -> None:
    wrong = data.draw(st.sets(st.integers(0, texts - 1), min_size=1, max_size=3))
    names = {f"{each} text" for each in wrong}
    far = Embedder(lambda asked, _: RequestRejected("no", status=400) if names & set(asked) else None)
    error = embedded(batch(texts), far)
    if texts == 1:
        assert str(error) == "no"
    else:
        assert str(error) == f"text {min(wrong) + 1} of {texts}: no"
        assert error.failures.keys() == wrong
    assert len(far.requests) <= (texts + 95) // 96 + len(wrong) * 2 * 9
    assert far.embedded == Counter(set(batch(texts).texts) - names)


unlucky = st.dictionaries(st.integers(0, 299), st.sampled_from(["refused", "filtered", "denied", "busy"]), max_size=6)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 300), unlucky, st.integers(8, 200))
def test_whatever_fails_each_text_has_a_vector_or_a_failure_and_no_vector_that_was_paid_is_lost(
    texts: int, kinds: dict[int, str], takes: int
) -> None:
    def fails(asked: Sequence[str], before: int) -> ProviderError | None:
        if len(asked) > takes:
            return ContextTooLong("no", status=413)
        held = {kinds.get(int(text.split()[0])) for text in asked}
        if "denied" in held:
            return AuthenticationError("denied", status=403)
        if "busy" in held and before == 0:
            return RateLimitError("busy")
        refusal = RequestRejected("refused", status=400) if "refused" in held else None
        return refusal or (ContentFiltered("filtered") if "filtered" in held else None)

    far, request = Embedder(fails), batch(texts)
    told = embedded(request, far)
    vectors, failures = told.vectors or [None] * texts, getattr(told, "failures", {})
    assert len(vectors) == texts
    assert all((row is None) == (place in failures) for place, row in enumerate(vectors))
    assert [row for row in vectors if row is not None] == [
        row for place, row in enumerate(rows(request)) if place not in failures
    ]
    assert far.embedded == Counter(text for place, text in enumerate(request.texts) if place not in failures)
    assert sorted(each.number for each in told.attempts) == list(range(1, len(far.requests) + 1))
    wrong = {place for place, kind in kinds.items() if kind != "busy" and place < texts}
    assert wrong <= failures.keys()
    if "denied" in {kinds[place] for place in wrong}:
        assert isinstance(told, AuthenticationError)
    else:
        assert wrong == failures.keys()
    for place in wrong:
        assert str(failures[place]) in {kinds[place], "denied"}


@pytest.mark.litellm
@pytest.mark.parametrize("transport", ["auto", "litellm"])
async def test_five_thousand_texts_through_litellm(server: Loopback, transport: Any) -> None:
    """The server takes 64 at a time, in one answer tells them in disorder, and is overloaded twice."""
    busy = {"0 text", "2000 text"}

    def answer(asked: dict[str, Any]) -> Answer:
        texts = asked["input"]
        if len(texts) > 64:
            return failure(413, "too many inputs")
        if busy.intersection(texts):
            busy.difference_update(texts)
            return failure(503, "overloaded")
        of = [[float(text.partition(" ")[0]), 1.0] for text in texts]
        back = range(len(of))[::-1]
        return vectors(*[of[index] for index in back], indices=list(back))

    server.script(answer)
    facts = model("m", provider="openai", base_url=server.url, context_window=1000)
    provider = OpenAIProvider(facts, api_key="k", transport=transport)
    async with Router(policy(facts), {"m": provider}) as router:
        response = await router.complete(batch(5000))
    await provider.aclose()
    assert [row[0] for row in response.vectors] == [float(number) for number in range(5000)]
    asked = [each["input"] for each in server.requests if each]
    taken = Counter(text for texts in asked if len(texts) <= 64 for text in texts)
    assert taken.total() == 5000 + 2 * 48, "of what the server took, only two parts failed, and were asked again"
    assert max(taken.values()) == 2
    assert len(asked) == len(response.attempts) == 53 + 2 * 52 + 2
    assert response.vectors[4999] == (4999.0, 1.0)
