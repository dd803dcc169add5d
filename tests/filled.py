"""Ledgers for tests: filled by a router, as users' are, or entry by entry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from devsynth_providers import Budget, Model, ProviderUnavailable, RateLimitError, Router, Usage
from devsynth_providers.stores.entries import Entry, Hit, Ledger, Outcome, Purse
from devsynth_providers.stores.redis_ledger import RedisLedger
from devsynth_providers.stores.sqlite_ledger import SqliteLedger
from devsynth_providers.testing import ScriptedProvider

from .command import CANARY
from .helpers import PRICED, model, policy

USED = Usage(10, 20, cached_input_tokens=4)


def filled(file: Path | str, calls: int = 4, project: str = "billing") -> int:
    """Have a router ask, in *project*: every second call fails once at the first model, and is tried again there; a
    last one goes on to the other model. What the answers say that they cost, in millionths of a dollar."""
    slow, down = RateLimitError(f"slow {CANARY}"), [ProviderUnavailable("down")] * 3
    script: list[Any] = [line for number in range(calls) for line in ([slow, "ok"] if number % 2 else ["ok"])]
    far = {
        "first": ScriptedProvider(*script, *down, model=_priced("first"), usage=USED),
        "second": ScriptedProvider(f"secret {CANARY}", model=_priced("second"), usage=USED),
    }
    plain = policy(*(each.model for each in far.values()))
    rules = replace(plain, budgets=(Budget(scope="project", limit_usd=10),))

    async def ask() -> int:
        told: dict[str, Any] = {"project": project, "task": "review", "role": "dev", "tags": ("x",)}
        async with Router(rules, far, ledger=file) as router:
            answers = [await router.complete(f"hi {CANARY} {number}", **told) for number in range(calls + 1)]
        return sum(round((each.cost_usd or 0) * 1_000_000) for each in answers)

    return asyncio.run(ask())


def _priced(name: str) -> Model:
    return model(name, price=PRICED)


def _ledger(where: Path | str, clock: Callable[[], float]) -> Ledger:
    return RedisLedger(where, clock=clock) if isinstance(where, str) else SqliteLedger(where, clock=clock)


def written(file: Path | str, *entries: dict[str, Any]) -> None:
    """Write *entries* down one by one. Each may say ``at``, ``purses``, and what of ``Entry`` and ``Outcome`` is not as
    here; ``settled=False`` leaves it reserved."""

    async def write() -> None:
        now = [0.0]
        ledger = _ledger(file, lambda: now[0])
        for number, given in enumerate(entries):
            facts = dict(given)
            now[0] = facts.pop("at", 1_800_000_000.0 + number)
            purses = [Purse(account, period, 10**12) for account, period in facts.pop("purses", ())]
            settled = facts.pop("settled", True)
            outcome = {name: facts.pop(name) for name in _OUTCOME & facts.keys()}
            plain = {"call": f"c{number}", "attempt": 1, "provider": "p", "model": "m", "worst_micros": 1000}
            entry = Entry(**{**plain, "lease_s": 60.0, "policy": "test", "rule": "all", **facts})
            told = await ledger.reserve(entry, purses)
            assert told.refused is None
            if settled:
                default = {"cost_micros": 10, "basis": "computed", "usage": Usage(3, 4), "latency_s": 1.0}
                assert await ledger.settle(entry.call, entry.attempt, Outcome(**{**default, **outcome}))
        await ledger.aclose()

    asyncio.run(write())


def hit(file: Path | str, *hits: Hit, at: float = 1_800_000_000.0) -> None:
    """Write *hits* down, of one moment."""

    async def write() -> None:
        ledger = _ledger(file, lambda: at)
        for each in hits:
            ledger.hit(each)
        await ledger.aclose()

    asyncio.run(write())


_OUTCOME = {"cost_micros", "basis", "usage", "error", "latency_s", "first_token_s", "finish_reason"}
