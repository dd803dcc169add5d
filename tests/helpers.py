"""Models and policies that tests ask for by a word."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from typing import Any

from devsynth_providers import FREE, Model, Policy, Price, Retry, Rule, Timeouts

OLD_LITELLM = tuple(map(int, importlib.metadata.version("litellm").split(".")[:2])) < (1, 106)
"""Whether this is the oldest version in the range, whose own calls, the unified lane, lose what newer ones keep."""

PRICED = Price(input_usd_per_1m=10, output_usd_per_1m=30)
NO_WAIT = Retry(attempts=3, initial_s=0, cap_s=0)


def model(name: str = "m", **facts: Any) -> Model:
    plain = Model(
        name=name,
        provider="test",
        price=FREE,
        context_window=8192,
        abilities=frozenset(("chat", "embeddings", "tools", "json")),
    )
    return replace(plain, **facts)


def policy(*models: Model, retry: Retry = NO_WAIT, timeouts: Timeouts = Timeouts(), **rule: Any) -> Policy:
    """A policy of one rule that asks *models* as they are listed."""
    return Policy(
        name="test",
        models={each.name: each for each in models},
        rules=(Rule(name="all", models=tuple(each.name for each in models), **rule),),
        retry=retry,
        timeouts=timeouts,
    )
