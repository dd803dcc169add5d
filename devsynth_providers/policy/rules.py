"""What a rule says: for which requests, which models, within which limits. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import MinLen

from ..types import STRICT, Limits, Share
from .facts import Facts

Order = Literal["listed", "cheapest", "fastest", "best"]
Names = tuple[Annotated[str, MinLen(1)], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers above *above* and below *below*; the bounds themselves are outside."""

    __pydantic_config__: ClassVar = STRICT

    above: Share | None = None
    below: Share | None = None

    def holds(self, number: float) -> bool:
        return (self.above is None or number > self.above) and (self.below is None or number < self.below)


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """What a request must be like for a rule to decide; everything that is said must hold."""

    __pydantic_config__: ClassVar = STRICT

    complexity: Range | None = None
    task: Names = ()

    @property
    def everything(self) -> bool:
        """Whether every request is like this."""
        return self.complexity is None and not self.task

    def holds(self, facts: Facts) -> bool:
        if self.complexity is not None and not self.complexity.holds(facts.complexity):
            return False
        return not self.task or facts.task in self.task


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Limits):
    """For requests like *when*, ask *models*, ordered as *prefer* says, within these limits."""

    __pydantic_config__: ClassVar = STRICT

    name: Annotated[str, MinLen(1)]
    models: Annotated[Names, MinLen(1)]
    when: When = When()
    prefer: Order = "listed"
