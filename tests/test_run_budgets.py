"""What a policy lets a run cost, no run costs more: neither one of code nor a request by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import (
    FREE,
    Budget,
    BudgetExceeded,
    ChatRequest,
    ConfigurationError,
    EmbedRequest,
    Hedge,
    Policy,
    PolicyError,
    ProviderTimeout,
    ProviderUnavailable,
    Retry,
    Router,
    StreamInterrupted,
    Usage,
)
from devsynth_providers.accounts import worst_micros
from devsynth_providers.batches import OTHERS
from devsynth_providers.policy.contradictions import contradictions
from devsynth_providers.policy.file import load_policy, parse_policy
from devsynth_providers.stores.sqlite_ledger import SqliteLedger
from devsynth_providers.testing import ScriptedProvider, run_virtually
from devsynth_providers.types import Tally

from .helpers import PRICED, model, policy

COSTS_USD = 10 * 10e-6 + 20 * 30e-6
WORST_USD = 0.0301
"""Of one call for 1000 tokens, a little more than it is."""
JUST_USD = 0.030015
"""For one call for 1000 tokens, and no more after one that failed, of which the prompt is paid."""


def answering(name: str = "m", *script: Any, **facts: Any) -> ScriptedProvider:
    used = Usage(10, 20)
    return ScriptedProvider(*(script or ["ok"] * 100), model=model(name, **{"price": PRICED, **facts}), usage=used)


def rules(*far: ScriptedProvider, budgets: Any, **rule: Any) -> Policy:
    made = (budget if isinstance(budget, Budget) else Budget(scope="run", limit_usd=budget) for budget in budgets)
    return replace(policy(*(each.model for each in far), **rule), budgets=tuple(made))


def router(*far: ScriptedProvider, budgets: Any, ledger: Any = None, **rule: Any) -> Router:
    return Router(rules(*far, budgets=budgets, **rule), {each.model.name: each for each in far}, ledger=ledger)


def events(spans: list[ReadableSpan], name: str) -> list[dict[str, Any]]:
    return [dict(each.attributes or {}) for span in spans for each in span.events if each.name == name]


class TestOfCode:
    async def test_what_it_may_cost_is_refused_beyond_and_passed_to_nobody(
        self, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        dear, free = answering(), answering("free", price=FREE)
        mine = router(dear, free, budgets=[WORST_USD + COSTS_USD])
        with mine.budget() as run:
            for _ in range(2):
                assert (await mine.complete("hi")).model == "m"
            with pytest.raises(
                BudgetExceeded, match=r"run has too little left: m could cost \$0\.03.* is spent$"
            ) as told:
                await mine.complete("hi")
        assert (told.value.account, told.value.attempts, told.value.resets_at) == ("run", (), None)
        assert (told.value.limit_usd, told.value.spent_usd) == pytest.approx((WORST_USD + COSTS_USD, 2 * COSTS_USD))
        assert (run.calls, len(free.requests)) == (2, 0)
        facts = {"account": "run", "period": "total", "limit_usd_micros": 30_800, "spent_usd_micros": 1400}
        assert events(spans(), "budget.rejected") == [facts]
        requests = [dict(each.attributes or {}) for each in spans() if each.parent is None]
        assert [each["devsynth.budget.remaining_micros"] for each in requests] == [790, 90, 29_400]

    async def test_each_has_as_much_and_what_is_outside_of_all_pays_for_itself(self) -> None:
        mine = router(answering(), budgets=[WORST_USD])
        for _ in range(2):
            with mine.budget():
                await mine.complete("hi")
                with pytest.raises(BudgetExceeded):
                    await mine.complete("hi")
        for _ in range(3):
            await mine.complete("hi")

    async def test_one_inside_another_is_a_part_of_it(self) -> None:
        mine = router(answering(), budgets=[WORST_USD + COSTS_USD])
        with mine.budget() as outer:
            with mine.budget() as inner:
                await mine.complete("hi")
            with mine.budget(usd=1.0):
                await mine.complete("hi")
                with pytest.raises(BudgetExceeded, match=r"^run has too little left"):
                    await mine.complete("hi")
        assert (outer.calls, inner.calls) == (2, 1)

    async def test_one_that_was_a_run_by_itself_is_inside_another_a_part_of_that(self) -> None:
        mine = router(answering(), budgets=[WORST_USD])
        with mine.budget() as part:
            await mine.complete("hi")
        with mine.budget() as whole, part:
            await mine.complete("hi")
            with pytest.raises(BudgetExceeded):
                await mine.complete("hi")
        assert (whole.calls, part.calls) == (1, 2)

    async def test_all_that_it_may_cost_can_be_spent(self) -> None:
        for usd, answered in ((0.030010, True), (0.030009, False)):  # a token at 10 USD a million, 1000 at 30
            (told,) = await asyncio.gather(router(answering(), budgets=[usd]).complete("hi"), return_exceptions=True)
            assert isinstance(told, BudgetExceeded) is not answered

    @pytest.mark.parametrize(("usd", "whose"), [(0.01, "the budget of this run"), (1.0, "run")])
    async def test_what_code_says_of_it_holds_beside_what_the_policy_does(self, usd: float, whose: str) -> None:
        mine = router(answering(), budgets=[0.5 * WORST_USD if usd == 1 else 1.0])
        with mine.budget(usd=usd) as run, pytest.raises(BudgetExceeded, match=f"^{whose} has too little left"):
            await mine.complete("hi")
        assert (run.spent_usd, run.calls, run.used_tokens) == (0, 0, 0)

    async def test_a_policy_refuses_though_code_would_ask_another(self) -> None:
        mine = router(answering(), answering("free", price=FREE), budgets=[0.5 * WORST_USD])
        with mine.budget(usd=0.5 * WORST_USD), pytest.raises(BudgetExceeded, match=r"^run has"):
            await mine.complete("hi")

    async def test_tasks_begun_inside_are_part_of_it_also_when_it_is_left(self) -> None:
        mine = router(answering(), budgets=[WORST_USD])
        with mine.budget():
            task = asyncio.create_task(mine.complete("hi"))
        await task
        with mine.budget():
            await mine.complete("hi")
            task = asyncio.create_task(mine.complete("hi"))
        with pytest.raises(BudgetExceeded):
            await task

    def test_code_without_a_loop_has_it_too_and_its_threads_do_not_overrun_it(self) -> None:
        far = answering("m", *[(0.01, "ok")] * 20)
        with router(far, budgets=[3.5 * WORST_USD], coalesce="never").sync as mine, ThreadPoolExecutor(8) as pool:
            run = mine.budget()

            def ask(_: int) -> bool:
                with run:
                    try:
                        return bool(mine.generate("hi"))
                    except BudgetExceeded:
                        return False

            answered = sum(pool.map(ask, range(20)))
            assert answered == run.calls == len(far.requests)
            assert 3 <= answered < 20 or run.spent_usd + WORST_USD <= 3.5 * WORST_USD
            with run, pytest.raises(BudgetExceeded, match="of this run"), mine.budget(calls=0):
                mine.generate("hi")

    async def test_what_costs_nothing_is_asked_however_little_is_left(self) -> None:
        mine = router(answering("free", price=FREE), budgets=[0.01])
        with mine.budget() as run:
            run.count(10_001, 0)
            assert (await mine.complete("hi")).text == "ok"

    async def test_what_has_no_known_price_is_not_paid(self) -> None:
        mine = router(answering("m", price=None), budgets=[1])
        with (
            mine.budget() as run,
            pytest.raises(BudgetExceeded, match=r"^run can not pay for m, which has no known price"),
        ):
            await mine.complete("hi")
        assert run.calls == 0

    async def test_without_a_limit_it_only_counts(self) -> None:
        mine = router(answering(), budgets=[])
        with mine.budget() as run:
            await mine.complete("hi")
        assert (run.calls, run.used_tokens, run.left_micros) == (1, 30, None)
        assert run.spent_usd == pytest.approx(COSTS_USD)


class TestOfOneRequest:
    async def test_its_tries_are_paid_together_and_the_next_request_begins_anew(self) -> None:
        mine = router(answering("m", ProviderUnavailable("down"), "ok"), budgets=[JUST_USD])
        with pytest.raises(ProviderUnavailable) as told:  # why the last one failed
            await mine.complete("hi")
        assert len(told.value.attempts) == 1
        assert (await mine.complete("hi")).text == "ok"
        enough = router(answering("m", ProviderUnavailable("down"), "ok"), budgets=[WORST_USD])
        assert len((await enough.complete("hi")).attempts) == 2

    async def test_the_next_model_is_paid_from_the_same(self) -> None:
        one, two = answering("one", ProviderUnavailable("down")), answering("two")
        budget = Budget(scope="run", limit_usd=JUST_USD, when_spent="degrade")
        mine = router(one, two, budgets=[budget], retry=Retry(attempts=1))
        with pytest.raises(BudgetExceeded) as told:
            await mine.complete("hi")
        assert [each.model for each in told.value.attempts] == ["one"]
        assert two.requests == []

    async def test_a_hedge_is_paid_from_the_same(self) -> None:
        slow, quick = answering("slow", (0.2, "late")), answering("quick")
        mine = router(slow, quick, budgets=[1.5 * WORST_USD], hedge=Hedge(after=0.01, max_extra=1.0))
        assert (await mine.complete("hi")).model == "slow"
        assert quick.requests == []

    async def test_whoever_goes_on_where_a_stream_broke_off_is_paid_from_the_same(self) -> None:
        one, two = answering("one", ("a beginning, ", ProviderUnavailable("down"))), answering("two")
        mine = router(one, two, budgets=[JUST_USD], on_break="continue")
        with pytest.raises(StreamInterrupted):
            async for _ in mine.generate_stream("hi", max_tokens=1000):
                pass
        assert two.requests == []

    async def test_the_parts_of_its_batch_are_paid_together(self) -> None:
        def texts(parts: int) -> list[str]:
            return [f"text {number}" for number in range(parts * OTHERS.texts)]

        mine = router(answering(), budgets=[6 * COSTS_USD])
        assert len(await mine.embed_batch(texts(1))) == OTHERS.texts
        with pytest.raises(BudgetExceeded, match=r"^run has too little left") as told:
            await mine.embed_batch(texts(9))
        assert 1 <= len(told.value.attempts) < 9
        assert sum(each.cost_micros or 0 for each in told.value.attempts) <= 6 * COSTS_USD * 1_000_000

    async def test_it_shares_the_call_of_an_equal_one_all_the_same(self) -> None:
        far = answering("m", (0.05, "ok"))
        mine = router(far, budgets=[WORST_USD])
        told = await asyncio.gather(*(mine.complete("hi", temperature=0) for _ in range(3)))
        assert [each.shared for each in told] == [False, True, True]
        assert len(far.requests) == 1

    async def test_what_it_tells_of_a_call_that_another_began_it_has_paid(self) -> None:
        answer, tally = await router(answering(), budgets=[1]).complete("hi"), Tally()
        tally.take_over(answer.attempts)
        assert (tally.run.spent_micros, tally.run.used_tokens, tally.run.calls) == (700, 30, 1)

    async def test_its_texts_are_joined_with_those_of_others_as_far_as_one_can_pay(self) -> None:
        far = answering()
        mine = router(far, budgets=[Budget(scope="run", limit_usd=150e-6)], join_embeddings_s=0.01)
        await asyncio.gather(*(mine.embed(text) for text in ("one", "two")))
        assert [each.texts for each in far.requests if isinstance(each, EmbedRequest)] == [("one", "two")]
        words = ["ten words, of which one caller can pay for no more " + str(number) for number in range(2)]
        assert len(await asyncio.gather(*map(mine.embed, words))) == 2
        assert [each.texts for each in far.requests[1:] if isinstance(each, EmbedRequest)] == [
            (each,) for each in words
        ]

    async def test_it_needs_no_ledger(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        async with router(answering(), budgets=[1]) as mine:
            await mine.complete("hi")
        assert not list(tmp_path.iterdir())


class TestWithALedger:
    async def test_what_a_run_refuses_does_not_stand_in_it_and_what_an_account_does_is_given_back(
        self, tmp_path: Path
    ) -> None:
        ledger = SqliteLedger(tmp_path / "ledger.db")
        account = Budget(scope="project", limit_usd=WORST_USD)
        mine = router(answering(), budgets=[account, 2 * WORST_USD], ledger=ledger)
        with mine.budget() as run:
            await mine.complete("hi", project="a")
            with pytest.raises(BudgetExceeded, match="project:a has too little left"):
                await mine.complete("hi", project="a")
            assert (run.calls, run.spent_micros) == (1, 700)
        poor = router(answering(), budgets=[account, 0.5 * WORST_USD], ledger=ledger)
        with pytest.raises(BudgetExceeded, match=r"^run has too little left"):
            await poor.complete("hi", project="b")
        with pytest.raises(BudgetExceeded, match="project:a has"):
            await router(answering(), budgets=[account], ledger=ledger).complete("hi", project="a")
        await router(answering(), budgets=[account], ledger=ledger).complete("hi", project="b")
        await ledger.aclose()


class TestWhenItIsSpent:
    async def test_a_model_is_asked_that_costs_nothing(self, spans: Callable[[], list[ReadableSpan]]) -> None:
        dear, free = answering("dear"), answering("free", price=FREE)
        budget = Budget(scope="run", limit_usd=WORST_USD, when_spent="degrade")
        mine = router(dear, free, budgets=[budget])
        with mine.budget():
            told = [await mine.complete("hi") for _ in range(2)]
        assert [(each.model, each.degraded) for each in told] == [("dear", False), ("free", True)]
        assert len(events(spans(), "budget.rejected")) == 1

    async def test_a_model_is_asked_that_costs_less(self) -> None:
        cheap = replace(PRICED, input_usd_per_1m=1, output_usd_per_1m=3)
        budget = Budget(scope="run", limit_usd=WORST_USD, when_spent="degrade")
        mine = router(answering("dear"), answering("cheap", price=cheap), budgets=[budget])
        with mine.budget():
            assert [(await mine.complete("hi")).model for _ in range(2)] == ["dear", "cheap"]

    async def test_where_it_is_only_to_warn_it_warns(
        self, caplog: pytest.LogCaptureFixture, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        budget = Budget(scope="run", limit_usd=WORST_USD, when_spent="warn")
        mine = router(answering(), budgets=[budget])
        with mine.budget():
            for _ in range(3):
                await mine.complete("hi")
        await mine.complete("hi")
        assert caplog.text.count("run is over its budget: $0.0") == 2
        assert [each["account"] for each in events(spans(), "budget.warned")] == ["run", "run"]

    @pytest.mark.parametrize(("price", "warnings"), [(FREE, 0), (None, 1)])
    async def test_it_does_not_warn_of_what_costs_nothing_nor_refuse_what_has_no_known_price(
        self, caplog: pytest.LogCaptureFixture, price: Any, warnings: int
    ) -> None:
        budget = Budget(scope="run", limit_usd=0.01, when_spent="warn")
        mine = router(answering("m", price=price), budgets=[budget])
        with mine.budget() as run:
            assert (await mine.complete("hi")).text == "ok"
            assert caplog.text == ""
            run.count(10_001, 0)
            assert (await mine.complete("hi")).text == "ok"
        assert caplog.text.count("run is over its budget") == warnings

    async def test_one_may_warn_before_another_refuses_and_the_smallest_of_each_is_reached_first(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        far = ScriptedProvider(*["ok"] * 9, model=model(price=PRICED), usage=Usage(2, 1000))
        both = [
            Budget(scope="run", limit_usd=9 * WORST_USD, when_spent="degrade"),
            Budget(scope="run", limit_usd=8 * WORST_USD, when_spent="warn"),
            Budget(scope="run", limit_usd=3.5 * WORST_USD),
            Budget(scope="run", limit_usd=1.5 * WORST_USD, when_spent="warn"),
        ]
        mine = router(far, budgets=both)
        with mine.budget():
            for _ in range(3):
                await mine.complete("hi")
            assert caplog.text.count("run is over its budget") == 2
            with pytest.raises(BudgetExceeded, match=r"^run has too little left"):
                await mine.complete("hi")
        assert caplog.text.count("run is over its budget") == 2


FILE = """
models: {{m: {{provider: openai, price: {{input_usd_per_1m: 10, output_usd_per_1m: 30}}}}}}
rules: [{{name: all, models: m}}]
budgets: [{budgets}]
"""


async def test_of_a_policy_that_changes_while_a_run_is_open_the_newest_counts(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"

    def says(*budgets: str) -> None:
        file.write_text(FILE.format(budgets=", ".join(budgets)))

    says()
    async with Router.from_policy(file, {"m": answering()}) as mine:
        with mine.budget():
            await mine.complete("hi", max_tokens=1000)
            says(f"{{scope: run, limit_usd: {WORST_USD}}}")
            await mine.reload()
            with pytest.raises(BudgetExceeded, match=r"\$0\.000700 of \$0\.030100 is spent"):
                await mine.complete("hi", max_tokens=1000)
            says(f"{{scope: run, limit_usd: {WORST_USD + COSTS_USD}}}")
            await mine.reload()
            await mine.complete("hi", max_tokens=1000)


class TestWritten:
    @pytest.mark.parametrize("per", ["", ", per: total"])
    def test_it_is_for_all_of_a_run(self, per: str, tmp_path: Path) -> None:
        file = tmp_path / "p.yaml"
        file.write_text(FILE.format(budgets=f"{{scope: run, limit_usd: 2{per}}}, {{scope: project, limit_usd: 5}}"))
        assert [each.per for each in load_policy(file).budgets] == ["total", "day"]

    @pytest.mark.parametrize("per", ["day", "call", "month"])
    def test_no_span_of_time_is_for_a_run(self, per: str) -> None:
        with pytest.raises(PolicyError) as caught:
            parse_policy(FILE.format(budgets=f"{{scope: run, limit_usd: 2, per: {per}}}"))
        (problem,) = caught.value.problems
        told = f"budgets: scope: run is for all of a run, however long it takes, not per {per}: leave per out"
        assert (problem.line, problem.message) == (4, told)
        with pytest.raises(ConfigurationError, match=f"not per {per}: leave per out"):
            Budget(scope="run", limit_usd=2, per=per)  # type: ignore[arg-type]

    def test_what_says_nothing_and_what_pays_for_no_call_is_told(self) -> None:
        far = answering()
        said = [Budget(scope="run", limit_usd=1, when_unavailable="allow"), Budget(scope="run", limit_usd=0.001)]
        found = {each.path: each for each in contradictions(rules(far, budgets=said))}
        idle = found["budgets", 0, "when_unavailable"]
        assert (idle.warning, idle.suggestion) == (True, "leave it out")
        assert "below the worst case of one call" in found["budgets", 1, "limit_usd"].message
        assert len(found) == 2

    @pytest.mark.parametrize(
        ("about", "whose"),
        [({"scope": "run"}, "a run"), ({"scope": "project", "per": "total"}, "a budget per total")],
    )
    def test_a_time_zone_of_what_never_begins_anew_is_told(self, about: Any, whose: str) -> None:
        said = [Budget(limit_usd=1, zone="Europe/Berlin", **about), Budget(limit_usd=1, **about)]
        (idle,) = contradictions(rules(answering(), budgets=[*said, Budget(scope="task", limit_usd=1, zone="CET")]))
        assert (idle.path, idle.warning) == (("budgets", 0, "zone"), True)
        assert f"nothing of {whose}, which never begins anew" in idle.message


TASKS = st.lists(
    st.tuples(st.sampled_from([0, 1, 5]), st.sampled_from([100, 400, 1000]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=12,
)
"""When each begins, what it asks for at most, whether in a run of its own inside, and whether it is cancelled."""
LINES: dict[str, Callable[[], Any]] = {
    "ok": lambda: "ok",
    "late": lambda: (2.0, "late"),
    "half": lambda: ("half, ", 3.0, "whole"),
    "down": lambda: ProviderUnavailable("down"),
    "slow": lambda: (1.0, ProviderTimeout("slow")),
}


@given(
    TASKS,
    st.lists(st.sampled_from(sorted(LINES)), min_size=36, max_size=36),
    st.sampled_from([500, 3200, 9000, 30_000, 70_000]),
    st.sampled_from([100_000, 2900]),
)
def test_tasks_of_one_run_never_overrun_what_the_policy_lets_it_cost(
    tasks: list[tuple[int, int, bool, bool]], lines: list[str], most_micros: int, inside_micros: int
) -> None:
    """Nor are they refused what it has."""
    far = ScriptedProvider(*(LINES[each]() for each in lines), model=model(price=PRICED), usage=Usage(1, 100))
    mine = router(far, budgets=[most_micros / 1_000_000], coalesce="never")

    async def ask(at_s: int, max_tokens: int, inside: bool, cancelled: bool) -> Any:
        await asyncio.sleep(at_s)
        request = ChatRequest.of("hi", max_tokens=max_tokens)
        with mine.budget(usd=inside_micros / 1_000_000 if inside else None):
            try:
                async with asyncio.timeout(0.5 if cancelled else None):
                    return await mine.complete(request)
            except BudgetExceeded as error:
                spent, limit = (round((each or 0) * 1_000_000) for each in (error.spent_usd, error.limit_usd))
                assert spent + (worst_micros(request, far.model) or 0) > limit, "it had enough left"
                return error
            except (TimeoutError, ProviderUnavailable, ProviderTimeout) as error:
                return error

    async def main() -> tuple[int, int, list[Any]]:
        with mine.budget() as run:
            work = asyncio.gather(*(ask(*each) for each in tasks))
            while not work.done():
                assert run.spent_micros <= most_micros
                await asyncio.sleep(0.25)
            return run.spent_micros, run.calls, await work

    spent_micros, calls, told = run_virtually(main())
    assert spent_micros <= most_micros
    assert calls == len(far.requests)
    if not any(cancelled for *_, cancelled in tasks):  # those tell nobody what they cost
        assert sum(attempt.cost_micros for each in told for attempt in each.attempts) == spent_micros
