"""How far a batch is, by the lines that it asks and what is written of them."""

from __future__ import annotations

from array import array
from pathlib import Path

from typing_extensions import override

from ..errors import InvalidRequest
from .answers import Record
from .table import counted, money

_OPEN, _ANSWERED, _CHANGED = 0, 1, 255


class Standing:
    """How far a batch is: which lines are answered, which failed and how, which are open, and what it cost so far.

    *digests* are those of its lines. ``str`` tells it.
    """

    def __init__(self, digests: array[int]) -> None:
        self._digests = digests
        self._states = bytearray(len(digests))
        self._kinds: list[str] = []  # of failures; a line's state is its place here, after the others'
        self._gone = 0
        self.lines = len(digests) - digests.count(0)
        self._cost_micros = 0
        self.asked = 0
        """How many lines were asked since this command began."""
        self.unpriced = 0
        """How many answers' cost is not known."""

    def note(self, record: Record) -> None:
        """*record* has been written, now or earlier."""
        cost = record.get("cost_usd")
        if cost is None:
            self.unpriced += 1
        else:
            self._cost_micros += round(cost * 1_000_000)
        place = record["line"] - 1
        if place >= len(self._digests):
            self._gone += 1
        elif self._digests[place] != int(record["digest"], 16):
            self._states[place] = self._states[place] or _CHANGED
        elif self._states[place] != _ANSWERED:
            self._states[place] = self._failed(record["error"]) if "error" in record else _ANSWERED

    def _failed(self, kind: str) -> int:
        if kind not in self._kinds:
            self._kinds.append(kind)
        return self._kinds.index(kind) + _ANSWERED + 1

    def wants(self, line: int, *, retry_failed: bool) -> bool:
        """Whether *line* is still to be asked."""
        if line > len(self._states):  # added since the questions were checked
            return False
        state = self._states[line - 1]
        return state in (_OPEN, _CHANGED) or (retry_failed and state != _ANSWERED)

    def refuse_changes(self, questions: Path) -> None:
        """Raise ``InvalidRequest`` if what was asked is not what stands there now."""
        changed = self._states.count(_CHANGED)
        if changed:
            first = self._states.index(_CHANGED) + 1
            told = f"{questions}:{first}: this line has changed since it was asked"
            told += f", and so have {counted(changed - 1, 'other')}" if changed > 1 else ""
        elif self._gone:
            told = f"{questions}: lines that were asked are not there any more"
        else:
            return
        raise InvalidRequest(
            f"{told}; name another file for the answers, or say --ask-changed to ask what stands there now"
        )

    @property
    def answered(self) -> int:
        return self._states.count(_ANSWERED)

    @property
    def failures(self) -> dict[str, int]:
        """How many lines failed, by the kind of the error."""
        counts = {kind: self._states.count(self._failed(kind)) for kind in self._kinds}
        return {kind: count for kind, count in counts.items() if count}

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def cost_usd(self) -> float:
        """What all answers cost of which that is known, those of earlier commands too."""
        return self._cost_micros / 1_000_000

    @override
    def __str__(self) -> str:
        failures = ", ".join(f"{count} {kind}" for kind, count in self.failures.items())
        failed = f"{self.failed} failed" + (f" ({failures})" if failures else "")
        more = f" and {counted(self.unpriced, 'answer')} of unknown cost" if self.unpriced else ""
        return f"{self.answered} of {counted(self.lines, 'line')} answered, {failed}, ${money(self.cost_usd)}{more}"

    __rich__ = __str__
