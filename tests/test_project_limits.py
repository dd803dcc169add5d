"""Limits of each project: no project gets more than its own, and none waits for another's. Time is virtual."""

from __future__ import annotations

import asyncio

import pytest

from devsynth_providers import ChatRequest, ConfigurationError, LimitReached, PolicyError, RateLimitError, RateLimits
from devsynth_providers.layers.limited import Limited
from devsynth_providers.limits import Wish
from devsynth_providers.limits.turnstile import KEPT, Turnstile
from devsynth_providers.limits.window import WINDOW_S
from devsynth_providers.policy.file import parse_policy
from devsynth_providers.testing import run_virtually

from .test_limited import Server, limiter, most_in_a_minute, now


def asked_by(server: Server, project: str | None) -> list[float]:
    return [at for at, who in zip(server.asked, server.projects, strict=True) if who == project]


def test_a_project_has_no_more_slots_than_its_own_limit_and_others_pass_it_by() -> None:
    async def main() -> None:
        server = Server(1.0)
        layer = Limited(server, limiter(RateLimits(concurrent=3, per_project=RateLimits(concurrent=1))))
        many = [layer.generate("hi", project="many") for _ in range(4)]
        await asyncio.gather(*many, layer.generate("hi", project="one"), layer.generate("hi", project="two"))
        assert asked_by(server, "many") == pytest.approx([0, 1, 2, 3], abs=0.01)
        assert asked_by(server, "one") == asked_by(server, "two") == [0]

    run_virtually(main())


def test_a_model_has_limits_for_each_project_too() -> None:
    async def main() -> None:
        m, n = Server(1.0), Server(1.0, name="n")
        held = limiter(RateLimits(concurrent=10), m=RateLimits(per_project=RateLimits(concurrent=1)))
        layers = Limited(m, held), Limited(n, held)
        await asyncio.gather(*(layer.generate("hi", project="a") for layer in layers for _ in range(3)))
        assert m.asked == pytest.approx([0, 1, 2], abs=0.01)
        assert n.asked == [0, 0, 0]

    run_virtually(main())


def test_a_project_that_has_used_up_its_minute_waits_for_the_next_and_others_do_not() -> None:
    async def main() -> None:
        server = Server(0.1)
        each = RateLimits(requests_per_minute=5)
        layer = Limited(server, limiter(RateLimits(requests_per_minute=12, per_project=each)))
        await asyncio.gather(*(layer.generate("hi", project=name) for _ in range(10) for name in ("a", "b")))
        for name in ("a", "b"):
            assert most_in_a_minute(asked_by(server, name)) == 5
        assert most_in_a_minute(server.asked) == 10

    run_virtually(main())


def test_tokens_of_a_project_are_counted_though_nobody_elses_are() -> None:
    async def main() -> None:
        server = Server(1.0)
        each = RateLimits(tokens_per_minute=1500)
        layer = Limited(server, limiter(RateLimits(per_project=each)))
        await asyncio.gather(*(layer.generate("hi", project=name, max_tokens=1000) for name in "aab"))
        assert server.asked == pytest.approx([0, 0, 60], abs=0.01)

    run_virtually(main())


def test_requests_that_name_no_project_are_one_project() -> None:
    async def main() -> None:
        server = Server(1.0)
        layer = Limited(server, limiter(RateLimits(per_project=RateLimits(concurrent=1))))
        await asyncio.gather(*(layer.generate("hi") for _ in range(2)), layer.generate("hi", project="a"))
        assert server.asked == pytest.approx([0, 0, 1], abs=0.01)

    run_virtually(main())


def test_a_refusal_of_the_provider_tightens_its_own_limits_and_not_the_projects() -> None:
    async def main() -> None:
        server = Server(1.0)
        layer = Limited(server, limiter(RateLimits(concurrent=4, per_project=RateLimits(concurrent=4))))
        server.refuses = lambda: RateLimitError("too much")
        await asyncio.gather(layer.generate("hi", project="a"), return_exceptions=True)
        server.refuses = lambda: None
        before = now()
        await asyncio.gather(*(layer.generate("hi", project=name) for name in "aabb"))
        assert [at - before for at in server.asked[1:]] == pytest.approx([0, 0, 1, 1], abs=0.05)

    run_virtually(main())


def test_what_a_call_would_wait_for_its_project_is_known_before() -> None:
    async def main() -> None:
        server = Server(10.0)
        held = limiter(RateLimits(concurrent=10, per_project=RateLimits(concurrent=1)))
        layer = Limited(server, held)
        await layer.generate("hi", project="a")
        calls = [asyncio.ensure_future(layer.generate("hi", project="a")) for _ in range(3)]
        await asyncio.sleep(0)
        line = held.entrance(server.model)._line

        at, gate = line.expected(Wish("m", "a"), now())
        assert gate is not None
        assert gate.name == "test for a"
        assert at - now() == pytest.approx(25, abs=0.1)
        assert line.expected(Wish("m", "b"), now())[0] == now()
        await asyncio.gather(*calls)

    run_virtually(main())


def test_who_need_not_wait_is_not_refused_for_all_those_who_wait_for_their_own_projects() -> None:
    async def main() -> None:
        server = Server(0.1)
        each = RateLimits(requests_per_minute=1)
        layer = Limited(server, limiter(RateLimits(requests_per_minute=100, per_project=each)))
        many = [asyncio.ensure_future(layer.generate("hi", project=f"p{n}")) for n in range(60) for _ in range(2)]
        await asyncio.sleep(1)
        assert len(server.asked) == 60
        hurried = ChatRequest.of("hi", project="another").on(deadline=now() + 20)
        await (await layer.send(hurried)).read()
        with pytest.raises(LimitReached):
            await layer.send(hurried)
        assert asked_by(server, "another") == [1]
        await asyncio.gather(*many)

    run_virtually(main())


def test_gates_of_projects_that_come_no_more_are_forgotten() -> None:
    turnstile = Turnstile("p", RateLimits(per_project=RateLimits(requests_per_minute=1)))
    for number in range(3 * KEPT):
        gate = turnstile.of(f"project {number}")
        assert gate is not None
        at = number * WINDOW_S / KEPT * 2
        gate.leave(gate.enter(at, 0), at)
    assert len(turnstile._projects) <= KEPT + 1
    busy = turnstile.of(f"project {3 * KEPT - 1}")
    assert busy is not None
    assert busy.free_at(3 * WINDOW_S * 2 - 1, 0) > 3 * WINDOW_S * 2 - 1


def test_limits_per_project_are_written_in_a_policy_and_have_none_of_their_own() -> None:
    rest = "models: {a: {provider: stub, price: free}}\nrules: [{name: all, models: a}]\n"
    each = "limits: {stub: {concurrent: 8, per_project: {concurrent: 2%s}}}\n"
    assert parse_policy(rest + each % "").limits["stub"].per_project == RateLimits(concurrent=2)
    with pytest.raises(PolicyError, match="per_project"):
        parse_policy(rest + each % ", per_project: {concurrent: 1}")
    with pytest.raises(ConfigurationError, match="per_project"):
        RateLimits(per_project=RateLimits(per_project=RateLimits()))
