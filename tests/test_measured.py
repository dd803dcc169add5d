"""How fast models were of late: kept apart by kind, weighted by age, and learnt by a router as it goes."""

from __future__ import annotations

import pytest

from devsynth_providers import Attempt, Latency, Router, Usage
from devsynth_providers.measured import HALF_LIFE_S, Measured
from devsynth_providers.testing import ScriptedProvider

from .conftest import Ask
from .helpers import model, policy


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def attempt(latency_s: float, first_token_s: float | None = None, tokens: int = 101, **more: object) -> Attempt:
    usual = {"reason": "primary", "finish_reason": "stop", "error": None, "wait_s": 0.0, "model": "m"}
    facts: dict[str, object] = {**usual, **more}
    return Attempt(
        number=1,
        provider="test",
        latency_s=latency_s,
        first_token_s=latency_s if first_token_s is None else first_token_s,
        usage=Usage(5, tokens),
        cost_micros=0,
        cost_basis="free",
        **facts,  # type: ignore[arg-type]
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def measured(clock: Clock) -> Measured:
    return Measured(clock)


def test_the_first_token_and_the_speed_after_it_are_kept_apart(measured: Measured) -> None:
    for first in (0.5, 0.6, 5.0):
        measured.note([attempt(first + 2.0, first)], streamed=True)
    assert measured.latency == {"m": Latency(first_token_s=0.6, tokens_per_s=50)}


def test_one_answer_is_not_enough_to_know(measured: Measured) -> None:
    measured.note([attempt(3, 1)], streamed=True)
    assert measured.latency == {}
    assert measured.first_token_s("m", 0.5) is None


def test_what_is_new_counts_more_and_what_is_old_is_forgotten(measured: Measured, clock: Clock) -> None:
    measured.note([attempt(3, 1)] * 5, streamed=True)
    clock.now += 2 * HALF_LIFE_S
    measured.note([attempt(12, 10)] * 2, streamed=True)
    assert measured.latency["m"].first_token_s == 10
    clock.now += 3 * HALF_LIFE_S
    assert measured.latency == {}


def test_of_whole_answers_the_shortest_stands_for_the_first_token(measured: Measured) -> None:
    measured.note([attempt(1.0, tokens=1), attempt(3.0, tokens=100), attempt(3.0, tokens=100)], streamed=False)
    assert measured.latency["m"] == Latency(first_token_s=1.0, tokens_per_s=50)


def test_running_out_of_time_is_slow_and_other_failures_are_neither(measured: Measured) -> None:
    measured.note([attempt(2.0, 1.0)], streamed=True)
    measured.note([attempt(30.0, error="timeout", finish_reason=None)] * 3, streamed=True)
    measured.note([attempt(0.001, error="rate_limit", finish_reason=None)] * 9, streamed=True)
    assert measured.first_token_s("m", 0.5) == 30.0


@pytest.mark.parametrize("streamed", [False, True])
def test_who_was_given_up_for_another_was_slow_and_who_was_cancelled_otherwise_says_nothing(
    measured: Measured, streamed: bool
) -> None:
    def of(quantile: float) -> float | None:
        return measured.first_token_s("m", quantile) if streamed else measured.whole_s("m", quantile)

    lost = attempt(5.0, error="cancelled", finish_reason=None)
    won = attempt(0.2, model="other", reason="hedge")
    measured.note([lost], streamed=streamed)
    measured.note([lost, attempt(0.2, model="other", reason="hedge", error="cancelled")], streamed=streamed)
    assert of(0.95) is None
    for _ in range(19):
        measured.note([attempt(1.0)], streamed=streamed)
    measured.note([lost, won], streamed=streamed)
    assert (of(0.95), of(0.99)) == (1.0, 5.0)


def test_how_long_whole_answers_take_is_known_of_whole_answers(measured: Measured) -> None:
    measured.note([attempt(9.0, 1.0)] * 5, streamed=True)
    assert measured.whole_s("m", 0.5) is None
    measured.note([attempt(each) for each in (1.0, 2.0, 3.0, 4.0)], streamed=False)
    measured.note([attempt(30.0, error="timeout", finish_reason=None)], streamed=False)
    assert [measured.whole_s("m", share) for share in (0.2, 0.5, 0.75, 0.95)] == [1.0, 3.0, 4.0, 30.0]


def test_waiting_for_ones_turn_is_no_slowness(measured: Measured) -> None:
    measured.note([attempt(12.0, 11.0, wait_s=10.0)] * 3, streamed=True)
    assert measured.latency["m"] == Latency(first_token_s=1.0, tokens_per_s=100)


def test_an_answer_left_early_says_nothing_of_speed(measured: Measured) -> None:
    measured.note([attempt(9.0, 1.0, finish_reason=None)] * 5, streamed=True)
    assert measured.latency == {}


async def test_a_router_learns_who_is_fast(ask: Ask) -> None:
    slow = ScriptedProvider(*[(0.05, "one ", "two")] * 3, model=model("slow"))
    fast = ScriptedProvider(model=model("fast"))
    clock = Clock()
    listed = policy(
        model("slow", latency=Latency(first_token_s=0.001, tokens_per_s=1e6)),
        model("fast", latency=Latency(first_token_s=0.02, tokens_per_s=1e6)),
        prefer="fastest",
    )
    router = Router(listed, {"slow": slow, "fast": fast}, measured=Measured(clock))
    assert router.plan("hi").models == ("slow", "fast")
    for _ in range(3):
        await ask(router)
    clock.now += 1
    plan = router.plan("hi")
    assert plan.models == ("fast", "slow")
    assert plan.candidates[1].latency_basis == "measured"
