"""The commands that look after a ledger: show, export, check and prune."""

from __future__ import annotations

import csv
import inspect
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from ..stores.ledger_file import moment
from ..stores.ledger_reader import COLUMNS, Wanted, read_ledger
from ..stores.ledger_upkeep import Checked, Old, check, old, prune
from ..stores.places import ledger_place
from .leaving import leaving_well
from .moments import FORMS, between, moment_of
from .output import written
from .report import LedgerOption, SinceOption, UntilOption
from .table import counted, dollars, drawn, entries_of, for_sheets, printable, room, wrapped

ledger_app = typer.Typer(help="Look after the ledger, where each attempt stands with its cost.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON object, for programs.")]


@dataclass(frozen=True, slots=True)
class Which:
    """Which entries, as the command line says it: each field is an option."""

    since: SinceOption = None
    until: UntilOption = None
    project: Annotated[str | None, typer.Option(help="Only entries of this project.")] = None
    role: Annotated[str | None, typer.Option(help="Only entries of this role.")] = None
    task: Annotated[str | None, typer.Option(help="Only entries of this task.")] = None
    rule: Annotated[str | None, typer.Option(help="Only entries of this rule.")] = None
    model: Annotated[str | None, typer.Option(help="Only entries of this model.")] = None
    call: Annotated[str | None, typer.Option(help="Only entries of this call, by its id.")] = None
    failed: Annotated[bool, typer.Option("--failed", help="Only attempts that failed.")] = False

    def wanted(self) -> Wanted:
        begin, end = between(self.since, self.until)
        given = ((column, getattr(self, column)) for column in ("project", "role", "task", "rule", "model", "call"))
        having = tuple((column, value) for column, value in given if value is not None)
        return Wanted(since=begin, until=end, having=having, failed=self.failed)


def choosing(command: Callable[..., None]) -> Callable[..., None]:
    """*command* with the options of ``Which`` in the place of its parameter *which*."""
    options = inspect.signature(Which, eval_str=True).parameters

    def run(**said: Any) -> None:
        which = Which(**{name: said.pop(name) for name in options})
        command(which=which, **said)

    own = inspect.signature(command, eval_str=True).parameters
    parameters = [each for name in own for each in (options.values() if name == "which" else [own[name]])]
    named = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    run.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in named}
    run.__doc__ = command.__doc__
    return run


class Lines(StrEnum):
    """What ``ledger export --format`` takes."""

    csv = "csv"
    jsonl = "jsonl"


@ledger_app.command("show")
@choosing
def show_command(
    which: Which,
    ledger: LedgerOption = None,
    limit: Annotated[int, typer.Option(help="How many entries.", min=1)] = 20,
    as_json: JsonOption = False,
) -> None:
    """The latest entries, the last first. Only reads.

    Exit codes: 0 done, 2 wrong usage, 3 there is no ledger, or it can not be read.
    """
    with leaving_well(as_json=as_json):
        wanted = which.wanted()
        with read_ledger(ledger) as reader:
            entries = list(reader.entries(wanted, latest=limit))
        if as_json:
            print(json.dumps({"entries": entries}, ensure_ascii=False))
        else:
            print("\n".join(_shown(entries)) if entries else "no entry is like that")


@ledger_app.command("export")
@choosing
def export_command(
    which: Which,
    ledger: LedgerOption = None,
    form: Annotated[Lines, typer.Option("--format", help="CSV, or a JSON object in each line.")] = Lines.csv,
    output: Annotated[Path | None, typer.Option(help="Write it into this file.")] = None,
) -> None:
    """All entries, oldest first, with all that is known of them but for the process that wrote them. Only reads.

    Exit codes: 0 done, 2 wrong usage, 3 there is no ledger, or it can not be read.
    """
    with leaving_well():
        wanted = which.wanted()
        with read_ledger(ledger) as reader, written(output, never=ledger_place(ledger)) as text:
            _WRITERS[form](reader.entries(wanted), text)


@ledger_app.command("check")
def check_command(ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """Whether every balance is the sum of its entries, and what is reserved by processes that are gone. Only reads.

    Exit codes: 0 it is right, 2 wrong usage, 3 it is not, or it can not be read.
    """
    file = Path(ledger_place(ledger))
    with leaving_well(as_json=as_json):
        found = check(file)
        if as_json:
            wrong = [each._asdict() for each in found.wrong]
            left = {"left": found.left, "left_micros": found.left_micros, "overdue": found.overdue}
            sizes = {"entries": found.entries, "balances": found.balances, "damage": found.damage}
            print(json.dumps({"ok": found.right, **sizes, "wrong": wrong, **left}, ensure_ascii=False))
        else:
            for line in _told(file, found):
                print("\n".join(wrapped(line, room(), 2)))
    if not found.right:
        raise typer.Exit(3)


@ledger_app.command("prune")
def prune_command(
    before: Annotated[str, typer.Option(help=f"Entries of attempts that began before: {FORMS}.")],
    ledger: LedgerOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; else it is only said what would be.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove old entries of attempts that have ended. Budgets go on to hold: what they have paid stays counted.

    Exit codes: 0 done, or said what would be, 2 wrong usage, 3 there is no ledger, or it can not be written.
    """
    file = Path(ledger_place(ledger))
    with leaving_well(as_json=as_json):
        end = moment_of(before, "--before")
        assert end is not None
        found = old(file, end)
        if not as_json:
            print("\n".join(wrapped(_would_go(found, end), room(), 2)))
        removed = prune(file, end) if yes and (found.entries or found.hits) else 0
        if as_json:
            told = {"before": moment(end), "found": found.entries, "cost_usd": found.cost_micros / 1_000_000}
            print(json.dumps({**told, "under_way": found.under_way, "hits": found.hits, "removed": removed}))
        elif yes:
            print(f"removed {entries_of(removed)}")
        elif found.entries or found.hits:
            print("nothing is removed yet: say --yes")


def _shown(entries: Iterable[dict[str, Any]]) -> list[str]:
    head = ("time", "model", "rule", "project", "reason", "state", "cost", "in", "out", "s", "error", "call")
    rows = [
        [
            *(each["at"][:19].replace("T", " "), each["model"], each["rule"], each["project"] or ""),
            *(each["reason"], each["state"], _cost(each)),
            *("" if each[name] is None else str(each[name]) for name in ("input_tokens", "output_tokens")),
            "" if each["latency_s"] is None else f"{each['latency_s']:.2f}",
            *(each["error"] or "", f"{each['call']}#{each['attempt']}"),
        ]
        for each in entries
    ]
    return drawn(head, [[printable(cell) for cell in row] for row in rows], right={6, 7, 8, 9}, width=room())


def _cost(entry: dict[str, Any]) -> str:
    if entry["state"] == "reserved":
        return f"≤ {dollars(entry['reserved_micros'])}"
    if entry["basis"] == "unknown" and not entry["reserved_micros"]:
        return "unknown"
    return dollars(entry["cost_micros"] or 0)


def _as_csv(entries: Iterable[dict[str, Any]], text: TextIO) -> None:
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        entry["tags"] = json.dumps(entry["tags"], ensure_ascii=False)
        writer.writerow([for_sheets(value) for value in entry.values()])


def _as_lines(entries: Iterable[dict[str, Any]], text: TextIO) -> None:
    for entry in entries:
        text.write(json.dumps(entry, ensure_ascii=False) + "\n")


_WRITERS = {Lines.csv: _as_csv, Lines.jsonl: _as_lines}


def _told(file: Path, found: Checked) -> Iterator[str]:
    yield from (f"{file}: damaged: {each}" for each in found.damage)
    for each in found.wrong:
        yield (
            f"{file}: {printable(each.account)} in {printable(each.period)}: the balance is "
            f"{dollars(each.balance_micros)}, its entries come to {dollars(each.entries_micros)}"
        )
    if found.right:
        yield f"{file}: right; {entries_of(found.entries)}, {counted(found.balances, 'balance')}"
    if found.left:
        left = counted(found.left, "attempt")
        yield (
            f"{left} of processes that are gone: {dollars(found.left_micros)} reserved, which counts as spent; "
            "the next router that opens the ledger writes that down"
        )
    if found.overdue:
        yield f"{counted(found.overdue, 'attempt')} reserved for longer than it was to take"


def _would_go(found: Old, end: float) -> str:
    if not found.entries or found.first_at is None or found.last_at is None:
        hits = f"; {counted(found.hits, 'answer')} out of the cache came before" if found.hits else ""
        return f"no attempt that has ended began before {moment(end)}{hits}"
    stay = f"; {counted(found.under_way, 'attempt')} under way since then stay" if found.under_way else ""
    span = f"from {moment(found.first_at)} to {moment(found.last_at)}"
    hits = f"; and {counted(found.hits, 'answer')} out of the cache" if found.hits else ""
    return f"{entries_of(found.entries)}, {span}, {dollars(found.cost_micros)} in all{hits}{stay}"
