"""What code may use while it runs: money, tokens and calls, over all requests that begin inside a ``with``."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Self

from ..errors import BudgetExceeded, InvalidRequest
from ..guard import Guard

_open: ContextVar[tuple[RunBudget, ...]] = ContextVar("devsynth_run_budgets", default=())


class RunBudget:
    """At most *usd*, *tokens* and *calls* for all requests that begin inside its ``with``; ``router.budget`` makes it.
    Without any of them it only counts, and what the policy says of runs holds.

    Before each attempt the most that it may use is set aside, and after it what was really used is counted: so tasks
    that run at the same time do not overrun it together. Of several, one inside the other, each must have enough left.
    Those whose price is not known can be asked only where *usd* is not limited. It may be entered again: what was used
    stays used. The figures are of this process alone.
    """

    def __init__(
        self, owner: object, *, usd: float | None = None, tokens: int | None = None, calls: int | None = None
    ) -> None:
        limits = {"usd": usd, "tokens": tokens, "calls": calls}
        for name, limit in limits.items():
            if limit is None:
                continue
            number = isinstance(limit, int) or (name == "usd" and isinstance(limit, float))
            if isinstance(limit, bool) or not number or not 0 <= limit < float("inf"):
                raise InvalidRequest(f"{name} of a budget is a number from 0 on, not {limit!r}")
        self.limit_micros = None if usd is None else round(usd * 1_000_000)
        self.limit_tokens = tokens
        self.limit_calls = calls
        self._owner = owner
        self._micros = self._tokens = self._calls = 0
        self._guard = Guard()

    @staticmethod
    def open_for(owner: object) -> tuple[RunBudget, ...]:
        """Those of *owner* that are open here, each once, the outermost first."""
        return tuple(dict.fromkeys(each for each in _open.get() if each._owner is owner))

    @property
    def spent_usd(self) -> float:
        """What was spent, with what is set aside for attempts under way."""
        return self._micros / 1_000_000

    @property
    def spent_micros(self) -> int:
        """The same, in millionths of a USD."""
        return self._micros

    @property
    def left_micros(self) -> int | None:
        """What is left to be spent; ``None`` where that is not limited."""
        return None if self.limit_micros is None else max(0, self.limit_micros - self._micros)

    @property
    def used_tokens(self) -> int:
        """Tokens that were used, in and out, with those set aside for attempts under way."""
        return self._tokens

    @property
    def calls(self) -> int:
        """Attempts that were made, those under way among them."""
        return self._calls

    def take(self, micros: int | None, tokens: int, ceiling_micros: int | None = None) -> int | None:
        """Set aside what an attempt may use at most, *micros* ``None`` if nobody knows. Raises ``BudgetExceeded``.

        Beyond *ceiling_micros*, which the policy has for it, nothing is set aside either: returns what is spent.
        """
        with self._guard:
            if self._goes_beyond(ceiling_micros, micros):
                return self._micros
            why = self._lacking(micros, tokens)
            if why is None:
                self._add(micros or 0, tokens, 1)
        if why is not None:
            refusal = BudgetExceeded(f"the budget of this run has too little left: {why}")
            refusal.account, refusal.spent_usd = "run", self.spent_usd
            refusal.limit_usd = None if self.limit_micros is None else self.limit_micros / 1_000_000
            raise refusal
        return None

    def count(self, micros: int, tokens: int, calls: int = 0) -> None:
        """An attempt has used so much more, or less, than was set aside."""
        with self._guard:
            self._add(micros, tokens, calls)

    def _goes_beyond(self, limit_micros: int | None, micros: int | None) -> bool:
        """Whether an attempt would. What costs nothing never does, and what has no known price always."""
        return limit_micros is not None and (micros is None or (micros > 0 and self._micros + micros > limit_micros))

    def _lacking(self, micros: int | None, tokens: int) -> str | None:
        if self.limit_micros is not None and self._goes_beyond(self.limit_micros, micros):
            if micros is None:
                return "the model has no known price"
            return (
                f"${micros / 1_000_000:.6f} could be needed, and of ${self.limit_micros / 1_000_000:.6f} "
                f"${self.spent_usd:.6f} is spent"
            )
        if self.limit_tokens is not None and self._tokens + tokens > self.limit_tokens:
            return f"{tokens} tokens could be needed, and of {self.limit_tokens} {self._tokens} are used"
        if self.limit_calls is not None and self._calls >= self.limit_calls:
            return f"all {self.limit_calls} calls are made"
        return None

    def _add(self, micros: int, tokens: int, calls: int) -> None:
        self._micros += micros
        self._tokens += tokens
        self._calls += calls

    def __enter__(self) -> Self:
        _open.set((*_open.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        still = list(_open.get())
        if self in still:
            still.reverse()
            still.remove(self)
            _open.set(tuple(reversed(still)))
