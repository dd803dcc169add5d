"""Replay and diff: what another policy would have come to, told no surer than it is known."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devsynth_providers import (
    ChatRequest,
    Conditions,
    Facts,
    Limits,
    Policy,
    Price,
    ProviderUnavailable,
    Range,
    Router,
    Rule,
    Usage,
    When,
)
from devsynth_providers.policy.decision import Decision, Log, Option, Outcome, Try, read_log
from devsynth_providers.policy.diff import diff
from devsynth_providers.policy.replay import Replay, replay
from devsynth_providers.testing import ScriptedProvider

from .helpers import NO_WAIT, model

DEAR = Price(input_usd_per_1m=10, output_usd_per_1m=30)
CHEAP = Price(input_usd_per_1m=1, output_usd_per_1m=3)
MODELS = {
    "big": model("big", price=DEAR),
    "small": model("small", price=CHEAP),
    "new": model("new", price=CHEAP),
    "tiny": model("tiny", price=CHEAP, context_window=10),
}


def hard(above: float, *rest: str, name: str = "p", models: dict[str, Any] = MODELS) -> Policy:
    """Requests harder than *above* go to the big model, others to *rest*."""
    first = Rule(name="hard", models=("big",), when=When(complexity=Range(above=above)))
    return Policy(name=name, models=models, rules=(first, Rule(name="rest", models=rest or ("small",))))


def decision(*tries: Try, complexity: float = 0.1, status: str = "answered", asked: Sequence[str] = ()) -> Decision:
    names = asked or list(dict.fromkeys(each.model for each in tries))
    return Decision(
        time="2026-03-01T12:00:00.000+00:00",
        facts=Facts(complexity=complexity, input_tokens=100, max_output_tokens=1000),
        candidates=tuple(Option(model=each, served=f"test/{each}") for each in names),
        outcome=Outcome(
            status=status,
            latency_s=sum(each.latency_s for each in tries),
            model=tries[-1].model if tries else None,
            attempts=tries,
        ),
    )


def attempt(name: str, latency_s: float = 1.0, output: int = 100, error: str | None = None) -> Try:
    usage = Usage() if error else Usage(100, output)
    return Try(model=name, served=f"test/{name}", latency_s=latency_s, usage=usage, error=error)


def traffic(count: int, seed: int = 0) -> list[Decision]:
    """Half of it is hard and goes to the big model; latencies are uniform, so that means and quantiles are known."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        difficult = chance.random() < 0.5
        name, span = ("big", 4.0) if difficult else ("small", 2.0)
        tried = attempt(name, chance.uniform(0, span), chance.randint(100, 300))
        made.append(decision(tried, complexity=0.9 if difficult else 0.1))
    return made


def test_a_change_of_nothing_moves_nothing() -> None:
    result = replay(hard(0.5), hard(0.5), traffic(200))
    for each in (*result.moves, *result.models):
        assert (each.difference.value, each.difference.low, each.difference.high) == (0, 0, 0)
        assert each.old == each.new
    assert (result.changed, result.drifted, result.compared) == (0, 0, 200)


def test_what_is_known_in_closed_form_lies_within_the_intervals() -> None:
    """All to the small model: $1 and $3 for 100 tokens in and 200 out on average; latencies uniform from 0 to 2 s."""
    result = replay(hard(0.5), hard(0.95), traffic(2000))
    truth = {
        "mean cost": ((1000 + 6000 + 100 + 600) / 2e6, 700e-6),
        "latency p50": (4 / 3, 1.0),  # half uniform to 4, half to 2: t/8 + t/4 is one half
        "latency p95": (3.6, 1.9),
    }
    for name, expected in truth.items():
        move = result.move[name]
        for side, value in zip((move.old, move.new), expected, strict=True):
            assert side.low is not None
            assert side.high is not None
            assert side.low <= value <= side.high, name
            assert side.high - side.low < 0.25 * value
        assert move.difference.low is not None
        assert move.difference.high is not None
        assert move.difference.low <= expected[1] - expected[0] <= move.difference.high
    assert result.rests_on["old"]["observed"] == 1
    assert result.rests_on["new"]["modelled"] == pytest.approx(0.5, abs=0.05)
    assert result.rests_on["new"]["observed"] + result.rests_on["new"]["modelled"] == 1


def test_intervals_cover_as_often_as_they_say() -> None:
    """Of 60 logs, each with an interval of 95 %: fewer than 51 would have a chance of less than one in a thousand."""
    hits = 0
    for seed in range(60):
        cost = replay(hard(0.5), hard(0.95), traffic(120, seed), seed, resamples=200).move["mean cost"].new
        assert cost.low is not None
        assert cost.high is not None
        hits += cost.low <= 700e-6 <= cost.high
    assert hits >= 51


def test_an_interval_is_wider_where_few_tell_of_a_model() -> None:
    def width(count: int) -> float:
        chance = random.Random(1)
        few = [decision(attempt("small", output=chance.randint(100, 300))) for _ in range(count)]
        many = [decision(attempt("big"), complexity=0.9)] * 1000
        cost = replay(hard(0.5), hard(0.95), [*few, *many]).move["mean cost"].new
        assert cost.low is not None
        assert cost.high is not None
        return cost.high - cost.low

    assert width(15) > 3 * width(1000)


def test_the_slowest_of_twenty_have_no_interval_where_few_tell_of_them() -> None:
    chance = random.Random(1)
    few = [decision(attempt("small", chance.random())) for _ in range(20)]
    result = replay(hard(0.5), hard(0.95), [*few, *[decision(attempt("big", 0.5), complexity=0.9)] * 380])
    slow = result.move["latency p95"]
    assert slow.new.value is not None
    assert (slow.new.low, slow.new.high, slow.difference.low) == (None, None, None)
    assert result.move["latency p50"].new.low is not None
    assert "too few answers" in str(result)


def test_a_model_that_the_log_never_saw_is_unknown_and_never_guessed() -> None:
    log = traffic(400)
    easy = sum(each.facts.complexity < 0.5 for each in log)
    result = replay(hard(0.5), hard(0.5, "new"), log)
    assert result.rests_on["new"]["unknown"] == easy / 400
    assert result.unknown == {"new": easy}
    assert result.compared == 400 - easy
    assert result.move["mean cost"].difference.value == 0, "what can be compared went the same way"
    shares = {each.name: each.new.value for each in result.models}
    assert shares["new"] == easy / 400, "who is asked is known all the same"
    assert "the log tells too little of new" in str(result)


def test_a_model_that_was_asked_a_few_times_is_unknown_too() -> None:
    few = [decision(attempt("new"))] * 9
    log = [*traffic(50), *few]
    assert replay(hard(0.5), hard(0.95, "new"), log).unknown == {"new": 50}
    assert replay(hard(0.5), hard(0.95, "new"), [*log, few[0]]).unknown == {}


def test_nothing_known_at_all_is_told_as_that() -> None:
    none = replay(hard(0.5), hard(0.5, "new"), [decision(attempt("small"))] * 3)
    assert (none.compared, none.move["mean cost"].old.value, none.move["failed"].new.value) == (0, None, None)
    ElementTree.fromstring(none.as_svg())
    empty = replay(hard(0.5), hard(0.5), [])
    assert empty.requests == 0
    assert empty.move["mean cost"].old.value is None
    assert "0 requests" in str(empty)
    ElementTree.fromstring(empty.as_svg())


def test_a_change_of_prices_alone_shows() -> None:
    dearer = {**MODELS, "small": replace(MODELS["small"], price=DEAR)}
    log = [decision(attempt("small", output=100))] * 30
    move = replay(hard(0.5), hard(0.5, models=dearer), log).move["mean cost"]
    assert move.old.value == pytest.approx(400e-6)
    assert move.new.value == pytest.approx(4000e-6)


def test_costs_are_only_of_those_whose_price_is_known() -> None:
    unpriced = {**MODELS, "big": replace(MODELS["big"], price=None)}
    result = replay(hard(0.5, models=unpriced), hard(0.5, models=unpriced), traffic(100))
    assert result.compared == 100
    assert result.priced < 70
    assert "prices of the others are not known" in str(result)


def test_a_fallback_that_was_seen_is_the_evidence_for_asking_that_model_first() -> None:
    log = [decision(attempt("big", 5, error="unavailable"), attempt("small", 1), complexity=0.9)] * 4
    old = Policy(models=MODELS, rules=(Rule(name="all", models=("big", "small")),))
    new = Policy(models=MODELS, rules=(Rule(name="all", models=("small", "big")),))
    result = replay(old, new, log)
    assert result.rests_on["new"]["observed"] == 1
    latency = result.move["latency p50"]
    assert (latency.old.value, latency.new.value) == (6, 1)


def test_a_wait_between_tries_counts_while_the_way_is_the_same() -> None:
    waited = replace(decision(attempt("small")).outcome, latency_s=9.0)
    log = [replace(decision(attempt("small")), outcome=waited)] * 3
    backed = Policy(models=MODELS, rules=(Rule(name="all", models=("small", "big")),))
    latency = replay(hard(0.5), backed, log).move["latency p50"]
    assert (latency.old.value, latency.new.value) == (9, 9)


@pytest.mark.parametrize(("error", "failed"), [("unavailable", 0), ("rejected", 1)])
def test_what_failed_is_passed_on_unless_every_model_would_say_the_same(error: str, failed: float) -> None:
    alone = Policy(models=MODELS, rules=(Rule(name="all", models=("big",)),))
    backed = Policy(models=MODELS, rules=(Rule(name="all", models=("big", "small")),))
    others = [decision(attempt("small", 1))] * 20
    down = [decision(attempt("big", 3, error=error), status="failed", asked=("big",))] * 20
    assert replay(alone, alone, down).move["failed"].old.value == 1
    assert replay(alone, backed, [*others, *down]).move["failed"].new.value == failed


def test_refusals_are_exact_cost_nothing_and_have_no_latency() -> None:
    result = replay(hard(0.5), hard(0.5, "tiny"), traffic(200))
    easy = result.rests_on["new"]["refused"]
    assert 0.4 < easy < 0.6
    assert result.move["refused"].new.value == easy
    assert result.move["latency p50"].new.value == pytest.approx(2, abs=0.5)


def test_a_share_of_none_has_the_exact_bound() -> None:
    refused = replay(hard(0.5), hard(0.5), traffic(100)).move["refused"].old
    assert (refused.value, refused.low) == (0, 0)
    assert refused.high == pytest.approx(1 - 0.025**0.01)


def test_answers_left_early_tell_nothing_of_whole_ones() -> None:
    left = [decision(attempt("small", 0.001, output=1), status="left")] * 50
    whole = [decision(attempt("big"), complexity=0.9)] * 50
    assert replay(hard(0.5), hard(0.95), [*left, *whole]).unknown == {"small": 50}


def test_what_was_cancelled_before_it_began_is_unknown() -> None:
    log = [decision(status="cancelled", asked=("small",))] * 5
    assert replay(hard(0.5), hard(0.5), log).rests_on["old"]["unknown"] == 1


def test_models_that_were_unavailable_then_still_are() -> None:
    gone = replace(decision(attempt("big")), conditions=Conditions(unavailable={"small": ""}))
    result = replay(hard(0.5), hard(0.5), [gone] * 3)
    assert result.rests_on["old"]["refused"] == 1


def test_a_policy_that_is_not_the_one_that_ran_is_told() -> None:
    assert replay(hard(0.95), hard(0.5), traffic(100)).drifted > 30


def test_one_name_for_two_models_is_two_models() -> None:
    other = {**MODELS, "small": replace(MODELS["small"], provider="elsewhere")}
    result = replay(hard(0.5), hard(0.5, models=other), [decision(attempt("small"))] * 20)
    assert result.rests_on["new"]["unknown"] == 1
    assert {each.name for each in result.models} == {"small (test/small)", "small (elsewhere/small)"}


def test_a_policy_need_not_say_where_its_models_are() -> None:
    def at(place: str) -> Decision:
        told = replace(attempt("small"), served=f"test/small at {place}")
        return replace(decision(told), candidates=(Option(model="small", served=told.served),))

    assert replay(hard(0.5), hard(0.5), [at("one:1")] * 5).rests_on["old"]["observed"] == 1
    assert replay(hard(0.5), hard(0.5), [at("one:1"), at("two:1")] * 5).rests_on["old"]["unknown"] == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.integers(), st.sampled_from((0.0, 0.5, 0.95)), st.sampled_from(("small", "new", "tiny")))
def test_the_same_log_policies_and_seed_give_the_same_result(count: int, seed: int, above: float, rest: str) -> None:
    log, old, new = traffic(count, seed), hard(0.5), hard(above, rest)
    one, other = (replay(old, new, log, seed, resamples=20) for _ in range(2))
    assert one == other
    assert json.loads(json.dumps(one.as_json()))["requests"] == count
    for side in one.rests_on.values():
        assert sum(side.values()) == pytest.approx(1 if count else 0)
    for each in (*one.moves, *one.models):
        if each.unit == "share" and each.new.value is not None:
            assert 0 <= each.new.value <= 1
    assert str(one) == str(other)
    assert one.as_svg() == other.as_svg()


@pytest.mark.slow
def test_ten_thousand_requests_take_seconds() -> None:
    log = traffic(10_000)
    began = time.process_time()
    replay(hard(0.5), hard(0.95), log)
    assert time.process_time() - began < 20


def texts(result: Replay) -> list[str]:
    root = ElementTree.fromstring(result.as_svg())
    return ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_is_whole_in_itself_and_says_what_the_table_says() -> None:
    result = replay(hard(0.5, name="old <b>&"), hard(0.5, "new", name="new\x00\n"), traffic(100))
    told = texts(result)
    assert "old <b>& → new" in " ".join(told)
    assert {"mean cost", "latency p95", "refused", "failed", "big", "small", "new", "unknown"} <= set(told)
    assert any("% unknown" in each for each in told)
    assert "href" not in result.as_svg()
    assert "script" not in result.as_svg()


async def test_a_router_writes_what_replay_reads(tmp_path: Path) -> None:
    models = {"big": MODELS["big"], "small": MODELS["small"]}
    policy = replace(hard(0.35, models=models, name="now"), retry=NO_WAIT)
    big = ScriptedProvider(*["yes"] * 20, model=models["big"], usage=Usage(50, 80))
    small = ScriptedProvider(ProviderUnavailable("x"), *["no"] * 20, model=models["small"], usage=Usage(10, 20))
    async with Router(policy, {"big": big, "small": small}, decisions=tmp_path / "log.jsonl") as router:
        for number in range(24):
            task = "Design a distributed architecture and prove that it scales" if number % 2 else "hi"
            await router.complete(task)
    log = read_log(tmp_path / "log.jsonl")
    result = replay(policy, hard(0.99, models=models, name="then"), log)
    assert (result.requests, result.changed, result.drifted) == (24, 12, 0)
    assert result.move["mean cost"].old.value == pytest.approx((12 * 2900 + 12 * 70) / 24 / 1e6, abs=1e-7)
    assert result.rests_on["new"] == {"observed": 0.5, "modelled": 0.5, "unknown": 0, "refused": 0}
    assert (result.move["mean cost"].difference.high or 0) < 0


def test_lines_that_were_not_read_are_told_with_the_result() -> None:
    log = Log(tuple(traffic(20)), {"no JSON": 3})
    assert "3 lines not read: no JSON" in str(replay(hard(0.5), hard(0.5), log))
    assert "3 lines not read: no JSON" in str(diff(hard(0.5), hard(0.5), log))


def test_diff_tells_which_requests_of_a_log_would_go_elsewhere() -> None:
    log = [replace(each, call=f"call-{at}") for at, each in enumerate(traffic(30))]
    result = diff(hard(0.5, name="a"), hard(0.95, name="b"), log)
    assert [each.of for each in result.changes] == [each.call for each in log if each.facts.complexity > 0.5]
    assert result.changes[0].old.models == ("big",)
    assert f"{len(result.changes)} of 30 requests decided otherwise" in str(result)
    assert "hard: big" in str(result)
    assert json.loads(json.dumps(result.as_json()))["requests"] == 30
    assert not diff(hard(0.5), hard(0.5), log)


def test_diff_over_prompts_requests_and_facts() -> None:
    request = ChatRequest.of("hi", max_tokens=100_000)
    result = diff(hard(0.0, "small", name="a"), hard(0.95, "tiny", name="b"), ["Prove it", request, Facts(task="t")])
    assert [each.of for each in result.changes] == ["Prove it", "t"]
    assert result.changes[0].new.rejected == (("tiny", "window_too_small"),)
    assert "(refused)" in str(result)


def test_another_rule_with_the_same_models_is_no_change_but_is_told() -> None:
    renamed = Policy(models=MODELS, rules=(Rule(name="other", models=("small",)),))
    result = diff(hard(0.99), renamed, ["hi"])
    assert (result.changes, result.moved_rules) == ((), 1)
    assert "by another rule" in str(result)


def test_limits_of_the_request_are_part_of_the_facts() -> None:
    limited = replace(decision(attempt("big")), facts=Facts(limits=Limits(min_quality=0.9)))
    assert replay(hard(0.5), hard(0.5), [limited]).rests_on["old"]["refused"] == 1
