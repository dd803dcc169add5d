"""The router: decides by the policy, asks in that order, and tells what it did."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

import devsynth_providers as d
from devsynth_providers import (
    AllProvidersFailed,
    AuthenticationError,
    ChatRequest,
    CircuitOpen,
    ConfigurationError,
    ContentFiltered,
    Message,
    Model,
    NoModelFits,
    Policy,
    PolicyError,
    ProviderPort,
    ProviderRegistry,
    ProviderTimeout,
    ProviderUnavailable,
    Range,
    RateLimitError,
    Reply,
    Request,
    Retry,
    Router,
    Rule,
    StreamInterrupted,
    StubProvider,
    Timeouts,
    ToolCall,
    Usage,
    When,
)
from devsynth_providers.testing import ScriptedProvider, run_virtually
from devsynth_providers.types import Chunk

from .conftest import Ask
from .helpers import PRICED, ends_when_forgotten, model, policy


def two(first: ScriptedProvider, second: ScriptedProvider, **options: Any) -> Router:
    a, b = model("a", price=PRICED), model("b")
    return Router(policy(a, b, **options), {"a": first, "b": second})


async def test_the_first_model_of_the_plan_answers(ask: Ask) -> None:
    assert await ask(two(ScriptedProvider("from a"), ScriptedProvider("from b"))) == "from a"


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="an error that a script keeps holds all frames around it since Python 3.12"
)
async def test_an_answer_after_everybody_was_left_alone_ends_at_once_when_it_is_forgotten() -> None:
    """What was decided before it holds no frame that holds it: nobody has to wait for the garbage collector."""
    router = two(*(ScriptedProvider(CircuitOpen("not now"), "x") for _ in "ab"))
    assert await ends_when_forgotten(router.send(ChatRequest.of("hi")))


async def test_an_answer_is_degraded_while_a_model_that_would_be_asked_first_is_left_alone(ask: Ask) -> None:
    refused = AuthenticationError("no", status=401)
    first, second = ScriptedProvider(refused, model=model("a")), ScriptedProvider("x", "y", model=model("b"))
    router = Router(policy(model("a"), model("b")), {"a": first, "b": second})
    assert await ask(router) == "x"
    answer = await router.complete("hi")
    assert answer.plan is not None
    assert (answer.plan.models, answer.plan.preferred, answer.degraded) == (("b",), "a", True)


async def test_a_rule_says_whether_other_models_see_what_one_has_refused(ask: Ask) -> None:
    def router(**rule: Any) -> Router:
        first, second = ScriptedProvider(ContentFiltered("no")), ScriptedProvider("from b")
        return Router(policy(model("a"), model("b"), **rule), {"a": first, "b": second})

    with pytest.raises(ContentFiltered):
        await ask(router())
    assert await ask(router(on_content_filter="next")) == "from b"


async def test_an_answer_tells_how_it_came_about() -> None:
    router = two(ScriptedProvider(AuthenticationError("no")), ScriptedProvider("from b", usage=Usage(3, 4)))
    answer = await router.complete("hi", task="review", project="billing", role="dev", tags=("interactive",))
    assert (answer.text, answer.model, answer.provider) == ("from b", "b", "test")
    assert (answer.usage, answer.finish_reason) == (Usage(3, 4), "stop")
    assert (answer.cost_usd, answer.cost_basis) == (0.0, "free")
    assert (answer.cached, answer.degraded, answer.truncated) == (False, True, False)
    assert [(a.number, a.model, a.reason, a.error) for a in answer.attempts] == [
        (1, "a", "primary", "authentication"),
        (2, "b", "fallback", None),
    ]
    assert answer.plan is not None
    assert answer.plan.models == ("a", "b")
    assert answer.first_token_s is not None
    assert 0 <= answer.first_token_s <= answer.latency_s


async def test_what_it_does_is_what_plan_shows() -> None:
    router = two(ScriptedProvider("x"), ScriptedProvider("y"))
    options: dict[str, Any] = {"task": "t", "max_cost_usd": 0.5, "max_tokens": 50}
    assert (await router.complete("hi", **options)).plan == router.plan("hi", **options)


async def test_the_rule_follows_task_and_difficulty() -> None:
    names = ("hard", "review", "rest")
    policy_ = Policy(
        models={name: model(name) for name in names},
        rules=(
            Rule(name="hard", when=When(complexity=Range(above=0.5)), models=("hard",)),
            Rule(name="review", when=When(task=("review",)), models=("review",)),
            Rule(name="rest", models=("rest",)),
        ),
    )
    router = Router(policy_, {name: ScriptedProvider(*[name] * 3) for name in names})
    assert await router.generate("Design a distributed architecture and prove that it scales") == "hard"
    assert await router.generate("hi", task="review") == "review"
    assert await router.generate("hi") == "rest"


async def test_a_retry_comes_before_a_fallback_and_numbers_run_through(ask: Ask) -> None:
    first = ScriptedProvider(*[ProviderUnavailable("down")] * 3)
    second = ScriptedProvider(RateLimitError("slow"), "ok")
    router = two(first, second)
    assert await ask(router) == "ok"
    requests = [*first.requests, *second.requests]
    assert [r.call.attempt for r in requests] == [1, 2, 3, 4, 5]
    assert [r.call.reason for r in requests] == ["primary", "retry", "retry", "fallback", "retry"]
    assert len({r.call.id for r in requests}) == 1


async def test_when_all_fail_every_attempt_is_in_the_error(ask: Ask) -> None:
    router = two(
        ScriptedProvider(*[ProviderUnavailable("down")] * 3),
        ScriptedProvider(AuthenticationError("no")),
        retry=Retry(initial_s=0),
    )
    with pytest.raises(AllProvidersFailed) as caught:
        await ask(router)
    assert [a.number for a in caught.value.attempts] == [1, 2, 3, 4]


@pytest.mark.loads_litellm
async def test_providers_of_ones_own_are_tried_as_often_as_the_policy_says_and_no_more(server: Any) -> None:
    from .loopback import failure

    server.script(failure(503))
    served = d.OpenAIProvider("m", base_url=server.url, api_key="k", retry_attempts=5)
    router = Router(policy(model("m")), {"m": served})
    with pytest.raises(ProviderUnavailable):
        await router.generate("hi")
    assert len(server.requests) == 3


def test_the_deadline_is_over_all_attempts() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        slow = [(40.0, ProviderUnavailable("down"))] * 3
        router = two(ScriptedProvider(*slow), ScriptedProvider(*slow), timeouts=Timeouts(total_s=100))
        with pytest.raises((AllProvidersFailed, ProviderTimeout)):
            await router.complete("hi")
        assert loop.time() == pytest.approx(100)

    run_virtually(main())


async def test_no_attempt_begins_that_the_ceiling_can_not_pay(ask: Ask) -> None:
    a = ScriptedProvider(*[ProviderUnavailable("down")] * 3)
    router = Router(policy(model("a", price=PRICED)), {"a": a})
    with pytest.raises(ProviderUnavailable) as caught:
        await ask(router, "word " * 100, max_tokens=100, max_cost_usd=0.0045)
    assert len(a.requests) == len(caught.value.attempts) == 1
    with pytest.raises(NoModelFits, match="over_cost_ceiling"):
        await ask(router, "word " * 100, max_tokens=100, max_cost_usd=0.001)


async def test_a_failure_that_cost_nothing_does_not_blur_what_the_answer_cost() -> None:
    down = ScriptedProvider(AuthenticationError("no"))
    router = Router(policy(model("a", price=None), model("b")), {"a": down, "b": ScriptedProvider("ok")})
    answer = await router.complete("hi")
    assert (answer.cost_usd, answer.cost_basis) == (0.0, "free")


async def test_a_price_the_policy_states_is_the_one_that_counts() -> None:
    router = Router(policy(model("a", price=PRICED)), {"a": ScriptedProvider("x", usage=Usage(100, 10))})
    answer = await router.complete("hi")
    assert (answer.cost_usd, answer.cost_basis) == (0.0013, "computed")


async def test_models_that_are_not_configured_are_left_out_with_the_reason() -> None:
    router = Router(
        policy(Model(name="gpt-4o", provider="openai", abilities=frozenset(("chat",))), model("b")),
        {"b": ScriptedProvider("b")},
    )
    plan = router.plan("hi")
    assert plan.models == ("b",)
    assert plan.rejected[0].reason == "OPENAI_API_KEY is not set, and no api_key is given"
    assert await router.generate("hi") == "b"


async def test_with_none_configured_it_says_so_at_once() -> None:
    router = Router(policy(Model(name="gpt-4o", provider="openai")))
    with pytest.raises(NoModelFits, match="OPENAI_API_KEY is not set"):
        async with router:
            pass
    with pytest.raises(NoModelFits, match="not_configured"):
        await router.generate("hi")
    assert router.max_context_size == 8192
    assert router.count_tokens("hello there") > 0


async def test_a_model_that_can_not_be_warmed_up_leaves_the_others_to_answer() -> None:
    class Broken(ScriptedProvider):
        @override
        async def warm_up(self) -> None:
            raise d.ModelNotFound("it is broken")

    broken = Broken(d.ModelNotFound("it is broken"))
    async with two(broken, ScriptedProvider("from b")) as router:
        assert await router.generate("hi") == "from b"
    with pytest.raises(d.ModelNotFound):
        async with Router(policy(model("a")), {"a": Broken()}):
            pass


class Parrot(ProviderPort):
    """What a user of the library writes."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        async def chunks() -> Any:
            yield Chunk(f"{self.model.name}: {request.text}", finish_reason="stop")

        return await Reply.open(self.model, chunks())


class Renamed(Parrot):
    """Calls its model otherwise than the policy does."""

    def __init__(self, model: Model) -> None:
        super().__init__(Model(name="another name", provider=model.provider))


async def test_a_class_that_calls_its_model_otherwise_answers_by_the_name_in_the_policy() -> None:
    registry = ProviderRegistry()
    registry.register("own", Renamed)
    answer = await Router(policy(model("m", provider="own")), registry=registry).complete("hi")
    assert (answer.text, answer.model, answer.cost_basis) == ("another name: hi", "m", "free")


def test_a_router_says_what_it_is_made_from() -> None:
    with pytest.raises(ConfigurationError, match="from_policy takes a name or a path"):
        Router("ci")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("named", "asked", "why"),
    [
        ("a", [("a", "z")], "rule 'all' names z, which is no model"),
        ("a", [("a", "a")], "rule 'all' names a model twice"),
        ("b", [("a",)], "the model that policy 'policy' has as 'a' is called 'b'"),
        ("a", [], "policy 'policy' has no rules"),
    ],
)
def test_a_policy_made_in_code_is_checked_too(named: str, asked: list[tuple[str, ...]], why: str) -> None:
    wrong = Policy(models={"a": model(named)}, rules=tuple(Rule(name="all", models=each) for each in asked))
    with pytest.raises(ConfigurationError, match=why):
        Router(wrong)


async def test_its_window_is_known_even_if_the_models_of_its_last_rule_are_not() -> None:
    rules = (Rule(name="r", when=When(task=("t",)), models=("b",)), Rule(name="rest", models=("a",)))
    models = {"a": Model(name="a", provider="openai"), "b": model("b")}
    router = Router(Policy(models=models, rules=rules), {"b": ScriptedProvider("b")})
    assert router.max_context_size == 8192
    assert await router.generate("hi", task="t") == "b"


def test_times_are_counted_from_the_call_to_the_router() -> None:
    async def main() -> None:
        slow = ScriptedProvider((30.0, ProviderUnavailable("down")))
        answer = await two(slow, ScriptedProvider((5.0, "ok")), retry=Retry(attempts=1)).complete("hi")
        assert answer.latency_s == pytest.approx(35)
        assert [attempt.latency_s for attempt in answer.attempts] == [pytest.approx(30), pytest.approx(5)]

    run_virtually(main())


def test_a_provider_for_a_model_that_the_policy_does_not_have_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="no model called z"):
        Router(policy(model("a")), {"z": ScriptedProvider()})


async def test_a_class_of_ones_own_serves_by_the_name_it_is_registered_under(ask: Ask, tmp_path: Path) -> None:
    registry = ProviderRegistry()
    registry.register("parrot", Parrot)
    path = tmp_path / "p.yaml"
    path.write_text("models: {polly: {provider: parrot, price: free}}\nrules: [{name: all, models: polly}]")
    assert await ask(Router.from_policy(path, registry=registry)) == "polly: hi"
    with pytest.raises(PolicyError, match="no provider is called 'parrot'"):
        Router.from_policy(path)
    with pytest.raises(ConfigurationError, match="must extend ProviderPort"):
        registry.register("str", str)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no provider is called 'nobody'"):
        registry.build(Model(name="x", provider="nobody"), Timeouts())


@pytest.mark.parametrize("value", ["1", "true", "YES"])
async def test_offline_means_the_stub_whatever_the_policy_says(
    ask: Ask, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVSYNTH_OFFLINE", value)
    router = Router.from_policy("balanced")
    assert all(isinstance(provider, StubProvider) for provider in router.providers.values())
    assert await ask(router, "hi there", system_prompt="S") == "[sys:S] [stub:stub-llm] hi there"
    assert (await router.complete("hi")).provider == "stub"


async def test_the_stub_is_what_it_says_and_always_the_same(ask: Ask) -> None:
    stub = StubProvider()
    assert await ask(stub, "one two three", max_tokens=20) == "[stub:stub-llm] one "
    assert await stub.embed("a") == await stub.embed("a")
    assert len(await stub.embed("a")) == 8
    cut = await stub.complete("one two three", max_tokens=20)
    assert cut.truncated


async def test_tool_calls_come_through_every_layer() -> None:
    from devsynth_providers.types import ToolCallPart

    line = (
        Chunk(tool_calls=(ToolCallPart(0, "c", "find", "{}"),)),
        Chunk(finish_reason="tool_calls", usage=Usage(1, 1)),
    )
    answer = await two(ScriptedProvider(line), ScriptedProvider()).complete("look", tools=[{"type": "function"}])
    assert answer.tool_calls == (ToolCall("c", "find", "{}"),)


async def test_a_conversation_is_passed_on_as_it_is() -> None:
    provider = ScriptedProvider("ok")
    history = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    await two(provider, ScriptedProvider()).generate(messages=history)
    (request,) = provider.requests
    assert isinstance(request, ChatRequest)
    assert request.messages == tuple(history)


async def test_cancelling_a_call_closes_it_and_asks_nobody_else() -> None:
    first, second = ScriptedProvider((3600.0, "late")), ScriptedProvider("never")
    task = asyncio.create_task(two(first, second).generate("hi"))
    while not first.requests:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (first.closed, second.requests) == (1, [])


def test_a_provider_used_alone_keeps_its_deadline_over_all_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(d.OpenAIProvider):
        @override
        def _connect(self, model: Model, key: str, timeouts: Timeouts) -> ProviderPort:
            return ScriptedProvider(*[(40.0, ProviderUnavailable("down"))] * 3, model=model)

    async def main() -> None:
        with pytest.raises((ProviderTimeout, ProviderUnavailable)):
            await Slow("m", api_key="k", timeout=60).generate("hi")
        assert asyncio.get_running_loop().time() == pytest.approx(60)

    run_virtually(main())


async def test_a_provider_used_alone_holds_the_ceiling_too(server: Any) -> None:
    dear = d.OpenAIProvider(model("m", price=PRICED), base_url=server.url, api_key="k")
    with pytest.raises(d.BudgetExceeded):
        await dear.generate("hi", max_cost_usd=0.000001)
    assert server.requests == []


class TestSync:
    def test_a_stream_that_is_dropped_anywhere_is_closed_and_nothing_hangs(self) -> None:
        provider = ScriptedProvider(("a", "b"), ("c", "d"))
        router = two(provider, ScriptedProvider())
        left = router.sync.generate_stream("hi")
        assert next(left) == "a"
        router.sync._own.begun().call_soon_threadsafe(left.close)  # type: ignore[attr-defined]  # as a collector might
        after = router.sync.generate_stream("hi")
        assert next(after) == "c"
        router.sync.close()
        after.close()  # type: ignore[attr-defined]
        assert provider.closed == 2
        assert "devsynth-providers" not in [thread.name for thread in threading.enumerate()]

    def test_it_needs_no_event_loop(self) -> None:
        router = two(ScriptedProvider("one", ("t", "w", "o"), "r"), ScriptedProvider())
        assert router.sync.generate("hi") == "one"
        assert list(router.sync.generate_stream("hi")) == ["t", "w", "o"]
        assert router.sync.complete("hi").model == "a"
        router.sync.close()

    async def test_it_works_inside_a_running_one(self) -> None:
        router = two(ScriptedProvider("one"), ScriptedProvider())
        assert router.sync.generate("hi") == "one"
        await router.aclose()

    def test_leaving_a_stream_early_closes_it(self) -> None:
        provider = ScriptedProvider(("a", "b", "c"))
        router = two(provider, ScriptedProvider())
        for _ in router.sync.generate_stream("hi"):
            break
        assert provider.closed == 1
        router.sync.close()

    @pytest.mark.parametrize(
        "end", ["", "raise RuntimeError('a bug of the caller')", "import gc; s = [s]; s.append(s); gc.collect()"]
    )
    def test_a_stream_that_is_still_held_does_not_keep_the_interpreter(self, end: str) -> None:
        code = f"""
from devsynth_providers import Router
router = Router.from_policy("ci")
s = router.sync.generate_stream("a b c")
print(next(s))
{end}
"""
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
        assert run.stdout.strip() == "[stub:stub-llm]"
        assert run.returncode == (1 if "raise" in end else 0)

    def test_one_that_is_asked_when_the_interpreter_ends_is_ended_too(self) -> None:
        code = """
import atexit, threading
atexit.register(lambda: print(sum(each.name == "devsynth-providers" for each in threading.enumerate())))
from devsynth_providers import Router, SyncRouter
router = SyncRouter(Router.from_policy("ci"))
atexit.register(lambda: print(router.generate("hi")))
"""
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
        assert run.stdout.split("\n") == ["[stub:stub-llm] hi", "0", ""], run.stderr

    def test_a_forked_child_has_a_thread_of_its_own(self) -> None:
        code = """
import os
from devsynth_providers import Router
router = Router.from_policy("ci")
os.write(1, router.sync.generate("hi").encode() + b"\\n")
child = os.fork()
os.write(1, router.sync.generate("hi").encode() + b"\\n")
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
        assert sorted(run.stdout.split()) == sorted(["[stub:stub-llm]", "hi"] * 3 + ["0"]), run.stderr

    def test_errors_are_the_same(self) -> None:
        router = two(ScriptedProvider(("a", ProviderUnavailable("cut"))), ScriptedProvider())
        with pytest.raises(StreamInterrupted) as caught:
            list(router.sync.generate_stream("hi"))
        assert caught.value.partial == "a"
        router.sync.close()

    def test_many_threads_may_call_at_once(self) -> None:
        router = two(ScriptedProvider(*["x"] * 40), ScriptedProvider())
        texts: list[str] = []
        threads = [threading.Thread(target=lambda: texts.append(router.sync.generate("hi"))) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert texts == ["x"] * 40
        router.sync.close()

    def test_closing_ends_its_thread_and_the_next_call_starts_another(self) -> None:
        router = two(ScriptedProvider("a", "b"), ScriptedProvider())
        router.sync.generate("hi")
        assert "devsynth-providers" in [thread.name for thread in threading.enumerate()]
        router.sync.close()
        assert "devsynth-providers" not in [thread.name for thread in threading.enumerate()]
        assert router.sync.generate("hi") == "b"
        router.sync.close()


@pytest.mark.parametrize("coalesce", ["never", "always"])
async def test_nothing_of_what_was_asked_is_held_when_a_call_has_ended(coalesce: Any) -> None:
    """A loop keeps timers that were called off, for minutes, and with them all that their context holds."""

    def held() -> int:
        gc.collect()
        return sum(isinstance(each, ChatRequest) for each in gc.get_objects())

    stub = StubProvider("m")
    rule = Rule(name="all", models=("m",), coalesce=coalesce)
    router = Router(Policy(models={"m": stub.model}, rules=(rule,)), {"m": stub})
    loop: Any = asyncio.get_running_loop()
    soonest = loop.call_later(5, print)  # those that are due before all others are let go of at once
    before = held()
    await router.generate("hi")
    assert [piece async for piece in router.generate_stream("hi")]
    await asyncio.sleep(0)
    assert any(timer.cancelled() for timer in loop._scheduled), "else this shows nothing"
    assert held() == before
    soonest.cancel()
