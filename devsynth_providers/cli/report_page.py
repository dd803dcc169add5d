"""A report as one page that is whole in itself: no script, nothing from elsewhere, and what others wrote is text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import NamedTuple

from ..stores.ledger_file import moment
from ..stores.ledger_reader import By, Group
from ..stores.places import on_server
from .reported import Report, named, notes, percent, seconds
from .table import dollars, number, printable

DRAWN = 15
"""Groups in a picture; the table has all."""
_WIDTH, _LEFT, _RIGHT = 880, 200, 740
_ROW = 24
_HIGH = 140

_STYLE = """
:root { --ink: #1b2430; --faint: #5b6675; --rule: #d9dee6; --back: #ffffff; --sure: #1f5fd0; --unsure: #9dbcf0;
  --bad: #c2513d; --left: #98a1ae }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --faint: #9aa4b2; --rule: #333b47; --back: #14181e;
  --sure: #6ea0ff; --unsure: #35527f; --bad: #e07a66; --left: #5b6675 } }
body { background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p, small, figcaption { color: var(--faint) }
dl { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem } dt { color: var(--faint) } dd { margin: 0; font-size: 1.4rem }
svg { width: 100%; height: auto } figure { margin: 0 } text { fill: var(--ink); font-size: 12px }
.faint { fill: var(--faint) } .rule { stroke: var(--rule) }
.sure { fill: var(--sure) } .unsure { fill: var(--unsure) } .bad { fill: var(--bad) } .left { fill: var(--left) }
.span { stroke: var(--unsure); stroke-width: 4 }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid var(--rule) }
th:first-child, td:first-child { text-align: left } tr:last-child td { font-weight: 600 }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_COLUMNS = (
    *("cost", "estimated", "reserved", "calls", "hits", "hit rate", "attempts", "failed", "given up", "retries"),
    *("fallbacks", "tokens in", "cached", "tokens out", "p50 s", "p95 s", "first p50 s", "first p95 s"),
)


class Bar(NamedTuple):
    """One row of a picture: its name, its parts by colour, and what is written after it."""

    name: str
    parts: tuple[tuple[str, float], ...]
    told: str


def as_page(report: Report) -> str:
    since, until = report.wanted.since, report.wanted.until
    span = " ".join(f"{word} {moment(at)}" for word, at in (("since", since), ("until", until)) if at is not None)
    title = f"What models cost, by {report.by}"
    parts = [
        f"<h1>{_text(title)}</h1><p>{_text(_short(report.ledger))}{f', {_text(span)}' if span else ''}</p>",
        *(_body(report) if report.total.attempts or report.total.hits else ["<p>No attempt stands in it.</p>"]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _body(report: Report) -> Iterator[str]:
    yield _headline(report.total)
    yield from (f"<p>{_text(note)}</p>" for note in notes(report))
    if report.suggestions:
        listed = "".join(f"<li>{_text(each.message)}</li>" for each in report.suggestions)
        yield f"<h2>What there is to look at</h2><ul>{listed}</ul>"
    sure = _key(("sure", "told by providers, or reckoned from their tokens"), ("unsure", "estimated"))
    yield f"<h2>Cost of each day</h2><figure>{_days(report.days)}<figcaption>{sure}</figcaption></figure>"
    groups = report.groups[-DRAWN:] if report.by is By.day else report.groups[:DRAWN]
    if report.by is not By.day:
        yield f"<h2>Cost by {report.by}</h2><figure>{_bars([_cost(each) for each in groups])}</figure>"
    ended = _key(("sure", "answered"), ("bad", "failed"), ("left", "given up, or under way"))
    yield (
        f"<h2>How attempts ended, by {report.by}</h2>"
        f"<figure>{_bars([_ended(each) for each in groups])}<figcaption>{ended}</figcaption></figure>"
    )
    if timed := [each for each in groups if each.latency_s.p50 is not None]:
        yield (
            f"<h2>How long answers took, by {report.by}</h2><figure>{_latencies(timed)}"
            "<figcaption>From p50, which half of them keep within, to p95, in seconds</figcaption></figure>"
        )
    yield f'<h2>All numbers</h2><div class="wide">{_table(report)}</div>'


def _headline(total: Group) -> str:
    told = {
        "cost": dollars(total.cost_micros),
        "calls": number(total.calls),
        "out of the cache": f"{number(total.hits)}, {percent(total.hit_rate)}" if total.hits else number(0),
        "attempts": number(total.attempts),
        "failed": number(total.failed),
        "tokens in": number(total.input_tokens),
        "tokens out": number(total.output_tokens),
        "p50": f"{seconds(total.latency_s.p50)} s",
        "p95": f"{seconds(total.latency_s.p95)} s",
    }
    return f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{_text(value)}</dd></div>' for name, value in told.items())}</dl>"


def _cost(group: Group) -> Bar:
    sure = group.cost_micros - group.estimated_micros
    return Bar(named(group), (("sure", sure), ("unsure", group.estimated_micros)), dollars(group.cost_micros))


def _ended(group: Group) -> Bar:
    parts = (("sure", group.answered), ("bad", group.failed), ("left", group.given_up + group.under_way))
    told = f"{number(group.attempts)}" + (f", {number(group.failed)} failed" if group.failed else "")
    return Bar(named(group), parts, told)


def _bars(bars: Sequence[Bar]) -> str:
    """Rows of bars, on one scale from zero."""
    top = max((sum(size for _, size in bar.parts) for bar in bars), default=0) or 1
    drawn = []
    for row, bar in enumerate(bars):
        x, y = float(_LEFT), row * _ROW
        drawn.append(_label(bar.name, y))
        for colour, size in bar.parts:
            width = size / top * (_RIGHT - _LEFT)
            drawn.append(f'<rect class="{colour}" x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{_ROW - 8}"/>')
            x += width
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 16}">{_text(bar.told)}</text>')
    return _svg(drawn, len(bars) * _ROW)


def _latencies(groups: Sequence[Group]) -> str:
    top = max((each.latency_s.p95 or 0 for each in groups), default=0) or 1
    drawn = []
    for row, group in enumerate(groups):
        y = row * _ROW
        half, most = (
            _LEFT + (each or 0) / top * (_RIGHT - _LEFT) for each in (group.latency_s.p50, group.latency_s.p95)
        )
        told = f"{seconds(group.latency_s.p50)} to {seconds(group.latency_s.p95)}"
        drawn += [
            _label(named(group), y),
            f'<line class="span" x1="{half:.1f}" y1="{y + 12}" x2="{most:.1f}" y2="{y + 12}"/>',
            *(f'<circle class="sure" cx="{x:.1f}" cy="{y + 12}" r="4"/>' for x in (half, most)),
            f'<text x="{most + 10:.1f}" y="{y + 16}">{told}</text>',
        ]
    return _svg(drawn, len(groups) * _ROW)


def _days(days: Sequence[Group]) -> str:
    """A bar for each day, where it stands in time: days without an entry are gaps."""
    dates = [date.fromisoformat(each.key or "").toordinal() for each in days]
    first, count = dates[0], dates[-1] - dates[0] + 1
    top = max(each.cost_micros for each in days)
    room = min(60.0, (_WIDTH - 20) / count)
    drawn = [f'<text class="faint" x="0" y="12">{_text(dollars(top))}</text>']
    for at, day in zip(dates, days, strict=True):
        x, base = 10 + (at - first) * room, _HIGH + 20.0
        drawn.append(f"<g><title>{day.key}: {_text(dollars(day.cost_micros))}</title>")
        for colour, size in _cost(day).parts:
            high = size / (top or 1) * _HIGH
            base -= high
            drawn.append(
                f'<rect class="{colour}" x="{x:.1f}" y="{base:.1f}" width="{room * 0.8:.2f}" height="{high:.1f}"/>'
            )
        drawn.append("</g>")
    drawn += [
        f'<line class="rule" x1="0" y1="{_HIGH + 20}" x2="{_WIDTH}" y2="{_HIGH + 20}"/>',
        f'<text class="faint" x="10" y="{_HIGH + 36}">{days[0].key}</text>',
    ]
    if count * room > 200:
        end = f'x="{10 + count * room:.1f}" y="{_HIGH + 36}" text-anchor="end"'
        drawn.append(f'<text class="faint" {end}>{days[-1].key}</text>')
    return _svg(drawn, _HIGH + 44)


def _table(report: Report) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in (report.by.value, *_COLUMNS))
    rows = [*((named(each), each) for each in report.groups), ("total", report.total)]
    return f"<table><tr>{head}</tr>{''.join(_row(name, group) for name, group in rows)}</table>"


def _row(name: str, group: Group) -> str:
    money = (group.cost_micros, group.estimated_micros, group.reserved_micros)
    hits = (number(group.calls), number(group.hits), percent(group.hit_rate))
    counts = (
        *(group.attempts, group.failed, group.given_up, group.retries, group.fallbacks),
        *(group.input_tokens, group.cached_input_tokens, group.output_tokens),
    )
    times = (group.latency_s.p50, group.latency_s.p95, group.first_token_s.p50, group.first_token_s.p95)
    cells = (name, *map(dollars, money), *hits, *map(number, counts), *map(seconds, times))
    return f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def _label(name: str, y: int) -> str:
    short = name if len(name) <= 28 else f"{name[:27]}…"
    at = f'x="{_LEFT - 10}" y="{y + 16}" text-anchor="end"'
    return f"<text {at}><title>{_text(name)}</title>{_text(short)}</text>"


def _key(*parts: tuple[str, str]) -> str:
    return "".join(
        f'<svg class="key" viewBox="0 0 8 8"><rect class="{colour}" width="8" height="8"/></svg>{_text(name)}'
        for colour, name in parts
    )


def _svg(drawn: Sequence[str], high: int) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {high}" role="img">{"".join(drawn)}</svg>'


def _text(text: str) -> str:
    """*text* as text: nothing in it is markup, nor a character that no page may have."""
    return escape(printable(text))


def _short(ledger: str) -> str:
    """What it is called, of a file without where that is: pages are passed on."""
    return ledger if on_server(ledger) else Path(ledger).name
