"""What comes back: pieces of an answer, the answer whole, and the attempts it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .model import CostBasis, Usage
from .plan import Plan
from .request import AttemptReason, ToolCall

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A piece of a tool call as it streams in; parts with one *index* belong to one call."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. The last ones carry the finish reason that the provider sent, and the usage."""

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    vectors: tuple[Vector, ...] = ()
    tool_calls: tuple[ToolCallPart, ...] = ()
    model: str = ""
    """What the provider says that answered; not content, and only told where it is known."""
    continued_by: str = ""
    """The name of the model that goes on from here, on its first piece, where the one before it broke off."""

    @property
    def empty(self) -> bool:
        """Whether this piece says nothing: a keep-alive, or a delta with only a role in it."""
        return not (self.text or self.tool_calls or self.vectors or self.finish_reason or self.usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at one model, as the answer, the trace and the error tell it."""

    number: int
    reason: AttemptReason
    provider: str
    model: str
    latency_s: float
    wait_s: float = 0.0
    """Seconds of *latency_s* spent waiting for a turn, before the model began."""
    first_token_s: float | None = None
    usage: Usage = Usage()
    cost_micros: int | None = 0
    cost_basis: CostBasis = "computed"
    worst_micros: int | None = 0
    """What it may have cost at most, where that is not known: an attempt that broke off may have been billed whole."""
    finish_reason: str | None = None
    error: str | None = None
    """The kind of the error it ended with, as in the trace; ``None`` if it answered."""
    error_message: str = ""

    @property
    def cost_usd(self) -> float | None:
        return None if self.cost_micros is None else self.cost_micros / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer, whole, or as much of it as there is."""

    text: str = ""
    model: str = ""
    """The name of the model that answered, as the policy has it; of the one that ended the answer, if several did."""
    provider: str = ""
    response_model: str = ""
    """What the provider says that answered; empty if it does not say."""
    vectors: tuple[Vector, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    """Tokens of the attempt that answered; of all whose text is in it, if several did."""
    cost_usd: float | None = None
    """What all attempts cost together; ``None`` where a price is not known."""
    cost_basis: CostBasis = "unknown"
    finish_reason: str | None = None
    cached: bool = False
    degraded: bool = False
    """Whether a model other than the plan's first answered, or more than one attempt had to."""
    shared: bool = False
    """Whether this is the answer to an equal request as well, which tells of the attempts and what they cost."""
    continued_by: tuple[str, ...] = ()
    """The models that went on where the answer broke off, in order; the text of each begins at a piece that says so."""
    attempts: tuple[Attempt, ...] = ()
    plan: Plan | None = None
    first_token_s: float | None = None
    latency_s: float = 0.0

    @property
    def truncated(self) -> bool:
        """Whether the model stopped because it ran out of tokens, not because it was done."""
        return self.finish_reason == "length"


def assemble(parts: Iterable[ToolCallPart]) -> tuple[ToolCall, ...]:
    """The tool calls that *parts* make up, by index; nothing of their arguments is lost."""
    calls: dict[int, tuple[str, str, list[str]]] = {}
    for part in parts:
        id_, name, pieces = calls.get(part.index, ("", "", []))
        pieces.append(part.arguments)
        calls[part.index] = (id_ or part.id, name or part.name, pieces)
    return tuple(ToolCall(id_, name, "".join(pieces)) for _, (id_, name, pieces) in sorted(calls.items()))


_BASES: tuple[CostBasis, ...] = ("free", "reported", "computed", "estimated", "unknown")
"""From the surest to the least sure."""


def total_cost(attempts: Iterable[Attempt]) -> tuple[int | None, CostBasis]:
    """What *attempts* cost together in millionths of a dollar, and how surely that is known: as the least sure."""
    total, surest = 0, 0
    for attempt in attempts:
        if attempt.cost_micros is None:
            return None, "unknown"
        total += attempt.cost_micros
        surest = max(surest, _BASES.index(attempt.cost_basis))
    return total, _BASES[surest]
