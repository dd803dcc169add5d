"""What was spent elsewhere, written into the same ledger; and what a project has spent in all."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from .errors import InvalidRequest
from .stores.blocking import blocking_ledger
from .stores.entries import Entry, Outcome
from .stores.places import ledger_place
from .types import Usage, new_id

LARGEST = 2**53 - 1
"""What is more is not exact everywhere: some nine billion dollars."""
LEASE_S = 60.0
"""Until then nobody takes what is half written for what a process has left that has ended."""


class CostTracker:
    """Writes into the ledger *file*, by default the user's, what no router knows of: calls that were made another way.
    In place of a file it may be the URL of a server, ``redis://…``, as ``Router`` takes it for its ledger.

    Each method blocks until it is written, or read, as a rule for less than a millisecond in a file, and also inside a
    running event loop; to read from a server is to go through all entries that are kept there. It raises
    ``LedgerUnavailable`` if that can not be. Any thread may use it, and a child that was forked. Leave it by ``with``,
    or ``close`` it. Raises ``ConfigurationError`` for a URL that is none, or without the package redis.
    """

    def __init__(self, file: str | Path | None = None) -> None:
        self._ledger = blocking_ledger(ledger_place(file or None))

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
            lease_s=LEASE_S,
            project=project_id,
        )
        usage = Usage(input_tokens, output_tokens)
        self._ledger.record(entry, Outcome(cost_micros=cost_micros, basis="reported", usage=usage))

    def total_usd(self, project_id: str | None) -> float:
        """What *project_id* has spent in all, by whoever writes into the same ledger, with what is set aside for
        attempts under way. A server keeps 90 days of it."""
        return self._ledger.total_micros(project_id) / 1_000_000

    def hits(self, project_id: str | None) -> int:
        """How many requests of *project_id* the cache has answered, which costs nothing."""
        return self._ledger.hits(project_id)[0]

    def hit_rate(self, project_id: str | None) -> float | None:
        """The part of the requests of *project_id* that the cache has answered, from 0 to 1; ``None`` if there were
        none."""
        hits, calls = self._ledger.hits(project_id)
        return hits / (hits + calls) if hits + calls else None

    def close(self) -> None:
        """Let go of the file, or of the connections. Whoever records again opens it again."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
