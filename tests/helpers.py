"""Models and policies that tests ask for by a word."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from devsynth_providers import FREE, Model, Policy, Price, Reply, Retry, Rule, Timeouts

OLD_LITELLM = tuple(map(int, importlib.metadata.version("litellm").split(".")[:2])) < (1, 106)
"""Whether this is the oldest version in the range, whose own calls, the unified lane, lose what newer ones keep."""

PRICED = Price(input_usd_per_1m=10, output_usd_per_1m=30)
NO_WAIT = Retry(attempts=3, initial_s=0, cap_s=0)


async def ends_when_forgotten(answer: Awaitable[Reply]) -> bool:
    """Whether it does so at once, without the garbage collector."""
    ended: list[bool] = []
    gc.disable()
    try:
        left = [(await answer).on_finish(lambda *_: ended.append(True))]
        with pytest.warns(ResourceWarning, match="forgotten"):
            left.clear()
        await asyncio.sleep(0)
    finally:
        gc.enable()
    return ended == [True]


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
