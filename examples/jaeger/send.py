"""Sends requests through a router in eight situations, so that there is something to look at in Jaeger.

The far sides are scripted: no key, no model, no cost. Traces go where OTEL_EXPORTER_OTLP_ENDPOINT says:
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 .venv/bin/python examples/jaeger/send.py
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from devsynth_providers import (
    Budget,
    BudgetExceeded,
    Hedge,
    Model,
    Policy,
    Price,
    ProviderUnavailable,
    RateLimitError,
    RateLimits,
    ResponseCache,
    Retry,
    Router,
    Rule,
    telemetry,
)
from devsynth_providers.testing import Line, ScriptedProvider
from devsynth_providers.types import Keep, Usage

PROMPT, ANSWER = "Why is the sky blue?", ("Blue light ", "is scattered most.")
PRICE = Price(input_usd_per_1m=2.5, output_usd_per_1m=10)
DOWN = ProviderUnavailable("down", status=503)
BUSY = RateLimitError("slow down", status=429)
CUT = ProviderUnavailable("the connection was lost")
Scripts = dict[str, list[Line]]


def router(scripts: Scripts, rule: Rule, *, budgets: Any = (), limits: Any = None, **kept: Any) -> Router:
    """One whose models answer as scripted, by a policy of one rule."""
    models = {name: Model(name=name, provider=f"{name}-example", price=PRICE, context_window=8192) for name in scripts}
    policy = Policy(
        name="example",
        models=models,
        rules=(rule,),
        retry=Retry(attempts=2, initial_s=0.1),
        budgets=budgets,
        limits=limits or {},
    )
    providers = {
        name: ScriptedProvider(*script, model=models[name], usage=Usage(12, 40)) for name, script in scripts.items()
    }
    return Router(policy, providers, **kept)


async def plain(_: Path) -> None:
    """One model is asked, and answers."""
    rule = Rule(name="plain", models=("large",))
    await router({"large": [(0.05, *ANSWER)]}, rule).generate(PROMPT, project="shop")


async def fallback(_: Path) -> None:
    """The first model is down, twice; the second answers."""
    rule = Rule(name="fallback", models=("large", "small"))
    await router({"large": [DOWN, DOWN], "small": [ANSWER]}, rule).generate(PROMPT, project="shop")


async def retry(_: Path) -> None:
    """The model is busy (429), and answers when it is asked again."""
    rule = Rule(name="retry", models=("large",))
    await router({"large": [BUSY, ANSWER]}, rule).generate(PROMPT, project="shop")


async def hedge(_: Path) -> None:
    """The first model is slow to begin; the second is asked too, and begins first."""
    rule = Rule(name="hedge", models=("large", "small"), hedge=Hedge(after=0.2, max_extra=1.0))
    await router({"large": [(5.0, *ANSWER)], "small": [(0.05, *ANSWER)]}, rule).generate(PROMPT, project="shop")


async def continuation(_: Path) -> None:
    """The first model's stream is cut; the second goes on from there."""
    rule = Rule(name="continuation", models=("large", "small"), on_break="continue")
    asked = router({"large": [(ANSWER[0], CUT)], "small": [ANSWER[1]]}, rule)
    async for _piece in asked.generate_stream(PROMPT, project="shop"):
        pass


async def cached(directory: Path) -> None:
    """The second of two equal requests is answered from the cache."""
    cache = ResponseCache(directory=directory / "answers", secret=b"for this example only, 32 bytes.")
    asked = router({"large": [ANSWER]}, Rule(name="cached", models=("large",), cache=Keep()), cache=cache)
    for _request in range(2):
        await asked.generate(PROMPT, temperature=0, project="shop")
    await cache.aclose()


async def budget(directory: Path) -> None:
    """Nothing is sent: the project could overrun its budget."""
    budgets = (Budget(scope="project", limit_usd=0.001),)
    rule = Rule(name="budget", models=("large",))
    async with router({"large": []}, rule, budgets=budgets, ledger=directory / "ledger.db") as asked:
        with suppress(BudgetExceeded):
            await asked.generate(PROMPT, project="shop")


async def queue(_: Path) -> None:
    """Two requests for a model that takes one at a time: the second waits for its turn."""
    limits = {"large": RateLimits(concurrent=1)}
    asked = router({"large": [(0.3, *ANSWER)] * 2}, Rule(name="queue", models=("large",)), limits=limits)
    await asyncio.gather(*(asked.generate(f"{PROMPT} {number}", project="shop") for number in range(2)))


SITUATIONS: tuple[Callable[[Path], Awaitable[None]], ...] = (
    plain, fallback, retry, hedge, continuation, cached, budget, queue,
)  # fmt: skip


async def main() -> None:
    """Play them all, one after another."""
    telemetry.configure(service_name="jaeger-example", metrics=False)
    with tempfile.TemporaryDirectory() as directory:
        for situation in SITUATIONS:
            await situation(Path(directory))
            print(f"devsynth.policy.rule={situation.__name__:<13} {situation.__doc__}")


if __name__ == "__main__":
    asyncio.run(main())
