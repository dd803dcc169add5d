"""Rules that nothing reaches, and models that can never be asked: found where they are, and only there."""

from __future__ import annotations

import zoneinfo
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from devsynth_providers import (
    Access,
    AccessDenied,
    Budget,
    Conditions,
    Expect,
    Facts,
    Limits,
    Model,
    Price,
    Range,
    RateLimits,
    Rule,
    TimeOfDay,
    When,
)
from devsynth_providers.policy.contradictions import contradictions
from devsynth_providers.policy.reach import Reach
from devsynth_providers.policy.sections import Example
from devsynth_providers.policy.shorthands import nearest
from devsynth_providers.types import Hedge

from .helpers import model, policy
from .test_rules import requests, whens


def told(*rules: Rule, models: tuple[Model, ...] = (model("a"), model("b"))) -> list[str]:
    made = replace(policy(*models), rules=(*rules, Rule(name="rest", models=tuple(each.name for each in models))))
    return [f"{'.'.join(map(str, each.path))}: {each.message}" for each in contradictions(made) if not each.warning]


def rule(name: str, when: When = When(), **more: object) -> Rule:
    return Rule(name=name, when=when, models=more.pop("models", ("a",)), **more)  # type: ignore[arg-type]


def at(from_: str, to: str, zone: str = "UTC") -> When:
    return When(time_of_day=TimeOfDay(from_=from_, to=to, zone=zone))


HIGH, LOW = When(complexity=Range(above=0.6)), When(complexity=Range(below=0.3))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([rule("x", When(complexity=Range(above=0.8, below=0.3)))], "rules.0.when: rule 'x' can never match"),
        ([rule("x", When(complexity=Range(above=1)))], "rules.0.when: rule 'x' can never match"),
        ([rule("x", When(complexity=Range(between=(0.7, 0.2))))], "rules.0.when: rule 'x' can never match"),
        ([rule("x", When(task=("t",), not_=When(task=("t", "u"))))], "rules.0.when: rule 'x' can never match"),
        ([rule("x", When(all=(HIGH, LOW)))], "rules.0.when: rule 'x' can never match"),
        (
            [rule("x", When(complexity=Range(above=0.5))), rule("y", HIGH)],
            "rules.1: rule 'y' is never reached: 'x' before it takes all that it matches",
        ),
        (
            [rule("x", HIGH), rule("y", When(complexity=Range(below=0.7))), rule("z", When(task=("t",)))],
            "rules.2: rule 'z' is never reached: 'x' and 'y' before it take all that it matches",
        ),
        (
            [rule("x", When(task=("t", "u"))), rule("y", When(task=("u",), tags=("v",)))],
            "rules.1: rule 'y' is never reached: 'x' before it takes",
        ),
        (
            [rule("x", at("08:00", "18:00")), rule("y", at("09:15", "09:30"))],
            "rules.1: rule 'y' is never reached: 'x' before it takes",
        ),
        (
            [rule("x", at("09:00", "10:00", "Europe/Berlin")), rule("y", at("08:00", "09:00", "Europe/London"))],
            "rules.1: rule 'y' is never reached: 'x' before it takes",
        ),
        ([rule("x"), rule("y", HIGH)], "rules.0: rule 'x' matches all, so that 'y' is never reached"),
    ],
)
def test_a_rule_that_nothing_reaches_is_told_with_those_that_are_in_its_way(rules: list[Rule], said: str) -> None:
    assert told(*rules)[0].startswith(said)


@pytest.mark.parametrize(
    "rules",
    [
        [rule("x", HIGH), rule("y", When(complexity=Range(below=0.6)))],  # 0.6 itself is left for the last
        [rule("x", When(task=("t",))), rule("y", When(task=("t", "u")))],
        [rule("x", When(tags=("a", "b"))), rule("y", When(tags=("c",)))],
        [rule("x", When(needs=("tools", "json"))), rule("y", When(needs=("tools",)))],
        [rule("x", When(needs=("chat",)))],  # texts to embed are left for the last
        [rule("x", When(modality=("text",)))],
        [rule("x", When(not_=When(modality=("text",))))],
        [rule("x", When(modality=("text", "vision"))), rule("y", When(modality=("vision", "audio")))],
        [rule("x", at("08:07", "08:09"))],
        [
            rule("x", at("14:00", "15:00", "Europe/London")),
            rule("y", at("09:00", "10:00", "America/New_York")),
        ],  # March
        [rule("x", at("00:00", "12:00")), rule("y", at("12:00", "24:00"))],  # a plan need not know the time
        [rule("x", at("08:00", "18:00")), rule("y", When(task=("t",)))],
    ],
)
def test_rules_that_something_reaches_are_not(rules: list[Rule]) -> None:
    assert told(*rules) == []


def test_of_too_many_kinds_of_requests_only_what_one_rule_covers_is_told() -> None:
    tags = [rule(f"r{n}", When(tags=(f"t{n}",))) for n in range(20)]
    assert told(*tags) == []
    assert "'again' is never reached: 'r3' before it takes" in told(*tags, rule("again", When(tags=("t3",))))[0]


class Tried(When):
    """Counts how often it is asked."""

    times: ClassVar[int] = 0

    @override
    def holds(self, facts: Facts, conditions: Conditions = Conditions()) -> bool:
        Tried.times += 1
        return super().holds(facts, conditions)


def test_a_long_policy_is_looked_through_as_far_as_that_takes_no_long_time() -> None:
    Tried.times = 0
    rules = [
        Tried(complexity=Range(above=n / 1000), task=("t", "u"), project=(f"p{n}",), tags=("v",)) for n in range(300)
    ]
    reach = Reach([*rules, *rules, Tried(task=("t",), not_=When(project=("p0",)))])
    assert [reach.shadowed_by(index) for index in range(300)] == [None] * 300
    assert [reach.shadowed_by(index) for index in range(300, 600)] == [(index,) for index in range(300)]
    assert Tried.times < 500_000


def test_of_times_in_many_zones_nothing_is_claimed() -> None:
    zones = sorted(zoneinfo.available_timezones())[:200]
    reach = Reach([at("01:00", "02:30", zone) for zone in zones])
    assert {reach.shadowed_by(index) for index in range(len(zones))} == {None}


def assert_what_decides_is_reached(rules: list[When], facts: Facts, conditions: Conditions = Conditions()) -> None:
    deciding = next((index for index, when in enumerate(rules) if when.holds(facts, conditions)), None)
    if deciding is not None:
        reach = Reach(rules)
        assert not reach.never(deciding)
        assert reach.shadowed_by(deciding) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(whens, min_size=1, max_size=4), requests)
@pytest.mark.slow
def test_a_rule_that_decides_something_is_never_said_to_be_out_of_reach(rules: list[When], facts: Facts) -> None:
    assert_what_decides_is_reached(rules, facts)


abilities = st.sampled_from(("tools", "json", "vision", "audio"))
looks = st.builds(
    lambda needs, modality, not_: When(needs=tuple(needs), modality=tuple(modality), not_=not_),
    st.sets(abilities | st.sampled_from(("chat", "embeddings", "streaming")), max_size=2),
    st.sets(st.sampled_from(("text", "vision", "audio", "embeddings")), max_size=2),
    st.none()
    | st.builds(lambda need: When(needs=(need,)), st.sampled_from(("chat", "tools", "streaming")))
    | st.builds(lambda modality: When(modality=(modality,)), st.sampled_from(("text", "vision", "embeddings"))),
)
kinds = st.just(Facts(needs=frozenset(("embeddings",)))) | st.builds(
    lambda needs, streaming: Facts(needs=needs | {"chat"}, streaming=streaming), st.frozensets(abilities), st.booleans()
)


@settings(max_examples=300, deadline=None)
@given(st.lists(looks, min_size=1, max_size=4), kinds)
@pytest.mark.slow
def test_nor_is_one_that_decides_by_what_a_request_needs(rules: list[When], facts: Facts) -> None:
    assert_what_decides_is_reached(rules, facts)


CHATS, OVER_9000 = {"abilities": frozenset(("chat",))}, When(input_tokens=Range(between=(9000, 9999)))
PRICED = Price(input_usd_per_1m=10, output_usd_per_1m=30)


@pytest.mark.parametrize(
    ("facts", "asked", "said"),
    [
        ({**CHATS, "context_window": 8000}, {"when": When(input_tokens=Range(above=8000))}, "its window holds 8000"),
        ({**CHATS, "context_window": 8000}, {"when": When(all=(OVER_9000,))}, "its window holds 8000"),
        ({"abilities": frozenset(("chat",))}, {"when": When(needs=("tools",))}, "that need tools"),
        ({"abilities": frozenset(("chat",))}, {"when": When(modality=("embeddings",))}, "that need embeddings"),
        ({"price": None}, {"max_cost_usd": 0.1}, "its price is not known, and the rule has max_cost_usd"),
        ({"price": None}, {"max_expected_cost_usd": 0.1}, "and the rule has max_expected_cost_usd"),
    ],
)
def test_a_model_that_a_rule_can_never_ask_is_told(facts: dict[str, object], asked: dict[str, Any], said: str) -> None:
    found = told(rule("x", models=("b", "a"), **asked), models=(model("a", **facts), model("b")))
    assert [each for each in found if each.startswith("rules.0.models.1: rule 'x' can never ask 'a'") and said in each]


def test_names_too_long_to_compare_have_no_suggestion() -> None:
    known, asked = [f"{'m' * 150}{n}" for n in range(30)], "m" * 150
    assert nearest(asked, known) is None  # each pair would take milliseconds
    assert nearest("llama-70b", [*known, "llama3-70b"]) == "did you mean 'llama3-70b'?"


def test_many_texts_to_embed_need_not_fit_a_window_together() -> None:
    embedder = model("a", abilities=frozenset(("embeddings",)), context_window=8192)
    large = rule("large", When(needs=("embeddings",), input_tokens=Range(above=10_000)))
    assert told(large, models=(embedder,)) == []
    facts = Facts(needs=frozenset(("embeddings",)), input_tokens=20_000, longest_text_tokens=100)
    assert replace(policy(embedder), rules=(large,)).plan(facts).models == ("a",)


def test_quality_below_a_floor_and_unused_models_are_only_warnings() -> None:
    made = replace(
        policy(model("a", quality=0.4), model("b"), model("c", quality=0.9)),
        rules=(Rule(name="x", models=("a", "c"), min_quality=0.5),),
    )
    assert [(each.path, each.warning) for each in contradictions(made)] == [
        (("rules", 0, "models", 0), True),
        (("models", "b"), True),
    ]


def test_a_hedge_without_a_second_model_is_only_a_warning() -> None:
    made = replace(
        policy(model("a"), model("b")),
        rules=(
            Rule(name="x", when=HIGH, models=("a",), hedge=Hedge()),
            Rule(name="y", models=("b", "a"), hedge=Hedge()),
        ),
    )
    assert [(each.path, each.warning, each.message) for each in contradictions(made)] == [
        (("rules", 0, "hedge"), True, "rule 'x' names only one model: there is none to hedge with")
    ]


def test_a_rule_that_can_ask_nobody_is_a_mistake() -> None:
    low = (model("a", quality=0.3), model("b", quality=None))
    assert "rules.0.models: rule 'x' can ask none of its models" in told(
        rule("x", HIGH, models=("a", "b"), min_quality=0.9), models=low
    )


def test_entries_for_a_role_that_leave_it_nothing_are_a_mistake_and_an_empty_one_is_meant() -> None:
    both = policy(model("a"), model("b"))
    apart = replace(both, access=(Access(role=("r",), models=("a",)), Access(role=("r", "s"), models=("b",))))
    assert [each.path for each in contradictions(apart)] == [("access", 1, "models")]
    nobody = replace(both, access=(Access(role=("r",), models=("a",)), Access(role=("*",), models=())))
    assert list(contradictions(nobody)) == []
    assert nobody.plan(Facts(role="r")).models == ("a",)
    with pytest.raises(AccessDenied):
        nobody.plan(Facts(role="other"))


def test_ceilings_and_budgets_below_any_call_are_told() -> None:
    dear = model("a", price=PRICED)
    found = told(rule("x", max_cost_usd=0.001, when=HIGH), models=(dear, model("b")))
    assert found == [
        "rules.0.max_cost_usd: max_cost_usd 0.001 is below the worst case of every model of rule 'x': the cheapest "
        "could cost $0.030010 with the default max_tokens of 1000"
    ]
    made = replace(policy(dear), budgets=(Budget(scope="project", limit_usd=0.01),))
    (only,) = [each for each in contradictions(made) if not each.warning]
    assert only.path == ("budgets", 0, "limit_usd")
    assert "below the worst case of one call" in only.message


@pytest.mark.parametrize("micros", [249, 251, 489])  # a million times so many millionths is a little less
def test_a_ceiling_that_one_call_just_keeps_is_right(micros: int) -> None:
    one = model("a", price=Price(input_usd_per_1m=0, output_usd_per_1m=micros / 1000))
    made = replace(
        policy(one),
        rules=(Rule(name="rest", models=("a",), max_cost_usd=micros / 1_000_000),),
        budgets=(Budget(scope="project", limit_usd=micros / 1_000_000),),
    )
    assert made.plan(Facts(input_tokens=1, max_output_tokens=1000)).models == ("a",)
    assert [each for each in contradictions(made) if not each.warning] == []


def test_a_rule_that_embeds_stays_in_one_vector_space() -> None:
    able = frozenset(("embeddings",))
    both = (model("a", abilities=able), model("b", abilities=able))
    found = told(rule("x", When(needs=("embeddings",)), models=("a", "b")), models=both)
    assert found == ["rules.0.models.1: vectors of 'b' can not be compared with those of 'a'"]


def test_names_in_access_limits_and_tests_are_those_of_the_policy() -> None:
    made = replace(
        policy(model("model-a")),
        access=(Access(role=("intern",), models=("model-b",)),),
        limits={"tset": RateLimits(concurrent=1)},
        tests=(Example(prompt="x", expect=Expect(rule="al", first="model-c", rejected=("model-a",))),),
    )
    found = {".".join(map(str, each.path)): each.suggestion for each in contradictions(made)}
    assert found == {
        "access.0.models.0": "did you mean 'model-a'?",
        "limits.tset": "did you mean 'test'?",
        "tests.0.expect.rule": "did you mean 'all'?",
        "tests.0.expect.first": "did you mean 'model-a'?",
    }


def test_an_assumed_price_makes_a_model_of_unknown_price_one_to_ask() -> None:
    from devsynth_providers import Assume

    unknown = replace(policy(model("a", price=None), max_cost_usd=0.1), unknown_price=Assume(assume=PRICED))
    assert list(contradictions(unknown)) == []
    plan = unknown.plan(Facts(input_tokens=1000, max_output_tokens=1000, limits=Limits(max_cost_usd=0.05)))
    assert plan.candidates[0].worst_cost_usd == pytest.approx(0.04)
