"""What a decision is made from: the request, and the state of the world, both as values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from ..analysis import TaskAnalyzer, estimate_tokens
from ..types import NO_LIMITS, ChatRequest, EmbedRequest, Evidence, Latency, Limits, Request

EXPECTED_OUTPUT_TOKENS = 300
"""How long an answer is taken to be where more is allowed: an assumption, to be replaced by what is measured."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Facts(NamedTuple):
    """What is known of a request before any model is asked. Tokens are estimates."""

    complexity: float = 0.0
    evidence: tuple[Evidence, ...] = ()
    task: str | None = None
    project: str | None = None
    role: str | None = None
    tags: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset(("chat",))
    """Abilities that a model must have."""
    streaming: bool = False
    input_tokens: int = 0
    longest_text_tokens: int | None = None
    """Of texts to embed, which need not fit a window together, the tokens of the longest."""
    max_output_tokens: int = 0
    limits: Limits = NO_LIMITS

    @classmethod
    def of(cls, request: Request, analyzer: TaskAnalyzer) -> Self:
        asked, whole = request.task_text, request.text
        judged = analyzer.analyze(asked)
        tokens = judged.input_tokens if whole == asked else estimate_tokens(whole)
        chat = request if isinstance(request, ChatRequest) else None
        return cls(
            complexity=judged.complexity,
            evidence=judged.evidence,
            task=request.task,
            project=request.project,
            role=request.role,
            tags=request.tags,
            needs=request.needs,
            streaming=chat is not None and chat.stream,
            input_tokens=tokens,
            longest_text_tokens=max(map(estimate_tokens, request.texts)) if isinstance(request, EmbedRequest) else None,
            max_output_tokens=0 if chat is None else chat.max_tokens,
            limits=request.limits,
        )

    @property
    def expected_output_tokens(self) -> int:
        return min(self.max_output_tokens, EXPECTED_OUTPUT_TOKENS)

    @property
    def modality(self) -> str:
        """What goes in or comes out beside text, or ``text``."""
        return next((each for each in ("embeddings", "vision", "audio") if each in self.needs), "text")


class Conditions(NamedTuple):
    """What the world is like at the moment. Mappings are from the names of models.

    *unavailable* says why models can not be asked at all (no key, no file), *unhealthy* why others are better left
    alone for now. *latency* is what was measured of late; it takes the place of what the policy says.
    *budget_left_usd* is what may still be spent for this request's sake, ``None`` without a budget. *now* is for rules
    with a ``time_of_day``, which without it do not hold. *draw* is a number from 0 to 1, new for each request, by which
    models that nobody has measured get their turn; without it they do not.
    """

    unavailable: Mapping[str, str] = _NOTHING
    unhealthy: Mapping[str, str] = _NOTHING
    latency: Mapping[str, Latency] = _NOTHING
    budget_left_usd: float | None = None
    now: datetime | None = None
    draw: float | None = None
