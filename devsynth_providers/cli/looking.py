"""The commands that look and do not ask: ``models`` and ``doctor``, as the command line takes them."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import Annotated

import typer

from ..doctor.examine import Examination
from .doctor import doctor
from .leaving import leaving_well
from .models import Asked, models
from .rows import Wanted, today


class AbilityName(StrEnum):
    """What ``models --ability`` takes."""

    chat = "chat"
    embeddings = "embeddings"
    tools = "tools"
    json = "json"
    vision = "vision"
    audio = "audio"
    prefill = "prefill"


def _ability(text: str) -> AbilityName:
    try:
        return AbilityName(text)
    except ValueError:
        near = difflib.get_close_matches(text, list(AbilityName), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(AbilityName)}"
        raise typer.BadParameter(f"no ability is called {text!r}; {hint}") from None


def models_command(
    part: Annotated[str, typer.Argument(help="A part of the model's name.", metavar="[NAME-PART]")] = "",
    policy: Annotated[
        str | None, typer.Option(help="The models of this policy, as the router sees them; a file, or a packaged name.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Only models of this provider.")] = None,
    ability: Annotated[
        list[AbilityName] | None,
        typer.Option(
            help="Only models that can do this; may be said again.",
            parser=_ability,
            metavar=f"[{'|'.join(AbilityName)}]",
        ),
    ] = None,
    max_price: Annotated[
        float | None, typer.Option(help="Only models whose input costs no more: US dollars per million tokens.", min=0)
    ] = None,
    min_window: Annotated[
        int | None, typer.Option(help="Only models whose window holds so many tokens.", min=0)
    ] = None,
    configured: Annotated[bool, typer.Option("--configured", help="Only models whose key or file is there.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Ask each configured server whether it is there.")] = False,
    retired: Annotated[bool, typer.Option("--retired", help="Also models that have been switched off.")] = False,
    every: Annotated[bool, typer.Option("--all", help="All that match, however many.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object, for programs.")] = False,
) -> None:
    """List models with window, price and abilities: the catalogue's, or a policy's. Asks no model, spends nothing.

    Exit codes: 0 done, also if none matches or a server is down, 2 wrong usage, 3 wrong policy or setting.
    """
    wanted = Wanted(
        part=part,
        provider=provider,
        abilities=tuple(each.value for each in ability or ()),
        max_price=max_price,
        min_window=min_window,
        configured=configured,
        retired=retired or policy is not None,
        today=today(),
    )
    with leaving_well(as_json=as_json):
        models(wanted, Asked(policy=policy, check=check, every=every, as_json=as_json))


def doctor_command(
    policy: Annotated[str, typer.Option(help="A policy file, or the name of a packaged policy.")] = "balanced",
    trial: Annotated[
        bool, typer.Option("--trial", help="Ask every configured model a few words: this costs money.")
    ] = False,
    model: Annotated[
        list[str] | None, typer.Option(help="Try only this model; may be said again. Costs money.")
    ] = None,
    env_file: Annotated[str | None, typer.Option(help="A .env file to take settings from, too.")] = None,
    settings: Annotated[
        str | None, typer.Option(help="A YAML file with a section provider:, to take settings from.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object, for programs.")] = False,
) -> None:
    """Say what is installed, set, configured, reachable and broken, and what to do. Shows no key, spends nothing.

    Exit codes: 0 nothing is broken, 2 wrong usage, 3 something is.
    """
    wanted = Examination(policy=policy, env_file=env_file, settings_file=settings, trial=trial, only=tuple(model or ()))
    with leaving_well(as_json=as_json):
        well = doctor(wanted, as_json=as_json)
    if not well:
        raise typer.Exit(3)
