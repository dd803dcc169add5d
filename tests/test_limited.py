"""Limits: what a provider is sent at most, who waits, who goes elsewhere. Time is virtual, threads are real."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    ChatRequest,
    LimitReached,
    Policy,
    ProviderError,
    ProviderPort,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimitError,
    RateLimits,
    Reply,
    Request,
    Router,
    Timeouts,
    Usage,
)
from devsynth_providers.layers.limited import Limited
from devsynth_providers.limits import Limiter, Wish
from devsynth_providers.testing import Line, ScriptedProvider, VirtualClock, run_virtually

from .conftest import Ask
from .helpers import model, policy

M = model("m")


def now() -> float:
    return asyncio.get_running_loop().time()


class Server(ProviderPort):
    """Answers for ever, each time in *takes_s*, and writes down when it was asked and how many it had at once."""

    def __init__(self, takes_s: float = 1.0, *, name: str = "m", usage: Usage | None = None) -> None:
        self._model = model(name)
        self.takes_s = takes_s
        self.usage = usage
        self.asked: list[float] = []
        self.projects: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.refuses: Callable[[], ProviderError | None] = lambda: None
        self._lock = threading.Lock()

    @property
    @override
    def model(self) -> Any:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        with self._lock:
            self.asked.append(now())
            self.projects.append(request.project)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if (error := self.refuses()) is not None:
                raise error
            script: Line = (self.takes_s / 2, "a", self.takes_s / 2, "b")
            reply = await ScriptedProvider(script, model=self._model, usage=self.usage).send(request)
        except BaseException:
            self._ended()
            raise
        return reply.on_finish(lambda *_: self._ended())

    def _ended(self) -> None:
        with self._lock:
            self.at_once -= 1


def limiter(whole: RateLimits | None = None, **models: RateLimits) -> Limiter:
    """One that holds *whole* for the provider of the tests, and others for its models."""
    made = Limiter()
    made.hold(limits(whole, **models))
    return made


def limits(whole: RateLimits | None = None, **models: RateLimits) -> Policy:
    both = {**models, "test": whole} if whole is not None else models
    return replace(policy(M, model("n")), limits=both)


async def all_of(*work: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


def most_in_a_minute(moments: Sequence[float]) -> int:
    return max(sum(1 for each in moments if start <= each < start + 60) for start in moments)


def test_a_thousand_calls_on_eight_slots_are_never_more_than_eight_and_all_are_answered(ask: Ask) -> None:
    async def main() -> None:
        server = Server()
        layer = Limited(server, limiter(RateLimits(concurrent=8)))
        answers = await asyncio.gather(*(ask(layer) for _ in range(1000)))
        assert answers == ["ab"] * 1000
        assert server.most_at_once == 8
        assert now() == pytest.approx(125)

    run_virtually(main())


@pytest.mark.parametrize("burst", [1, 7, 100])
def test_no_minute_has_more_requests_than_allowed_wherever_it_begins(burst: int) -> None:
    async def main() -> None:
        server = Server(0.1)
        layer = Limited(server, limiter(RateLimits(requests_per_minute=20)))
        calls = []
        for _ in range(100 // burst):
            calls += [asyncio.create_task(layer.generate("hi")) for _ in range(burst)]
            await asyncio.sleep(burst * 1.7)
        await asyncio.gather(*calls)
        assert most_in_a_minute(server.asked) <= 20
        assert now() <= 400  # and as many as allowed are used

    run_virtually(main())


def test_no_minute_has_more_tokens_than_allowed_and_what_was_not_used_is_given_back() -> None:
    async def main(usage: Usage | None) -> float:
        server = Server(1.0, usage=usage)
        layer = Limited(server, limiter(RateLimits(tokens_per_minute=2500)))
        await asyncio.gather(*(layer.generate("hi", max_tokens=1000) for _ in range(10)))
        used = 1000 if usage is None else usage.input_tokens + usage.output_tokens
        assert most_in_a_minute(server.asked) * used <= 2500
        return now()

    assert run_virtually(main(None)) > 4 * 60
    assert run_virtually(main(Usage(50, 100))) < 15
    assert run_virtually(main(Usage(50, 450))) < 4 * 60


@pytest.mark.parametrize("usage", [Usage(10**9, 0), Usage(0, 10**9), Usage(-(10**9), 0), Usage(-5, -7)])
def test_tokens_that_can_not_have_been_used_neither_fill_a_minute_nor_free_one(usage: Usage, ask: Ask) -> None:
    async def main() -> None:
        server = Server(1.0, usage=usage)
        layer = Limited(server, limiter(RateLimits(tokens_per_minute=2500)))
        for _ in range(3):
            await ask(layer)
        assert server.asked == pytest.approx([0, 1, 60])

    run_virtually(main())


def test_who_no_longer_waits_leaves_no_timer() -> None:
    async def main() -> None:
        layer = Limited(Server(1.0), limiter(RateLimits(requests_per_minute=1)))
        await layer.generate("hi")
        for _ in range(5):
            call = asyncio.create_task(layer.generate("hi"))
            await asyncio.sleep(0.1)
            call.cancel()
            await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClock)
        assert loop.timers == 0

    run_virtually(main())


def test_a_call_that_is_more_than_a_minute_may_have_goes_alone() -> None:
    async def main() -> None:
        server = Server(1.0)
        layer = Limited(server, limiter(RateLimits(tokens_per_minute=100)))
        await asyncio.gather(layer.generate("hi"), layer.generate("hi"))
        assert server.asked == pytest.approx([0, 60])

    run_virtually(main())


def test_a_models_limits_and_its_providers_both_hold() -> None:
    async def main() -> None:
        m, n = Server(name="m"), Server(name="n")
        shared = limiter(RateLimits(concurrent=3), m=RateLimits(concurrent=2))
        calls = [Limited(each, shared).generate("hi") for _ in range(20) for each in (m, n)]
        both = asyncio.gather(*calls)
        await asyncio.sleep(0.1)
        assert (m.at_once, n.at_once) == (2, 1)
        await both
        assert m.most_at_once == 2
        assert n.most_at_once <= 3

    run_virtually(main())


def test_calls_pass_in_the_order_in_which_they_came_and_projects_in_turn() -> None:
    async def main() -> None:
        server = Server()
        layer = Limited(server, limiter(RateLimits(concurrent=1)))
        many = [layer.generate("hi", project="many") for _ in range(5)]
        await asyncio.gather(*many, layer.generate("hi", project="one"), layer.generate("hi", project="two"))
        assert server.projects == ["many", "many", "one", "two", "many", "many", "many"]

    run_virtually(main())


class TestDeadline:
    def test_who_would_come_too_late_is_told_at_once(self, ask: Ask) -> None:
        async def main() -> None:
            layer = Limited(Server(), limiter(RateLimits(requests_per_minute=1)))
            await ask(layer)
            began = now()
            with pytest.raises(LimitReached) as caught:
                await layer.complete(ChatRequest.of("hi").on(deadline=began + 20))
            assert now() == began
            error = caught.value
            assert (error.code, error.billed, error.passes_on, error.retryable) == ("local_limit", False, True, False)
            assert error.retry_after_s == pytest.approx(59)
            await layer.complete(ChatRequest.of("hi").on(deadline=began + 70))
            assert now() == pytest.approx(61)

        run_virtually(main())

    def test_a_queue_too_long_to_be_served_in_time_takes_nobody_more(self) -> None:
        async def main() -> None:
            layer = Limited(Server(10), limiter(RateLimits(concurrent=1)))
            await layer.generate("hi")  # from now on it is known how long calls take
            request = ChatRequest.of("hi").on(deadline=now() + 35)
            done = await all_of(*(layer.complete(request) for _ in range(10)))
            assert sum(isinstance(each, LimitReached) for each in done) == 10 - 3
            assert now() == pytest.approx(40)

        run_virtually(main())

    def test_who_waits_in_vain_leaves_before_the_deadline_and_is_not_charged(self, ask: Ask) -> None:
        async def main() -> None:
            server = Server(3600)
            held = limiter(RateLimits(concurrent=1))
            slow = asyncio.create_task(Limited(server, held).generate("hi"))
            await asyncio.sleep(1)
            router = Router(
                replace(policy(M, timeouts=Timeouts(total_s=30)), limits={"test": RateLimits(concurrent=1)}),
                {"m": server},
                limiter=held,
            )
            with pytest.raises(LimitReached) as caught:
                await ask(router)
            assert now() == pytest.approx(31, abs=0.1)
            (attempt,) = caught.value.attempts
            assert (attempt.error, attempt.cost_micros, attempt.worst_micros) == ("local_limit", 0, 0)
            assert attempt.wait_s == pytest.approx(30, abs=0.1)
            slow.cancel()

        run_virtually(main())

    def test_the_next_model_is_asked_then(self, ask: Ask) -> None:
        async def main() -> None:
            stated = replace(policy(M, model("n")), limits={"m": RateLimits(requests_per_minute=1)})
            router = Router(replace(stated, timeouts=Timeouts(total_s=30)), {"m": Server(), "n": Server(name="n")})
            assert [await ask(router), await ask(router)] == ["ab", "ab"]
            answer = await router.complete("hi")
            assert answer.model == "n"
            assert [(each.model, each.error) for each in answer.attempts] == [("m", "local_limit"), ("n", None)]

        run_virtually(main())


class TestSlot:
    """A slot is held until the answer has ended, however it does, and is then free for another."""

    @staticmethod
    def one() -> tuple[Server, Limited]:
        server = Server()
        return server, Limited(server, limiter(RateLimits(concurrent=1)))

    @staticmethod
    async def free(layer: Limited) -> bool:
        try:
            return await layer.complete(ChatRequest.of("hi").on(deadline=now() + 5)) is not None
        except LimitReached:
            return False

    def test_while_the_answer_is_read(self) -> None:
        async def main() -> None:
            _, layer = self.one()
            reply = await layer.send(ChatRequest.of("hi", stream=True))
            await anext(reply)
            assert not await self.free(layer)
            await reply.read()
            assert await self.free(layer)

        run_virtually(main())

    def test_until_it_is_left(self) -> None:
        async def main() -> None:
            _, layer = self.one()
            async with await layer.send(ChatRequest.of("hi", stream=True)) as reply:
                await anext(reply)
            assert await self.free(layer)
            await (await layer.send(ChatRequest.of("hi"))).aclose()
            assert await self.free(layer)

        run_virtually(main())

    @pytest.mark.filterwarnings("ignore:an answer of m was forgotten")
    def test_until_it_is_forgotten(self) -> None:
        async def main() -> None:
            _, layer = self.one()
            reply = await layer.send(ChatRequest.of("hi", stream=True))
            await anext(reply)
            del reply
            gc.collect()
            assert await self.free(layer)

        run_virtually(main())

    @pytest.mark.parametrize(
        "error", [ProviderUnavailable("down"), RateLimitError("slow"), TypeError("bug"), KeyboardInterrupt()]
    )
    def test_until_the_call_fails(self, error: BaseException) -> None:
        async def main() -> None:
            held = limiter(RateLimits(concurrent=1))
            layer = Limited(ScriptedProvider(error, ("half", error), "ok"), held)
            for _ in range(2):
                try:
                    await layer.generate("hi")
                except (ProviderError, TypeError, KeyboardInterrupt) as caught:
                    assert not isinstance(caught, LimitReached)
            assert await self.free(layer)

        run_virtually(main())

    @pytest.mark.parametrize("after_s", [0.0, 0.1, 0.5, 0.75, 1.0, 1.2, 1.5, 1.8])
    def test_whenever_it_is_cancelled(self, after_s: float, ask: Ask) -> None:
        async def main() -> None:
            server, layer = self.one()
            first, second = asyncio.ensure_future(ask(layer)), asyncio.ensure_future(ask(layer))
            await asyncio.sleep(after_s)
            second.cancel()
            await asyncio.wait([second])
            first.cancel()
            await asyncio.wait([first])
            assert await self.free(layer)
            assert server.most_at_once == 1

        run_virtually(main())


class TestRefusals:
    def test_nobody_passes_before_the_provider_wants_to_be_asked_again(self, ask: Ask) -> None:
        async def main() -> None:
            server = Server()
            layer = Limited(server, limiter(RateLimits(concurrent=8)))
            busy = RateLimitError("slow")
            busy.retry_after_s = 12.5
            server.refuses = lambda: busy if now() == 0 else None
            with pytest.raises(RateLimitError):
                await ask(layer)
            await asyncio.gather(*(ask(layer) for _ in range(20)))
            assert [at for at in server.asked if 0 < at < 12.5] == []
            assert min(server.asked[1:]) == pytest.approx(12.5)

        run_virtually(main())

    def test_other_models_of_the_provider_may_be_asked_meanwhile(self, ask: Ask) -> None:
        async def main() -> None:
            held = limiter(RateLimits(concurrent=2))
            busy = RateLimitError("slow")
            busy.retry_after_s = 60
            m, n = Server(), Server(name="n")
            m.refuses = lambda: busy if now() == 0 else None
            with pytest.raises(RateLimitError):
                await ask(Limited(m, held))
            waiting = asyncio.ensure_future(ask(Limited(m, held)))
            await asyncio.sleep(0.5)
            assert await ask(Limited(n, held)) == "ab"
            assert now() == 1.5
            assert await waiting == "ab"
            assert m.asked == pytest.approx([0, 60])

        run_virtually(main())

    def test_who_waits_and_would_then_be_too_late_goes_elsewhere_at_once(self) -> None:
        async def main() -> None:
            server = Server()
            layer = Limited(server, limiter(RateLimits(concurrent=1)))
            busy = RateLimitError("slow")
            busy.retry_after_s = 100
            first = asyncio.create_task(layer.generate("hi"))
            await asyncio.sleep(0)
            server.refuses = lambda: busy
            await asyncio.sleep(0.5)
            patient = asyncio.create_task(layer.generate("hi"))
            second = asyncio.create_task(layer.complete(ChatRequest.of("hi").on(deadline=50.0)))
            await first
            with pytest.raises(RateLimitError):
                await patient
            with pytest.raises(LimitReached):
                await second
            assert now() == pytest.approx(1)

        run_virtually(main())

    def test_a_refusal_halves_what_is_sent_once_for_all_that_was_under_way_and_answers_raise_it_again(self) -> None:
        async def main() -> None:
            server = Server()
            layer = Limited(server, limiter(RateLimits(concurrent=16)))
            await layer.generate("hi")
            server.refuses = lambda: RateLimitError("slow") if now() < 1.5 else None
            assert all(isinstance(each, RateLimitError) for each in await all_of(*(ask1(layer) for _ in range(16))))
            await asyncio.sleep(1)
            server.most_at_once = 0
            await asyncio.gather(*(ask1(layer) for _ in range(16)))
            assert server.most_at_once == 8
            await asyncio.gather(*(ask1(layer) for _ in range(1000)))
            server.most_at_once = 0
            await asyncio.gather(*(ask1(layer) for _ in range(100)))
            assert server.most_at_once == 16

        async def ask1(layer: Limited) -> str:
            return await layer.generate("hi")

        run_virtually(main())

    def test_a_provider_that_takes_less_than_configured_is_soon_asked_less(self) -> None:
        async def main() -> None:
            server = Server(0.1)
            layer = Limited(server, limiter(RateLimits(requests_per_minute=600)))
            refused = []

            def refuse() -> ProviderError | None:
                if sum(now() - 60 < at for at in server.asked) > 300:
                    refused.append(now())
                    return RateLimitError("slow")
                return None

            server.refuses = refuse
            for _ in range(6000):
                asyncio.create_task(all_of(layer.generate("hi")))  # noqa: RUF006 - counted by the server
                await asyncio.sleep(0.1)
            assert len(refused) < 0.25 * len(server.asked)
            assert most_in_a_minute(server.asked) <= 600

        run_virtually(main())

    def test_other_failures_tighten_nothing(self) -> None:
        async def main() -> None:
            server = Server()
            layer = Limited(server, limiter(RateLimits(concurrent=4)))
            await layer.generate("hi")
            server.refuses = lambda: ProviderTimeout("late") if now() < 1.5 else None
            await all_of(*(layer.generate("hi") for _ in range(4)))
            await asyncio.sleep(1)
            await asyncio.gather(*(layer.generate("hi") for _ in range(8)))
            assert server.most_at_once == 4
            server.refuses = lambda: ProviderUnavailable("overloaded", status=529)
            await all_of(layer.generate("hi"))
            server.refuses, server.most_at_once = lambda: None, 0
            await asyncio.gather(*(layer.generate("hi") for _ in range(8)))
            assert server.most_at_once == 2

        run_virtually(main())


def test_embeddings_wait_as_well() -> None:
    async def main() -> None:
        server = Server()
        layer = Limited(server, limiter(RateLimits(concurrent=2)))
        await asyncio.gather(*(layer.embed("hi") for _ in range(6)))
        assert server.most_at_once == 2

    run_virtually(main())


class TestReload:
    def test_changed_limits_hold_at_once_for_those_who_wait_too(self) -> None:
        async def main() -> None:
            server, held = Server(), limiter(RateLimits(concurrent=1))
            layer = Limited(server, held)
            calls = [asyncio.create_task(layer.generate("hi")) for _ in range(12)]
            await asyncio.sleep(0.1)
            assert server.at_once == 1
            held.hold(limits(RateLimits(concurrent=5)))
            await asyncio.sleep(0.1)
            assert server.at_once == 5
            held.hold(limits())
            await asyncio.sleep(0.1)
            assert server.at_once == 12
            assert await asyncio.gather(*calls) == ["ab"] * 12

        run_virtually(main())

    def test_a_reload_forgets_nothing_of_what_was_sent(self) -> None:
        async def main() -> None:
            server = Server()
            stated = replace(policy(M), limits={"m": RateLimits(requests_per_minute=2)})
            router = Router(stated, {"m": server})
            await asyncio.gather(router.generate("hi"), router.generate("hi"))
            router._succession.follow(replace(stated, name="renamed"), None)
            await router.generate("hi")
            assert server.asked == pytest.approx([0, 0, 60])

        run_virtually(main())

    def test_what_a_provider_takes_it_takes_for_each_account_at_each_place(self) -> None:
        async def main() -> None:
            places = {
                "a": model("a", base_url="http://one.example/v1"),
                "b": model("b", base_url="http://one.example/v1/"),
                "c": model("c", base_url="http://two.example/v1"),
                "d": model("d", base_url="http://one.example/v1", api_key_env="ANOTHER"),
                "e": model("e", path="/models/e.gguf"),
                "f": model("f", path="/models/f.gguf"),
            }
            servers = {name: Server(name=name) for name in places}
            for name, each in servers.items():
                each._model = places[name]
            stated = replace(policy(*places.values()), limits={"test": RateLimits(concurrent=1)})
            held = Limiter()
            held.hold(stated)
            await asyncio.gather(*(Limited(each, held).generate("hi") for each in servers.values()))
            asked = {name: each.asked for name, each in servers.items()}
            assert asked == {"a": [0], "b": [1], "c": [0], "d": [0], "e": [0], "f": [1]}

        run_virtually(main())

    def test_routers_share_a_limiter_only_if_they_are_given_one(self) -> None:
        async def main() -> None:
            server, shared = Server(), Limiter()
            stated = replace(policy(M), limits={"m": RateLimits(concurrent=1)})
            own = [Router(stated, {"m": server}) for _ in range(2)]
            await asyncio.gather(*(router.generate("hi") for router in own))
            assert server.most_at_once == 2
            server.most_at_once = 0
            both = [Router(stated, {"m": server}, limiter=shared) for _ in range(2)]
            await asyncio.gather(*(router.generate("hi") for router in both))
            assert server.most_at_once == 1

        run_virtually(main())


class TestThreads:
    @pytest.mark.filterwarnings("ignore:an answer of m was forgotten")
    @pytest.mark.parametrize("seed", range(3))
    def test_loops_in_many_threads_share_the_slots_and_none_is_lost(self, seed: int) -> None:
        held = limiter(RateLimits(concurrent=4))
        server = Server(0.0)
        outcomes: Counter[str] = Counter()

        async def caller(number: int) -> None:
            layer = Limited(server, held)
            task = asyncio.create_task(layer.generate("hi", project=str(number % 3)))
            if (number + seed) % 5 == 0:
                await asyncio.sleep((number % 7) / 5000)
                task.cancel()
            elif (number + seed) % 7 == 0:
                reply = await layer.send(ChatRequest.of("hi", stream=True))
                del reply
            outcomes.update([each if isinstance(each, str) else type(each).__name__ for each in await all_of(task)])

        async def some() -> None:
            await asyncio.gather(*(caller(number) for number in range(200)))

        threads = [threading.Thread(target=lambda: asyncio.run(some())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert set(outcomes) <= {"ab", "CancelledError"}
        gc.collect()
        for line in held._entrances.values():
            assert [gate.running for gate in line._line.gates(Wish("m"))] == [0]
            assert len(line._line.queue) == 0
            assert not line._loops

    def test_a_loop_that_is_gone_keeps_nobody_waiting(self) -> None:
        layer = Limited(Server(0.01), limiter(RateLimits(concurrent=1)))
        with asyncio.Runner() as lasting:
            reply = lasting.run(layer.send(ChatRequest.of("hi")))
            lost = asyncio.new_event_loop()
            waiting = [lost.create_task(layer.generate("hi")) for _ in range(3)]
            lost.run_until_complete(asyncio.sleep(0.01))
            lost.close()
            lasting.run(reply.read())
            assert lasting.run(layer.generate("hi")) == "ab"
        for task in waiting:
            assert not task.done()
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_forked_child_begins_anew(self) -> None:
        held = limiter(RateLimits(concurrent=1, requests_per_minute=1))
        layer = Limited(Server(0.0), held)
        asyncio.run(layer.generate("hi"))
        entrance = held.entrance(M)
        with entrance._lock:
            child = os.fork()
            if child == 0:
                os._exit(0 if asyncio.run(layer.generate("hi")) == "ab" else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_the_trace_tells_who_waited_where_and_who_was_refused(spans: Callable[[], list[ReadableSpan]]) -> None:
    async def main() -> None:
        stated = replace(policy(M, timeouts=Timeouts(total_s=30)), limits={"test": RateLimits(concurrent=1)})
        router = Router(stated, {"m": Server(20)})
        await all_of(router.generate("hi"), router.generate("hi"), router.generate("hi"))

    run_virtually(main())
    attempts = [span for span in spans() if "devsynth.model" in (span.attributes or {})]
    events = [(event.name, dict(event.attributes or {})) for span in attempts for event in span.events]
    names = Counter(name for name, _ in events)
    assert names == {"limit.waited": 1, "limit.refused": 1}
    assert {facts["limit"] for _, facts in events} == {"test"}
    assert [(span.attributes or {}).get("devsynth.attempt.wait_s") for span in attempts][1] == pytest.approx(20)
