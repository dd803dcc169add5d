"""What was spent elsewhere, written into the same ledger; and what a project has spent in all."""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

from .errors import ConfigurationError, InvalidRequest, LedgerUnavailable
from .stores.entries import Entry, Outcome
from .stores.places import default_ledger, on_server
from .stores.sqlite_ledger import SqliteLedger
from .types import Usage, new_id

T = TypeVar("T")

LARGEST = 2**53 - 1
"""What is more is not exact everywhere: some nine billion dollars."""


class CostTracker:
    """Writes into the ledger *file*, by default the user's, what no router knows of: calls that were made another way.

    Each method blocks until it is written, or read, as a rule for less than a millisecond, and raises
    ``LedgerUnavailable`` if that can not be. Any thread may use it. Leave it by ``with``, or ``close`` it.
    """

    def __init__(self, file: str | Path | None = None) -> None:
        if on_server(file):
            raise ConfigurationError(f"CostTracker writes into a file, and {urlsplit(file).scheme}:// is a server")
        self._ledger = SqliteLedger(file or default_ledger())

    def record(
        self,
        project_id: str | None,
        input_tokens: int,
        output_tokens: int,
        total_cost: float,
        *,
        provider: str = "elsewhere",
        model: str = "",
    ) -> None:
        """A call for *project_id* that has used so many tokens, and cost *total_cost* USD. It is taken from no budget.

        Raises ``InvalidRequest`` for figures that can not be.
        """
        for name, number in (("input_tokens", input_tokens), ("output_tokens", output_tokens)):
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LARGEST:
                raise InvalidRequest(f"{name} is a number of tokens, from 0 on, not {number!r}")
        if (
            isinstance(total_cost, bool)
            or not isinstance(total_cost, int | float)
            or not 0 <= total_cost <= LARGEST / 1e6
        ):
            raise InvalidRequest(f"total_cost is a number of USD, from 0 on, not {total_cost!r}")
        cost_micros = round(total_cost * 1_000_000)
        entry = Entry(
            call=new_id(),
            attempt=1,
            provider=provider,
            model=model,
            worst_micros=cost_micros,
            lease_s=0.0,
            project=project_id,
        )
        usage = Usage(input_tokens, output_tokens)
        self._now(self._ledger.record(entry, Outcome(cost_micros=cost_micros, basis="reported", usage=usage)))

    def total_usd(self, project_id: str | None) -> float:
        """What *project_id* has spent in all, by whoever writes into the same ledger, with what is
        set aside for attempts under way."""
        return self._now(self._ledger.total_micros(project_id)) / 1_000_000

    def hits(self, project_id: str | None) -> int:
        """How many requests of *project_id* the cache has answered, which costs nothing."""
        return self._now(self._ledger.hits(project_id))[0]

    def hit_rate(self, project_id: str | None) -> float | None:
        """The part of the requests of *project_id* that the cache has answered, from 0 to 1; ``None`` if there were
        none."""
        hits, calls = self._now(self._ledger.hits(project_id))
        return hits / (hits + calls) if hits + calls else None

    def _now(self, done: Future[T]) -> T:
        try:
            return done.result()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise LedgerUnavailable(f"the ledger {self._ledger.file} can not be used: {error}") from None

    def close(self) -> None:
        """Let go of the file. Whoever records again opens it again."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
