"""The decision: pure, explained, and never over a limit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devsynth_providers import (
    Access,
    AccessDenied,
    Candidate,
    Conditions,
    EmbedRequest,
    Facts,
    Latency,
    Limits,
    Model,
    NoModelFits,
    Policy,
    Price,
    Range,
    Rejection,
    Rule,
    TaskAnalyzer,
    Weights,
    When,
)
from devsynth_providers.types import Call, ChatRequest

from .helpers import PRICED, model, policy

FACTS = Facts(complexity=0.3, input_tokens=1000, max_output_tokens=1000)


def rejected(policy: Policy, facts: Facts = FACTS, conditions: Conditions = Conditions()) -> dict[str, str]:
    try:
        found = policy.plan(facts, conditions).rejected
    except NoModelFits as error:
        found = error.rejected
    return {each.model: each.code for each in found}


def test_the_first_rule_that_holds_decides() -> None:
    rules = (
        Rule(name="hard", when=When(complexity=Range(above=0.8)), models=("a",)),
        Rule(name="review", when=When(task=("review", "audit")), models=("b",)),
        Rule(name="easy and audited", when=When(complexity=Range(below=0.2), task=("audit",)), models=("c",)),
        Rule(name="rest", models=("c",)),
    )
    decide = replace(policy(model("a"), model("b"), model("c")), rules=rules).plan
    assert decide(Facts(complexity=0.9, task="review")).rule == "hard"
    assert decide(Facts(complexity=0.8, task="audit")).rule == "review"
    assert decide(Facts(complexity=0.8)).rule == "rest"


def test_models_are_asked_in_the_order_of_the_rule() -> None:
    assert policy(model("b"), model("a"), model("c")).plan(FACTS).models == ("b", "a", "c")


@pytest.mark.parametrize(
    ("prefer", "order"),
    [
        ("listed", ("dear", "cheap", "unknown")),
        ("cheapest", ("cheap", "dear", "unknown")),
        ("fastest", ("cheap", "dear", "unknown")),
        ("best", ("dear", "cheap", "unknown")),
    ],
)
def test_or_as_it_prefers_with_what_is_not_known_last(prefer: Any, order: tuple[str, ...]) -> None:
    dear = model("dear", price=PRICED, quality=0.9, latency=Latency(first_token_s=2, tokens_per_s=10))
    cheap = model("cheap", quality=0.5, latency=Latency(first_token_s=1, tokens_per_s=100))
    assert policy(dear, cheap, model("unknown", price=None), prefer=prefer).plan(FACTS).models == order


SLOW = Latency(first_token_s=3, tokens_per_s=10)


@pytest.mark.parametrize(
    ("facts", "limits", "code"),
    [
        ({"price": PRICED}, Limits(max_cost_usd=0.0399), "over_cost_ceiling"),
        ({"price": None}, Limits(max_cost_usd=100), "price_unknown"),
        ({"latency": SLOW}, Limits(max_latency_s=32.9), "over_latency_target"),
        ({"latency": SLOW}, Limits(first_token_s=2.9), "over_first_token_target"),
        ({"quality": 0.4}, Limits(min_quality=0.5), "below_quality_floor"),
        ({"quality": None}, Limits(min_quality=0.5), "quality_unknown"),
        ({"context_window": 1999}, Limits(), "window_too_small"),
        ({"max_output_tokens": 999}, Limits(), "output_too_long"),
        ({"abilities": frozenset(("embeddings",))}, Limits(), "lacks_ability"),
    ],
)
def test_a_model_that_misses_a_limit_is_left_out_and_the_plan_says_why(
    facts: dict[str, Any], limits: Limits, code: str
) -> None:
    unfit = model("unfit", **facts)
    fit = model("fit", quality=0.9)
    asked = FACTS._replace(limits=limits)
    assert rejected(policy(unfit, fit), asked) == {"unfit": code}
    with pytest.raises(NoModelFits, match=code):
        policy(unfit).plan(asked)


@pytest.mark.parametrize(
    ("facts", "limits"),
    [
        ({"price": PRICED}, Limits(max_cost_usd=0.04)),
        ({"latency": SLOW}, Limits(max_latency_s=33, first_token_s=3)),
        ({"latency": None}, Limits(max_latency_s=0.1)),
        ({"quality": 0.5}, Limits(min_quality=0.5)),
        ({"context_window": 2000}, Limits()),
        ({"context_window": None}, Limits()),
    ],
)
def test_a_model_that_just_meets_it_is_not(facts: dict[str, Any], limits: Limits) -> None:
    assert policy(model(**facts)).plan(FACTS._replace(limits=limits)).models == ("m",)


def test_of_the_requests_and_the_rules_limits_the_tightest_counts() -> None:
    rule = policy(model(), max_cost_usd=0.05, max_latency_s=10, min_quality=None)
    plan = rule.plan(FACTS._replace(limits=Limits(max_cost_usd=0.02, max_latency_s=20)))
    assert plan.limits == Limits(max_cost_usd=0.02, max_latency_s=10)


def test_a_model_that_is_not_configured_is_left_out_with_the_reason() -> None:
    with pytest.raises(NoModelFits, match="KEY is not set"):
        policy(model()).plan(FACTS, Conditions(unavailable={"m": "KEY is not set"}))


def test_embeddings_stay_in_the_vector_space_of_the_first_that_fits() -> None:
    models = (
        model("chatty", abilities=frozenset(("chat",))),
        model("a", model="e5"),
        model("b"),
        model("c", model="e5"),
    )
    plan = policy(*models).plan(Facts(needs=frozenset(("embeddings",))))
    assert plan.models == ("a", "c")
    assert {each.model: each.code for each in plan.rejected} == {"chatty": "lacks_ability", "b": "other_vector_space"}


def test_limits_choose_within_the_vector_space_and_never_another_one() -> None:
    dear, same, other = model("dear", model="e5", price=PRICED), model("same", model="e5"), model("other")
    asked = Facts(needs=frozenset(("embeddings",)), input_tokens=1000, limits=Limits(max_cost_usd=0.001))
    assert policy(dear, other, same).plan(asked).models == ("same",)
    with pytest.raises(NoModelFits, match="other_vector_space"):
        policy(dear, other).plan(asked)
    away = Conditions(unavailable={"dear": "no key", "same": "no key"})
    assert policy(dear, other, same).plan(asked, away).models == ("other",)


def test_texts_to_embed_need_not_fit_a_window_together() -> None:
    small = policy(model(context_window=50))
    many = EmbedRequest(texts=("word " * 30,) * 500)
    plan = small.plan(Facts.of(many, TaskAnalyzer()))
    assert plan.input_tokens > 10_000
    with pytest.raises(NoModelFits, match="window_too_small"):
        small.plan(Facts.of(EmbedRequest(texts=("word " * 60,)), TaskAnalyzer()))


def test_a_packaged_policy_embeds_all_texts_in_one_space() -> None:
    from devsynth_providers.policy.file import load_policy

    hard = "Design a distributed consensus algorithm, prove that it is consistent, and compare the trade-offs."
    requests = (EmbedRequest(texts=("a cat",)), EmbedRequest(texts=(hard,)), EmbedRequest(texts=("x",), task="design"))
    balanced = load_policy("balanced")
    plans = [balanced.plan(Facts.of(request, TaskAnalyzer())) for request in requests]
    assert {plan.rule for plan in plans} == {"embeddings"}
    assert {plan.models[0] for plan in plans} == {"text-embedding-3-small"}


def test_what_a_request_needs_is_read_off_it() -> None:
    analyzer = TaskAnalyzer()
    tools = ChatRequest.of("hi", tools=[{"type": "function"}], response_format={"type": "json_object"})
    assert Facts.of(tools, analyzer).needs == {"chat", "tools", "json"}
    assert Facts.of(EmbedRequest(texts=("x",)), analyzer).needs == {"embeddings"}


def test_difficulty_is_judged_by_what_the_user_says_and_size_by_all_of_it() -> None:
    long = ChatRequest.of("hi", system_prompt="Design a distributed architecture. " * 50)
    facts = Facts.of(long, TaskAnalyzer())
    assert facts.complexity < 0.2
    assert facts.input_tokens > 400


def test_a_plan_explains_itself() -> None:
    unfit = model("dear", price=PRICED)
    plan = policy(unfit, model("free")).plan(FACTS._replace(limits=Limits(max_cost_usd=0.001)))
    assert str(plan).splitlines() == [
        "rule 'all' of policy 'test'; complexity 0.30; about 1000 tokens in",
        "limits: max_cost_usd 0.001",
        "  1. free  test       free  time unknown",
        "  -  dear  not asked: could cost $0.040000, the ceiling is $0.001000 (over_cost_ceiling)",
    ]


NAMES = tuple("abcdef")
maybe = st.none() | st.floats(0, 1)
models = st.builds(
    lambda price, window, quality, latency: model(
        price=price, context_window=window, quality=quality, latency=latency, abilities=None
    ),
    st.none()
    | st.builds(lambda i, o: Price(input_usd_per_1m=i, output_usd_per_1m=o), st.floats(0, 100), st.floats(0, 100)),
    st.none() | st.integers(1, 10_000),
    maybe,
    st.none() | st.builds(lambda f, t: Latency(first_token_s=f, tokens_per_s=t), st.floats(0.01, 9), st.floats(1, 500)),
)
tables = st.lists(models, min_size=1, max_size=6).map(
    lambda rows: tuple(replace(row, name=name) for row, name in zip(rows, NAMES, strict=False))
)
limits = st.builds(
    lambda c, t, f, q: Limits(max_cost_usd=c, max_latency_s=t, first_token_s=f, min_quality=q),
    st.none() | st.floats(0, 0.2),
    st.none() | st.floats(0, 60),
    st.none() | st.floats(0, 9),
    maybe,
)
weights = st.builds(lambda q, c, t: Weights(quality=q, cost=c, latency=t), *(st.floats(0.01, 9),) * 3)
prefers = st.sampled_from(("listed", "cheapest", "fastest", "best")) | weights
facts = st.builds(
    lambda n, m, c, limits: Facts(input_tokens=n, max_output_tokens=m, complexity=c, limits=limits),
    st.integers(0, 8000),
    st.integers(1, 4000),
    st.floats(0, 1),
    limits,
)


def chosen(table: tuple[Model, ...], prefer: Any, asked: Facts) -> tuple[str, ...]:
    try:
        return policy(*table, prefer=prefer).plan(asked).models
    except NoModelFits:
        return ()


@given(tables, prefers, facts)
def test_no_plan_holds_a_model_over_a_limit(table: tuple[Model, ...], prefer: Any, asked: Facts) -> None:
    limit = asked.limits
    for name in chosen(table, prefer, asked):
        found = next(each for each in table if each.name == name)
        if limit.max_cost_usd is not None:
            assert found.price is not None
            picos = asked.input_tokens * found.price.input_usd_per_1m
            picos += asked.max_output_tokens * found.price.output_usd_per_1m
            assert picos / 1e6 <= limit.max_cost_usd + 1e-6
        if limit.min_quality is not None:
            assert found.quality is not None
            assert found.quality >= limit.min_quality
        if limit.first_token_s is not None and found.latency is not None:
            assert found.latency.first_token_s <= limit.first_token_s
        if found.context_window is not None:
            assert asked.input_tokens + asked.max_output_tokens <= found.context_window


@given(tables, prefers, facts, limits)
def test_adding_a_limit_never_adds_a_model(table: tuple[Model, ...], prefer: Any, asked: Facts, more: Limits) -> None:
    tighter = asked._replace(limits=asked.limits.tightest(more))
    assert set(chosen(table, prefer, tighter)) <= set(chosen(table, prefer, asked))


@given(tables, prefers, facts)
def test_the_same_facts_make_the_same_plan_and_every_model_is_accounted_for(
    table: tuple[Model, ...], prefer: Any, asked: Facts
) -> None:
    decided = policy(*table, prefer=prefer)
    try:
        plan = decided.plan(asked)
    except NoModelFits as error:
        assert {each.model for each in error.rejected} == {each.name for each in table}
        return
    assert plan == decided.plan(asked)
    assert sorted((*plan.models, *(each.model for each in plan.rejected))) == sorted(each.name for each in table)


@given(tables, prefers, facts)
def test_the_order_of_the_model_table_does_not_matter(table: tuple[Model, ...], prefer: Any, asked: Facts) -> None:
    one = policy(*table, prefer=prefer)
    other = replace(one, models={name: one.models[name] for name in reversed(tuple(one.models))})
    try:
        plan = one.plan(asked)
    except NoModelFits:
        with pytest.raises(NoModelFits):
            other.plan(asked)
        return
    assert plan == other.plan(asked)


@given(tables, prefers, facts)
def test_the_order_is_the_declared_one(table: tuple[Model, ...], prefer: Any, asked: Facts) -> None:
    try:
        plan = policy(*table, prefer=prefer).plan(asked)
    except NoModelFits:
        return
    listed = [each.name for each in table if each.name in plan.models]
    if prefer == "listed":
        assert list(plan.models) == listed
        return
    keys = [order_key(each, prefer, plan.candidates) for each in plan.candidates]
    assert keys == sorted(keys)
    ties = zip(plan.models, plan.models[1:], keys, keys[1:], strict=False)
    assert all(listed.index(one) < listed.index(other) for one, other, a, b in ties if a == b)


def order_key(each: Candidate, prefer: Any, beside: tuple[Candidate, ...]) -> float:
    """What the documentation says of each order, reckoned once more."""
    cost = math.inf if each.cost_usd is None else each.cost_usd
    time_s = math.inf if each.latency_s is None else each.latency_s
    quality = -1.0 if each.model.quality is None else each.model.quality
    if not isinstance(prefer, Weights):
        return {"cheapest": cost, "fastest": time_s, "best": -quality}[prefer]
    costs = [other.cost_usd for other in beside if other.cost_usd is not None]
    times = [other.latency_s for other in beside if other.latency_s is not None]
    score = prefer.quality * max(quality, 0.0)
    if each.cost_usd is not None:
        score += prefer.cost * (1.0 if cost == min(costs) else min(costs) / cost)
    if each.latency_s is not None:
        score += prefer.latency * (1.0 if time_s == min(times) else min(times) / time_s)
    return -score


class TestWeights:
    def test_twice_the_price_is_worth_half(self) -> None:
        cheap = model("cheap", price=Price(input_usd_per_1m=1, output_usd_per_1m=1), quality=0.5)
        good = model("good", price=Price(input_usd_per_1m=2, output_usd_per_1m=2), quality=0.9)
        assert policy(cheap, good, prefer=Weights(quality=1, cost=1)).plan(FACTS).models == ("cheap", "good")
        assert policy(cheap, good, prefer=Weights(quality=2, cost=1)).plan(FACTS).models == ("good", "cheap")

    def test_what_is_not_known_counts_nothing(self) -> None:
        unknown, known = model("unknown", price=None), model("known", price=PRICED)
        assert policy(unknown, known, prefer=Weights(cost=1)).plan(FACTS).models == ("known", "unknown")


class TestAccess:
    rules = replace(
        policy(model("big", price=PRICED), model("small")),
        access=(Access(role=("intern", "guest"), models=("small",)), Access(role=("*",), max_cost_usd=0.01)),
    )

    def test_a_role_asks_only_the_models_it_may(self) -> None:
        plan = self.rules.plan(FACTS._replace(role="intern"))
        assert plan.models == ("small",)
        assert [(each.model, each.code) for each in plan.rejected] == [("big", "access_denied")]

    def test_every_other_role_and_none_at_all_is_meant_by_the_star(self) -> None:
        for role in ("developer", None):
            plan = self.rules.plan(FACTS._replace(role=role))
            assert (plan.models, plan.limits.max_cost_usd) == (("small",), 0.01)
            assert plan.rejected[0].code == "over_cost_ceiling"

    def test_with_nothing_left_for_the_role_it_is_denied_and_not_only_unfit(self) -> None:
        only_big = replace(self.rules, rules=(replace(self.rules.rules[0], models=("big",)),))
        with pytest.raises(AccessDenied, match="for role 'intern'"):
            only_big.plan(FACTS._replace(role="intern"))

    def test_several_entries_for_a_role_hold_together(self) -> None:
        both = replace(
            self.rules,
            access=(Access(role=("a",), models=("big", "small")), Access(role=("a", "b"), models=("small",))),
        )
        assert both.plan(FACTS._replace(role="a")).models == ("small",)


class TestConditions:
    def test_what_is_left_of_a_budget_is_a_ceiling_like_any_other(self) -> None:
        both = policy(model("dear", price=PRICED), model("free"))
        assert both.plan(FACTS, Conditions(budget_left_usd=0.05)).models == ("dear", "free")
        assert both.plan(FACTS, Conditions(budget_left_usd=0.03)).models == ("free",)
        assert both.plan(FACTS, Conditions(budget_left_usd=-1)).models == ("free",)
        assert both.plan(FACTS._replace(limits=Limits(max_cost_usd=0.02)), Conditions(budget_left_usd=5)).models == (
            "free",
        )

    def test_a_model_that_is_ill_is_left_alone(self) -> None:
        plan = policy(model("a"), model("b")).plan(FACTS, Conditions(unhealthy={"a": "its circuit is open"}))
        assert (plan.models, plan.rejected) == (("b",), (Rejection("a", "unhealthy", "its circuit is open"),))

    def test_what_was_measured_takes_the_place_of_what_the_policy_says(self) -> None:
        said = model("said", latency=Latency(first_token_s=0.1, tokens_per_s=100))
        other = model("other", latency=Latency(first_token_s=1, tokens_per_s=100))
        now = Conditions(latency={"said": Latency(first_token_s=9, tokens_per_s=10)})
        fastest = policy(said, other, prefer="fastest")
        assert fastest.plan(FACTS).models == ("said", "other")
        plan = fastest.plan(FACTS, now)
        assert [(each.model.name, each.latency_basis) for each in plan.candidates] == [
            ("other", "prior"),
            ("said", "measured"),
        ]
        assert plan.candidates[1].latency_s == pytest.approx(9 + 300 / 10)

    def test_a_model_that_nobody_measured_gets_its_turn_by_the_draw_alone(self) -> None:
        known = model("known", latency=Latency(first_token_s=1, tokens_per_s=100))
        some = policy(known, model("x"), model("y"), prefer="fastest")
        assert some.plan(FACTS).models == ("known", "x", "y")
        orders = {draw: some.plan(FACTS, Conditions(draw=draw)) for draw in (0.0, 0.024, 0.026, 0.05, 0.9, -1.0)}
        assert {draw: plan.models[0] for draw, plan in orders.items()} == {
            0.0: "x",
            0.024: "x",
            0.026: "y",
            0.05: "known",
            0.9: "known",
            -1.0: "known",
        }
        assert some.plan(FACTS, Conditions(draw=math.nan)).models[0] == "known"
        assert orders[0.0].explored
        assert not orders[0.9].explored
        assert policy(known, model("x")).plan(FACTS, Conditions(draw=0.0)).models == ("known", "x")  # speed counts not

    def test_an_expected_cost_and_a_worst_one_are_two_ceilings(self) -> None:
        dear = policy(model(price=PRICED))  # 1000 tokens in: 0.01 and 0.009 for the 300 expected, 0.03 at worst
        assert dear.plan(FACTS._replace(limits=Limits(max_expected_cost_usd=0.019))).models == ("m",)
        assert rejected(dear, FACTS._replace(limits=Limits(max_expected_cost_usd=0.018))) == {"m": "over_expected_cost"}


def test_how_far_a_request_has_come_does_not_change_what_is_decided() -> None:
    request = ChatRequest.of("hi")
    later = replace(request, call=Call(id="x", attempt=4))
    assert Facts.of(request, TaskAnalyzer()) == Facts.of(later, TaskAnalyzer())
