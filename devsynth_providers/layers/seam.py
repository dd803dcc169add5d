"""Where one model's text ends and another's begins: what the second repeats of the first, told by the texts alone."""

from __future__ import annotations

SHORTEST = 12
"""So many characters, about two words, are no chance. Of 115,000 cuts at random in code, prose, pages and data, after
fewer than one in a thousand the text itself went on with as many characters as stood just before the cut, other than by
a pattern; with four characters it would be twice as many, with sixteen hardly fewer."""
SHORTEST_WHOLE = 4
"""The same where it is all that was said: a model that begins anew is far likelier than a text that begins twice."""
LONGEST = 400
"""A repetition of more than so many characters is only seen if it is of all that was said."""


class Seam:
    """Joins what follows to the text *before*, without what it repeats of the end of that, or of the whole of it.

    Only an exact repetition that reaches up to the end of *before* is one. White space at the end stands apart: whoever
    goes on from a text without it may write it again, or not. Where a pattern goes on (rules of dashes, rows that are
    the same, zeros), nobody can tell whether it is repeated, and all of it stays.
    """

    def __init__(self, before: str) -> None:
        self._said = before.rstrip()
        self._space = before[len(self._said) :]
        self._tail = self._said[-LONGEST:]
        self._held = ""
        self.overlap: int | None = None
        """How many characters were repeated, and are left out; ``None`` until that is decided."""

    def join(self, text: str, *, last: bool = False) -> str | None:
        """What is new in *text*, the next piece of what follows, and in those held back before; ``None`` while it can
        not be told. After the *last* piece it must be."""
        if self.overlap is not None:
            return text
        self._held += text
        repeated = self._repeated()
        if not last and self._undecided(self._held[repeated:]):
            return None
        self.overlap = repeated + _overlap(self._space, self._held[repeated:], 1)
        return self._held[self.overlap :]

    def _undecided(self, rest: str) -> bool:
        """Whether more may show that more is repeated than now seems; *rest* is what does not seem to be."""
        held = self._held
        if len(held) < len(self._said) and self._said.startswith(held):
            return True
        if 0 <= self._tail.find(held) <= len(self._tail) - max(SHORTEST, len(held) + 1):
            return True
        return rest in self._space[:-1] if self._space else False

    def _repeated(self) -> int:
        said, held = self._said, self._held
        if len(said) >= SHORTEST_WHOLE and held.startswith(said):
            length = len(said)
        else:
            length = _overlap(self._tail, held, SHORTEST)
        repeated = held[:length]
        once_before = repeated in said[-2 * length - len(self._space) : -1]
        return 0 if once_before or _patterned(repeated) else length


def _overlap(before: str, after: str, shortest: int) -> int:
    """The length of the longest end of *before* that *after* begins with, 0 if it is not even the *shortest*."""
    lengths = range(min(len(before), len(after)), shortest - 1, -1)
    return next((length for length in lengths if before.endswith(after[:length])), 0)


def _patterned(text: str) -> bool:
    """Whether *text* is one piece twice or more, the last of them perhaps not whole."""
    half = text[: len(text) - len(text) // 2]
    step = text.find(half, 1) if text else -1
    while step > 0:
        if text[step:] == text[:-step]:
            return True
        step = text.find(half, step + 1)
    return False
