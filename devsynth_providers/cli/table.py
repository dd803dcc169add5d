"""Columns of text, as plain as a pipe wants them."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence


def room() -> int | None:
    """How wide a line may be: as the terminal is; any width where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(line: str, width: int | None, indent: int) -> list[str]:
    """*line* in lines of *width* at most, those after the first *indent* to the right. No word is cut."""
    if width is None or len(line) <= width:
        return [line]
    lead = " " * (len(line) - len(line.lstrip()))
    text = line.removeprefix(lead)
    later = " " * min(indent, width // 2)
    return textwrap.wrap(
        text, width, initial_indent=lead, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


def drawn(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = (), width: int | None = None
) -> list[str]:
    """*rows* below *head*, in columns; those whose number is in *right* end together.

    Each is one line, unless one would be wider than *width*: each then has a line for its first cell, and the
    others below it.
    """
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return _narrow(head, rows, width)
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _narrow(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Each of *rows* by its first cell, and below it the others with their names: none is cut, so it can be copied."""
    lines = []
    for first, *others in rows:
        told = "; ".join(f"{name} {cell}" for name, cell in zip(head[1:], others, strict=True) if cell)
        lines += [first, *wrapped(f"    {told}", width, 4)]
    return lines


def counted(count: int, what: str) -> str:
    """*count* and *what* is counted, as in ``1 model`` and ``2 models``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def number(value: int | None) -> str:
    """*value* in groups of three, or a question mark."""
    return "?" if value is None else f"{value:,}"


def money(usd: float) -> str:
    """*usd* with two decimals, or as many as it has."""
    exact = f"{usd:.6f}".rstrip("0")
    return exact if len(exact.partition(".")[2]) > 2 else f"{usd:.2f}"


def dollars(micros: int) -> str:
    """*micros*, millionths of a dollar, with four decimals; what is less than the last of them is not nothing."""
    return "<$0.0001" if 0 < micros < 100 else f"${micros / 1_000_000:,.4f}"


def megabytes(count: int) -> str:
    """*count* bytes with the unit that suits them."""
    return f"{count / 1000:,.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:,.1f} MB"


def entries_of(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def printable(text: str) -> str:
    """*text*, which anybody may have chosen, without what a terminal would obey."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def for_sheets(value: object) -> object:
    """*value* for CSV: text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") and value else value
