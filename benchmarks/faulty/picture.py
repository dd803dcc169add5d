"""A run as a picture: SVG that is whole in itself, and has its own colours for light and for dark surroundings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from . import sides
from .report import (
    KINDS,
    LATE_S,
    LEAST_RIGHT,
    MOST_CALLS,
    Found,
    best,
    calls_per_request,
    quantile,
    share_right,
    silent,
    worst_s,
)
from .side import GIVEN_UP_S

_WIDTH, _PANEL, _LABEL, _RIGHT, _GAP = 960, 456, 118, 372, 20
_ROW, _HEAD = 40, 44
_STYLE = (
    "<style>.told{stroke:#fff;stroke-width:3;paint-order:stroke}.paper{fill:#fff}.ink{fill:#1b2430}.faint{fill:#5b6675}.rule{stroke:#d9dee6}.goal{stroke:#1b2430}"
    ".ours{fill:#1f5fd0}.theirs{fill:#7a8699}.wrong{fill:#c2513d}.error{fill:#c9b06a}.twice{fill:#7fb0a0}"
    "@media (prefers-color-scheme:dark){.told{stroke:#12171f}.paper{fill:#12171f}.ink{fill:#e6eaf0}.faint{fill:#a3adba}"
    ".rule{stroke:#364150}.goal{stroke:#e6eaf0}.ours{fill:#6ea0ff}.theirs{fill:#8d98a8}.wrong{fill:#e57a63}"
    ".error{fill:#b59a4e}.twice{fill:#5d9484}}</style>"
)
_THEIRS = (sides.GROUPS, sides.ORDERED, sides.STRICT, sides.STRICT_ORDERED)
Rows = Sequence[tuple[str, Sequence[tuple[str, float, str]]]]
"""For each row its label, and the bars in it: class, share of the width, and what is written beside it."""


def as_svg(found: Found, heading: str) -> str:
    """All figures of a whole run."""
    panels = [
        _panel("Wrong answers without an error, share of the faults", _silent(found), None),
        _panel("Longest call at a deadline of 2 s", _deadline(found), LATE_S / GIVEN_UP_S),
        _panel("Calls upstream for a request while all is down", *_outage(found)),
        _panel("Not answered rightly, one candidate of two healthy", *_missed(found)),
        _panel("Slow calls: first text, seconds at p50, p95, p99", _tail(found), None, dots=True),
        _panel("Streams that were cut: whole, words twice, an error, wrong", _cut(found), None, stacked=True),
    ]
    height, parts = 76.0, []
    for at in range(0, len(panels), 2):
        pair = panels[at : at + 2]
        for column, (drawn, _) in enumerate(pair):
            parts.append(f'<g transform="translate({16 + column * (_PANEL + 16)} {height:.0f})">{drawn}</g>')
        height += max(tall for _, tall in pair) + _GAP
    title = "devsynth_providers and litellm.Router over the same faults"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" '
        f'height="{height:.0f}" role="img" font-family="system-ui, -apple-system, Segoe UI, Arial, sans-serif">'
        f'<title>{title}</title>{_STYLE}<rect class="paper" width="{_WIDTH}" height="{height:.0f}"/>'
    )
    legend = [("ours", "ours"), ("theirs", "litellm.Router, its best configuration"), ("wrong", "wrong, no error")]
    legend += [("error", "an error"), ("twice", "whole, words twice")]
    told, x = [_text(24, 34, title, size=18, weight=600), _text(_WIDTH - 24, 34, heading, "faint", 11, "end")], 24
    for cls, name in legend:
        told += [f'<rect class="{cls}" x="{x}" y="48" width="11" height="11"/>', _text(x + 16, 58, name, "faint", 12)]
        x += 30 + 7 * len(name)
    return f"{head}{''.join(told)}{''.join(parts)}</svg>\n"


def _panel(
    title: str, rows: Rows, goal: float | None, *, dots: bool = False, stacked: bool = False
) -> tuple[str, float]:
    """A panel and how tall it is. *goal* is where the line of the goal stands."""
    bottom = _HEAD + _ROW * len(rows)
    parts = [_text(8, 20, title, size=13, weight=600), _line(8, 29, _PANEL - 8, 29, "rule")]
    if goal is not None and goal <= 1:
        x = _at(goal)
        parts += [_line(x, 36, x, bottom - 4, "goal", "4 3"), _text(x + 4, 41, "goal", "faint", 10)]
    for at, (label, bars) in enumerate(rows):
        y = _HEAD + at * _ROW
        parts += [_text(8, y + 17 + 12 * i, line, size=12 - i) for i, line in enumerate(label.split("\n"))]
        parts += _dots(y, bars) if dots else _stacked(y, bars) if stacked else _bars(y, bars)
    return "".join(parts), bottom


def _bars(y: float, bars: Sequence[tuple[str, float, str]]) -> Iterator[str]:
    for number, (cls, share, told) in enumerate(bars):
        top = y + 4 + 15 * number
        width = max(1.5, _at(min(share, 1.0)) - _LABEL)
        yield f'<rect class="{cls}" x="{_LABEL}" y="{top}" width="{width:.1f}" height="12"/>'
        yield _text(_LABEL + width + 6, top + 10, told, "ink told", 11)


def _stacked(y: float, bars: Sequence[tuple[str, float, str]]) -> Iterator[str]:
    x, width = float(_LABEL), 0.0
    for cls, share, _ in bars:
        width = (_RIGHT - _LABEL) * share
        yield f'<rect class="{cls}" x="{x:.1f}" y="{y + 8}" width="{width:.1f}" height="18"/>'
        x += width
    yield _text(x + 6, y + 22, " · ".join(told for _, share, told in bars if share), size=11)


def _dots(y: float, bars: Sequence[tuple[str, float, str]]) -> Iterator[str]:
    yield _line(_LABEL, y + 16, _RIGHT, y + 16, "rule")
    for cls, share, _ in bars:
        yield f'<circle class="{cls}" cx="{_at(min(share, 1.0)):.1f}" cy="{y + 16}" r="5"/>'
    yield _text(_RIGHT + 10, y + 20, " ".join(told for *_, told in bars), size=10)


def _silent(found: Found) -> Rows:
    came = found["silent"]
    rows = []
    for kind, title in KINDS.items():
        bars = []
        for cls, name in (("ours", sides.OURS), ("theirs", sides.GROUPS)):
            wrong, _, _, count = silent(came[name], kind)
            bars.append((cls, wrong / count, f"{wrong} of {count}"))
        rows.append((title.replace("answers in", "answers in\n"), bars))
    return rows


def _deadline(found: Found) -> Rows:
    came = found["deadline"]
    name = best(came, _THEIRS, lambda each: worst_s(each)[1])
    rows = []
    for kind, title in KINDS.items():
        pair = (("ours", worst_s(came[sides.OURS], kind)), ("theirs", worst_s(came[name], kind)))
        bars = [(cls, s / GIVEN_UP_S, f"{'≥ ' * (s >= GIVEN_UP_S)}{min(s, GIVEN_UP_S):.2f} s") for cls, (s, *_) in pair]
        rows.append((title.replace("answers in", "answers in\n"), bars))
    return rows


def _outage(found: Found) -> tuple[Rows, float]:
    came = found["outage"]
    name = best(came, _THEIRS, lambda each: max(calls_per_request(each).values()))
    pair = (("ours", calls_per_request(came[sides.OURS])), ("theirs", calls_per_request(came[name])))
    top = max(MOST_CALLS * 1.25, *(value for _, each in pair for value in each.values()))
    titles = {"500": "all answer 500", "resets": "all reset", "hangs": "all hang"}
    rows = [
        (title, [(cls, each[kind] / top, f"{each[kind]:.3f}") for cls, each in pair]) for kind, title in titles.items()
    ]
    return rows, MOST_CALLS / top


def _missed(found: Found) -> tuple[Rows, float]:
    came = found["success"]
    name = best(came, _THEIRS, lambda each: -share_right(each))
    rows = []
    missed = {
        (cls, group): 1 - each["right"] / each["requests"]
        for cls, side in (("ours", sides.OURS), ("theirs", name))
        for group, each in came[side].items()
    }
    goal = 1 - LEAST_RIGHT
    top = max(goal * 2, *missed.values())
    for group, title in (("half", "every other\ncall fails"), ("bad", "every call\nfails")):
        bars = [(cls, missed[cls, group] / top, f"{missed[cls, group]:.2%}") for cls in ("ours", "theirs")]
        rows.append((title, bars))
    return rows, goal / top


_SHORT = {
    sides.OURS: "ours",
    sides.EARLY: "ours, clock\n0.5 s",
    sides.HEDGED: "ours, hedged",
    sides.CONTINUED: "ours, on_break:\ncontinue",
    sides.GROUPS: "litellm.Router",
    sides.EARLY_THEIRS: "litellm.Router,\nstream_timeout 0.5",
    sides.UNCOOLED: "litellm.Router,\nfallbacks",
    sides.UNCOOLED_ORDERED: "litellm.Router,\none group",
}


def _tail(found: Found) -> Rows:
    times = {
        name: [quantile(each["first_s"], share) for share in (0.5, 0.95, 0.99)] for name, each in found["tail"].items()
    }
    top = max(value for each in times.values() for value in each)
    return [
        (_SHORT[name], [("ours" if name.startswith("ours") else "theirs", s / top, f"{s:.2f}") for s in each])
        for name, each in times.items()
    ]


def _cut(found: Found) -> Rows:
    rows = []
    for name, each in found["cut"].items():
        told = [
            (cls, count / each["cut"], f"{count / each['cut']:.0%}")
            for cls, count in (
                ("ours" if name.startswith("ours") else "theirs", each["whole"]),
                ("twice", each["twice"]),
                ("error", sum(each["errors"].values())),
                ("wrong", each["silent"]),
            )
        ]
        rows.append((_SHORT[name], told))
    return rows


def _at(share: float) -> float:
    return _LABEL + share * (_RIGHT - _LABEL)


def _text(
    x: float, y: float, text: str, cls: str = "ink", size: int = 13, anchor: str = "start", *, weight: int = 400
) -> str:
    look = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text class="{cls}" x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, cls: str, dashes: str = "none") -> str:
    return (
        f'<line class="{cls}" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke-dasharray="{dashes}"/>'
    )
