"""A circuit breaker by itself: a value, to which the time is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devsynth_providers.health import NEUTRAL, Breaker, Pass, Tolerance, Verdict

GOOD, BAD, SLOW = Verdict(good=True), Verdict(bad=True, reason="unavailable"), Verdict(good=True, slow=True)
TOLERANCE = Tolerance(window_s=30, failures=5, failure_share=0.5, open_s=2, cap_s=60)


def breaker() -> Breaker:
    return Breaker(TOLERANCE, chance=lambda: 0.0)


def end(breaker: Breaker, verdict: Verdict, at: float = 0.0, times: int = 1) -> None:
    for _ in range(times):
        leave = breaker.admit(at, 10)
        assert leave is not None
        breaker.settle(at, leave, verdict)


def opened(at: float = 0.0) -> Breaker:
    made = breaker()
    end(made, BAD, at, times=5)
    assert made.state(at) == "open"
    return made


def test_it_opens_at_so_many_failures_and_not_before() -> None:
    made = breaker()
    end(made, BAD, times=4)
    assert made.state(0) == "closed"
    end(made, BAD)
    assert (made.state(0), made.admit(0, 10), made.wait_s(0), made.reason) == ("open", None, 2, "unavailable")


def test_failures_among_more_answers_do_not_open_it() -> None:
    made = breaker()
    for _ in range(20):
        end(made, GOOD, times=2)
        end(made, BAD)
    assert made.state(0) == "closed"


def test_failures_of_long_ago_do_not_count() -> None:
    made = breaker()
    end(made, BAD, times=4)
    end(made, BAD, at=31, times=4)
    assert made.state(31) == "closed"


def test_what_says_nothing_of_the_server_never_counts() -> None:
    made = breaker()
    end(made, NEUTRAL, times=100)
    end(made, BAD, times=4)
    assert made.state(0) == "closed"


def test_when_it_is_time_one_probe_passes_and_no_other() -> None:
    made = opened()
    assert made.admit(1.9, 10) is None
    probe = made.admit(2, 10)
    assert probe is not None
    assert probe.probe
    assert made.admit(2, 10) is None
    assert made.wait_s(2) is None


def test_a_probe_that_is_answered_closes_it() -> None:
    made = opened()
    end(made, GOOD, at=2)
    assert made.state(2) == "closed"
    end(made, BAD, at=2, times=4)
    assert made.state(2) == "closed", "what was before it opened is forgotten"


def test_each_probe_that_fails_doubles_the_time_up_to_the_cap() -> None:
    made, now, waits = opened(), 0.0, []
    for _ in range(8):
        wait_s = made.wait_s(now)
        assert wait_s is not None
        waits.append(wait_s)
        now += wait_s
        end(made, BAD, at=now)
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


def test_one_that_fails_again_soon_after_it_closed_is_left_alone_for_longer_and_after_a_while_as_at_first() -> None:
    made = opened()
    end(made, GOOD, at=2)
    end(made, BAD, at=3, times=5)
    assert made.wait_s(3) == 4
    end(made, GOOD, at=7)
    end(made, BAD, at=40, times=5)
    assert made.wait_s(40) == 2


def test_up_to_a_quarter_is_taken_off_by_chance_so_that_programs_do_not_return_in_step() -> None:
    made = Breaker(TOLERANCE, chance=lambda: 1.0)
    end(made, BAD, times=5)
    assert made.wait_s(0) == 1.5


def test_a_probe_without_a_verdict_leaves_the_place_to_another() -> None:
    made = opened()
    end(made, NEUTRAL, at=2)
    again = made.admit(2, 10)
    assert again is not None
    assert again.probe


def test_a_probe_that_nobody_tells_the_end_of_is_given_up_and_has_nothing_more_to_say() -> None:
    made = opened()
    lost = made.admit(2, 10)
    assert made.admit(11.9, 10) is None
    second = made.admit(12, 10)
    assert lost is not None
    assert second is not None
    made.settle(13, lost, GOOD)
    assert made.state(13) == "half_open"
    made.settle(14, second, GOOD)
    assert made.state(14) == "closed"


def test_what_the_server_asks_for_is_granted_the_longest_of_all_and_not_for_ever() -> None:
    made = breaker()
    leaves = [made.admit(0, 10) for _ in range(4)]
    for leave, hold_s in zip(leaves, (7.0, 30.0, 3.0), strict=False):
        assert leave is not None
        made.settle(0, leave, Verdict(bad=True, reason="rate_limited", hold_s=hold_s))
    assert made.wait_s(0) == 30
    assert leaves[3] is not None
    made.settle(0, leaves[3], Verdict(bad=True, hold_s=1e9))
    assert made.wait_s(0) == 3600


def test_a_success_does_not_cut_short_what_another_answer_asked_for_in_the_meantime() -> None:
    made = breaker()
    early = made.admit(0, 10)
    end(made, BAD, times=5)
    probe = made.admit(2, 10)
    assert early is not None
    assert probe is not None
    made.settle(3, early, Verdict(bad=True, hold_s=20))
    made.settle(4, probe, GOOD)
    assert made.wait_s(4) == 19


def test_a_server_that_asks_for_next_to_no_time_is_left_alone_as_any_other_that_fails() -> None:
    made = breaker()
    end(made, Verdict(bad=True, hold_s=0.01))
    for wait_s in (2, 4, 8):
        now = 100.0 * wait_s
        assert made.wait_s(now) == 0
        end(made, Verdict(bad=True, hold_s=0.01), at=now)
        assert made.wait_s(now) == wait_s


def test_some_failures_need_no_second_one() -> None:
    made = breaker()
    end(made, Verdict(bad=True, at_once=True, hold_s=300))
    assert made.wait_s(0) == 300


def test_answers_to_what_was_asked_before_it_closed_again_say_nothing() -> None:
    made = breaker()
    old = [made.admit(0, 10) for _ in range(9)]
    end(made, BAD, times=5)
    end(made, GOOD, at=2)
    for leave in old:
        assert leave is not None
        made.settle(3, leave, BAD)
    assert made.state(3) == "closed"


def test_slow_answers_open_it_too_but_then_who_has_no_other_choice_passes() -> None:
    made = breaker()
    end(made, SLOW, times=10)
    assert (made.state(0), made.slow, made.reason) == ("open", True, "slow")
    assert (leave := made.admit(1, 10)) is not None
    assert not leave.probe
    end(made, BAD, at=1, times=5)
    assert (made.slow, made.admit(1, 10)) == (False, None)


def test_a_few_slow_answers_do_not() -> None:
    made = breaker()
    for _ in range(10):
        end(made, SLOW, times=2)
        end(made, GOOD)
    assert made.state(0) == "closed"


def under_way(made: Breaker, count: int, at: float = 0.0) -> list[Pass]:
    leaves = [made.admit(at, 10) for _ in range(count)]
    return [leave for leave in leaves if leave is not None]


def lose(made: Breaker, leaves: list[Pass], now: float, since: float = 0.0) -> None:
    for leave in leaves:
        made.unheard(now, leave, since, lost=True)


class TestSilence:
    def test_attempts_that_nothing_comes_of_open_it_while_they_last_as_failures_do(self) -> None:
        made = breaker()
        leaves = under_way(made, 5)
        lose(made, leaves[:4], 40)
        assert made.closed
        lose(made, leaves[4:], 40)
        assert (made.state(40), made.admit(40, 10), made.wait_s(40), made.reason) == (
            "open",
            None,
            2,
            "no sign of life",
        )

    def test_whatever_comes_from_the_server_to_whomever_ends_the_doubt(self) -> None:
        made = breaker()
        leaves = under_way(made, 6)
        lose(made, leaves[:5], 40)
        assert made.heard(41, leaves[5]) == "closed"
        assert made.admit(41, 10) is not None
        for leave in leaves[:4]:
            made.settle(50, leave, BAD)
        assert made.closed
        made.settle(50, leaves[4], BAD)
        assert made.refuses, "the alarm was false, and what they end with counts as ever"

    def test_a_silent_attempt_says_nothing_if_others_were_answered_since_it_began(self) -> None:
        made = breaker()
        leaves = under_way(made, 9)
        made.heard(1, leaves[8])
        lose(made, leaves[:8], 40, since=0.5)
        assert made.closed
        lose(made, leaves[:5], 40, since=1.5)
        assert made.refuses

    def test_what_comes_of_one_takes_back_what_the_silence_of_others_said_before(self) -> None:
        made = breaker()
        leaves = under_way(made, 9)
        lose(made, leaves[:4], 40)
        made.heard(41, leaves[8])
        lose(made, under_way(made, 4, at=42), 90, since=42)
        assert made.closed

    def test_attempts_that_are_merely_slow_to_begin_let_pass_who_has_no_better_choice(self) -> None:
        made = breaker()
        leaves = under_way(made, 10)
        for leave in leaves:
            made.unheard(10, leave, 0, lost=False)
        assert (made.state(10), made.slow) == ("open", True)
        assert made.admit(10, 10) is not None
        lose(made, leaves[:5], 40)
        assert (made.slow, made.admit(40, 10)) == (False, None)
        assert made.heard(41, leaves[9]) == "closed"

    def test_a_probe_that_nothing_comes_of_has_failed_and_its_answer_counts_all_the_same(self) -> None:
        made = opened()
        (probe,) = under_way(made, 1, at=2)
        assert made.unheard(42, probe, 2, lost=True) == "open"
        assert made.wait_s(42) == 4
        assert made.heard(43, probe) == "closed"

    def test_an_answer_does_not_cut_short_what_the_server_has_asked_for(self) -> None:
        made = breaker()
        *silent, asked = under_way(made, 6)
        lose(made, silent, 40)
        made.settle(40, asked, Verdict(bad=True, hold_s=60))
        assert made.heard(41, silent[0]) is None
        assert made.wait_s(41) == 59

    def test_who_gives_a_lost_attempt_up_has_waited_long_enough_to_say_so(self) -> None:
        made = breaker()
        for _ in range(5):
            (leave,) = under_way(made, 1)
            lose(made, [leave], 40)
            made.settle(41, leave, NEUTRAL)
        assert made.refuses

    def test_a_slow_server_whose_probe_is_slow_too_is_still_slow(self) -> None:
        made = breaker()
        end(made, SLOW, times=10)
        (probe,) = under_way(made, 1, at=2)
        assert made.heard(14, probe, slow=True) == "open"
        assert (made.slow, made.wait_s(14)) == (True, 4)
        (probe,) = under_way(made, 1, at=18)
        assert made.heard(18, probe) == "closed"


def test_the_rest_of_a_probes_answer_is_an_attempt_as_any_other() -> None:
    made = opened()
    (probe,) = under_way(made, 1, at=2)
    assert made.heard(2, probe) == "closed"
    end(made, BAD, at=2, times=4)
    made.settle(3, probe, BAD)
    assert made.refuses


def test_an_answer_to_a_probe_that_was_given_up_takes_the_place_of_no_other() -> None:
    made = opened()
    (lost,) = under_way(made, 1, at=2)
    (second,) = under_way(made, 1, at=12)
    made.settle(13, second, NEUTRAL)
    made.heard(14, lost)
    assert not made.probing(14)
    assert made.state(14) == "half_open"


VERDICTS = st.one_of(
    st.sampled_from([GOOD, BAD, SLOW, NEUTRAL, Verdict(bad=True, at_once=True)]),
    st.builds(Verdict, bad=st.just(True), hold_s=st.floats(0, 1e6)),
)
STEPS = st.lists(
    st.one_of(
        st.just("ask"),
        st.tuples(st.integers(0, 9), st.one_of(VERDICTS, st.sampled_from(["heard", "late", "lost"]))),
        st.floats(0.001, 100.0),
    ),
    max_size=120,
)
LEASE_S = 1e9


@given(STEPS, st.floats(0, 1))
def test_whatever_happens_there_is_one_probe_at_most_and_a_moment_only_moves_on_and_it_is_never_stuck(
    steps: list[str | tuple[int, Verdict | str] | float], chance: float
) -> None:
    made = Breaker(TOLERANCE, chance=lambda: chance)
    now = 0.0
    leaves: list[Pass] = []
    for step in steps:
        before = None if made.closed else made._until
        if step == "ask":
            leave = made.admit(now, LEASE_S)
            if leave is not None:
                leaves.append(leave)
        elif isinstance(step, tuple):
            if leaves and isinstance(step[1], Verdict):
                made.settle(now, leaves.pop(step[0] % len(leaves)), step[1])
            elif leaves and step[1] == "heard":
                made.heard(now, leaves[step[0] % len(leaves)])
            elif leaves:
                made.unheard(now, leaves[step[0] % len(leaves)], now, lost=step[1] == "lost")
        else:
            assert not isinstance(step, str)
            now += step
        assert sum(each.probe and each.era == made._era for each in leaves) <= 1
        if before is not None and made._until is not None:
            assert made._until >= before
            assert made._until <= max(before, now + TOLERANCE.longest_s)

    for leave in leaves:
        made.settle(now, leave, NEUTRAL)
    now += TOLERANCE.longest_s
    last = made.admit(now, LEASE_S)
    assert last is not None
    made.settle(now, last, GOOD)
    assert made.state(now) == "closed" or made.slow


def test_what_others_take_back_before_its_time_closes_it_if_nothing_else_is_against_it() -> None:
    made = breaker()
    made.told(0, 30, "down")
    made.told(1, 60, "down")
    assert (made.state(40), made.refuses, made.reason) == ("open", True, "down")
    made.taken_back(40, 0.5)
    assert made.closed
    for own in (Verdict(bad=True, hold_s=40), Verdict(bad=True, hold_s=40, at_once=True)):
        made, leave = breaker(), Pass(0)
        made.told(0, 30, "down")
        made.settle(1, leave, own)
        made.taken_back(2, 0.5)
        assert made.state(40) == "open", "its own attempt says more"
    made = opened()
    made.told(1, 30, "down")
    assert made.state(2) == "half_open"
    made.taken_back(1, 0.5)
    assert not made.closed


def test_what_its_own_server_asks_for_holds_though_others_had_said_more_and_take_it_back() -> None:
    made, leave = breaker(), Pass(0)
    made.told(0, 60, "down")
    made.settle(1, leave, Verdict(bad=True, reason="rate_limited", hold_s=30))
    made.taken_back(2, 0.5)
    assert made.state(20) == "open"


def test_what_others_have_said_to_be_over_about_now_is_left_to_a_probe() -> None:
    made = breaker()
    made.told(0, 30, "down")
    made.taken_back(29.8, 0.5)
    made.taken_back(30.1, 0.5)
    probe = made.admit(30.1, 10)
    assert probe is not None
    assert probe.probe
    made.told(30.2, 60, "still down")
    made.heard(31, probe)
    assert made.closed, "what it has found itself counts more"


def test_one_that_is_open_for_slowness_is_no_better_for_what_others_take_back() -> None:
    made = breaker()
    end(made, SLOW, times=10)
    made.told(0, 30, "down")
    assert made.refuses
    made.taken_back(10, 0.5)
    assert not made.closed
