"""A replay as a picture: SVG that is whole in itself, for a browser, a page or a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from .shown import headline, interval, names, number, remarks

if TYPE_CHECKING:
    from .replay import Move, Replay
    from .resampling import Estimate

_WIDTH, _LEFT, _RIGHT = 960, 190, 640
_ROW = 46
_OLD, _NEW, _INK, _FAINT, _RULE = "#7a8699", "#1f5fd0", "#1b2430", "#5b6675", "#d9dee6"
_BASES = {"observed": "#2b7a4b", "modelled": "#8fc3a3", "unknown": "url(#unknown)", "refused": "#c2513d"}
_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    'role="img" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13">'
    "<title>{title}</title><defs>"
    '<pattern id="unknown" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="7" height="7" fill="#f3f4f6"/><rect width="2" height="7" fill="#98a1ae"/></pattern></defs>'
    '<rect width="{width}" height="{height}" fill="#ffffff"/>'
)


def as_svg(replay: Replay) -> str:
    """*replay* drawn: quantities as dots with their intervals, shares of models as bars, and what it rests on."""
    old, new = names(replay)
    title = f"{_short(old)} → {_short(new)}"
    parts = [
        _text(24, 38, title, size=20, weight=600),
        _text(24, 60, headline(replay), fill=_FAINT),
        *_legend(_short(old), _short(new)),
    ]
    y = 112
    for heading, drawn in (
        ("What would move", [_dots(each) for each in replay.moves]),
        ("Share of requests that ask a model first", [_bars(each) for each in replay.models]),
        ("What this rests on", [_basis(replay, "old", old), _basis(replay, "new", new)]),
    ):
        parts += [_text(24, y, heading, size=15, weight=600), _line(24, y + 9, _WIDTH - 24, y + 9, _RULE)]
        y += 22
        for row in drawn:
            parts.append(f'<g transform="translate(0 {y})">{row}</g>')
            y += _ROW
        y += 22
    parts += _key_of_bases(y - 16)
    y += 22
    for remark in (piece for each in remarks(replay) for piece in _wrapped(each, 135)):
        parts.append(_text(24, y, remark, size=12, fill=_FAINT))
        y += 18
    return _HEAD.format(width=_WIDTH, height=y + 6, title=_clean(title)) + "".join(parts) + "</svg>\n"


def _dots(move: Move) -> str:
    """Both values on a scale of their own from zero, each with its interval; the difference beside them."""
    ends = [end for each in (move.old, move.new) for end in (each.value, each.high) if end is not None]
    top = max(ends, default=0.0) or 1.0
    parts = [_label(move), _line(_LEFT, 38, _RIGHT, 38, _RULE)]
    parts += [_text(_LEFT, 13, "0", size=10, fill=_FAINT), _text(_RIGHT, 13, number(top, move.unit), 10, _FAINT, "end")]
    for y, colour, each in ((19, _OLD, move.old), (31, _NEW, move.new)):
        if each.value is None:
            parts.append(_text(_LEFT, y + 4, "not known", size=11, fill=colour))
            continue
        parts.append(_whisker(each, top, y, colour))
        parts.append(f'<circle cx="{_at(each.value, top)}" cy="{y}" r="4.5" fill="{colour}"/>')
        parts.append(_text(_RIGHT + 16, y + 5, number(each.value, move.unit), 12, colour, weight=600))
    return "".join(parts)


def _bars(move: Move) -> str:
    parts = [_label(move)]
    for y, colour, each in ((8, _OLD, move.old), (24, _NEW, move.new)):
        if each.value is None:
            continue
        width = round(_at(each.value, 1.0) - _LEFT, 1)
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width}" height="13" fill="{colour}" fill-opacity="0.8"/>')
        parts.append(_whisker(each, 1.0, y + 6.5, _INK))
        parts.append(
            _text(max(_at(each.value, 1.0), _at(each.high or 0, 1.0)) + 6, y + 11, f"{each.value:.1%}", size=11)
        )
    return "".join(parts)


def _label(move: Move) -> str:
    """The name on the left; the difference, new less old, on the right."""
    difference = interval(move.difference, move.unit, signed=True)
    value, _, rest = difference.partition(" [")
    told = _text(_WIDTH - 24, 20, value, anchor="end", weight=600)
    told += _text(_WIDTH - 24, 36, f"[{rest}", size=11, fill=_FAINT, anchor="end") if rest else ""
    return _text(24, 27, _short(move.name, 24)) + told


def _basis(replay: Replay, side: str, name: str) -> str:
    parts = [_text(24, 27, _short(name, 24))]
    x = float(_LEFT)
    told = []
    for basis, share in replay.rests_on[side].items():
        width = share * (_RIGHT - _LEFT)
        if share:
            parts.append(
                f'<rect x="{x:.1f}" y="10" width="{width:.1f}" height="22" fill="{_BASES[basis]}" stroke="#ffffff"/>'
            )
            told.append(f"{share:.1%} {basis}")
        x += width
    parts += [_text(_RIGHT + 16, 18 + 14 * at, line, size=11) for at, line in enumerate(_pairs(told))]
    return "".join(parts)


def _pairs(told: Sequence[str]) -> Iterator[str]:
    for begin in range(0, len(told), 2):
        yield ", ".join(told[begin : begin + 2])


def _legend(old: str, new: str) -> Iterator[str]:
    for y, colour, name in ((30, _OLD, old), (50, _NEW, new)):
        yield f'<circle cx="{_WIDTH - 260}" cy="{y}" r="5" fill="{colour}"/>'
        yield _text(_WIDTH - 248, y + 4, name)
    yield _text(_WIDTH - 24, 92, "difference, new less old", size=11, fill=_FAINT, anchor="end")
    yield _text(_LEFT, 92, "values, with their intervals of 95 %", size=11, fill=_FAINT)


def _key_of_bases(y: float) -> Iterator[str]:
    for at, (basis, fill) in enumerate(_BASES.items()):
        x = _LEFT + at * 115
        yield f'<rect x="{x}" y="{y - 10}" width="14" height="12" fill="{fill}"/>'
        yield _text(x + 20, y, basis, size=12, fill=_FAINT)


def _whisker(each: Estimate, top: float, y: float, colour: str) -> str:
    if each.low is None or each.high is None:
        return ""
    low, high = _at(each.low, top), _at(each.high, top)
    ends = "".join(_line(x, y - 3.5, x, y + 3.5, colour) for x in (low, high))
    return _line(low, y, high, y, colour, 2) + ends


def _at(value: float, top: float) -> float:
    """Where *value* stands between the ends of the drawing."""
    return round(_LEFT + min(max(value / top, 0.0), 1.0) * (_RIGHT - _LEFT), 1)


def _text(
    x: float, y: float, text: str, size: int = 13, fill: str = _INK, anchor: str = "start", *, weight: int = 400
) -> str:
    look = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x}" y="{y}" {look}>{_clean(text)}</text>'


def _clean(text: str) -> str:
    """*text* for XML, which takes no control characters, not even escaped."""
    return escape("".join(each if each.isprintable() else " " for each in text))


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, width: float = 1) -> str:
    return f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{colour}" stroke-width="{width}"/>'


def _short(text: str, room: int = 32) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _wrapped(text: str, room: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > room:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line
