"""What a report says, read from a ledger, and how it looks as a table, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..stores.ledger_file import moment
from ..stores.ledger_reader import By, Group, LedgerReader, Wanted, read_ledger
from .suggestions import Suggestion, Sums, suggestions
from .table import counted, dollars, drawn, for_sheets, number, printable, room, wrapped

SHOWN = 50
"""Groups in a table for people; programs get all of them."""
NONE = "(none)"
"""How a group is called of requests that name no project, role or task."""
_MONEY = ("cost", "estimated", "reserved", "retries")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the entries that are *wanted* come to, for each group and in total."""

    ledger: str
    """What it is called."""
    by: By
    wanted: Wanted
    total: Group
    groups: list[Group]
    days: list[Group]
    suggestions: list[Suggestion]


def collect(where: str | Path | None, by: By, wanted: Wanted) -> Report:
    """Read the ledger that is there, or the user's own. Raises what ``read_ledger`` does."""
    with read_ledger(where) as ledger:
        total, groups = ledger.total(wanted), ledger.groups(by, wanted)
        days = groups if by is By.day else ledger.groups(By.day, wanted, timed=False)
        return Report(
            ledger=ledger.name,
            by=by,
            wanted=wanted,
            total=total,
            groups=groups,
            days=days,
            suggestions=_suggestions(ledger, by, wanted, total, groups),
        )


def _suggestions(ledger: LedgerReader, by: By, wanted: Wanted, total: Group, groups: list[Group]) -> list[Suggestion]:
    rules = groups if by is By.rule else ledger.groups(By.rule, wanted, timed=False)
    models = groups if by is By.model else ledger.groups(By.model, wanted)
    return suggestions(Sums(total=total, rules=rules, models=models, errors=ledger.errors(By.model, wanted)))


def as_dict(group: Group) -> dict[str, Any]:
    """*group* for programs: plain values, money in US dollars."""
    facts = asdict(group)
    money = {f"{name}_usd": facts.pop(f"{name}_micros") / 1_000_000 for name in _MONEY}
    times = {
        f"{name}_{quantile}_s": value
        for name in ("latency", "first_token")
        for quantile, value in facts.pop(f"{name}_s").items()
    }
    key, hits, simple_usd = facts.pop("key"), facts.pop("hits"), facts.pop("simple_micros") / 1_000_000
    ends = {"hits": hits, "hit_rate": group.hit_rate, "simple_usd": simple_usd}
    return {"key": key, **money, **facts, **times, **ends}


def as_json(report: Report) -> str:
    since, until = (None if at is None else moment(at) for at in (report.wanted.since, report.wanted.until))
    told = {
        "by": report.by,
        "since": since,
        "until": until,
        "total": as_dict(report.total) | {"key": None},
        "groups": [as_dict(each) for each in report.groups],
        "suggestions": [each._asdict() for each in report.suggestions],
    }
    return json.dumps(told, ensure_ascii=False) + "\n"


def as_csv(report: Report) -> str:
    """A line for each group, and the total, which is none of them, last."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [name for name in as_dict(report.total) if name != "key"]
    writer.writerow(["row", report.by, *names])
    for row, group in [*(("group", each) for each in report.groups), ("total", report.total)]:
        told = as_dict(group)
        writer.writerow([row, for_sheets(group.key), *(told[name] for name in names)])
    return text.getvalue()


def as_table(report: Report) -> str:
    if not (report.total.attempts or report.total.hits):
        return f"no attempt stands in {report.ledger}" + (" in that time" if report.wanted != Wanted() else "") + "\n"
    shown = report.groups[-SHOWN:] if report.by is By.day else report.groups[:SHOWN]
    rows = [_cells(each, named(each)) for each in shown] + [_cells(report.total, "total")]
    kept = [name for name in rows[0] if name in _ALWAYS or any(row[name].strip("-0.,$%") for row in rows)]
    head = [report.by, *kept[1:]]
    lines = drawn(head, [[row[name] for name in kept] for row in rows], right=range(1, len(kept)), width=room())
    more = len(report.groups) - len(shown)
    lines += [f"{counted(more, 'group')} more: --format csv and json have all"] if more else []
    told = [*notes(report), *(f"* {printable(each.message)}" for each in report.suggestions)]
    lines += ["", *(line for each in told for line in wrapped(each, room(), 2))] if told else []
    return "\n".join(lines) + "\n"


_ALWAYS = ("", "cost", "calls", "attempts", "failed", "tokens in", "tokens out", "p50 s", "p95 s")
"""Columns that are there also where they say nothing but zero."""


def _cells(group: Group, name: str) -> dict[str, str]:
    return {
        "": name,
        "cost": dollars(group.cost_micros),
        "estimated": dollars(group.estimated_micros),
        "reserved": dollars(group.reserved_micros),
        "calls": number(group.calls),
        "hits": number(group.hits),
        "hit rate": percent(group.hit_rate),
        "attempts": number(group.attempts),
        "failed": number(group.failed),
        "given up": number(group.given_up),
        "retries": number(group.retries),
        "fallbacks": number(group.fallbacks),
        "hedges": number(group.hedges),
        "tokens in": number(group.input_tokens),
        "cached": number(group.cached_input_tokens),
        "tokens out": number(group.output_tokens),
        "p50 s": seconds(group.latency_s.p50),
        "p95 s": seconds(group.latency_s.p95),
        "first p50 s": seconds(group.first_token_s.p50),
        "first p95 s": seconds(group.first_token_s.p95),
    }


def notes(report: Report) -> Iterator[str]:
    """What has to be known to read the cost right."""
    total = report.total
    if total.estimated_micros:
        yield f"{dollars(total.estimated_micros)} of the cost is estimated: providers did not tell it."
    if total.under_way:
        yield (
            f"{dollars(total.reserved_micros)} is reserved for {counted(total.under_way, 'attempt')} under way, "
            "and not in the cost."
        )
    if total.unpriced:
        yield f"{counted(total.unpriced, 'attempt')} of no known price: not in the cost."


def named(group: Group) -> str:
    return NONE if group.key is None else printable(group.key)


def percent(part: float | None) -> str:
    return "-" if part is None else f"{part:.1%}"


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
