"""``doctor``: the findings as text or as JSON. Nothing in them is a key, and one more look makes sure of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.console import Console

from ..doctor.examine import Examination, examine
from ..doctor.finding import Finding, Level
from ..scrubbing import scrub
from .table import room, wrapped

_COLOURS: dict[Level, str] = {"ok": "green", "warning": "yellow", "broken": "red"}
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL")


def doctor(wanted: Examination, *, as_json: bool) -> bool:
    """Print what is found; returns whether nothing is broken."""
    aside = Console(stderr=True, quiet=as_json, highlight=False, emoji=False)
    with aside.status("looking") as status:
        found = asyncio.run(examine(wanted, status.update))
    found = [_clean(each) for each in found]
    counts = _counts(found)
    if as_json:
        report = {"ok": not counts["broken"], "counts": counts, "findings": [asdict(each) for each in found]}
        print(json.dumps(report, ensure_ascii=False))
    else:
        draw(found)
    return not counts["broken"]


def draw(found: Sequence[Finding]) -> None:
    """Print *found* for people, and what it comes to. Colours are for terminals only."""
    section, width = "", room()
    for each, following in zip(found, [*found[1:], None], strict=True):
        if each.section != section:
            section = each.section
            typer.secho(f"\n{section}" if each is not found[0] else section, bold=True)
        level = typer.style(f"{each.level:<8}", fg=_COLOURS[each.level], bold=each.level == "broken")
        told = "\n".join(wrapped(f"  {each.level:<8}{each.subject}: {each.message}", width, 10))
        typer.echo(f"  {level}{told[10:]}")
        again = following is not None and (following.subject, following.advice) == (each.subject, each.advice)
        if each.advice and not again:
            typer.secho("\n".join(wrapped(f"            → {each.advice}", width, 14)), dim=True)
    spent = [each.facts["cost_usd"] for each in found if "cost_usd" in each.facts]
    if spent:
        known = sum(cost for cost in spent if isinstance(cost, int | float))
        typer.echo(f"\nthe trial cost ${known:.6f}" + (", and what is not known" if None in spent else ""))
    counts = _counts(found)
    typer.echo(f"\n{counts['broken']} broken, {counts['warning']} to look at, {counts['ok']} in order")


def _counts(found: Sequence[Finding]) -> dict[Level, int]:
    return {level: sum(each.level == level for each in found) for level in _COLOURS}


def _clean(finding: Finding) -> Finding:
    secrets = [value for name, value in os.environ.items() if _SECRET.search(name.upper())]
    subject, message, advice = (scrub(text, secrets) for text in (finding.subject, finding.message, finding.advice))
    facts = {name: scrub(value, secrets) if isinstance(value, str) else value for name, value in finding.facts.items()}
    return Finding(finding.section, finding.level, subject, message, advice, facts)
