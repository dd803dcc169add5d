"""Budgets hold, whoever asks at the same time; the ledger says what each attempt has cost, and who has spent it."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    FREE,
    Budget,
    BudgetExceeded,
    ChatRequest,
    ConfigurationError,
    Health,
    Hedge,
    InvalidRequest,
    LedgerUnavailable,
    Model,
    NoModelFits,
    Policy,
    ProviderUnavailable,
    RateLimitError,
    Router,
    StreamInterrupted,
    Timeouts,
    Tolerance,
    Usage,
)
from devsynth_providers.stores.sqlite_ledger import SqliteLedger
from devsynth_providers.testing import ScriptedProvider

from .helpers import PRICED, model, policy

USED = Usage(10, 20)
COSTS_USD = 10 * 10e-6 + 20 * 30e-6
WORST_USD = 0.0301
"""Of one call for 1000 tokens, a little more than it is."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(file: Path) -> AsyncIterator[SqliteLedger]:
    kept = SqliteLedger(file)
    yield kept
    await kept.aclose()


def rows(file: Path, what: str = "*") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(f"SELECT {what} FROM entries ORDER BY at, attempt").fetchall()


def answering(name: str = "m", *script: Any, **facts: Any) -> ScriptedProvider:
    return ScriptedProvider(*(script or ["ok"] * 100), model=model(name, **{"price": PRICED, **facts}), usage=USED)


def rules(*models: Model, budgets: tuple[Budget, ...] = (), **more: Any) -> Policy:
    return replace(policy(*models, **more), budgets=budgets)


def router(*far: ScriptedProvider, ledger: Any = None, health: Health | None = None, **more: Any) -> Router:
    named = {each.model.name: each for each in far}
    return Router(rules(*(each.model for each in far), **more), named, ledger=ledger, health=health)


class TestOfPolicies:
    async def test_what_is_spent_is_refused_and_says_who_how_much_and_until_when(self, ledger: SqliteLedger) -> None:
        far = answering()
        mine = router(far, ledger=ledger, budgets=(Budget(scope="project", limit_usd=WORST_USD + COSTS_USD),))
        assert (await mine.complete("hi", project="billing")).cost_usd == pytest.approx(COSTS_USD)
        assert (await mine.complete("hi", project="billing")).text == "ok"
        with pytest.raises(
            BudgetExceeded, match=r"project:billing has too little left: m could cost \$0\.03"
        ) as caught:
            await mine.complete("hi", project="billing")
        error = caught.value
        assert (error.account, error.attempts) == ("project:billing", ())
        assert (error.limit_usd, error.spent_usd) == pytest.approx((WORST_USD + COSTS_USD, 2 * COSTS_USD))
        assert error.resets_at is not None
        assert (error.resets_at.hour, error.resets_at.tzinfo) == (0, UTC)
        assert error.resets_at > datetime.now(UTC)
        assert (await mine.complete("hi", project="shipping")).text == "ok"
        assert len(far.requests) == 3

    @pytest.mark.parametrize(
        ("scope", "same", "other"),
        [
            ("project", {"project": "a", "role": "x"}, {"project": "b", "role": "x"}),
            ("role", {"role": "a", "task": "x"}, {"role": "b", "task": "x"}),
            ("task", {"task": "a", "project": "x"}, {"task": "b", "project": "x"}),
            ("project", {}, {"project": "b"}),
        ],
    )
    async def test_each_scope_has_accounts_of_its_own(
        self, ledger: SqliteLedger, scope: Any, same: Any, other: Any
    ) -> None:
        mine = router(answering(), ledger=ledger, budgets=(Budget(scope=scope, limit_usd=WORST_USD),))
        await mine.complete("hi", **same)
        with pytest.raises(BudgetExceeded):
            await mine.complete("hi", **same)
        await mine.complete("hi", **other)

    async def test_all_who_use_the_policy_may_share_one(self, ledger: SqliteLedger) -> None:
        mine = router(answering(), ledger=ledger, budgets=(Budget(scope="policy", limit_usd=WORST_USD),))
        await mine.complete("hi", project="a")
        with pytest.raises(BudgetExceeded, match="policy:test has too little left"):
            await mine.complete("hi", project="b")

    def test_each_process_may_have_one_of_its_own(self, file: Path) -> None:
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            told = pool.map(_as_a_process, [str(file)] * 2)
        assert [*told, _as_a_process(str(file))] == [[True, False]] * 3
        accounts = {account for account, _ in (json.loads(row[0])[0] for row in rows(file, "purses"))}
        assert len(accounts) == 3
        assert all(account.startswith("process:") for account in accounts)

    async def test_every_budget_has_to_have_enough_left_and_none_pays_for_a_refusal(self, ledger: SqliteLedger) -> None:
        both = (Budget(scope="project", limit_usd=1), Budget(scope="role", limit_usd=0.01))
        mine = router(answering(), ledger=ledger, budgets=both)
        with pytest.raises(BudgetExceeded, match="role:dev"):
            await mine.complete("hi", project="a", role="dev")
        with closing(sqlite3.connect(ledger.file)) as database:
            assert not any(micros for (micros,) in database.execute("SELECT micros FROM balances"))

    async def test_a_hundred_tasks_do_not_overrun_it_together(self, ledger: SqliteLedger, file: Path) -> None:
        far = answering("m", *[(0.01, "ok")] * 100)
        mine = router(far, ledger=ledger, budgets=(Budget(scope="project", limit_usd=5 * WORST_USD),), coalesce="never")
        told = await asyncio.gather(*(mine.complete("hi", project="a") for _ in range(100)), return_exceptions=True)
        answered = [each for each in told if not isinstance(each, BaseException)]
        assert len(answered) == len(far.requests) == len(rows(file)) == 5
        assert all(isinstance(each, BudgetExceeded) for each in told if isinstance(each, BaseException))

    async def test_when_it_is_spent_a_model_is_asked_that_costs_nothing(
        self, ledger: SqliteLedger, file: Path, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        dear, free = answering("dear"), answering("free", price=FREE)
        budget = Budget(scope="project", limit_usd=WORST_USD, when_spent="degrade")
        mine = router(dear, free, ledger=ledger, budgets=(budget,))
        first, second = [await mine.complete("hi", project="a") for _ in range(2)]
        assert [(each.model, each.degraded) for each in (first, second)] == [("dear", False), ("free", True)]
        assert [each.number for each in second.attempts] == [1]
        told = [event.name for span in spans() for event in span.events]
        assert told.count("budget.rejected") == 1
        assert _left(spans()) == [None, 30_100 - 700]  # what an account has is known only where it refuses
        assert rows(file, "model, attempt, cost_micros") == [("dear", 1, 700), ("free", 1, 0)]

    async def test_where_it_is_only_to_warn_it_warns(
        self, ledger: SqliteLedger, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        budget = Budget(scope="project", limit_usd=WORST_USD, when_spent="warn")
        mine = router(answering(), ledger=ledger, budgets=(budget,))
        for _ in range(3):
            await mine.complete("hi", project="a")
        assert caplog.text.count("project:a is over its budget") == 2
        assert len(rows(file)) == 3

    async def test_one_may_warn_before_another_for_the_same_refuses(
        self, ledger: SqliteLedger, caplog: pytest.LogCaptureFixture
    ) -> None:
        far = ScriptedProvider(*["ok"] * 9, model=model(price=PRICED), usage=Usage(2, 1000))
        both = (
            Budget(scope="project", limit_usd=1.5 * WORST_USD, when_spent="warn"),
            Budget(scope="project", limit_usd=9 * WORST_USD, when_spent="degrade"),
            Budget(scope="project", limit_usd=3.5 * WORST_USD),
        )
        mine = router(far, ledger=ledger, budgets=both)
        for _ in range(3):
            await mine.complete("hi", project="a")
        assert caplog.text.count("project:a is over its budget") == 2
        with pytest.raises(BudgetExceeded, match="project:a has too little left"):
            await mine.complete("hi", project="a")
        assert len(far.requests) == 3

    @pytest.mark.parametrize("name", ["a (warns)", "warns a", "warns project:a"])
    async def test_no_project_is_called_as_an_account_that_only_warns(self, ledger: SqliteLedger, name: str) -> None:
        far = ScriptedProvider(*["ok"] * 9, model=model(price=PRICED), usage=Usage(2, 1000))
        warns = Budget(scope="project", limit_usd=9 * WORST_USD, when_spent="warn")
        mine = router(far, ledger=ledger, budgets=(warns, Budget(scope="project", limit_usd=1.5 * WORST_USD)))
        assert (await mine.complete("hi", project="a")).text == "ok"
        assert (await mine.complete("hi", project=name)).text == "ok"

    async def test_per_call_it_is_a_ceiling_for_each_request_and_needs_no_ledger(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        mine = router(answering(), budgets=(Budget(scope="project", limit_usd=0.01, per="call"),))
        assert (await mine.complete("hi", max_tokens=100)).text == "ok"
        with pytest.raises(NoModelFits):
            await mine.complete("hi", max_tokens=1000)
        assert not list(tmp_path.iterdir())

    async def test_a_model_of_no_known_price_is_not_paid_from_a_budget(self, ledger: SqliteLedger) -> None:
        far = answering("m", price=None)
        mine = router(far, ledger=ledger, budgets=(Budget(scope="project", limit_usd=1),))
        with pytest.raises(BudgetExceeded, match="project: can not pay for m, which has no known price") as caught:
            await mine.complete("hi")
        assert (caught.value.account, caught.value.limit_usd) == ("project:", 1)
        assert far.requests == []

    async def test_in_another_span_of_time_it_begins_anew(self, file: Path) -> None:
        now = [datetime(2026, 11, 29, 23, 30, tzinfo=UTC).timestamp()]
        kept = SqliteLedger(file)
        berlin = Budget(scope="project", limit_usd=WORST_USD, zone="Europe/Berlin")
        mine = router(answering(), ledger=kept, budgets=(berlin,))
        for each in mine._deployments.current.stacks.values():  # the clock is not the router's to be given
            layer: Any = each
            while layer is not None:
                if hasattr(layer, "_book"):
                    layer._book._clock = lambda: now[0]
                layer = getattr(layer, "inner", None)
        await mine.complete("hi")
        with pytest.raises(BudgetExceeded) as caught:
            await mine.complete("hi")
        assert str(caught.value.resets_at) == "2026-12-01 00:00:00+01:00"  # in Berlin it is the 30th by now
        now[0] += 24 * 3600
        await mine.complete("hi")
        await kept.aclose()

    @pytest.mark.parametrize("allowed", [False, True])
    async def test_where_nothing_can_be_written_nothing_is_asked_unless_the_policy_allows_it(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, allowed: bool
    ) -> None:
        (tmp_path / "taken").write_text("a file where a folder would have to be")
        far = answering()
        budget = Budget(scope="project", limit_usd=1, when_unavailable="allow" if allowed else "refuse")
        mine = router(far, ledger=tmp_path / "taken" / "ledger.db", budgets=(budget,))
        if allowed:
            assert (await mine.complete("hi")).text == "ok"
            assert "an attempt is not in the ledger" in caplog.text
        else:
            with pytest.raises(LedgerUnavailable, match=r"ledger\.db can not be used"):
                await mine.complete("hi")
        assert len(far.requests) == int(allowed)
        await mine.aclose()

    def test_budgets_that_make_no_sense_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="can not warn"):
            Budget(scope="project", limit_usd=1, per="call", when_spent="warn")
        with pytest.raises(ConfigurationError, match="no time zone is called 'Berlin'"):
            Budget(scope="project", limit_usd=1, zone="Berlin")

    async def test_without_another_place_the_ledger_is_among_the_users_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        async with router(answering(), budgets=(Budget(scope="project", limit_usd=1),)) as mine:
            await mine.complete("hi")
        assert len(rows(tmp_path / "devsynth_providers" / "ledger.sqlite3")) == 1


class TestTheLedger:
    async def test_each_attempt_stands_in_it_as_the_answer_tells_it(self, ledger: SqliteLedger, file: Path) -> None:
        a, b = answering("a", RateLimitError("slow"), *[ProviderUnavailable("down")] * 2), answering("b")
        mine = router(a, b, ledger=ledger)
        response = await mine.complete("hi", project="p", role="r", task="t", tags=("x",))
        written = rows(file, "attempt, model, reason, state, cost_micros, error")
        told = [(each.number, each.model, each.reason, each.cost_micros, each.error) for each in response.attempts]
        assert [(row[0], row[1], row[2], row[4], row[5]) for row in written] == told
        assert sum(row[4] for row in written) == round((response.cost_usd or 0) * 1_000_000)
        assert {row[3] for row in written} <= {"settled", "estimated"}
        assert set(rows(file, "project, role, task, tags, policy, rule")) == {("p", "r", "t", '["x"]', "test", "all")}

    async def test_of_a_question_it_has_the_complexity_and_of_texts_to_embed_none(
        self, ledger: SqliteLedger, file: Path
    ) -> None:
        mine = router(answering(), ledger=ledger)
        plan = (await mine.complete("Compare three designs, and prove that one is right")).plan
        await mine.embed("Compare three designs, and prove that one is right")
        assert plan is not None
        assert rows(file, "complexity") == [(plan.complexity,), (None,)]

    async def test_a_stream_that_is_left_or_breaks_off_costs_what_it_used(
        self, ledger: SqliteLedger, file: Path
    ) -> None:
        far = answering("m", ("one ", 3600.0, "late"), ("one ", ProviderUnavailable("cut")))
        mine = router(far, ledger=ledger)
        stream = mine.generate_stream("hi")
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        with pytest.raises(StreamInterrupted) as caught:
            async for _ in mine.generate_stream("hi"):
                pass
        left, broken = rows(file, "state, cost_micros, usage_estimated, error")
        assert (left[0], left[2], left[3]) == ("estimated", 1, None)
        assert 0 < left[1] < WORST_USD * 1_000_000
        assert (broken[1], broken[3]) == (caught.value.attempts[0].cost_micros, "stream_interrupted")

    async def test_who_loses_a_race_is_paid_as_well(self, ledger: SqliteLedger, file: Path) -> None:
        slow, quick = answering("slow", (60.0, "late")), answering("quick")
        mine = router(slow, quick, ledger=ledger, hedge=Hedge(after=0.01, max_extra=1.0))
        response = await mine.complete("hi")
        assert response.model == "quick"
        await ledger.aclose()  # it does what is left first
        written = rows(file, "model, reason, state, cost_micros")
        assert [(row[0], row[1]) for row in written] == [("slow", "primary"), ("quick", "hedge")]
        assert [row[3] for row in written] == [each.cost_micros for each in response.attempts]

    async def test_one_that_is_cancelled_is_settled(self, ledger: SqliteLedger, file: Path) -> None:
        mine = router(answering("m", (60.0, "late")), ledger=ledger)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await mine.complete("hi")
        await ledger.aclose()  # it does what is left first
        assert rows(file, "state, error") == [("estimated", "cancelled")]

    @pytest.mark.parametrize("at_s", [0.0, 0.0001, 0.001, 0.01])
    async def test_none_stays_reserved_whenever_it_is_cancelled(
        self, ledger: SqliteLedger, file: Path, at_s: float
    ) -> None:
        mine = router(answering("m", *["ok"] * 20), ledger=ledger, budgets=(Budget(scope="project", limit_usd=9),))
        for _ in range(20):
            task = asyncio.ensure_future(mine.complete("hi"))
            await asyncio.sleep(at_s)
            task.cancel()
            await asyncio.wait([task])
        await ledger.aclose()
        states = [row[0] for row in rows(file, "state")]
        assert set(states) <= {"settled", "estimated"}
        assert states or at_s < 0.01

    async def test_what_a_circuit_refused_does_not_stand_in_it(self, ledger: SqliteLedger, file: Path) -> None:
        far = answering("m", *[ProviderUnavailable("down")] * 99)
        mine = router(far, ledger=ledger, timeouts=Timeouts(total_s=1), health=Health(Tolerance(open_s=60)))
        for _ in range(40):
            with pytest.raises(ProviderUnavailable):
                await mine.complete("hi")
        assert len(rows(file)) == len(far.requests) < 99

    async def test_a_file_that_is_full_does_not_take_an_answer_back(
        self, ledger: SqliteLedger, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Full(SqliteLedger):
            @override
            def settle(self, *_: Any) -> Any:
                raise LedgerUnavailable("no space is left")

        full = Full(ledger.file)
        mine = router(answering(), ledger=full)
        assert (await mine.complete("hi")).text == "ok"
        assert "stays in the ledger as what it could have cost at most: no space is left" in caplog.text
        await full.aclose()


def _left(spans: list[ReadableSpan]) -> list[object]:
    """What requests say is left of a budget, in the order in which they ended."""
    requests = [dict(each.attributes or {}) for each in spans if each.parent is None]
    return [facts.get("devsynth.budget.remaining_micros") for facts in requests]


class TestOfRuns:
    async def test_money_tokens_and_calls_end_where_they_are_spent(self) -> None:
        far = answering()
        mine = router(far)
        with mine.budget(usd=WORST_USD + COSTS_USD) as run:
            await mine.complete("hi")
            await mine.complete("hi")
            with pytest.raises(BudgetExceeded, match="the budget of this run has too little left"):
                await mine.complete("hi")
            assert (run.used_tokens, run.calls) == (60, 2)
            assert run.spent_usd == pytest.approx(2 * COSTS_USD)
        with mine.budget(tokens=1010):
            await mine.complete("hi")
            with pytest.raises(BudgetExceeded, match="tokens could be needed, and of 1010 30 are used"):
                await mine.complete("hi")
        with mine.budget(calls=1):
            await mine.complete("hi")
            with pytest.raises(BudgetExceeded, match="all 1 calls are made"):
                await mine.complete("hi")
        await mine.complete("hi")
        assert len(far.requests) == 5

    async def test_what_is_left_stands_on_the_request(self, spans: Callable[[], list[ReadableSpan]]) -> None:
        mine = router(answering())
        with mine.budget(usd=1.0), mine.budget(usd=0.5), mine.budget(calls=9):
            await mine.complete("hi")
            await mine.complete("hi")
        with mine.budget(calls=9):
            await mine.complete("hi")
        assert _left(spans()) == [469_990, 469_290, None]

    async def test_one_inside_another_can_not_give_more_than_is_left(self) -> None:
        mine = router(answering())
        with mine.budget(calls=2) as outer, mine.budget(calls=5) as inner:
            await mine.complete("hi")
            await mine.complete("hi")
            with pytest.raises(BudgetExceeded, match="all 2 calls"):
                await mine.complete("hi")
        assert (outer.calls, inner.calls) == (2, 2)

    async def test_one_that_is_entered_twice_counts_once(self) -> None:
        mine = router(answering())
        run = mine.budget(calls=2)
        with run, run:
            await mine.complete("hi")
        with run:
            await mine.complete("hi")
        assert run.calls == 2

    async def test_tasks_share_it_and_do_not_overrun_it_together(self) -> None:
        far = answering("m", *[(0.01, "ok")] * 50)
        mine = router(far, coalesce="never")
        with mine.budget(calls=7) as run:
            told = await asyncio.gather(*(mine.complete("hi") for _ in range(50)), return_exceptions=True)
        assert sum(isinstance(each, BudgetExceeded) for each in told) == 43
        assert (run.calls, len(far.requests)) == (7, 7)

    async def test_a_request_is_paid_by_the_run_that_it_began_in_also_when_it_is_read_later(self) -> None:
        mine = router(answering("m", ("one ", "two")))
        with mine.budget(usd=1) as run:
            reply = await mine.send(ChatRequest.of("hi", stream=True))
        assert run.spent_usd > COSTS_USD
        await reply.read()
        assert run.spent_usd == pytest.approx(COSTS_USD)

    async def test_attempts_that_fail_count_and_the_others_routers_do_not(self) -> None:
        mine, other = router(answering("m", RateLimitError("slow"), "ok")), router(answering())
        with mine.budget(calls=5) as run:
            await other.complete("hi")
            response = await mine.complete("hi")
        assert run.calls == len(response.attempts) == 2
        assert run.spent_usd == response.cost_usd

    def test_code_without_a_loop_has_them_too(self) -> None:
        with router(answering()).sync as mine, mine.budget(calls=1) as run:
            mine.generate("hi")
            with pytest.raises(BudgetExceeded):
                mine.generate("hi")
            assert run.calls == 1

    async def test_what_costs_nothing_is_asked_however_little_money_is_left(self) -> None:
        mine = router(answering("m", price=FREE))
        with mine.budget(usd=0.0):
            assert (await mine.complete("hi")).text == "ok"

    @pytest.mark.parametrize("wrong", [{"usd": -1}, {"usd": float("nan")}, {"tokens": 1.5}, {"calls": True}])
    def test_a_budget_is_a_number_from_0_on(self, wrong: Any) -> None:
        with pytest.raises(InvalidRequest, match="budget"):
            router(answering()).budget(**wrong)


def test_four_processes_do_not_overrun_it_together(file: Path) -> None:
    """Each asks fifty times at once, for as much as it may cost; the budget is for sixteen calls."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert sum(pool.map(_fifty, [str(file)] * 4)) == 16
    assert len(rows(file)) == 16


def _as_a_process(file: str) -> list[bool]:
    """Whether each of two calls was answered, where each process may make one."""

    async def main() -> list[bool]:
        mine = router(
            answering(), ledger=SqliteLedger(file), budgets=(Budget(scope="process", limit_usd=WORST_USD, per="total"),)
        )
        told = await asyncio.gather(*(mine.complete(text) for text in ("one", "two")), return_exceptions=True)
        return sorted((not isinstance(each, BudgetExceeded) for each in told), reverse=True)

    return asyncio.run(main())


def _fifty(file: str) -> int:
    async def main() -> int:
        far = ScriptedProvider(*["ok"] * 50, model=model(price=PRICED), usage=Usage(2, 1000))
        budget = (Budget(scope="project", limit_usd=16.5 * WORST_USD),)
        async with router(far, ledger=file, budgets=budget, coalesce="never") as mine:
            told = await asyncio.gather(*(mine.complete("hi") for _ in range(50)), return_exceptions=True)
        return sum(not isinstance(each, BaseException) for each in told)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"scope": "team"}, "scope of a budget is one of project, role, task, process, policy, run, not 'team'"),
        ({"per": "fortnight"}, "per of a budget is one of call, hour, day, week, month, total, not 'fortnight'"),
        ({"when_spent": "stop"}, "when_spent of a budget is one of refuse, degrade, warn, not 'stop'"),
        ({"when_unavailable": "wait"}, "when_unavailable of a budget is one of refuse, allow, not 'wait'"),
        ({"limit_usd": float("nan")}, "limit_usd of a budget is a number above 0, not nan"),
        ({"limit_usd": 0}, "limit_usd of a budget is a number above 0, not 0"),
        ({"limit_usd": "5"}, "limit_usd of a budget is a number above 0, not '5'"),
    ],
)
def test_a_budget_in_code_is_looked_at_when_it_is_made(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Budget(**{"scope": "project", "limit_usd": 1, **wrong})
    assert str(caught.value) == told
