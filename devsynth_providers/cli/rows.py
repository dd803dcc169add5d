"""Models as rows: the catalogue's, or a policy's as the router sees them, and which of them are wanted."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from .. import catalogue
from ..doctor.mistakes import mistake
from ..policy import Policy
from ..policy.file import load_policy
from ..providers.registry import registry
from ..router import Router
from ..types import Ability, Model, Price

OWN_PROVIDERS = frozenset(("openai", "anthropic", "openrouter"))
"""Providers of the catalogue that a policy names as they are; all others are LiteLLM's."""

PriceState = Literal["known", "free", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model. *provider* and *model* are what a policy says for it; *home* is the provider in the catalogue."""

    name: str
    provider: str
    model: str
    home: str
    window: int | None
    max_output: int | None
    price: Price | None
    price_from: str | None
    """``policy``, ``catalogue`` or ``provider``; ``None`` where it is not known."""
    abilities: tuple[Ability, ...]
    retired: str | None = None
    rules: tuple[str, ...] | None = None
    configured: bool | None = None
    why_not: str | None = None

    @property
    def price_state(self) -> PriceState:
        if self.price is None:
            return "unknown"
        return "free" if self.price.free else "known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for. A model whose price or window is not known is not known to meet a bound."""

    part: str = ""
    provider: str | None = None
    abilities: tuple[str, ...] = ()
    max_price: float | None = None
    min_window: int | None = None
    configured: bool = False
    retired: bool = True
    today: str = ""

    @property
    def everything(self) -> bool:
        return replace(self, retired=False, today="") == Wanted(retired=False)

    def takes(self, row: Row) -> bool:
        return (
            self.part.lower() in f"{row.name} {row.model}".lower()
            and self.provider in (None, row.provider, row.home)
            and set(self.abilities) <= set(row.abilities)
            and self._priced(row)
            and (self.min_window is None or (row.window or 0) >= self.min_window)
            and (row.configured is True or not self.configured)
            and (self.retired or row.retired is None or row.retired > self.today)
        )

    def _priced(self, row: Row) -> bool:
        if self.max_price is None:
            return True
        return row.price is not None and row.price.input_usd_per_1m <= self.max_price


def today() -> str:
    """The day it is, in UTC (ISO 8601)."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def catalogue_rows() -> Iterator[Row]:
    """Every model in the catalogue, once; whether it is configured is not told here.

    LiteLLM's table has some twice, with their provider before the name and without; the former is looked up first.
    """
    rows: dict[tuple[str, str], Row] = {}
    for row in _every_row():
        before = rows.get((row.provider, row.model))
        if before is None or len(before.name) < len(row.name):
            rows[row.provider, row.model] = row
    yield from rows.values()


def _every_row() -> Iterator[Row]:
    for name, entry in catalogue.entries():
        own = entry.provider in OWN_PROVIDERS
        prefixed = name if name.startswith(f"{entry.provider}/") or "/" in name else f"{entry.home}/{name}"
        yield Row(
            name=name,
            provider=entry.provider if own else "litellm",
            model=name.removeprefix(f"{entry.provider}/") if own else prefixed,
            home=entry.provider,
            window=entry.context_window,
            max_output=entry.max_output_tokens,
            price=entry.price,
            price_from=None if entry.price is None else "catalogue",
            abilities=_sorted(entry.abilities),
            retired=entry.retired,
        )


def policy_and_router(source: str) -> tuple[Policy, Router]:
    """The policy as its file states it, and the router that it makes."""
    stated = load_policy(source, providers=registry, fill_in=False, mistake=mistake)
    full = {name: catalogue.complete(model) for name, model in stated.models.items()}
    return stated, Router(replace(stated, models=full))


def policy_rows(stated: Policy, router: Router) -> list[Row]:
    """The models of *stated* as *router* sees them, in the order of the file."""
    return [_policy_row(name, model, router) for name, model in stated.models.items()]


def _policy_row(name: str, stated: Model, router: Router) -> Row:
    model = router.policy.models[name]
    entry = None if model.base_url and stated.base_url else catalogue.find(stated.provider, stated.id)
    if model.price is None:
        origin = None
    elif stated.price is not None:
        origin = "policy"
    else:
        origin = "provider" if entry is None or entry.price is None else "catalogue"
    return Row(
        name=name,
        provider=stated.provider,
        model=stated.id,
        home=entry.provider if entry else stated.provider,
        window=model.context_window,
        max_output=model.max_output_tokens,
        price=model.price,
        price_from=origin,
        abilities=_sorted(model.abilities or frozenset(("chat",))),
        retired=entry.retired if entry else None,
        rules=tuple(rule.name for rule in router.policy.rules if name in rule.models),
        configured=name in router.providers,
        why_not=router.unavailable.get(name),
    )


def _sorted(abilities: frozenset[Ability]) -> tuple[Ability, ...]:
    order: tuple[Ability, ...] = ("chat", "embeddings", "tools", "json", "vision", "audio", "prefill")
    return tuple(ability for ability in order if ability in abilities)
