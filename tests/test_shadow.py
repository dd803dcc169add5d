"""A policy on trial: decides beside the one that counts, and is only heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    FREE,
    ConfigurationError,
    Facts,
    Model,
    NoModelFits,
    Plan,
    Policy,
    PolicyError,
    ProviderRegistry,
    ProviderUnavailable,
    Router,
    Rule,
    When,
)
from devsynth_providers.policy import Conditions
from devsynth_providers.shadow import ShadowReport
from devsynth_providers.testing import ScriptedProvider

from .conftest import Ask
from .helpers import PRICED, model, policy

Spans = Callable[[], list[ReadableSpan]]


def echo(*names: str) -> dict[str, ScriptedProvider]:
    return {name: ScriptedProvider(*[name] * 50) for name in names}


def report(router: Router) -> ShadowReport:
    assert router.shadow_report is not None
    return router.shadow_report


def differences(spans: Spans) -> list[dict[str, object]]:
    events = [event for span in spans() for event in span.events if event.name == "policy.shadow.differs"]
    return [dict(event.attributes or {}) for event in events]


async def test_it_decides_every_request_and_answers_none(ask: Ask, spans: Spans) -> None:
    a, b = model("a"), model("b")
    providers = echo("a", "b")
    router = Router(policy(a, b), providers, shadow=policy(b, a))
    assert [await ask(router) for _ in range(3)] == ["a"] * 3
    assert providers["b"].requests == []
    assert report(router) == ShadowReport(
        policy="test", requests=3, differences=3, by_first_models={("a", "b"): 3}, errors=0
    )
    assert (
        differences(spans)
        == [
            {
                "devsynth.policy.rule": "all",
                "devsynth.policy.order": ("a", "b"),
                "devsynth.shadow.policy": "test",
                "devsynth.shadow.rule": "all",
                "devsynth.shadow.order": ("b", "a"),
            }
        ]
        * 3
    )


async def test_where_both_decide_alike_nothing_is_told(ask: Ask, spans: Spans) -> None:
    router = Router(policy(model("a")), echo("a"), shadow=policy(model("a")))
    await ask(router)
    assert (report(router).requests, report(router).differences) == (1, 0)
    assert differences(spans) == []


async def test_another_rule_with_the_same_models_is_a_difference() -> None:
    a = model("a")
    rules = (Rule(name="reviews", when=When(task=("review",)), models=("a",)), Rule(name="all", models=("a",)))
    router = Router(policy(a), echo("a"), shadow=Policy(models={"a": a}, rules=rules))
    await router.generate("hi")
    await router.generate("hi", task="review")
    assert (report(router).requests, report(router).by_first_models) == (2, {("a", "a"): 1})


async def test_a_request_that_only_one_of_them_refuses_is_a_difference(spans: Spans) -> None:
    dear, free = policy(model("a", price=PRICED)), policy(model("a"))
    refusing = Router(dear, echo("a"), shadow=free)
    with pytest.raises(NoModelFits):
        await refusing.generate("hi", max_cost_usd=0.000001)
    assert report(refusing).by_first_models == {(None, "a"): 1}
    answering = Router(free, echo("a"), shadow=dear)
    assert await answering.generate("hi", max_cost_usd=0.000001) == "a"
    assert report(answering).by_first_models == {("a", None): 1}
    assert [each["devsynth.shadow.order"] for each in differences(spans)] == [("a",), ()]


async def test_what_both_refuse_is_none() -> None:
    dear = policy(model("a", price=PRICED))
    router = Router(dear, echo("a"), shadow=dear)
    with pytest.raises(NoModelFits):
        await router.generate("hi", max_cost_usd=0.000001)
    assert (report(router).requests, report(router).differences) == (1, 0)


async def test_asking_for_a_plan_is_no_request() -> None:
    router = Router(policy(model("a")), echo("a"), shadow=policy(model("b")))
    router.plan("hi")
    assert report(router).requests == 0


async def test_a_model_that_can_not_be_asked_can_not_be_asked_by_the_shadow_either() -> None:
    gone = Model(name="gone", provider="openai", abilities=frozenset(("chat",)))
    better = Model(name="gone", provider="openai", abilities=frozenset(("chat",)), quality=0.9)
    router = Router(policy(gone, model("b")), echo("b"), shadow=policy(better, model("b")))
    await router.generate("hi")
    assert report(router).differences == 0


async def test_a_model_that_only_the_shadow_has_counts_as_there_and_is_not_built() -> None:
    gone = Model(name="gone", provider="openai", abilities=frozenset(("chat",)))
    elsewhere = Model(name="gone", provider="openai", abilities=frozenset(("chat",)), api_key_env="ANOTHER_KEY")
    nowhere = Model(name="new", provider="no such provider")
    router = Router(policy(gone, model("b")), echo("b"), shadow=policy(elsewhere, nowhere))
    assert await router.generate("hi") == "b"
    assert report(router).by_first_models == {("b", "gone"): 1}


class Knowing(ScriptedProvider):
    """Knows that its model is free, where nobody says what it costs."""

    def __init__(self, model: Model) -> None:
        super().__init__("hi", model=replace(model, price=model.price or FREE))


async def test_what_a_provider_knows_of_its_model_the_shadow_knows_too() -> None:
    registry = ProviderRegistry()
    registry.register("knowing", Knowing)
    plain = Model(name="m", provider="knowing")
    router = Router(policy(plain), registry=registry, shadow=policy(replace(plain, quality=0.5)))
    await router.generate("hi", max_cost_usd=1)
    assert report(router).differences == 0


class Raising(Policy):
    @override
    def plan(self, facts: Facts, conditions: Conditions = Conditions()) -> Plan:
        raise ZeroDivisionError("a bug")


async def test_one_that_raises_fails_no_call_and_its_report_says_so(ask: Ask) -> None:
    broken = Raising(models={"a": model("a")}, rules=(Rule(name="all", models=("a",)),))
    router = Router(policy(model("a")), echo("a"), shadow=broken)
    assert await ask(router) == "a"
    assert (report(router).requests, report(router).errors, report(router).differences) == (1, 1, 0)
    assert report(router).last_error == "ZeroDivisionError: a bug"
    assert "1 errors, the last: ZeroDivisionError: a bug" in str(report(router))


async def test_how_a_call_ends_makes_no_difference() -> None:
    down = ScriptedProvider(*[ProviderUnavailable("down")] * 3)
    router = Router(policy(model("a")), {"a": down}, shadow=policy(model("b")))
    with pytest.raises(ProviderUnavailable):
        await router.generate("hi")
    assert report(router).differences == 1


def test_a_report_can_be_read() -> None:
    told = ShadowReport(
        policy="next", requests=10, differences=3, by_first_models={("a", None): 1, ("a", "b"): 2}, errors=0
    )
    assert str(told).splitlines() == [
        "shadow 'next': 3 of 10 requests decided otherwise",
        "  2 times a -> b",
        "  1 times a -> none",
    ]


def test_one_made_in_code_is_checked_as_any_policy() -> None:
    wrong = Policy(models={"a": model("a")}, rules=(Rule(name="all", models=("z",)),))
    with pytest.raises(ConfigurationError, match="names z, which is no model"):
        Router(policy(model("a")), echo("a"), shadow=wrong)
    with pytest.raises(ConfigurationError, match="shadow is a Policy"):
        Router(policy(model("a")), echo("a"), shadow="p.yaml")  # type: ignore[arg-type]


FILE = "models:\n  a: {provider: stub, price: free}\n  b: {provider: stub, price: free}\nrules:\n"


def write(path: Path, rule: str, models: str) -> Path:
    path.write_text(f"{FILE}  - {{name: {rule}, models: [{models}]}}\n")
    return path


async def test_its_file_is_looked_at_too_and_it_begins_to_count_anew(tmp_path: Path) -> None:
    real, trial = write(tmp_path / "p.yaml", "all", "a, b"), write(tmp_path / "next.yaml", "all", "b, a")
    async with Router.from_policy(real, shadow=trial, reload_s=0) as router:
        await router.generate("hi")
        await router.reload()
        assert report(router).requests == 1, "the same policies: it goes on counting"
        assert (report(router).policy, report(router).by_first_models) == ("next", {("a", "b"): 1})
        providers = dict(router.providers)
        write(trial, "all", "b")
        await router.generate("hi")
        async with asyncio.timeout(30):
            while report(router).requests:
                await asyncio.sleep(0.005)
        await router.generate("hi")
        assert report(router).by_first_models == {("a", "b"): 1}
        assert dict(router.providers) == providers


async def test_a_shadow_whose_file_goes_bad_keeps_nobody_from_changing_the_policy(tmp_path: Path) -> None:
    real, trial = write(tmp_path / "p.yaml", "all", "a"), write(tmp_path / "next.yaml", "all", "b")
    async with Router.from_policy(real, shadow=trial) as router:
        trial.write_text("rules: 1")
        write(real, "other", "a")
        with pytest.raises(PolicyError, match=r"next\.yaml"):
            await router.reload()
        assert router.policy.rules[0].name == "other"
        assert "next.yaml" in str(router.reload_error)
        await router.generate("hi")
        assert report(router).by_first_models == {("a", "b"): 1}, "by the shadow as it last was"
