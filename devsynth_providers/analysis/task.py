"""How hard a task looks: a score from 0 to 1, and what speaks for it.

Deterministic and quick: a handful of signs, each from 0 to 1, times a weight. The weights are data, set by hand
for now from what each sign means; they are not fitted to outcomes yet, and the score is an ordering, not a
probability.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..types import Evidence
from .tokens import estimate_tokens

_REASONING = re.compile(
    r"\b(architect\w*|design\w*|prov(?:e|ing)|proofs?|refactor\w*|distributed|concurren\w*|deadlock\w*"
    r"|race condition\w*|optimi[sz]\w*|migrat\w*|trade-?offs?|compare|evaluate|analy[sz]e|debug\w*|root cause"
    r"|consisten(?:t|cy)|scal(?:e|able|ability|ing)|security|threat model\w*|algorithms?|complexity|formal\w*"
    r"|invariants?|derive|strategy)\b",
    re.IGNORECASE,
)
_SIMPLE = re.compile(
    r"\b(typos?|renam(?:e|ing)|spelling|translate|summari[sz]e|reformat|format|what is|who is|when (?:was|is|did)"
    r"|define|list|capital of|hello|hi|thanks?|say)\b",
    re.IGNORECASE,
)
_STEP = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•])[ \t]+\S", re.MULTILINE)
_SEQUENCE = re.compile(r"\b(first|then|next|after that|finally|step by step|also|additionally)\b", re.IGNORECASE)
_CONSTRAINT = re.compile(
    r"\b(must(?: not)?|should|at (?:most|least)|without|only|ensure|never|always|exactly|no more than|requirements?)\b",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|^[ \t]{4,}\S|[{};][ \t]*$|\b(?:def|class|import|function|return|SELECT|const|struct)\b", re.MULTILINE
)
_MATH = re.compile(
    r"\\(?:frac|sum|int|sqrt|begin)|[∑∫√≤≥∀∃]|\b(?:theorem|integral|derivative|matrix|probability)\b", re.I
)


def _share(pattern: re.Pattern[str], enough: int) -> Callable[[str], float]:
    """How near the matches of *pattern* come to *enough*, from 0 to 1."""
    return lambda text: min(1.0, sum(1 for _ in pattern.finditer(text)) / enough)


SIGNS: Mapping[str, Callable[[str], float]] = MappingProxyType(
    {
        "length": lambda text: min(1.0, estimate_tokens(text) / 1200),
        "reasoning words": _share(_REASONING, 3),
        "steps": _share(_STEP, 5),
        "sequence words": _share(_SEQUENCE, 4),
        "constraints": _share(_CONSTRAINT, 5),
        "code": _share(_CODE, 8),
        "mathematics": _share(_MATH, 3),
        "simple request": _share(_SIMPLE, 2),
    }
)
"""What is looked for in a text. Each is pure, and linear in the length of the text."""

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "base": 0.10,
        "length": 0.22,
        "reasoning words": 0.50,
        "steps": 0.15,
        "sequence words": 0.10,
        "constraints": 0.18,
        "code": 0.15,
        "mathematics": 0.25,
        "simple request": -0.12,
    }
)
"""What each sign adds to the score; ``base`` is where a text without any sign starts."""

LONGEST_READ = 40_000
"""Characters that are looked at: the first and the last half of this many. The signs saturate well before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """What a text tells about the work it asks for."""

    complexity: float
    evidence: tuple[Evidence, ...]
    input_tokens: int


class TaskAnalyzer:
    """Judges texts by *weights*, the library's own unless others are given. Unknown names in them are refused."""

    def __init__(self, weights: Mapping[str, float] = WEIGHTS) -> None:
        unknown = weights.keys() - SIGNS.keys() - {"base"}
        if unknown:
            raise ValueError(f"no such sign: {', '.join(sorted(unknown))}; there are base, {', '.join(SIGNS)}")
        self._weights = dict(weights)

    def analyze_complexity(self, text: str) -> float:
        """How hard *text* looks, from 0 (trivial) to 1 (as hard as tasks come)."""
        return self.analyze(text).complexity

    def analyze(self, text: str) -> TaskFacts:
        """How hard *text* looks, and what made it look so."""
        read = text if len(text) <= LONGEST_READ else f"{text[: LONGEST_READ // 2]}\n{text[-LONGEST_READ // 2 :]}"
        evidence = [Evidence("base", 1.0, self._weights.get("base", 0.0))]
        for name, sign in SIGNS.items():
            weight = self._weights.get(name, 0.0)
            if weight and (value := sign(read)):
                evidence.append(Evidence(name, round(value, 3), round(weight * value, 3)))
        score = sum(each.contribution for each in evidence)
        return TaskFacts(
            complexity=round(min(1.0, max(0.0, score)), 3),
            evidence=tuple(evidence),
            input_tokens=estimate_tokens(text),
        )
