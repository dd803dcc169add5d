"""What a decision is made from: the request, and the state of the world, both as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from ..analysis import TaskAnalyzer, estimate_tokens
from ..types import ChatRequest, EmbedRequest, Evidence, Limits, Request

EXPECTED_OUTPUT_TOKENS = 300
"""How long an answer is taken to be where more is allowed: an assumption, to be replaced by what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a request before any model is asked. Tokens are estimates."""

    complexity: float = 0.0
    evidence: tuple[Evidence, ...] = ()
    task: str | None = None
    needs: frozenset[str] = frozenset(("chat",))
    input_tokens: int = 0
    longest_text_tokens: int | None = None
    """Of texts to embed, which need not fit a window together, the tokens of the longest."""
    max_output_tokens: int = 0
    limits: Limits = Limits()

    @classmethod
    def of(cls, request: Request, analyzer: TaskAnalyzer) -> Self:
        judged = analyzer.analyze(request.task_text)
        whole = request.text
        tokens = judged.input_tokens if whole == request.task_text else estimate_tokens(whole)
        longest = max(map(estimate_tokens, request.texts)) if isinstance(request, EmbedRequest) else None
        return cls(
            complexity=judged.complexity,
            evidence=judged.evidence,
            task=request.task,
            needs=request.needs,
            input_tokens=tokens,
            longest_text_tokens=longest,
            max_output_tokens=request.max_tokens if isinstance(request, ChatRequest) else 0,
            limits=request.limits,
        )

    @property
    def expected_output_tokens(self) -> int:
        return min(self.max_output_tokens, EXPECTED_OUTPUT_TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the world is like at the moment. *unavailable* maps models that can not be asked to the reason."""

    unavailable: Mapping[str, str] = field(default_factory=dict)
