"""What callers leave out: numbers like any others, but known as nobody's choice.

A provider may be given defaults of its own. They take the place of these, and never of the same number where a caller
wrote it: ``temperature=0.7`` is 0.7 everywhere.
"""

from __future__ import annotations


class LeftOutFloat(float):
    """A number that nobody chose."""

    __slots__ = ()


class LeftOutInt(int):
    """A whole number that nobody chose."""

    __slots__ = ()


TEMPERATURE: float = LeftOutFloat(0.7)
MAX_TOKENS: int = LeftOutInt(1000)


def left_out(value: object) -> bool:
    """Whether *value* is what stands where a caller said nothing."""
    return isinstance(value, LeftOutFloat | LeftOutInt)
