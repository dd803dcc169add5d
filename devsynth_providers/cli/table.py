"""Columns of text, as plain as a pipe wants them."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def drawn(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """*rows* below *head*, one line each, in columns; those whose number is in *right* end together."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


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
