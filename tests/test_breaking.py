"""Servers that fail are left alone: as a layer, in a router, through a long outage. Time is virtual."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    AllProvidersFailed,
    AuthenticationError,
    ChatRequest,
    CircuitOpen,
    ContentFiltered,
    ContextTooLong,
    DevSynthError,
    EmptyResponse,
    Health,
    ModelNotFound,
    NoModelFits,
    OpenAIProvider,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
    RateLimits,
    Reply,
    Request,
    RequestRejected,
    Retry,
    Router,
    StreamInterrupted,
    Timeouts,
    Tolerance,
)
from devsynth_providers.health import Circuit, Verdict
from devsynth_providers.health.health import KEPT
from devsynth_providers.layers.breaking import Breaking
from devsynth_providers.layers.limited import Limited
from devsynth_providers.layers.retrying import Retrying
from devsynth_providers.layers.traced import Traced
from devsynth_providers.limits import Limiter
from devsynth_providers.testing import ScriptedProvider, run_virtually
from devsynth_providers.types import Identity

from .conftest import Ask
from .helpers import NO_WAIT, model, policy

STREAM = ChatRequest.of("hi", stream=True)
WHOLE = ChatRequest.of("hi")
ONCE = Retry(attempts=1)
DOWN = ProviderUnavailable("down", status=503)
NEVER = Timeouts(first_token_s=20, idle_s=15, total_s=1)
"""Clocks that leave no time to wait for a server to come back."""


class Server(ScriptedProvider):
    """Answers while it is *up*, and else fails with *error*, after *after_s* seconds."""

    def __init__(self, name: str = "m", *, up: bool = True, error: ProviderError = DOWN, after_s: float = 0.0) -> None:
        super().__init__(model=model(name))
        self.up = up
        self.error = error
        self.after_s = after_s
        self.asked: list[float] = []
        self.at_once = self.most_at_once = 0

    @override
    async def send(self, request: Request) -> Reply:
        self.asked.append(asyncio.get_running_loop().time())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.after_s:
                await asyncio.sleep(self.after_s)
            if self.up:
                return await Reply.open(self.model, self._chunks(request, ["ok"]))
            error = type(self.error)(str(self.error), status=self.error.status)
            error.__dict__ |= self.error.__dict__
            raise error
        finally:
            self.at_once -= 1


def steady() -> Health:
    """Without chance."""
    return Health(chance=lambda: 0.0)


def circuit(health: Health | None = None, name: str = "m") -> Circuit:
    return (health or steady()).circuit(Identity("test", name, name))


async def fail(provider: Any, request: Request = WHOLE, times: int = 1) -> DevSynthError:
    for _ in range(times):
        with pytest.raises(DevSynthError) as caught:
            await (await provider.send(request)).read()
    return caught.value


class TestTheLayer:
    def test_after_so_many_failures_it_refuses_without_asking_and_says_when_to_come_back(self, ask: Ask) -> None:
        async def main() -> None:
            server = Server(up=False)
            layer = Breaking(server, circuit())
            for _ in range(5):
                with pytest.raises(ProviderUnavailable, match="down"):
                    await ask(layer)
            with pytest.raises(CircuitOpen, match=r"unavailable, HTTP 503.*another 2\.0 s") as caught:
                await ask(layer)
            error = caught.value
            assert (error.retry_after_s, error.code, error.attempts) == (2, "circuit_open", ())
            assert (error.retryable, error.passes_on, error.billed) == (False, True, False)
            assert len(server.asked) == 5

        run_virtually(main())

    def test_when_it_is_time_one_request_finds_out_and_the_others_are_refused_until_then(self, ask: Ask) -> None:
        async def main() -> None:
            server = Server(up=False)
            layer = Breaking(server, circuit())
            await fail(layer, times=5)
            await asyncio.sleep(2)
            server.up, server.after_s = True, 3.0
            answers = await asyncio.gather(*(ask(layer) for _ in range(9)), return_exceptions=True)
            assert [answer for answer in answers if isinstance(answer, str)] == ["ok"]
            assert sum(isinstance(answer, CircuitOpen) for answer in answers) == 8
            assert await ask(layer) == "ok"
            assert len(server.asked) == 7

        run_virtually(main())

    @pytest.mark.parametrize("error", [RequestRejected("no"), ContextTooLong("no"), ContentFiltered("no")])
    def test_what_the_caller_is_to_blame_for_never_counts(self, error: ProviderError) -> None:
        async def main() -> None:
            assert type(await fail(Breaking(Server(up=False, error=error), circuit()), times=50)) is type(error)

        run_virtually(main())

    @pytest.mark.parametrize("error", [EmptyResponse("e"), RateLimitError("r"), AuthenticationError("f", status=403)])
    def test_what_the_server_is_to_blame_for_does(self, error: ProviderError) -> None:
        async def main() -> None:
            layer = Breaking(Server(up=False, error=error), circuit())
            await fail(layer, times=5)
            assert isinstance(await fail(layer), CircuitOpen)

        run_virtually(main())

    @pytest.mark.parametrize(
        ("error", "left_alone_s"),
        [(AuthenticationError("no", status=401), 300), (QuotaExhausted("no"), 600), (ModelNotFound("no"), 2)],
    )
    def test_some_errors_leave_it_alone_at_once(self, error: ProviderError, left_alone_s: float) -> None:
        async def main() -> None:
            layer = Breaking(Server(up=False, error=error), circuit())
            await fail(layer)
            assert layer.circuit.retry_after_s == left_alone_s

        run_virtually(main())

    def test_a_server_that_says_when_to_come_back_is_left_alone_so_long_by_all(self) -> None:
        async def main() -> None:
            busy = RateLimitError("slow down")
            busy.retry_after_s = 12.5
            layer = Breaking(Server(up=False, error=busy), circuit())
            await fail(layer)
            refusal = await fail(layer)
            assert isinstance(refusal, CircuitOpen)
            assert refusal.retry_after_s == 12.5

        run_virtually(main())

    def test_answers_that_break_off_count_and_those_that_are_left_do_not(self) -> None:
        async def main() -> None:
            broken = Breaking(ScriptedProvider(*[("half", DOWN)] * 5), circuit())
            assert isinstance(await fail(broken, STREAM, times=5), StreamInterrupted)
            assert isinstance(await fail(broken, STREAM), CircuitOpen)
            left = Breaking(ScriptedProvider(*[("half", DOWN)] * 9), circuit())
            for _ in range(9):
                async with await left.send(STREAM) as reply:
                    await anext(reply)
            assert not left.circuit.refuses

        run_virtually(main())

    def test_a_call_that_is_cancelled_says_nothing_and_leaves_the_place_of_the_probe_to_another(self) -> None:
        async def main() -> None:
            server = Server(up=False)
            layer = Breaking(server, circuit())
            await fail(layer, times=5)
            await asyncio.sleep(2)
            server.up, server.after_s = True, 60.0
            probe = asyncio.create_task(layer.complete(WHOLE))
            await asyncio.sleep(1)
            assert layer.circuit.wait_s is None
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe
            assert (await layer.complete(WHOLE)).text == "ok"

        run_virtually(main())

    def test_the_first_piece_of_a_stream_says_that_a_server_is_back(self) -> None:
        async def main() -> None:
            provider = ScriptedProvider(*[DOWN] * 5, ("a", 3600.0, "b"), "ok")
            layer = Breaking(provider, circuit())
            await fail(layer, STREAM, times=5)
            await asyncio.sleep(2)
            async with await layer.send(STREAM):
                assert (await layer.complete(WHOLE)).text == "ok"

        run_virtually(main())

    @pytest.mark.parametrize(("deadline_s", "counts"), [(0.5, False), (30.0, True)])
    def test_running_out_of_time_counts_only_if_there_was_enough(self, deadline_s: float, counts: bool) -> None:
        async def main() -> None:
            late = Server(up=False, error=ProviderTimeout("late"), after_s=deadline_s)
            layer = Breaking(late, circuit())
            await asyncio.gather(*(fail(layer) for _ in range(9)))
            assert layer.circuit.refuses is counts

        run_virtually(main())

    @pytest.mark.parametrize(
        ("error", "after_s"), [(ProviderTimeout("HTTP 504", status=504), 0.1), (ProviderTimeout("no connection"), 5.0)]
    )
    def test_running_out_of_the_servers_own_time_or_of_that_to_connect_always_counts(
        self, error: ProviderTimeout, after_s: float
    ) -> None:
        async def main() -> None:
            error.billed = error.status is not None
            layer = Breaking(Server(up=False, error=error, after_s=after_s), circuit())
            await asyncio.gather(*(fail(layer) for _ in range(5)))
            assert layer.circuit.refuses

        run_virtually(main())

    def test_whole_answers_that_do_not_come_count_while_they_are_waited_for(self) -> None:
        async def main() -> None:
            server = Server(after_s=3600)
            layer = Breaking(server, circuit())
            calls = [asyncio.create_task(layer.complete(WHOLE)) for _ in range(5)]
            await asyncio.sleep(41)
            assert "no sign of life" in str(await fail(layer))
            server.after_s = 0.0
            await asyncio.sleep(2)
            assert (await layer.complete(WHOLE)).text == "ok"
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert not layer.circuit.avoided

        run_virtually(main())

    def test_a_long_answer_is_no_sign_of_death_while_others_are_answered_and_ends_the_doubt_itself(self) -> None:
        async def main() -> None:
            server = Server(after_s=50)
            layer = Breaking(server, circuit())
            long = [asyncio.create_task(layer.complete(WHOLE)) for _ in range(6)]
            await asyncio.sleep(1)
            server.after_s = 0.0
            await layer.complete(WHOLE)
            await asyncio.sleep(44)
            assert not layer.circuit.avoided
            await asyncio.gather(*long)
            server.after_s = 50
            long = [asyncio.create_task(layer.complete(WHOLE)) for _ in range(6)]
            await asyncio.sleep(41)
            assert layer.circuit.refuses
            await asyncio.gather(*long)
            assert not layer.circuit.avoided

        run_virtually(main())

    def test_who_waits_for_a_turn_waits_for_no_sign_of_life(self) -> None:
        async def main() -> None:
            limiter = Limiter()
            limiter.hold(replace(policy(model("m")), limits={"m": RateLimits(concurrent=2)}))
            layer = Breaking(Limited(Server(after_s=30), limiter), circuit())
            calls = [asyncio.create_task(layer.complete(WHOLE)) for _ in range(20)]
            for _ in range(10):
                await asyncio.sleep(29)
                assert not layer.circuit.avoided
            await asyncio.gather(*calls)

        run_virtually(main())

    def test_a_model_on_this_machine_may_be_silent_while_it_loads(self) -> None:
        async def main() -> None:
            server = Server(after_s=100)
            server._model = replace(server.model, base_url="http://localhost:1234/v1")
            layer = Breaking(server, circuit())
            calls = [asyncio.create_task(layer.complete(WHOLE)) for _ in range(20)]
            await asyncio.sleep(99)
            assert not layer.circuit.avoided
            await asyncio.gather(*calls)

        run_virtually(main())

    def test_a_slow_server_is_avoided_and_not_refused(self) -> None:
        async def main() -> None:
            slow = Server(after_s=11)
            layer = Breaking(Traced(slow), circuit())
            await asyncio.gather(*(layer.complete(STREAM) for _ in range(10)))
            assert (layer.circuit.avoided, layer.circuit.refuses) == (True, False)
            assert (await layer.complete(STREAM)).text == "ok"

        run_virtually(main())

    def test_a_model_on_this_machine_is_never_avoided_for_being_slow(self) -> None:
        async def main() -> None:
            slow = Server(after_s=11)
            slow._model = replace(slow.model, path="model.gguf")
            layer = Breaking(slow, circuit())
            await asyncio.gather(*(layer.complete(STREAM) for _ in range(10)))
            assert not layer.circuit.avoided

        run_virtually(main())

    def test_a_circuit_that_opens_ends_the_retries(self) -> None:
        async def main() -> None:
            server = Server(up=False)
            error = await fail(Retrying(Breaking(Traced(server), circuit()), Retry(attempts=9, initial_s=0)))
            assert isinstance(error, CircuitOpen)
            assert isinstance(error.__cause__, ProviderUnavailable)
            assert len(error.attempts) == len(server.asked) == 5

        run_virtually(main())


def router(*servers: Server, health: Health | None = None, **options: Any) -> Router:
    options.setdefault("retry", ONCE)
    models = [model(each.model.name) for each in servers]
    given = {each.model.name: each for each in servers}
    return Router(policy(*models, **options), given, health=health or steady())


class TestInARouter:
    def test_a_model_that_failed_is_left_out_of_the_plan_with_the_reason_and_when_it_comes_back(self, ask: Ask) -> None:
        async def main() -> None:
            dead, other = Server("a", up=False), Server("b")
            both = router(dead, other)
            for _ in range(7):
                assert await ask(both) == "ok"
            assert len(dead.asked) == 5
            ((name, code, reason),) = both.plan("hi").rejected
            assert (name, code) == ("a", "unhealthy")
            assert reason == "its circuit is open (unavailable, HTTP 503): it is left alone for another 2.0 s"
            await asyncio.sleep(2)
            assert both.plan("hi").models == ("a", "b")
            dead.up = True
            assert await ask(both) == "ok"
            assert len(dead.asked) == 6

        run_virtually(main())

    def test_if_all_have_failed_it_waits_for_the_soonest_and_asks_once(self, ask: Ask) -> None:
        async def main() -> None:
            a, b = Server("a", up=False), Server("b", up=False)
            both = router(a, b)
            for _ in range(5):
                with pytest.raises(AllProvidersFailed):
                    await ask(both)
            with pytest.raises(NoModelFits, match=r"left alone for another 2\.0 s"):
                both.plan("hi")
            began = asyncio.get_running_loop().time()
            a.up = True
            assert await ask(both) == "ok"
            assert asyncio.get_running_loop().time() - began == pytest.approx(2)
            assert (len(a.asked), len(b.asked)) == (6, 5)

        run_virtually(main())

    def test_a_request_that_waited_and_failed_is_told_why_and_asks_nobody_again(self, ask: Ask) -> None:
        async def main() -> None:
            server = Server("a", up=False)
            one = router(server, retry=NO_WAIT)
            for _ in range(9):
                with pytest.raises(ProviderUnavailable, match="down") as caught:
                    await ask(one)
                assert caught.value.attempts
            assert len(server.asked) == 5 + 8

        run_virtually(main())

    def test_if_none_is_back_in_time_it_says_at_once_when_to_come_back(self, ask: Ask) -> None:
        async def main() -> None:
            a, b = Server("a", up=False), Server("b", up=False)
            both = router(a, b, timeouts=NEVER)
            for _ in range(5):
                with pytest.raises(AllProvidersFailed):
                    await ask(both)
            began = asyncio.get_running_loop().time()
            with pytest.raises(CircuitOpen, match=r"come back in 2\.0 s") as caught:
                await ask(both)
            assert asyncio.get_running_loop().time() == began
            assert caught.value.retry_after_s == 2
            assert [each.model for each in caught.value.rejected] == ["a", "b"]
            assert "HTTP 503" in str(caught.value)

        run_virtually(main())

    def test_those_who_wait_while_one_finds_out_are_served_when_it_has(self) -> None:
        async def main() -> None:
            server = Server("a", up=False)
            one = router(server)
            await fail(one, times=5)
            server.up, server.after_s = True, 5.0
            waiting = [asyncio.create_task(one.generate("hi")) for _ in range(20)]
            await asyncio.sleep(6)
            assert server.most_at_once == 1
            assert await asyncio.gather(*waiting) == ["ok"] * 20

        run_virtually(main())

    def test_requests_that_were_refused_their_retry_get_it_when_the_server_is_back(self) -> None:
        """All of them were told to come back in two seconds. One finds out whether it is true; no other is lost."""

        async def main() -> None:
            busy = RateLimitError("slow down", status=429)
            busy.retry_after_s = 2.0
            server = Server("a", up=False, error=busy, after_s=0.5)
            one = router(server, retry=Retry())
            calls = [asyncio.create_task(one.complete("hi")) for _ in range(9)]
            await asyncio.sleep(1)
            server.up = True
            answers = await asyncio.gather(*calls)
            assert [len(each.attempts) for each in answers] == [2] * 9
            assert len(server.asked) == 18

        run_virtually(main())

    def test_only_so_many_wait_and_the_others_are_told_at_once(self) -> None:
        async def main() -> None:
            server = Server("a", up=False)
            one = router(server, health=Health(chance=lambda: 0.0, waiting=3))
            await fail(one, times=5)
            server.up = True
            began = asyncio.get_running_loop().time()
            calls = [asyncio.create_task(one.generate("hi")) for _ in range(9)]
            done, _ = await asyncio.wait(calls, timeout=1)
            assert len(done) == 6
            assert all(isinstance(each.exception(), CircuitOpen) for each in done)
            await asyncio.gather(*(call for call in calls if call not in done))
            assert asyncio.get_running_loop().time() - began < 4
            server.up = False
            await fail(one, times=5)
            server.up = True
            assert await one.generate("there is room again") == "ok"

        run_virtually(main())

    def test_who_gives_up_waiting_leaves_nothing_behind(self) -> None:
        async def main() -> None:
            server = Server("a", up=False)
            one = router(server, health=Health(chance=lambda: 0.0, waiting=1))
            await fail(one, times=5)
            server.up = True
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(one.generate("hi"), 0.1)
            assert await one.generate("hi") == "ok"

        run_virtually(main())

    def test_a_slow_model_is_left_for_a_faster_one_and_asked_if_there_is_none(self) -> None:
        async def main() -> None:
            slow, quick = Server("slow", after_s=11), Server("quick")
            both = router(slow, quick)
            await asyncio.gather(*(both.complete(STREAM) for _ in range(10)))
            assert both.plan("hi").models == ("quick",)
            quick.up = False
            await fail(both, times=5)
            assert both.plan("hi").models == ("slow",)
            assert (await both.complete(STREAM)).text == "ok"

        run_virtually(main())

    def test_another_policy_does_not_make_a_server_well(self) -> None:
        async def main() -> None:
            dead, other = Server("a", up=False), Server("b")
            both = router(dead, other)
            for _ in range(5):
                await both.generate("hi")
            changed = replace(both.policy, name="changed", timeouts=Timeouts(total_s=50))
            both._succession.follow(changed, None)
            assert both.policy.name == "changed"
            assert both.plan("hi").models == ("b",)

        run_virtually(main())

    def test_routers_that_share_their_health_learn_from_each_other_and_others_do_not(self) -> None:
        async def main() -> None:
            health = steady()
            dead = Server("a", up=False)
            first, second = router(dead, Server("b"), health=health), router(dead, Server("b"), health=health)
            for _ in range(5):
                await first.generate("hi")
            assert first.plan("hi").models == second.plan("hi").models == ("b",)
            assert router(dead, Server("b")).plan("hi").models == ("a", "b")

        run_virtually(main())

    def test_two_names_for_one_server_are_one_and_another_key_or_host_is_another(self) -> None:
        health = steady()

        def served(key: str, url: str = "http://gpu1:8000/v1", name: str = "m") -> Circuit:
            provider = OpenAIProvider(model(name, model="qwen", provider="openai"), base_url=url, api_key=key)
            assert key not in repr(provider.identity)
            one = Router(policy(model(name)), {name: provider}, health=health)
            return one._deployments.current.circuits[name]

        first = served("key-one-1234")
        assert served("key-one-1234", name="other") is first
        assert served("key-two-1234") is not first
        assert served("key-one-1234", "http://gpu2:8000/v1") is not first

    def test_health_of_a_name_says_nothing_of_another_server_of_that_name_in_the_shadow(self) -> None:
        async def main() -> None:
            a, b = model("a"), model("b")
            elsewhere = policy(replace(a, base_url="http://elsewhere"), b)
            servers = {"a": Server("a", up=False), "b": Server("b")}
            tried = Router(policy(a, b, retry=ONCE), servers, shadow=elsewhere, health=steady())
            for _ in range(7):
                await tried.generate("hi")
            report = tried.shadow_report
            assert report is not None
            assert (report.differences, dict(report.by_first_models)) == (2, {("b", "a"): 2})

        run_virtually(main())


@pytest.mark.slow
class TestOutages:
    """Twenty requests a second for some minutes."""

    RATE = 20

    async def load(self, router: Router, seconds: float) -> list[asyncio.Task[str]]:
        calls = []
        for _ in range(round(seconds * self.RATE)):
            calls.append(asyncio.create_task(router.generate("hi")))
            await asyncio.sleep(1 / self.RATE)
        return calls

    @pytest.mark.parametrize(
        ("error", "after_s", "asks_for_s"),
        [(DOWN, 0.05, None), (ProviderTimeout("late"), 20.0, None), (RateLimitError("busy", status=429), 0.05, 0.01)],
    )
    def test_after_a_minute_of_total_outage_hardly_a_call_is_made_and_soon_after_it_all_is_well(
        self, error: ProviderError, after_s: float, asks_for_s: float | None
    ) -> None:
        async def main() -> None:
            told = type(error)(str(error), status=error.status)
            if asks_for_s is not None:
                told.retry_after_s = asks_for_s  # type: ignore[attr-defined]
            servers = [Server(name, up=False, error=told, after_s=after_s) for name in "ab"]
            both = router(*servers, retry=Retry(), health=Health())
            calls = await self.load(both, 60)
            before = sum(len(each.asked) for each in servers)
            calls += await self.load(both, 180)
            during = sum(len(each.asked) for each in servers) - before
            assert during <= 0.05 * 180 * self.RATE
            assert during >= 2, "somebody must find out"
            for each in servers:
                each.up, each.after_s = True, 0.05
            calls += await self.load(both, Tolerance().cap_s)
            calls += (well := await self.load(both, 30))
            assert [call.exception() for call in well if call.done()] == [None] * sum(call.done() for call in well)
            await asyncio.gather(*calls, return_exceptions=True)
            assert all(not call.exception() or isinstance(call.exception(), ProviderError) for call in calls)

        run_virtually(main())

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize("models", ["a", "ab"])
    def test_where_every_answer_hangs_hardly_a_call_is_made_after_a_minute_either(
        self, models: str, streamed: bool
    ) -> None:
        async def main() -> None:
            servers = [Server(name, after_s=1e6) for name in models]
            all_of_them = router(*servers, retry=Retry(), health=Health())
            calls = []

            async def load(seconds: float) -> None:
                for _ in range(round(seconds * 5)):
                    calls.append(asyncio.create_task(all_of_them.complete(STREAM if streamed else WHOLE)))
                    await asyncio.sleep(1 / 5)

            await load(60)
            before = sum(len(each.asked) for each in servers)
            await load(180)
            assert 2 <= sum(len(each.asked) for each in servers) - before <= 0.05 * 180 * 5
            for each in servers:
                each.after_s = 0.05
            await load(2 * Tolerance().cap_s)
            well, calls = calls, []
            await load(30)
            answers = await asyncio.gather(*calls)
            assert {each.text for each in answers} == {"ok"}
            await asyncio.gather(*well, return_exceptions=True)

        run_virtually(main())

    def test_a_server_whose_whole_answers_take_their_time_is_refused_to_nobody(self) -> None:
        async def main() -> None:
            one = router(Server("a", after_s=25), health=Health())
            calls = await self.load(one, 60)
            assert await asyncio.gather(*calls) == ["ok"] * len(calls)

        run_virtually(main())

    def test_where_one_of_two_hangs_the_other_is_soon_asked_in_its_place(self) -> None:
        async def main() -> None:
            hangs, well = Server("a", after_s=1e6), Server("b", after_s=0.05)
            both = router(hangs, well, retry=Retry(), health=Health())
            calls = await self.load(both, 100)
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert answers.count("ok") >= len(answers) - 12 * self.RATE
            assert len(hangs.asked) <= 12 * self.RATE

        run_virtually(main())

    @pytest.mark.parametrize("after_s", [0.05, 20.0])
    def test_one_healthy_model_of_two_is_enough(self, after_s: float) -> None:
        async def main() -> None:
            dead, well = Server("a", up=False, after_s=after_s), Server("b", after_s=0.05)
            both = router(dead, well, retry=Retry(), health=Health())
            calls = await self.load(both, 120)
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert answers.count("ok") >= 0.999 * len(answers)
            assert len(dead.asked) <= 0.05 * 120 * self.RATE + 20 * self.RATE

        run_virtually(main())

    def test_a_server_that_fails_now_and_then_is_sent_ten_percent_more_at_most(self) -> None:
        async def main() -> None:
            class Shaky(Server):
                @override
                async def send(self, request: Request) -> Reply:
                    self.up = len(self.asked) % 5 > 1  # less than half fail: its circuit stays closed
                    return await super().send(request)

            shaky = Shaky("a")
            one = router(shaky, retry=Retry(initial_s=0.1), health=Health())
            calls = await self.load(one, 100)
            await asyncio.gather(*calls, return_exceptions=True)
            assert len(shaky.asked) <= len(calls) * 1.1 + 100 * 0.2 + 10

        run_virtually(main())


class TestTheRetryBudget:
    def test_a_retry_that_is_not_allowed_is_passed_on_to_the_next_model(
        self, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        async def main() -> None:
            servers = Server("a", up=False), Server("b")
            health = Health(Tolerance(failures=1000), chance=lambda: 0.0)
            both = router(*servers, retry=Retry(attempts=2, initial_s=0, budget=0), health=health)
            for _ in range(12):
                assert await both.generate("hi") == "ok"
            assert len(servers[0].asked) == 12 + 10
            await asyncio.sleep(5)
            await both.generate("hi")
            assert len(servers[0].asked) == 22 + 2

        run_virtually(main())
        requests = [span for span in spans() if span.parent is None]
        assert [event.name for event in requests[11].events][1:] == ["retry.denied", "fallback"]

    def test_requests_earn_their_share_of_retries(self) -> None:
        async def main() -> None:
            health = Health(Tolerance(failures=1000), chance=lambda: 0.0)
            server = Server("a", up=False)
            one = router(server, retry=Retry(attempts=2, initial_s=0, budget=0.5), health=health)
            await fail(one, times=120)
            assert len(server.asked) == pytest.approx(120 * 1.5 + 10, abs=2)

        run_virtually(main())

    async def test_a_provider_alone_has_no_budget_to_share(self) -> None:
        server = Server("a", up=False)
        await fail(Retrying(server, Retry(attempts=20, initial_s=0)))
        assert len(server.asked) == 20


class TestTheTrace:
    def test_what_a_request_did_to_a_circuit_stands_on_it_and_a_refusal_is_no_attempt(
        self, ask: Ask, spans: Callable[[], list[ReadableSpan]]
    ) -> None:
        async def main() -> None:
            one = router(server := Server("a", up=False))
            for _ in range(5):
                with pytest.raises(ProviderUnavailable):
                    await ask(one)
            server.up = True
            await ask(one)

        run_virtually(main())
        requests = [span for span in spans() if span.parent is None]
        opened, back = requests[4].events, requests[5].events
        assert [event.name for event in opened] == ["policy.decide", "breaker.open"]
        assert dict(opened[1].attributes or {}) == {
            "model": "a",
            "reason": "unavailable, HTTP 503",
            "retry_after_s": 2.0,
        }
        assert [event.name for event in back] == [
            "breaker.wait",
            "policy.decide",
            "breaker.half_open",
            "breaker.closed",
        ]
        assert len(spans()) == len(requests) + 6


def test_many_threads_send_one_probe() -> None:
    health = steady()
    one = circuit(health)
    for _ in range(5):
        leave = one.admit(10)
        assert leave is not None
        one.settle(leave, Verdict(bad=True, at_once=True, hold_s=0.001))
        break
    probes = []
    start = threading.Barrier(8)

    def knock() -> None:
        start.wait()
        for _ in range(2000):
            leave = one.admit(1000)
            if leave is not None and leave.probe:
                probes.append(leave)

    threads = [threading.Thread(target=knock) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(probes) <= 1


def test_a_router_serves_several_loops_and_all_know_of_one_outage() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0], chance=lambda: 0.0)
    dead = Server("a", up=False)
    both = router(dead, Server("b"), health=health)
    for _ in range(9):
        assert asyncio.run(both.generate("hi")) == "ok"
    assert len(dead.asked) == 5
    now[0] = 2.0
    dead.up = True
    assert asyncio.run(both.generate("hi")) == "ok"
    assert len(dead.asked) == 6


def test_a_call_that_the_garbage_collector_ends_in_the_midst_of_another_stops_nobody() -> None:
    code = """
import asyncio
from devsynth_providers import ChatRequest, Health
from devsynth_providers.health.health import KEPT
from devsynth_providers.layers.breaking import Breaking
from devsynth_providers.layers.limited import Limited
from devsynth_providers.testing import EchoProvider
from devsynth_providers.types import Identity
class Hangs(EchoProvider):
    async def send(self, request):
        await asyncio.sleep(3600)
health = Health()
circuit = health.circuit(Identity("test", "here", "m"))
async def main():
    call = Breaking(Hangs(), circuit).send(ChatRequest.of("hi"))
    call.send(None)
    with circuit._guard:
        try:
            call.throw(GeneratorExit)
        except GeneratorExit:
            pass
    waiting = health.waiting()
    waiting.__enter__()
    with health._guard:
        waiting.__exit__(None, None, None)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_forked_child_does_not_wait_for_what_its_parent_finds_out_nor_count_who_waits_there() -> None:
    code = """
import os
from devsynth_providers import Health
from devsynth_providers.health import Verdict
from devsynth_providers.types import Identity
now = [0.0]
health = Health(clock=lambda: now[0], waiting=1)
circuit = health.circuit(Identity("test", "here", "m"))
circuit.settle(circuit.admit(1.0), Verdict(bad=True, at_once=True))
now[0] = 2.0
with health.waiting() as room:
    assert room and circuit.admit(1000.0).probe and circuit.admit(1000.0) is None
    child = os.fork()
    if child == 0:
        with health.waiting() as own:
            os._exit(0 if own and circuit.admit(1000.0) is not None else 1)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_circuits_of_servers_that_nobody_asks_any_more_are_forgotten_and_those_in_use_are_not() -> None:
    health = steady()
    used = circuit(health, "used")
    for number in range(2 * KEPT):
        circuit(health, str(number))
    gc.collect()
    assert len(health._circuits) <= KEPT + 1
    assert circuit(health, "used") is used


def test_a_forked_child_does_not_find_a_lock_taken_that_nobody_there_will_let_go() -> None:
    code = """
import os
from devsynth_providers.health import Health
from devsynth_providers.types import Identity
circuit = Health().circuit(Identity("test", "here", "m"))
with circuit._guard:  # as another thread may, at the moment of the fork
    child = os.fork()
    if child == 0:
        os._exit(0 if circuit.admit(1.0) is not None else 1)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
