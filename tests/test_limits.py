"""What limits are made of, without loops and layers: windows, queues, lines; and what always holds of them."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from devsynth_providers import RateLimits
from devsynth_providers.limits import ANY, Ticket, Wish
from devsynth_providers.limits.entrance import TICK_S, Entrance
from devsynth_providers.limits.gate import FLOOR, Gate
from devsynth_providers.limits.line import Line
from devsynth_providers.limits.queue import FairQueue
from devsynth_providers.limits.window import WINDOW_S, Charge, Window
from devsynth_providers.testing import VirtualClock

AMOUNTS = st.integers(1, 30)


class TestWindow:
    @given(
        limit=st.integers(1, 50),
        steps=st.lists(st.tuples(st.floats(0, 100), AMOUNTS, st.integers(0, 30)), max_size=60),
        evenly=st.booleans(),
    )
    def test_no_minute_has_more_than_the_limit_by_what_was_used_in_truth(
        self, limit: int, steps: list[tuple[float, int, int]], evenly: bool
    ) -> None:
        window, now = Window(limit), 0.0
        passed: list[Charge] = []
        for passes_s, amount, used in steps:
            now += passes_s
            if window.free_at(now, amount, evenly=evenly) <= now:
                passed.append(window.charge(now, amount))
            if passed and used < passed[-1].amount:
                window.correct(passed[-1], used)
        for last in passed:
            minute = [each.amount for each in passed if last.at - WINDOW_S < each.at <= last.at]
            assert sum(minute) <= limit or len([each for each in minute if each]) == 1

    @given(limit=st.integers(1, 20), steps=st.lists(st.tuples(st.floats(0, 90), AMOUNTS), max_size=40))
    def test_the_moment_that_it_names_is_the_moment(self, limit: int, steps: list[tuple[float, int]]) -> None:
        window, now = Window(limit), 0.0
        for passes_s, amount in steps:
            now += passes_s
            at = window.free_at(now, amount)
            assert now <= at <= now + WINDOW_S
            if at > now:
                assert window.free_at(math.nextafter(at, -math.inf), amount) > math.nextafter(at, -math.inf)
            window.free_at(at, amount)
            window.charge(now := at, amount)

    @given(limit=st.integers(1, 10), before=st.lists(st.floats(0, 59), max_size=10), ahead=st.integers(0, 40))
    def test_what_it_expects_for_those_behind_others_comes_true(
        self, limit: int, before: list[float], ahead: int
    ) -> None:
        window = Window(limit)
        for at in sorted(before):
            if window.free_at(at, 1) <= at:
                window.charge(at, 1)
        expected = window.free_at(59.5, 1, ahead)
        now = 59.5
        for _ in range(ahead + 1):
            now = window.free_at(now, 1)
            window.charge(now, 1)
        assert now == pytest.approx(expected)

    def test_what_did_not_pass_leaves_nothing_behind(self) -> None:
        window = Window(10)
        window.charge(0, 4)
        first, second = window.charge(1, 3), window.charge(2, 3)
        window.undo(first)
        window.undo(second)
        assert len(window._log) == 1
        assert window.free_at(2, 6) == 2

    def test_a_correction_upwards_is_paid_for_later(self) -> None:
        window = Window(10)
        window.correct(window.charge(0, 5), 30)
        assert window.free_at(1, 1) == 60


class TestGate:
    def test_no_refusals_leave_less_than_the_floor_and_one_of_each(self) -> None:
        gate = Gate("g", RateLimits(concurrent=3, requests_per_minute=6, tokens_per_minute=60))
        for second in range(20):
            entry = gate.enter(second, 10)
            gate.leave(entry, second + 0.5)
            gate.refused(entry, second + 0.5)
        assert (gate.share, gate.slots) == (FLOOR, 1)
        assert gate.free_at(20, 10) <= 20 + WINDOW_S

    def test_half_of_the_limits_comes_back_in_a_minute_of_answers_however_many(self) -> None:
        def after_a_minute(answers: int) -> float:
            gate = Gate("g", RateLimits(concurrent=100))
            gate.refused(gate.enter(0, 1), 1)
            for number in range(1, answers + 1):
                gate.answered(gate.enter(1.5, 1), 1 + 60 * number / answers)
            return gate.share

        assert [after_a_minute(answers) for answers in (1, 6, 600)] == pytest.approx([1, 1, 1])

    def test_a_limit_that_was_gone_for_a_while_owes_nobody_anything(self) -> None:
        limits = RateLimits(tokens_per_minute=100)
        gate = Gate("g", limits)
        before = gate.enter(0, 100)
        gate.set(RateLimits(concurrent=9))
        gate.set(limits)
        gate.used(before, 0)
        gate.enter(1, 100)
        assert gate.free_at(1, 1) > 1


class TestLine:
    def test_a_pause_is_never_made_shorter_and_never_longer_than_an_hour_and_is_of_one_model(self) -> None:
        line, wish = Line("p"), Wish("m")
        for seconds, until in ((30, 30), (5, 30), (-1, 30), (math.nan, 30), (1e9, 3600)):
            line.pause(wish, 0, seconds)
            assert line.paused_until(wish) == until
        assert line.paused_until(Wish("n")) == -math.inf


class TestQueue:
    @given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("pqr")), max_size=40))
    def test_each_project_is_served_in_order_and_none_twice_while_another_waits(
        self, joined: list[tuple[str, str]]
    ) -> None:
        queue: FairQueue[int] = FairQueue()
        project_of = {number: project for number, (_, project) in enumerate(joined)}
        for number, (lane, project) in enumerate(joined):
            queue.join(number, lane, project, 1)
        left = Counter(project_of.values())
        served: Counter[str] = Counter()
        while (place := next(queue.heads(), None)) is not None:
            queue.take(place)
            project = project_of[place.item]
            served[project] += 1
            left[project] -= 1
            assert all(served[project] <= served[other] + 1 for other in left if left[other])
        assert served.total() == len(joined)
        assert (len(queue), queue.size) == (0, 0)

    @given(
        st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("pqr")), min_size=1, max_size=20),
        st.integers(1, 8),
        st.randoms(use_true_random=False),
    )
    def test_who_comes_back_stands_where_it_stood(
        self, joined: list[tuple[str, str]], several: int, chance: Random
    ) -> None:
        def order(queue: FairQueue[int]) -> list[int]:
            told = []
            while (place := next(queue.heads(), None)) is not None:
                queue.take(place)
                told.append(place.item)
            return told

        def filled() -> FairQueue[int]:
            queue: FairQueue[int] = FairQueue()
            for number, (lane, project) in enumerate(joined):
                queue.join(number, lane, project, 1)
            return queue

        queue = filled()
        taken = [(place, queue.take(place)) for _ in range(several) if (place := next(queue.heads(), None)) is not None]
        chance.shuffle(taken)
        for place, rank in taken:
            queue.join(place.item, place.lane, place.project, place.size, rank)
        assert (len(queue), queue.size) == (len(joined), len(joined))
        by_project = [[each for each in order(made) if joined[each][1] == "p"] for made in (filled(), queue)]
        assert by_project[0] == by_project[1]


class Crowd(RuleBasedStateMachine):
    """Calls join, wait, are cancelled, run out of time, end and are forgotten, in any order, while limits change."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualClock()
        self.entrance = Entrance("p")
        self.rates = RateLimits(concurrent=2, requests_per_minute=6)
        self.entrance.set(self.rates, {"m": RateLimits(concurrent=1)})
        self.waiting: list[tuple[asyncio.Task[bool], Ticket]] = []
        self.inside: list[Ticket] = []
        self.most = 2

    def run(self, seconds: float = 0.0) -> None:
        for each_s in (seconds, 0.0, 0.0, 0.0):  # whoever was let in at the last moment hears of it in the next turns
            self.loop.run_until_complete(asyncio.sleep(each_s))
        for each in list(self.waiting):
            task, ticket = each
            if task.done():
                self.waiting.remove(each)
                if not task.cancelled() and task.result():
                    self.inside.append(ticket)

    @rule(name=st.sampled_from("mno"), project=st.sampled_from("pqr"), patience_s=st.sampled_from([5, 50, math.inf]))
    def join(self, name: str, project: str, patience_s: float) -> None:
        async def join() -> Ticket | None:
            return self.entrance.join(Wish(name, project, 10), self.loop.time() + patience_s)[0]

        ticket = self.loop.run_until_complete(join())
        if ticket is not None:
            self.waiting.append((self.loop.create_task(ticket.called()), ticket))
        self.run()

    @rule(seconds=st.sampled_from([0.5, 5.0, 30.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(seconds)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), at_once=st.booleans())
    def cancel(self, data: st.DataObject, at_once: bool) -> None:
        task, _ = self.waiting[data.draw(st.integers(0, len(self.waiting) - 1))]  # a drawn ticket would be kept alive
        if self.inside and not at_once:
            self.inside.pop().answered(5)  # the turn comes at the moment of the cancellation
        task.cancel()
        self.run()

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), how=st.sampled_from(["answered", "failed", "refused", "undo", "forgotten", "twice"]))
    def end(self, data: st.DataObject, how: str) -> None:
        ticket = self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1)))
        match how:
            case "answered" | "failed":
                getattr(ticket, how)(5)
            case "refused":
                ticket.refused(data.draw(st.sampled_from([None, 10.0])))
            case "undo":
                ticket.undo()
            case "twice":
                ticket.answered(None)
                ticket.failed(7)
        del ticket
        self.run()

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), lane=st.booleans(), project=st.booleans(), wait_s=st.sampled_from([0.1, 8.0, 40.0]))
    def go_back(self, data: st.DataObject, lane: bool, project: bool, wait_s: float) -> None:
        ticket = self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1)))
        where = ticket.wish.model if lane else ANY, ticket.wish.project if project else ANY
        self.waiting.append((self.loop.create_task(ticket.again(where, wait_s)), ticket))
        del ticket
        self.run()

    @rule(slots=st.sampled_from([1, 2, 5]), requests=st.sampled_from([None, 3, 6]))
    def other_limits(self, slots: int, requests: int | None) -> None:
        self.rates = RateLimits(concurrent=slots, requests_per_minute=requests)
        self.entrance.set(self.rates, {"m": RateLimits(concurrent=1)})
        self.most = max(slots, len(self.inside))
        self.run()

    @invariant()
    def slots_are_neither_lost_nor_given_twice(self) -> None:
        line = self.entrance._line
        model_gate, gate = line.gates(Wish("m"))
        assert gate.running == len(self.inside) <= self.most
        self.most = max(self.rates.concurrent or 0, gate.running)  # those above a limit that was lowered may end
        assert model_gate.running == sum(ticket.wish.model == "m" for ticket in self.inside) <= 1
        assert set(line._back) <= set(line.queue)
        assert len(line.queue) == len(self.waiting) == sum(each.waiting for each in self.entrance._loops.values())

    @invariant()
    def nobody_waits_without_a_reason(self) -> None:
        line, now = self.entrance._line, self.loop.time() - 2 * TICK_S
        if self.waiting and (place := next(line.queue.heads(), None)) is not None:
            wish = place.item.wish
            here = {(lane, project) for lane in (ANY, wish.model) for project in (ANY, wish.project)}
            # Also another, which stood before it when those were let in who could be, and has lost its turn by one.
            backs = [back.again_at for each, back in line._back.items() if each is place.item or back.where in here]
            assert max([line.paused_until(wish), *backs]) > now or any(
                gate.free_at(now, 10) > now for gate in line.gates(wish)
            )

    @override
    def teardown(self) -> None:
        while self.waiting or self.inside:
            for ticket in self.inside:
                ticket.answered(5)
            self.inside.clear()
            before = len(self.waiting)
            self.run(200.0)
            assert len(self.waiting) < before or not before
        self.loop.close()


Crowd.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestCrowd = Crowd.TestCase
