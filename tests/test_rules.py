"""When a rule is for a request: each condition, and what puts several together."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devsynth_providers import (
    Access,
    ChatRequest,
    Conditions,
    ConfigurationError,
    EmbedRequest,
    Example,
    Expect,
    Facts,
    Latency,
    Model,
    Range,
    Rule,
    TaskAnalyzer,
    TimeOfDay,
    Weights,
    When,
)

FACTS = Facts(
    complexity=0.5,
    input_tokens=1000,
    task="review",
    project="billing",
    role="developer",
    tags=("interactive", "eu"),
    needs=frozenset(("chat", "tools")),
    streaming=True,
)


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        (When(), True),
        (When(complexity=Range(above=0.4)), True),
        (When(complexity=Range(above=0.5)), False),
        (When(complexity=Range(below=0.5)), False),
        (When(complexity=Range(between=(0.5, 0.7))), True),
        (When(complexity=Range(between=(0.51, 0.7))), False),
        (When(input_tokens=Range(above=999, below=1001)), True),
        (When(input_tokens=Range(above=1000)), False),
        (When(task=("design", "review")), True),
        (When(task=("design",)), False),
        (When(project=("billing",), role=("developer",)), True),
        (When(project=("billing",), role=("intern",)), False),
        (When(tags=("eu", "us")), True),
        (When(tags=("us",)), False),
        (When(needs=("tools",)), True),
        (When(needs=("tools", "streaming")), True),
        (When(needs=("tools", "json")), False),
        (When(modality=("text",)), True),
        (When(modality=("embeddings", "vision")), False),
        (When(all=(When(task=("review",)), When(tags=("eu",)))), True),
        (When(all=(When(task=("review",)), When(tags=("us",)))), False),
        (When(any=(When(task=("design",)), When(tags=("eu",)))), True),
        (When(any=(When(task=("design",)), When(tags=("us",)))), False),
        (When(not_=When(task=("design",))), True),
        (When(not_=When(task=("review",))), False),
        (When(task=("review",), any=(When(tags=("us",)),)), False),
    ],
)
def test_everything_that_is_said_must_hold(when: When, holds: bool) -> None:
    assert when.holds(FACTS) is holds


@pytest.mark.parametrize(
    ("hours", "moment", "holds"),
    [
        (TimeOfDay(from_="08:00", to="18:00"), "2026-11-23T08:00", True),
        (TimeOfDay(from_="08:00", to="18:00"), "2026-11-23T17:59", True),
        (TimeOfDay(from_="08:00", to="18:00"), "2026-11-23T18:00", False),
        (TimeOfDay(from_="22:00", to="06:00"), "2026-11-23T23:00", True),
        (TimeOfDay(from_="22:00", to="06:00"), "2026-11-23T05:59", True),
        (TimeOfDay(from_="22:00", to="06:00"), "2026-11-23T12:00", False),
        (TimeOfDay(days=("sat", "sun")), "2026-11-23T12:00", False),  # a Monday
        (TimeOfDay(days=("mon",)), "2026-11-23T23:59", True),
        (TimeOfDay(from_="22:00", to="06:00", days=("mon",)), "2026-11-24T05:00", True),  # Monday's night
        (TimeOfDay(from_="22:00", to="06:00", days=("mon",)), "2026-11-23T05:00", False),  # Sunday's
        (TimeOfDay(from_="08:00", to="09:00", zone="Europe/Berlin"), "2026-11-23T07:30", True),
        (TimeOfDay(from_="08:00", to="09:00", zone="Europe/Berlin"), "2026-07-23T06:30", True),  # in summer
    ],
)
def test_hours_are_those_of_their_zone_and_may_go_past_midnight(hours: TimeOfDay, moment: str, holds: bool) -> None:
    now = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert When(time_of_day=hours).holds(FACTS, Conditions(now=now)) is holds


def test_without_a_clock_no_rule_with_hours_holds() -> None:
    assert not When(time_of_day=TimeOfDay()).holds(FACTS)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TimeOfDay(from_="8:00"), "written as 08:30"),
        (lambda: TimeOfDay(to="24:01"), "written as 08:30"),
        (lambda: TimeOfDay(to="12:60"), "written as 08:30"),
        (lambda: TimeOfDay(zone="Berlin"), "no time zone is called 'Berlin'"),
        (Weights, "one must be above 0"),
        (lambda: TimeOfDay(from_="22:00", to="22:00"), "from and to are the same moment"),
        (lambda: When(task="design"), "task is a tuple of names, not a text"),  # type: ignore[arg-type]
        (lambda: When(role=("*",)), "without role, a rule is for all"),
        (lambda: Access(role="intern"), "role is a tuple of names"),  # type: ignore[arg-type]
        (lambda: Rule(name="x", models="m"), "models is a tuple of names"),  # type: ignore[arg-type]
        (lambda: Rule(name="x", models=("m",), prefer="dearest"), "prefer is listed, cheapest"),  # type: ignore[arg-type]
        (Expect, "expect says nothing"),
        (lambda: Expect(first="m", fails="NoModelFits"), "leave one of them out"),
        (lambda: Model(name="m", provider="p", quality=math.nan), "quality of m is from 0 to 1"),
        (lambda: Latency(first_token_s=1, tokens_per_s=0), "above 0, and finite"),
        (lambda: Example(expect=Expect(rule="x"), at="9999-12-31T23:59"), "of which every time zone has one"),
        (lambda: Example(expect=Expect(rule="x"), at="0001-01-01T00:00+14:00"), "of which every time zone has one"),
    ],
)
def test_hours_and_weights_that_make_no_sense_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_what_rules_look_at_is_read_off_the_request() -> None:
    analyzer = TaskAnalyzer()
    asked = ChatRequest.of("hi", stream=True, task="t", project="p", role="r", tags=["a", "b"])
    facts = Facts.of(asked, analyzer)
    assert (facts.task, facts.project, facts.role, facts.tags) == ("t", "p", "r", ("a", "b"))
    assert (facts.streaming, facts.modality) == (True, "text")
    assert Facts.of(EmbedRequest(texts=("x",)), analyzer).modality == "embeddings"


names = st.sampled_from(("a", "b", "c"))
ranges = st.none() | st.builds(
    lambda above, below: Range(above=above, below=below), st.none() | st.floats(0, 1), st.none() | st.floats(0, 1)
)
simple = st.builds(
    lambda complexity, task, tags: When(complexity=complexity, task=task, tags=tags),
    ranges,
    st.lists(names, max_size=2, unique=True).map(tuple),
    st.lists(names, max_size=2, unique=True).map(tuple),
)
whens = st.recursive(
    simple,
    lambda inner: st.builds(
        lambda all_, any_, not_: When(all=all_, any=any_, not_=not_),
        st.lists(inner, max_size=2).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
        st.none() | inner,
    ),
    max_leaves=4,
)
requests = st.builds(
    lambda complexity, task, tags: Facts(complexity=complexity, task=task, tags=tags),
    st.floats(0, 1),
    st.none() | names,
    st.lists(names, max_size=3, unique=True).map(tuple),
)


@given(whens, whens, requests)
def test_all_any_and_not_are_what_they_are_in_logic(one: When, other: When, facts: Facts) -> None:
    a, b = one.holds(facts), other.holds(facts)
    assert When(all=(one, other)).holds(facts) is (a and b)
    assert When(any=(one, other)).holds(facts) is (a or b)
    assert When(not_=one).holds(facts) is not a
    assert When(not_=When(any=(one, other))).holds(facts) is (not a and not b)
    assert replace(one, all=(*one.all, other)).holds(facts) is (a and b)
