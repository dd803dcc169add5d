"""What every peer is asked, and what the far side answers. Only the standard library: all environments import it."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

PROMPT = (
    "Here is a function that a colleague wants to merge. Say in a few sentences what it does, what may go wrong with "
    "an empty list or with a list of one element, and whether you would accept it as it stands.\n\n"
    "def spread(values):\n    ordered = sorted(values)\n    return ordered[-1] - ordered[0]\n"
)
MAX_TOKENS = 1000
TEMPERATURE = 0.7

CHUNKS = 100
"""Pieces of text in a stream; the same text comes as one answer where nobody streams."""
PIECES = tuple(f"{'' if i == 0 else ' '}word{i}" for i in range(CHUNKS))
TEXT = "".join(PIECES)

DIMENSIONS = 1536
TEXTS = tuple(f"Text number {i}, of about the length that a line of documentation has." for i in range(16))


def vector(row: int) -> list[float]:
    """What text *row* is turned into: numbers of single precision, written as short as servers write them."""
    return [round(math.sin(row + i) / 40, 8) for i in range(DIMENSIONS)]


def packed(row: int) -> bytes:
    """The same as the four bytes a number that a client can ask for in place of digits."""
    return struct.pack(f"<{DIMENSIONS}f", *vector(row))


VECTORS = [vector(row) for row in range(len(TEXTS))]


class Wrong(AssertionError):
    """A peer did not say what the far side said: what it took is worth nothing then."""


def check_text(text: str) -> None:
    if text != TEXT:
        raise Wrong(f"not the text that was sent: {text[:60]!r}…, {len(text)} characters of {len(TEXT)}")


def check_vectors(rows: Sequence[Sequence[float]], count: int) -> None:
    """Right in number, length and at both ends: comparing all would cost more than some peers do."""
    if len(rows) != count:
        raise Wrong(f"{len(rows)} vectors for {count} texts")
    for row, right in zip(rows, VECTORS, strict=False):
        if len(row) != DIMENSIONS or abs(row[0] - right[0]) > 1e-6 or abs(row[-1] - right[-1]) > 1e-6:
            raise Wrong("not the vector that was sent")
