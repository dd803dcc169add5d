"""What is known of public models: price, window, abilities. A dated extract of LiteLLM's table, read on first use.

``scripts/update-catalogue`` makes ``catalogue.json`` anew; a test holds it against the installed LiteLLM. A policy
overrides any of it. A model that is not here, or has no price here, has an unknown price: never zero.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .types import Ability, Model, Price

_FILE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The facts of one public model. *retired* is the day it is, or was, switched off (ISO 8601), if announced."""

    provider: str
    context_window: int | None
    max_output_tokens: int | None
    price: Price | None
    abilities: frozenset[Ability]
    retired: str | None

    @property
    def home(self) -> str:
        """What LiteLLM wants before a model's name and a slash: its table has finer names for parts of providers."""
        return self.provider.partition("-")[0].removesuffix("_converse")

    def gone(self, today: str) -> bool:
        """Whether it is switched off on the day *today* (ISO 8601)."""
        return self.retired is not None and self.retired <= today


@functools.cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return table


def date() -> str:
    """The day on which the figures were taken (ISO 8601)."""
    return str(_table()["date"])


def source() -> str:
    """Where the figures come from."""
    return str(_table()["source"])


def find(provider: str, model: str) -> Entry | None:
    """What is known of *model* at *provider*, or ``None``. Another provider's model of that name is not it."""
    rows = _table()["models"]
    if provider == "litellm":
        return _anywhere(model)
    for key in (f"{provider}/{model}", model):
        row = rows.get(key)
        if row is not None and row["provider"] == provider:
            return _entry(row)
    return None


def entries() -> Iterator[tuple[str, Entry]]:
    """Every model in it, by LiteLLM's name for it."""
    return ((name, _entry(row)) for name, row in _table()["models"].items())


@functools.cache
def litellm_providers() -> tuple[str, ...]:
    """The providers in LiteLLM's table, as it writes them before a model's name; it knows some more."""
    rows = _table()["models"]
    return tuple(sorted({row["provider"] for row in rows.values()} | {key.split("/")[0] for key in rows if "/" in key}))


def complete(model: Model) -> Model:
    """*model* with what it does not say itself taken from here, where it is known.

    A model at a ``base_url`` of its own is somebody's server, whatever it is called: only its own word counts.
    """
    entry = None if model.base_url else find(model.provider, model.id)
    if entry is None:
        return model
    return replace(
        model,
        price=model.price or entry.price,
        context_window=model.context_window or entry.context_window,
        max_output_tokens=model.max_output_tokens or entry.max_output_tokens,
        abilities=entry.abilities if model.abilities is None else model.abilities,
    )


def _anywhere(model: str) -> Entry | None:
    """A model by LiteLLM's name for it, provider first; its table leaves some providers' names out."""
    rows = _table()["models"]
    prefix, _, rest = model.partition("/")
    for key in (model, rest):
        row = rows.get(key)
        if row is not None and ((entry := _entry(row)).home == prefix or key.startswith(f"{prefix}/")):
            return entry
    return None


def _entry(row: Mapping[str, Any]) -> Entry:
    price = row.get("price")
    return Entry(
        provider=row["provider"],
        context_window=row.get("window"),
        max_output_tokens=row.get("max_output"),
        price=price and Price(**{f"{name}_usd_per_1m": usd for name, usd in price.items()}),
        abilities=frozenset(row["abilities"]),
        retired=row.get("retired"),
    )
