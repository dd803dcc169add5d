"""``report``: what attempts have cost, how long they took and how they ended, from the ledger."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..stores.ledger_reader import By, Wanted
from ..stores.places import ledger_place
from .leaving import leaving_well
from .moments import FORMS, between
from .output import written
from .report_page import as_page
from .reported import as_csv, as_json, as_table, collect


class FormatName(StrEnum):
    """What ``report --format`` takes."""

    table = "table"
    csv = "csv"
    json = "json"
    html = "html"


_WRITTEN = {FormatName.table: as_table, FormatName.csv: as_csv, FormatName.json: as_json, FormatName.html: as_page}

LedgerOption = Annotated[
    str | None, typer.Option(help="The ledger's file, or the URL of its server; the user's own file, if not given.")
]
SinceOption = Annotated[str | None, typer.Option(help=f"Only attempts that began then or later: {FORMS}.")]
UntilOption = Annotated[str | None, typer.Option(help="Only attempts that began before: as for --since.")]


def report_command(
    ledger: LedgerOption = None,
    by: Annotated[By, typer.Option(help="What to sum up by.")] = By.model,
    since: SinceOption = None,
    until: UntilOption = None,
    form: Annotated[FormatName, typer.Option("--format", help="For people, for programs, or a page.")] = (
        FormatName.table
    ),
    output: Annotated[Path | None, typer.Option(help="Write it into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """What was spent, on what, how long it took and what failed; and what there is to look at. Only reads.

    Exit codes: 0 done, 2 wrong usage, 3 there is no ledger, or it can not be read.
    """
    form = FormatName.json if as_json else form
    with leaving_well(as_json=form == FormatName.json):
        begin, end = between(since, until)
        text = _WRITTEN[form](collect(ledger, by, Wanted(since=begin, until=end)))
        with written(output, never=ledger_place(ledger)) as place:
            place.write(text)
