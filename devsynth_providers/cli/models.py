"""``models``: what the catalogue knows, or what a policy has to choose from; asks servers only where told to."""

from __future__ import annotations

import asyncio
import collections
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .. import catalogue
from ..doctor.servers import Reach, reach
from ..errors import ConfigurationError, InvalidRequest
from ..port import ProviderPort
from ..providers.registry import registry
from ..types import Model, Timeouts
from .rows import Row, Wanted, catalogue_rows, policy_and_router, policy_rows
from .table import counted, drawn, money, number, room, wrapped

SHOWN = 50
"""Rows of the catalogue, unless all are asked for."""
_WITH_SERVERS = ("anthropic", "lmstudio", "openai", "openrouter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line said, beside which models are wanted."""

    policy: str | None
    check: bool
    every: bool
    as_json: bool


def models(wanted: Wanted, asked: Asked) -> None:
    """Print the models that are wanted. Raises ``PolicyError`` if the policy is wrong."""
    if asked.policy is None:
        _catalogue(wanted, asked)
    else:
        _policy(asked.policy, wanted, asked)


def _policy(source: str, wanted: Wanted, asked: Asked) -> None:
    stated, router = policy_and_router(source)
    every = policy_rows(stated, router)
    rows = [row for row in every if wanted.takes(row)]
    chosen = {row.name: router.providers[row.name] for row in rows if row.configured}
    reached = asyncio.run(_reached(chosen)) if asked.check else {}
    if asked.as_json:
        listed = [_as_dict(row, reached.get(row.name)) for row in rows]
        _print_json({"policy": stated.name, "of": len(every), "models": listed, "servers": None})
        return
    print("\n".join(_table(rows, wanted, every)))
    for row in rows:
        for line in _notes(row, reached.get(row.name), wanted):
            print("\n".join(wrapped(f"  {row.name}: {line}", room(), 4)))
    print(f"\n{len(rows)} of {len(every)} models of policy {stated.name!r}; {_source()}")


def _catalogue(wanted: Wanted, asked: Asked) -> None:
    if asked.check and wanted.provider not in (None, *_WITH_SERVERS):
        raise InvalidRequest(
            f"--check knows the servers of {', '.join(_WITH_SERVERS)}; to have another asked, give its --policy"
        )
    built, missing = _providers(wanted)
    rows = sorted((row for row in _known(built, missing) if wanted.takes(row)), key=lambda row: (row.home, row.model))
    reached = asyncio.run(_reached(built)) if asked.check else {}
    if asked.as_json:
        servers = {name: asdict(each) for name, each in reached.items()}
        servers |= {name: {"state": "not configured", "message": why} for name, why in missing.items() if asked.check}
        listed = [_as_dict(row, None) for row in rows]
        _print_json({"policy": None, "of": _size(), "models": listed, "servers": servers if asked.check else None})
        return
    if wanted.everything and not asked.every:
        print("\n".join(_overview(rows)))
        hint = "part of a name, --provider, --ability, --max-price, --min-window; --all lists every one"
        of = counted(len({row.home for row in rows}), "provider")
        print(f"\n{counted(len(rows), 'model')} of {of}. Narrow it down: {hint}")
    else:
        shown = rows if asked.every else rows[:SHOWN]
        print("\n".join(_table(shown, wanted, catalogue_rows())))
        more = f"; the first {SHOWN} are here: narrow it down, or say --all" if len(shown) < len(rows) else ""
        print(f"\n{len(rows)} of {_size()} models{more}")
    for name, each in sorted(reached.items()):
        print(f"{name}: {_told(each)}")
    for name, why in missing.items() if asked.check else ():
        print(f"{name}: not configured: {why}")
    print(_source())


def _providers(wanted: Wanted) -> tuple[dict[str, ProviderPort], dict[str, str]]:
    """The providers with servers whose settings are complete, by name, and why the others are not."""
    built: dict[str, ProviderPort] = {}
    missing: dict[str, str] = {}
    for name in _WITH_SERVERS:
        if wanted.provider in (None, name):
            try:
                built[name] = registry.build(Model(name="any", provider=name), Timeouts())
            except ConfigurationError as error:
                missing[name] = str(error)
    return built, missing


def _known(built: Mapping[str, ProviderPort], missing: Mapping[str, str]) -> list[Row]:
    known = dict.fromkeys(built, True) | dict.fromkeys(missing, False)
    return [
        replace(row, configured=known.get(row.provider), why_not=missing.get(row.provider)) for row in catalogue_rows()
    ]


async def _reached(providers: Mapping[str, ProviderPort]) -> dict[str, Reach]:
    try:
        return await reach(providers)
    finally:
        await asyncio.gather(*(provider.aclose() for provider in providers.values()))


def _overview(rows: Sequence[Row]) -> list[str]:
    counts = collections.Counter(row.home for row in rows)
    lines = [(home, f"{count}") for home, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    return drawn(("provider", "models"), lines, right={1}, width=room())


def _none(wanted: Wanted, every: Iterable[Row]) -> str:
    """That nothing of *every* is as *wanted*, and what may be the reason."""
    told = "no model is like that" + ("; an unknown price is not under --max-price" if wanted.max_price else "")
    providers = {name for row in every for name in (row.provider, row.home)}
    if wanted.provider is None or wanted.provider in providers:
        return told
    near = difflib.get_close_matches(wanted.provider, sorted(providers), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "without --provider, all are counted"
    return f"{told}: none here has the provider {wanted.provider!r}; {hint}"


def _table(rows: Sequence[Row], wanted: Wanted, every: Iterable[Row]) -> list[str]:
    """*rows* for people; *every* is what they were chosen from."""
    if not rows:
        return [_none(wanted, every)]
    in_policy = rows[0].rules is not None
    head = ["model", "provider", "window", "max output", "in $/1M", "out $/1M"]
    head += ["price", "abilities", "rules"] if in_policy else ["abilities", "retired"]
    lines = []
    for row in rows:
        cells = [row.name if in_policy else row.model, row.provider]
        cells += [
            number(row.window),
            "" if row.abilities[:1] == ("embeddings",) else number(row.max_output),
            *_prices(row),
        ]
        abilities = " ".join(row.abilities)
        lines.append(
            [*cells, _origin(row), abilities, " ".join(row.rules or ("-",))]
            if in_policy
            else [*cells, abilities, row.retired or ""]
        )
    return drawn(head, lines, right={2, 3, 4, 5}, width=room())


def _prices(row: Row) -> tuple[str, str]:
    if row.price is None:
        return "unknown", "unknown"
    if row.price.free:
        return "free", "free"
    return money(row.price.input_usd_per_1m), money(row.price.output_usd_per_1m)


def _origin(row: Row) -> str:
    return row.price_from or "unknown"


def _notes(row: Row, reached: Reach | None, wanted: Wanted) -> list[str]:
    notes = []
    if row.why_not is not None:
        notes.append(f"not configured: {row.why_not}")
    if reached is not None:
        notes.append(_told(reached, row.model))
    if row.price is None:
        notes.append("its price is not known: requests with a cost ceiling leave it out; state it, or say price: free")
    if row.retired is not None:
        verb = "was" if row.retired <= wanted.today else "will be"
        notes.append(f"it {verb} retired on {row.retired}: name another model")
    if row.rules == ():
        notes.append("no rule uses it")
    return notes


def _told(reached: Reach, model: str = "") -> str:
    verdict = {"broken": "can not be used: ", "in doubt": "in doubt: "}.get(reached.state, "")
    said = f"{verdict}{reached.message}"
    if reached.listed is False and model and model != "any":
        said += f"; {model} is not among them"
    return f"{said}; {reached.advice}" if reached.advice else said


def _source() -> str:
    return f"catalogue of {catalogue.date()}: {catalogue.source()}"


def _size() -> int:
    return sum(1 for _ in catalogue_rows())


def _as_dict(row: Row, reached: Reach | None) -> dict[str, Any]:
    return {
        "name": row.name,
        "provider": row.provider,
        "home": row.home,
        "model": row.model,
        "context_window": row.window,
        "max_output_tokens": row.max_output,
        "price": None if row.price is None else asdict(row.price),
        "price_state": row.price_state,
        "price_from": row.price_from,
        "abilities": row.abilities,
        "retired": row.retired,
        "rules": row.rules,
        "configured": row.configured,
        "why_not": row.why_not,
        "server": None if reached is None else asdict(reached),
    }


def _print_json(report: dict[str, Any]) -> None:
    head = {"catalogue": {"date": catalogue.date(), "source": catalogue.source()}}
    print(json.dumps(head | report, ensure_ascii=False))
