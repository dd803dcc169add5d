"""A schedule as a value: a policy, what goes wrong with its models, and who asks what, when, and how patiently."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from devsynth_providers import (
    FREE,
    ChatRequest,
    EmbedRequest,
    Latency,
    Limits,
    Model,
    Policy,
    Price,
    RateLimits,
    Retry,
    Rule,
)
from devsynth_providers import Timeouts as Clocks
from devsynth_providers.policy.rules import Weights, When
from devsynth_providers.testing import Fault
from devsynth_providers.testing.faults import Kind
from devsynth_providers.types import Hedge, Request

LASTS_S = 60.0
TASKS = (None, "design", "chores")
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "vectors_doubled")
"""All but one vector too many: where another is missing, too, the number is right, and nobody can know."""
Way = Literal["whole", "streamed", "pieces", "vectors"]
"""``complete``, ``send``, ``generate_stream``, which is left without closing it, or an embedding."""


@dataclass(frozen=True)
class Ask:
    """One caller: what it asks, when, and how long it puts up with it."""

    number: int
    at_s: float
    way: Way
    request: Request
    deadline_s: float | None = None
    cancels_after_s: float | None = None
    patience_s: float | None = None
    """The caller's own ``asyncio.timeout``."""
    reads: int | None = None
    """After how many pieces it stops reading."""
    pause_s: float = 0.0
    """How long it takes over each piece."""

    @property
    def text(self) -> str:
        """What it asks: begins with a word that only equal requests have, as does each text of a batch."""
        return self.request.text


@dataclass(frozen=True)
class Schedule:
    """What happens."""

    seed: int
    policy: Policy
    pace_s: Mapping[str, float]
    faults: Mapping[str, tuple[Fault, ...]]
    asks: tuple[Ask, ...]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        dice = random.Random(f"schedule {seed}")
        policy = _policy(dice)
        calm = dice.random() < 0.1
        dealt = cls(
            seed,
            policy,
            {name: dice.choice((0.0, dice.uniform(0.01, 0.3))) for name in policy.models},
            {name: () if calm else _faults(dice) for name in policy.models},
            tuple(_ask(dice, number) for number in range(dice.randint(6, 30))),
        )
        dealt = replace(dealt, policy=replace(policy, limits=_limits(dice, tuple(policy.models))))
        return _crowded(dealt, random.Random(f"crowd {seed}"))


def _maybe(dice: random.Random, chance: float, low: float, high: float) -> float | None:
    return dice.uniform(low, high) if dice.random() < chance else None


def _policy(dice: random.Random) -> Policy:
    models = {name: _model(dice, name) for name in ("ada", "bert", "claude", "dave")[: dice.randint(2, 4)]}
    rules = [_rule(dice, task, tuple(models)) for task in TASKS[1:] if dice.random() < 0.5]
    return Policy(
        models=models,
        rules=(*rules, _rule(dice, None, tuple(models))),
        timeouts=Clocks(
            first_token_s=dice.uniform(0.3, 6), idle_s=dice.uniform(0.2, 5), total_s=dice.choice((1.0, 5.0, 12.0, 40.0))
        ),
        retry=Retry(attempts=dice.randint(1, 4), initial_s=dice.choice((0, 0.1, 1)), cap_s=dice.choice((0.5, 4))),
        explore=dice.choice((0.0, 0.05, 0.5)),
    )


def _model(dice: random.Random, name: str) -> Model:
    rates = {"input_usd_per_1m": dice.uniform(0, 20), "output_usd_per_1m": dice.uniform(0, 60)}
    return Model(
        name=name,
        provider="test",
        model=dice.choice((name, "shared")),
        price=dice.choice((FREE, Price(**rates), Price(**rates), None)),
        context_window=dice.choice((None, 250, 4096, 32_768)),
        abilities=frozenset(("chat", "embeddings") if dice.random() < 0.8 else ("chat",)),
        quality=_maybe(dice, 0.8, 0, 1),
        latency=Latency(first_token_s=dice.uniform(0.1, 3), tokens_per_s=100) if dice.random() < 0.5 else None,
    )


def _rule(dice: random.Random, task: str | None, models: tuple[str, ...]) -> Rule:
    weights = Weights(quality=1, cost=dice.random(), latency=dice.random())
    return Rule(
        name=task or "all",
        when=When() if task is None else When(task=(task,)),
        models=tuple(dice.sample(models, dice.randint(1, len(models)))),
        prefer=dice.choice(("listed", "listed", "cheapest", "fastest", "best", weights)),
        max_cost_usd=_maybe(dice, 0.4, 0.0005, 0.05),
        max_latency_s=_maybe(dice, 0.1, 1, 10),
        min_quality=_maybe(dice, 0.1, 0, 0.5),
        hedge=_hedge(dice) if dice.random() < 0.7 else None,
        on_break=dice.choice(("raise", "continue")),
    )


def _limits(dice: random.Random, models: tuple[str, ...]) -> dict[str, RateLimits]:
    """For half of all policies, limits of their provider, of one of their models, or of both."""
    if dice.random() < 0.5:
        return {}
    return {
        name: RateLimits(
            requests_per_minute=dice.choice((None, 3, 10, 20)),
            tokens_per_minute=dice.choice((None, None, 2000, 20_000)),
            concurrent=dice.choice((None, 1, 2, 4)),
        )
        for name in dice.choice((("test",), (dice.choice(models),), ("test", dice.choice(models))))
    }


def _hedge(dice: random.Random) -> Hedge:
    after: Any = dice.choice(("p50", "p95", *[dice.uniform(0.0001, 0.1)] * 6, dice.uniform(0.1, 3)))
    return Hedge(after=after, max_extra=dice.choice((0.05, 0.5, 1.0, 1.0, 1.0)))


def _faults(dice: random.Random) -> tuple[Fault, ...]:
    drawn = [_fault(dice, dice.choice((0.05, 0.2, 0.5))) for _ in range(dice.randint(0, 6))]
    if dice.random() < 0.3:
        began = dice.uniform(0, LASTS_S)
        kind: Kind = dice.choice(("refused", "server_error", "overloaded", "stall", "rate_limited"))
        drawn.append(Fault(kind, between_s=(began, began + dice.uniform(1, 40))))
    return tuple(drawn)


def _fault(dice: random.Random, rate: float) -> Fault:
    where: dict[str, Any] = dice.choice(({}, {"pieces": dice.randint(1, 6)}, {"characters": dice.randint(1, 30)}))
    kind: Kind = dice.choice(KINDS)
    if kind == "empty":
        where = {}
    return Fault(kind, rate, seconds=dice.choice((None, dice.uniform(0, 3))), **where)


def _ask(dice: random.Random, number: int) -> Ask:
    way: Way = dice.choice(("whole", "streamed", "streamed", "pieces", "vectors"))
    said = f"r{number} " + " ".join(dice.choices(("port", "adapter", "hexagon", "é", "why"), k=dice.randint(1, 8)))
    about: dict[str, Any] = {
        "task": dice.choice(TASKS),
        "limits": Limits(max_cost_usd=_maybe(dice, 0.3, 0.0002, 0.05), first_token_s=_maybe(dice, 0.1, 0.5, 5)),
    }
    request: Request
    if way == "vectors":
        request = EmbedRequest(texts=tuple(f"r{number} {each}" for each in enumerate(said.split(" ")[1:])), **about)
    else:
        chat = ChatRequest.of(said, max_tokens=dice.choice((50, 200, 1000)))
        request = ChatRequest(messages=chat.messages, max_tokens=chat.max_tokens, stream=way != "whole", **about)
    return Ask(
        number,
        round(dice.uniform(0, LASTS_S), 3) if dice.random() < 0.9 else 1.0,
        way,
        request,
        deadline_s=_maybe(dice, 0.15, 0, 10),
        cancels_after_s=_maybe(dice, 0.15, 0, 5),
        patience_s=_maybe(dice, 0.1, 0, 10),
        reads=dice.randint(0, 5) if dice.random() < 0.15 else None,
        pause_s=dice.choice((0, 0, 0, 0, dice.uniform(0, 2))),
    )


def _crowded(dealt: Schedule, dice: random.Random) -> Schedule:
    """*dealt*, in half of the cases with equal requests at about the same time, and with batches that need several."""
    if dice.random() < 0.5:
        return dealt
    rules = tuple(
        replace(rule, coalesce=dice.choice(("auto", "auto", "always", "never"))) for rule in dealt.policy.rules
    )
    asks = [_larger(ask, dice) for ask in dealt.asks]
    for ask in dice.sample(asks, len(asks) // 3):
        asks += [_equal(ask, dice, len(asks) + more) for more in range(dice.choice((1, 1, 2, 5)))]
    return replace(dealt, policy=replace(dealt.policy, rules=rules), asks=tuple(asks))


def _larger(ask: Ask, dice: random.Random) -> Ask:
    request = ask.request
    if isinstance(request, ChatRequest):
        return replace(ask, request=replace(request, temperature=0) if dice.random() < 0.7 else request)
    if not isinstance(request, EmbedRequest) or dice.random() < 0.7:
        return ask
    texts = tuple(f"r{ask.number} {each} port" for each in range(dice.randint(90, 400)))
    return replace(ask, request=replace(request, texts=texts))


def _equal(ask: Ask, dice: random.Random, number: int) -> Ask:
    """Another caller who asks the same, with a patience of its own."""
    return replace(
        ask,
        number=number,
        at_s=ask.at_s + dice.choice((0.0, dice.uniform(0, 0.5), dice.uniform(0, 3))),
        deadline_s=_maybe(dice, 0.15, 0, 10),
        cancels_after_s=_maybe(dice, 0.2, 0, 5),
        patience_s=_maybe(dice, 0.1, 0, 10),
        reads=dice.randint(0, 5) if dice.random() < 0.2 else None,
        pause_s=dice.choice((0, 0, 0, 0, dice.uniform(0, 2))),
    )
