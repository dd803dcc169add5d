"""What a decision costs in CPU: this library's plan, LiteLLM's complexity router, its Router's choice of a deployment.

    .venv/bin/python benchmarks/decision.py [--rounds 9]

All in one process, in rounds that take turns, over the same prompt. The three do not do the same: the complexity router
scores a prompt by rules, and the Router picks one of a model's deployments without looking at prompt, price or window;
a plan filters every model of a rule by abilities, window, cost, speed and quality, orders what is left, and says why
not the others. ``Policy.plan`` is given facts; ``Router.plan`` reads the prompt first. Figures are medians over rounds
of CPU microseconds, user and system; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import time
from collections.abc import Awaitable, Callable

import tables
from workload import PROMPT

from devsynth_providers import (
    ChatRequest,
    Conditions,
    Facts,
    Latency,
    Model,
    Policy,
    Price,
    Range,
    Router,
    Rule,
    TaskAnalyzer,
    When,
)
from devsynth_providers.testing import ScriptedProvider

SIZES = ((1, 1), (5, 5), (50, 5), (5, 50), (50, 50), (200, 50), (50, 200))
"""Models in the rule that decides, and rules before and with it."""
LARGE = (50, 50)
CALLS = 300
AT_MOST_US = 100.0

Work = Callable[[], object]


def policy(models: int, rules: int) -> Policy:
    """The last of *rules* decides, over all *models*; the others look at complexity and task before they pass."""
    known = {
        f"m{n}": Model(
            name=f"m{n}",
            provider="openai",
            price=Price(input_usd_per_1m=1 + n % 7, output_usd_per_1m=4 + n % 11),
            context_window=128_000,
            max_output_tokens=8_192,
            abilities=frozenset(("chat", "tools", "json")),
            quality=0.4 + n / (2 * models),
            latency=Latency(first_token_s=0.3 + n / 100, tokens_per_s=40 + n),
        )
        for n in range(models)
    }
    passing = [
        Rule(name=f"r{n}", when=When(complexity=Range(above=0.95), task=(f"t{n}", "review")), models=tuple(known))
        for n in range(rules - 1)
    ]
    last = Rule(name="last", models=tuple(known), prefer="cheapest", max_cost_usd=0.5, min_quality=0.4)
    return Policy(models=known, rules=(*passing, last))


def ours(models: int, rules: int) -> dict[str, Work]:
    """``Policy.plan`` alone; and ``Router.plan``, which makes the facts of the prompt first."""
    decided = policy(models, rules)
    request = ChatRequest.of(PROMPT, max_cost_usd=1.0, task="review")
    facts, conditions = Facts.of(request, TaskAnalyzer()), Conditions()
    scripted = {name: ScriptedProvider(name, model=model) for name, model in decided.models.items()}
    router = Router(decided, scripted)
    return {
        "Policy.plan": lambda: decided.plan(facts, conditions),
        "Router.plan, prompt read": lambda: router.plan(request),
    }


def theirs(models: int) -> dict[str, Callable[[], Awaitable[object]] | Work]:
    """LiteLLM's choice of one of *models* deployments of one group, and its score for a prompt."""
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}  # else it downloads
    import litellm
    from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter

    deployments = [
        {"model_name": "group", "litellm_params": {"model": f"openai/m{n}", "api_key": "k"}} for n in range(models)
    ]
    found: dict[str, Callable[[], Awaitable[object]] | Work] = {}
    messages = [{"role": "user", "content": PROMPT}]
    for strategy in ("simple-shuffle", "latency-based-routing", "cost-based-routing"):
        router = litellm.Router(model_list=deployments, routing_strategy=strategy, num_retries=0)

        async def choose(router: litellm.Router = router) -> object:
            return await router.async_get_available_deployment("group", request_kwargs={}, messages=messages)

        found[f"litellm.Router, {strategy}"] = choose
    scorer = ComplexityRouter("c", router, {"tiers": dict.fromkeys(("SIMPLE", "MEDIUM", "COMPLEX", "REASONING"), "m")})
    found["litellm complexity router, score only"] = lambda: scorer.classify(PROMPT)

    async def route() -> object:
        return await scorer.async_pre_routing_hook("c", {}, messages)

    found["litellm complexity router, routed"] = route
    return found


async def cpu_us(work: Callable[[], Awaitable[object]] | Work, calls: int) -> float:
    """Microseconds of CPU for each of *calls*."""
    waits = asyncio.iscoroutinefunction(work)
    gc.collect()
    begun = time.process_time()
    if waits:
        for _ in range(calls):
            await work()  # type: ignore[misc]
    else:
        for _ in range(calls):
            work()
    return (time.process_time() - begun) / calls * 1e6


async def measured(ways: dict[str, Callable[[], Awaitable[object]] | Work], rounds: int) -> dict[str, list[float]]:
    """Each way's figures, one for each round after the first."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    gc.freeze()
    for number in range(rounds + 1):
        for name, work in ways.items():
            us = await cpu_us(work, CALLS)
            if number:
                taken[name].append(us)
    return taken


def growth(rounds: int) -> tuple[str, float]:
    """How the time grows with models and rules, and the figure that is claimed."""
    lines = ["| models | rules | Policy.plan µs | Router.plan µs |", "|--:|--:|--:|--:|"]
    claimed = 0.0
    for models, rules in SIZES:
        taken = asyncio.run(measured(dict(ours(models, rules)), rounds))
        plan, whole = (statistics.median(values) for values in taken.values())
        lines.append(f"| {models} | {rules} | {plan:.1f} | {whole:.1f} |")
        if (models, rules) == LARGE:
            claimed = plan
    return "\n".join(lines), claimed


def beside(rounds: int) -> str:
    """Ours and theirs with as many models."""
    models, rules = LARGE
    ways: dict[str, Callable[[], Awaitable[object]] | Work] = {**ours(models, rules), **theirs(models)}
    taken = asyncio.run(measured(ways, rounds))
    base = next(iter(taken.values()))
    lines = [f"| {models} models, {rules} rules | CPU µs | times Policy.plan |", "|---|--:|--:|"]
    for name, values in taken.items():
        ratio = statistics.median(mine / own for mine, own in zip(values, base, strict=True))
        lines.append(f"| {name} | {statistics.median(values):.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count (default 9)")
    rounds = parser.parse_args().rounds
    print(tables.heading())
    table, claimed = growth(rounds)
    print(f"{table}\n")
    print(f"{beside(rounds)}\n")
    holds = "holds" if claimed <= AT_MOST_US else "does not hold"
    print(f"Claim: at most {AT_MOST_US:.0f} µs with {LARGE[0]} models and {LARGE[1]} rules: {claimed:.1f} µs, {holds}")


if __name__ == "__main__":
    main()
