"""Another policy under a running router: taken whole, or not at all, and no call notices."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    AuthenticationError,
    ChatRequest,
    ConfigurationError,
    Model,
    OpenAIProvider,
    PolicyError,
    ProviderPort,
    ProviderRegistry,
    Reply,
    Request,
    Router,
    SyncRouter,
)
from devsynth_providers.policy.watched import WatchedPolicy
from devsynth_providers.testing import ScriptedProvider
from devsynth_providers.types import Chunk

from .conftest import Ask

Spans = Callable[[], list[ReadableSpan]]


class Counted(ProviderPort):
    """Answers with the name of its model, after *gate* has opened; every one that was built is in ``built``."""

    built: ClassVar[list[Counted]] = []
    gate: ClassVar[asyncio.Event | None] = None

    def __init__(self, model: Model) -> None:
        self._model = model
        self.closings = 0
        self.open_calls = 0
        self.closed_under_a_call = False
        self.built.append(self)

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        async def chunks() -> Any:
            self.open_calls += 1
            try:
                yield Chunk(self.model.name)
                if Counted.gate is not None:
                    await Counted.gate.wait()
                yield Chunk(f" of {','.join(self.model.tags)}", finish_reason="stop")
            finally:
                self.open_calls -= 1

        assert not self.closings, "asked after it was closed"
        return await Reply.open(self.model, chunks())

    @override
    async def aclose(self) -> None:
        self.closings += 1
        self.closed_under_a_call = self.closed_under_a_call or self.open_calls > 0


@pytest.fixture
def registry() -> ProviderRegistry:
    Counted.built, Counted.gate = [], None
    registry = ProviderRegistry()
    registry.register("counted", Counted)
    return registry


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "p.yaml", "a")


def text(*models: str, rule: str = "all", more: str = "") -> str:
    facts = "\n".join(f"  {name}: {{provider: counted, price: free, tags: [{name}]}}" for name in models)
    return f"models:\n{facts}\nrules:\n  - {{name: {rule}, models: [{', '.join(models)}]}}\n{more}"


def put(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def written(path: Path, *models: str, **options: str) -> Path:
    return put(path, text(*models, **options))


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def asked_until(condition: Callable[[], bool], router: Router) -> None:
    """Ask until it holds: a request that comes while a look has not quite ended begins none."""
    async with asyncio.timeout(30):
        while not condition():
            await router.generate("hi")
            await asyncio.sleep(0.005)


def error_of(router: Router) -> Exception | None:
    return router.reload_error


def model_of(router: Router) -> list[str]:
    return list(router.policy.models)


async def test_a_changed_file_is_taken_when_requests_come(ask: Ask, file: Path, registry: ProviderRegistry) -> None:
    router = Router.from_policy(file, registry=registry, reload_s=0)
    assert await ask(router) == "a of a"
    written(file, "b")
    assert await ask(router) == "a of a", "the request that notices does not wait"
    await eventually(lambda: model_of(router) == ["b"])
    assert await ask(router) == "b of b"
    await router.aclose()


async def test_without_an_interval_nobody_looks_until_it_is_told_to(file: Path, registry: ProviderRegistry) -> None:
    router = Router.from_policy(file, registry=registry)
    written(file, "b")
    await router.generate("hi")
    await router.aclose()
    assert model_of(router) == ["a"]
    await router.reload()
    assert model_of(router) == ["b"]


async def test_it_looks_no_more_often_than_it_is_told_to(file: Path, registry: ProviderRegistry) -> None:
    router = Router.from_policy(file, registry=registry, reload_s=3600)
    written(file, "b")
    await router.generate("hi")
    await router.aclose()  # which would wait for a look
    assert model_of(router) == ["a"]


@pytest.mark.parametrize("interval", [-1, float("nan"), float("inf"), "1", True])
def test_an_interval_is_a_number_of_seconds(file: Path, registry: ProviderRegistry, interval: Any) -> None:
    with pytest.raises(ConfigurationError, match="reload_s is a number of seconds"):
        Router.from_policy(file, registry=registry, reload_s=interval)


async def test_a_router_made_in_code_has_no_file_to_read_again() -> None:
    from .helpers import model, policy

    router = Router(policy(model("a")), {"a": ScriptedProvider()})
    with pytest.raises(ConfigurationError, match="made from a Policy in code"):
        await router.reload()
    assert (router.reload_error, router.shadow_report) == (None, None)


async def test_a_change_of_the_same_size_and_time_is_seen(file: Path, registry: ProviderRegistry) -> None:
    """As editors and tools make it that keep times, or are quicker than the file system's clock."""
    router = Router.from_policy(file, registry=registry, reload_s=0)
    then = os.stat(file)
    written(file, "b")
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    now = os.stat(file)
    assert (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns)
    await router.generate("hi")
    await eventually(lambda: model_of(router) == ["b"])
    await router.aclose()


async def test_a_file_whose_times_alone_have_changed_is_the_same(file: Path, registry: ProviderRegistry) -> None:
    router = Router.from_policy(file, registry=registry, reload_s=0)
    before = router.policy
    os.utime(file)
    await router.generate("hi")
    await router.aclose()
    assert router.policy is before


async def test_a_relative_path_means_the_same_file_wherever_the_program_goes(
    file: Path, registry: ProviderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    router = Router.from_policy("p.yaml", registry=registry)
    written(file, "b")
    monkeypatch.chdir("/")
    await router.reload()
    assert model_of(router) == ["b"]


async def test_a_link_that_leads_to_another_file_is_a_change(file: Path, registry: ProviderRegistry) -> None:
    link = file.parent / "link.yaml"
    link.symlink_to(file)
    router = Router.from_policy(link, registry=registry)
    (file.parent / "next").symlink_to(written(file.parent / "q.yaml", "b"))
    (file.parent / "next").rename(link)
    await router.reload()
    assert model_of(router) == ["b"]


class TestABadFile:
    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ("modles: {}", "unknown key 'modles'"),
            ("", "p.yaml"),
            ("models: {a: {provider: counted", "p.yaml:1"),
            ("models: {a: {provider: nobody}}\nrules: [{name: r, models: a}]", "no provider is called 'nobody'"),
            ("models: {a: {provider: openai, base_url: 'no url'}}\nrules: [{name: r, models: a}]", "base_url must"),
        ],
    )
    async def test_is_refused_and_the_old_policy_works_on(
        self, ask: Ask, file: Path, registry: ProviderRegistry, wrong: str, told: str
    ) -> None:
        async with Router.from_policy(file, registry=registry, reload_s=0) as router:
            put(file, wrong)
            await ask(router)
            await eventually(lambda: router.reload_error is not None)
            assert told in str(router.reload_error)
            assert await ask(router) == "a of a"
            assert model_of(router) == ["a"]
            with pytest.raises(ConfigurationError):
                await router.reload()

    async def test_is_told_once_for_each_change(
        self, file: Path, registry: ProviderRegistry, spans: Spans, caplog: pytest.LogCaptureFixture
    ) -> None:
        router = Router.from_policy(file, registry=registry, reload_s=0)
        for wrong in ("modles: {}", "modles: {} # still"):
            put(file, wrong)
            for _ in range(4):  # each looks again
                await router.generate("hi")
                await eventually(lambda: router.reload_error is not None)
                await asyncio.sleep(0.1)
        await router.aclose()
        logged = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert len(logged) == 2
        assert all(each.name == "devsynth_providers" and str(file) in each.message for each in logged)
        events = [event for span in spans() for event in span.events if event.name == "policy.reload_failed"]
        assert len(events) == 2
        told = str((events[0].attributes or {})["devsynth.policy.error"])
        assert "unknown key 'modles'; did you mean 'models'?" in told

    async def test_that_is_mended_is_taken_and_no_error_is_left(self, file: Path, registry: ProviderRegistry) -> None:
        router = Router.from_policy(file, registry=registry)
        put(file, "rules: 1")
        with pytest.raises(PolicyError):
            await router.reload()
        assert isinstance(error_of(router), PolicyError)
        written(file, "b")
        await router.reload()
        assert (error_of(router), model_of(router)) == (None, ["b"])

    async def test_is_looked_at_again_though_it_has_not_changed(self, file: Path, registry: ProviderRegistry) -> None:
        """What was wrong may be right by now for another reason."""
        async with Router.from_policy(file, registry=registry, reload_s=0) as router:
            put(file, text("b").replace("counted", "late"))
            await router.generate("hi")
            await eventually(lambda: "no provider is called 'late'" in str(router.reload_error))
            registry.register("late", Counted)
            await asked_until(lambda: model_of(router) == ["b"], router)

    async def test_that_has_vanished_is_a_failed_reload_until_it_is_back(
        self, file: Path, registry: ProviderRegistry
    ) -> None:
        async with Router.from_policy(file, registry=registry, reload_s=0) as router:
            os.unlink(file)
            await router.generate("hi")
            await eventually(lambda: "not there any more" in str(router.reload_error))
            written(file, "a")
            await asked_until(lambda: router.reload_error is None, router)

    async def test_that_vanished_is_not_looked_for_elsewhere(
        self, tmp_path: Path, registry: ProviderRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        own = written(tmp_path / "offline", "a")  # the name of a policy that comes with the library
        router = Router.from_policy("offline", registry=registry)
        own.unlink()
        with pytest.raises(PolicyError, match="not there any more"):
            await router.reload()

    async def test_that_is_wrong_on_load_is_no_router(self, file: Path, registry: ProviderRegistry) -> None:
        good = written(file.parent / "good.yaml", "a")
        put(file, "rules: 1")
        with pytest.raises(PolicyError):
            Router.from_policy(file, registry=registry, reload_s=1)
        with pytest.raises(PolicyError):
            Router.from_policy(good, registry=registry, shadow=file)

    async def test_of_ones_own_class_that_has_a_bug_fails_no_call(self, file: Path, registry: ProviderRegistry) -> None:
        class Buggy(Counted):
            @override
            def __init__(self, model: Model) -> None:
                raise TypeError("a bug")

        registry.register("buggy", Buggy)
        async with Router.from_policy(file, registry=registry, reload_s=0) as router:
            put(file, text("b").replace("counted", "buggy"))
            await router.generate("hi")
            await eventually(lambda: "a bug" in str(router.reload_error))
            assert await router.generate("hi") == "a of a"


class TestProviders:
    async def test_whose_facts_are_the_same_serve_on_and_the_others_are_closed_once(
        self, file: Path, registry: ProviderRegistry
    ) -> None:
        written(file, "a", "b", "c")
        router = Router.from_policy(file, registry=registry)
        before = dict(router.providers)
        put(file, text("a", "b", "d").replace("tags: [b]", "tags: [b, changed]"))
        await router.reload()
        assert router.providers["a"] is before["a"]
        assert router.providers["b"] is not before["b"]
        assert "c" not in router.providers
        closings = {each.model.name + str(len(each.model.tags)): each.closings for each in Counted.built}
        assert closings == {"a1": 0, "b1": 1, "c1": 1, "b2": 0, "d1": 0}
        await router.aclose()
        assert {each.closings for each in Counted.built} == {1}

    async def test_that_a_call_uses_are_closed_when_it_ends(self, file: Path, registry: ProviderRegistry) -> None:
        router = Router.from_policy(file, registry=registry)
        Counted.gate = asyncio.Event()
        calls = [asyncio.create_task(router.complete("hi")) for _ in range(3)]
        stream = router.generate_stream("hi")
        assert await anext(stream) == "a"
        written(file, "b")
        await router.reload()
        (old,) = [each for each in Counted.built if each.model.name == "a"]
        await eventually(lambda: old.open_calls == 4)
        assert old.closings == 0
        Counted.gate.set()
        answers = await asyncio.gather(*calls)
        assert {(each.text, each.model, each.plan.models) for each in answers if each.plan} == {("a of a", "a", ("a",))}
        assert old.closings == 0, "one call is left"
        assert [piece async for piece in stream] == [" of a"]
        await eventually(lambda: old.closings == 1)
        assert await router.generate("hi") == "b of b"
        await router.aclose()
        assert (old.closings, old.closed_under_a_call) == (1, False)

    async def test_that_an_older_call_still_uses_stay_open_through_several_changes(
        self, file: Path, registry: ProviderRegistry
    ) -> None:
        written(file, "a", "b")
        router = Router.from_policy(file, registry=registry)
        Counted.gate = asyncio.Event()
        call = asyncio.create_task(router.generate("hi"))
        await eventually(lambda: any(each.open_calls for each in Counted.built))
        first = {each.model.name: each for each in Counted.built}
        for models in (("b", "c"), ("c",)):
            written(file, *models)
            await router.reload()
        assert [first[name].closings for name in "ab"] == [0, 0], "the call may yet fall back to b"
        Counted.gate.set()
        await call
        await eventually(lambda: [first[name].closings for name in "ab"] == [1, 1])
        await router.aclose()
        assert {each.closings for each in Counted.built} == {1}

    @pytest.mark.parametrize("how", ["cancelled", "left early"])
    async def test_of_a_call_that_is_cut_short_are_closed_too(
        self, file: Path, registry: ProviderRegistry, how: str
    ) -> None:
        router = Router.from_policy(file, registry=registry)
        Counted.gate = asyncio.Event()
        stream = router.generate_stream("hi")
        assert await anext(stream) == "a"
        written(file, "b")
        await router.reload()
        if how == "cancelled":
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        else:
            await stream.aclose()  # type: ignore[attr-defined]
        await eventually(lambda: Counted.built[0].closings == 1)
        await router.aclose()

    async def test_of_a_call_that_fails_are_closed_too(self, file: Path, registry: ProviderRegistry) -> None:
        class Failing(Counted):
            @override
            async def send(self, request: Request) -> Reply:
                assert Counted.gate is not None
                await Counted.gate.wait()
                raise AuthenticationError("no")

        registry.register("failing", Failing)
        put(file, text("a").replace("counted", "failing"))
        router = Router.from_policy(file, registry=registry)
        Counted.gate = asyncio.Event()
        call = asyncio.create_task(router.generate("hi"))
        await asyncio.sleep(0)
        written(file, "b")
        await router.reload()
        assert Counted.built[0].closings == 0
        Counted.gate.set()
        with pytest.raises(AuthenticationError):
            await call
        await eventually(lambda: Counted.built[0].closings == 1)
        await router.aclose()

    async def test_whose_closing_was_cut_short_are_closed_the_next_time(
        self, file: Path, registry: ProviderRegistry
    ) -> None:
        begun = asyncio.Event()

        class Slow(Counted):
            @override
            async def aclose(self) -> None:
                if not begun.is_set():
                    begun.set()
                    await asyncio.Event().wait()
                await super().aclose()

        registry.register("slow", Slow)
        put(file, text("a").replace("counted", "slow"))
        router = Router.from_policy(file, registry=registry)
        written(file, "b")
        reload = asyncio.create_task(router.reload())
        await begun.wait()
        reload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reload
        await router.generate("hi")
        await eventually(lambda: Counted.built[0].closings == 1)
        await router.aclose()

    async def test_whose_closing_was_cut_short_with_that_of_the_router_are_closed_when_it_is_closed_again(
        self, file: Path, registry: ProviderRegistry
    ) -> None:
        begun = asyncio.Event()

        class Slow(Counted):
            @override
            async def aclose(self) -> None:
                if not begun.is_set():
                    begun.set()
                    await asyncio.Event().wait()
                await super().aclose()

        registry.register("slow", Slow)
        put(file, text("a").replace("counted", "slow"))
        router = Router.from_policy(file, registry=registry)
        Counted.gate = asyncio.Event()
        reply = await router.send(ChatRequest.of("hi", stream=True))
        written(file, "b")
        await router.reload()
        closing = asyncio.create_task(router.aclose())
        await begun.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert Counted.built[0].closings == 0
        await router.aclose()
        assert Counted.built[0].closings == 1
        await reply.aclose()

    async def test_of_an_answer_that_was_dropped_are_closed_with_the_next_change(
        self, file: Path, registry: ProviderRegistry
    ) -> None:
        router = Router.from_policy(file, registry=registry)
        reply = await router.send(ChatRequest.of("hi"))
        written(file, "b")
        await router.reload()
        assert Counted.built[0].closings == 0
        with pytest.warns(ResourceWarning, match="forgotten before its end"):
            del reply  # which is forgotten at once: nothing goes in a circle
        await router.reload()
        assert Counted.built[0].closings == 1
        await router.aclose()

    async def test_that_can_not_be_closed_fail_no_call(
        self, file: Path, registry: ProviderRegistry, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Stuck(Counted):
            @override
            async def aclose(self) -> None:
                raise RuntimeError("it does not close")

        registry.register("stuck", Stuck)
        put(file, text("a").replace("counted", "stuck"))
        router = Router.from_policy(file, registry=registry)
        written(file, "b")
        await router.reload()
        assert await router.generate("hi") == "b of b"
        assert "model a, which is no longer used, could not be closed: it does not close" in caplog.text
        await router.aclose()

    async def test_of_the_callers_are_never_closed_and_serve_again_when_their_model_is_back(
        self, file: Path, registry: ProviderRegistry
    ) -> None:
        own = Counted(Model(name="a", provider="counted"))
        router = Router.from_policy(file, {"a": own}, registry=registry)
        for models in (("b",), ("a", "b"), ("b",)):
            written(file, *models)
            await router.reload()
            assert await router.generate("hi") == ("a of " if "a" in models else "b of b")
        await router.aclose()
        assert own.closings == 0

    async def test_built_with_other_clocks_are_built_anew(self, file: Path) -> None:
        plain = "models: {m: {provider: openai, base_url: 'http://127.0.0.1:9/v1', price: free}}\n"
        put(file, plain + "rules: [{name: all, models: m}]")
        router = Router.from_policy(file)
        first = router.providers["m"]
        assert isinstance(first, OpenAIProvider)
        put(file, plain + "rules: [{name: every, models: m}]\nretry: {attempts: 1}")
        await router.reload()
        assert router.providers["m"] is first
        put(file, plain + "rules: [{name: every, models: m}]\ntimeouts: {connect_s: 1}")
        await router.reload()
        assert router.providers["m"] is not first
        await router.aclose()

    async def test_that_lacked_something_get_another_chance(
        self, file: Path, registry: ProviderRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(file, "models: {gpt-4o: {provider: openai}}\nrules: [{name: all, models: gpt-4o}]")
        router = Router.from_policy(file, registry=registry)
        assert "gpt-4o" in router.unavailable
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        await router.reload()
        assert "gpt-4o" in router.providers
        await router.aclose()


class TestWhileItIsWritten:
    """What is read is what was there for a while: *wait* lets that pass, and here it is when the writer goes on."""

    @staticmethod
    def writer(file: Path, *contents: str) -> Callable[[float], None]:
        left = iter(contents)

        def wait(_: float) -> None:
            if (content := next(left, None)) is not None:
                put(file, content)

        return wait

    def test_a_part_that_would_do_is_not_taken_for_the_whole(self, file: Path, registry: ProviderRegistry) -> None:
        policy = WatchedPolicy(file, registry)
        whole = text("b", more="timeouts: {total_s: 7}\n")
        part = put(file, text("b"))
        assert policy.read(self.writer(part, whole)).timeouts.total_s == 7

    def test_a_part_that_is_wrong_is_no_mistake(self, file: Path, registry: ProviderRegistry) -> None:
        policy = WatchedPolicy(file, registry)
        put(file, "")
        assert list(policy.read(self.writer(file, "models: {", text("b"))).models) == ["b"]

    def test_a_file_that_is_gone_for_a_moment_is_waited_for(self, file: Path, registry: ProviderRegistry) -> None:
        policy = WatchedPolicy(file, registry)
        file.unlink()
        assert list(policy.read(self.writer(file, text("b"))).models) == ["b"]

    def test_one_that_never_rests_is_not_taken(self, file: Path, registry: ProviderRegistry) -> None:
        policy = WatchedPolicy(file, registry)
        versions = [text("b", rule=f"r{number}") for number in range(100)]
        with pytest.raises(PolicyError, match="it is being written all the time"):
            policy.read(self.writer(file, *versions))

    def test_what_is_no_file_is_not_waited_for(self, file: Path, registry: ProviderRegistry) -> None:
        policy = WatchedPolicy(file, registry)
        file.unlink()
        file.mkdir()
        assert policy.changed
        with pytest.raises(PolicyError, match="can not be read"):
            policy.read(self.writer(file))

    async def test_closing_a_router_ends_its_look(self, file: Path, registry: ProviderRegistry) -> None:
        router = Router.from_policy(file, registry=registry, reload_s=0)
        written(file, "b")
        await router.generate("hi")
        await asyncio.sleep(0.01)
        await router.aclose()
        assert len(asyncio.all_tasks()) == 1
        await eventually(lambda: "devsynth-work" not in [each.name for each in threading.enumerate()])

    async def test_a_reload_that_is_on_its_way_when_the_router_is_closed_says_so(
        self, file: Path, registry: ProviderRegistry
    ) -> None:
        router = Router.from_policy(file, registry=registry)
        reload = asyncio.create_task(router.reload())
        await asyncio.sleep(0)
        await router.aclose()
        with pytest.raises(ConfigurationError, match="the router was closed"):
            await reload


def test_code_without_an_event_loop_reloads_too(file: Path, registry: ProviderRegistry) -> None:
    router = Router.from_policy(file, registry=registry, reload_s=3600)
    written(file, "b")
    router.sync.reload()
    assert router.sync.generate("hi") == "b of b"
    assert Counted.built[0].closings == 1
    file.write_text("rules: 1")
    with pytest.raises(PolicyError):
        router.sync.reload()
    router.sync.close()
    alone = ScriptedProvider()
    with pytest.raises(ConfigurationError, match="is a provider alone, not a router: no reload here"):
        SyncRouter(alone).reload()


def test_calls_whose_loops_end_at_once_get_the_new_policy_all_the_same(file: Path, registry: ProviderRegistry) -> None:
    router = Router.from_policy(file, registry=registry, reload_s=0)
    written(file, "b")
    begun = time.monotonic()
    while asyncio.run(router.generate("hi")) != "b of b":
        assert time.monotonic() - begun < 30
    asyncio.run(router.aclose())
    assert {each.closings for each in Counted.built} == {1}


def test_a_forked_child_looks_for_itself(file: Path) -> None:
    put(file, text("a").replace("counted", "stub"))
    code = """
import os, sys, time
from pathlib import Path
from devsynth_providers import Router
file = Path(sys.argv[1])
router = Router.from_policy(file, reload_s=0)
file.write_text(file.read_text().replace("name: all", "name: every"))
router.sync.generate("hi")  # begins a look, which stays behind
child = os.fork()
while router.policy.rules[0].name != "every":
    router.sync.generate("hi")
    time.sleep(0.01)
router.sync.reload()
os.write(1, b"seen ")
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    command = [sys.executable, "-c", code, str(file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert run.stdout == "seen seen 0\n", run.stderr


class TestInARace:
    async def test_every_answer_is_by_one_whole_policy(self, file: Path, registry: ProviderRegistry) -> None:
        """Writers truncate, write in pieces, rename and write nonsense, while calls run: each model is named after its
        rule, so that an answer by one policy's rule from the other's model would show."""
        stop = threading.Event()
        wanted = 400
        written(file, "v0", rule="v0")
        writers = [threading.Thread(target=write, args=(file, stop, seed)) for seed in range(2)]
        router = Router.from_policy(file, registry=registry, reload_s=0)
        for each in writers:
            each.start()
        seen: set[str] = set()
        try:
            begun = time.monotonic()
            while len(seen) < 4 or wanted > 0:
                assert time.monotonic() - begun < 60
                answers = await asyncio.gather(*(router.complete("hi") for _ in range(10)))
                for answer in answers:
                    assert answer.plan is not None
                    assert answer.plan.models == (answer.plan.rule,) == (answer.model,)
                    assert answer.text == f"{answer.model} of {answer.model}"
                    assert not answer.degraded
                seen |= {answer.model for answer in answers}
                wanted -= len(answers)
                await asyncio.sleep(0.005)
        finally:
            stop.set()
            for each in writers:
                each.join()
        written(file, "last", rule="last")
        await router.reload()
        assert await router.generate("hi") == "last of last"
        await router.aclose()
        assert {each.closings for each in Counted.built} <= {0, 1}
        assert not any(each.closed_under_a_call for each in Counted.built)

    def test_threads_and_loops_share_a_router(self, file: Path, registry: ProviderRegistry) -> None:
        router = Router.from_policy(file, registry=registry, reload_s=0)
        failures: list[BaseException] = []

        def call() -> None:
            try:
                for _ in range(60):
                    assert router.sync.generate("hi") in ("a of a", "b of b")
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for each in threads:
            each.start()
        for _ in range(6):
            for name in "ba":
                asyncio.run(reloaded(router, written(file, name)))
        for each in threads:
            each.join()
        router.sync.close()
        assert failures == []
        assert not any(each.closed_under_a_call or each.closings > 1 for each in Counted.built)


async def reloaded(router: Router, file: Path) -> None:
    await router.reload()
    assert f"{router.model.name} of" in await router.generate("hi")


def write(file: Path, stop: threading.Event, seed: int) -> None:
    """Write policies and nonsense, as editors and tools do it, with pauses between."""
    dice = random.Random(seed)
    for version in range(10_000):
        name = f"v{seed}x{version}"
        whole = text(name, rule=name, more="timeouts: {total_s: 60}\n")
        match dice.choice(("truncate", "pieces", "rename", "nonsense")):
            case "truncate":
                put(file, whole)
            case "pieces":
                with file.open("w") as opened:
                    for piece in (whole[:20], whole[20:80], whole[80:]):
                        opened.write(piece)
                        opened.flush()
                        time.sleep(0.001)
            case "rename":
                beside = file.with_suffix(f".{seed}")
                beside.write_text(whole)
                beside.rename(file)
            case "nonsense":
                put(file, whole[: dice.randrange(len(whole))] + "\n]")
        if stop.wait(dice.uniform(0, 0.4)):
            return
