"""A replay as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .resampling import Estimate, Unit

if TYPE_CHECKING:
    from .replay import Move, Replay


def as_text(replay: Replay) -> str:
    """*replay* as a table, with what is to be known for reading it."""
    old, new = names(replay)
    rows = [_row(each, each.name) for each in replay.moves]
    rows += [_row(each, f"asks {each.name} first") for each in replay.models]
    lines = [headline(replay), "", *table(("", old, new, "difference"), rows), ""]
    for side, name in (("old", old), ("new", new)):
        told = [f"{share:.1%} {basis}" for basis, share in replay.rests_on[side].items() if share]
        lines.append(f"{name} rests on: {', '.join(told) or 'nothing'}")
    return "\n".join([*lines, *remarks(replay)])


def names(replay: Replay) -> tuple[str, str]:
    """What to call the policies."""
    same = replay.old == replay.new
    return (f"{replay.old} (old)", f"{replay.new} (new)") if same else (replay.old, replay.new)


def headline(replay: Replay) -> str:
    """How many requests, of which days, and how many of them would have gone another way."""
    when = f", {replay.first[:10]} to {replay.last[:10]}" if replay.first else ""
    share = f" ({replay.changed / replay.requests:.0%})" if replay.requests else ""
    return f"{counted(replay.requests, 'request')}{when}; {replay.changed:,}{share} decided otherwise"


def remarks(replay: Replay) -> Iterator[str]:
    """What a reader must know of how sure this is."""
    if replay.compared < replay.requests:
        yield (
            f"costs, latencies and failures are of the {counted(replay.compared, 'request')} "
            "that the log can speak of under both policies"
        )
    if replay.priced < replay.compared:
        yield f"costs are of {replay.priced:,} of them: prices of the others are not known"
    if any(each.old.value is not None and each.difference.low is None for each in replay.moves):
        yield "a latency without an interval rests on too few answers for one"
    for model, count in replay.unknown.items():
        yield f"the log tells too little of {model}, which {counted(count, 'request')} would need"
    if replay.drifted:
        yield (
            f"{counted(replay.drifted, 'request')} went elsewhere than {replay.old} sends them: "
            "it is not the policy that ran, or the models were other ones"
        )
    for reason, count in replay.unreadable.items():
        yield f"{counted(count, 'line')} not read: {reason}"
    yield "95 % intervals; they do not cover that the old rules chose which model got which requests"


def counted(count: int, what: str) -> str:
    """*count* and *what* is counted."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def number(value: float | None, unit: Unit, *, signed: bool = False) -> str:
    """*value* with its unit, short; a question mark where it is not known. *signed* is for differences."""
    if value is None:
        return "?"
    sign = "+" if signed and value > 0 else "-" if value < 0 else ""
    size = abs(value)
    if unit == "share":
        return f"{sign}{size * 100:.1f} pp" if signed else f"{size:.1%}"
    if unit == "usd":
        return f"{sign}${size:.6f}" if size < 0.01 else f"{sign}${size:.4f}"
    return f"{sign}{size:.2f} s"


def interval(each: Estimate, unit: Unit, *, signed: bool = False) -> str:
    """*each* with its interval."""
    told = number(each.value, unit, signed=signed)
    if each.low is None or each.high is None:
        return told
    return f"{told} [{number(each.low, unit, signed=signed)}, {number(each.high, unit, signed=signed)}]"


def _row(move: Move, name: str) -> tuple[str, ...]:
    two = (interval(move.old, move.unit), interval(move.new, move.unit))
    return name, *two, interval(move.difference, move.unit, signed=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """*rows* below *head*, in columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *rows)
    ]
