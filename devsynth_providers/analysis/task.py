"""How hard a task looks: a score from 0 to 1, and what speaks for it.

Deterministic and quick: a handful of signs, each from 0 to 1, times a weight. The weights are data, set by hand
for now from what each sign means; they are not fitted to outcomes yet, and the score is an ordering, not a
probability.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from typing_extensions import override

from ..types import Evidence
from .tokens import estimate_tokens, may_be_kept

_WORD = re.compile(r"\w{1,24}")
_STEP = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•])[ \t]+\S", re.MULTILINE)
_INDENTED = re.compile(r"^[ \t]{4,}\S", re.MULTILINE)
_LINE_OF_CODE = re.compile(r"[{};][ \t]*$", re.MULTILINE)
_TEX = re.compile(r"\\(?:frac|sum|int|sqrt|begin)")
_FORMULA = re.compile("[∑∫√≤≥∀∃]")

_WORDS: Mapping[str, str] = {
    "reasoning words": """prove proving proof proofs refactor distributed compare evaluate analyse analyze debug
        consistent consistency scale scalable scalability scaling security algorithm algorithms complexity invariant
        invariants derive strategy tradeoff tradeoffs""",
    "sequence words": "first then next finally also additionally",
    "constraints": "must should without only ensure never always exactly requirement requirements",
    "mathematics": "theorem integral derivative matrix probability",
    "simple request": """typo typos rename renaming spelling translate summarise summarize summarising summarizing
        reformat format define list hello hi thank thanks say""",
}
_REASONING_STEMS = (
    *("architect", "design", "refactor", "concurren", "deadlock"),
    *("optimis", "optimiz", "migrat", "debug", "formal"),
)
_CODE_WORDS = frozenset(("def", "class", "import", "function", "return", "SELECT", "const", "struct"))
"""As they are written in code: *Class* begins a sentence."""
_PHRASES: Mapping[str, tuple[str, ...]] = {
    "reasoning words": (
        *("race condition ", "race conditions ", "root cause ", "threat model ", "threat models "),
        *("threat modeling ", "threat modelling ", "trade off ", "trade offs "),
    ),
    "sequence words": ("after that ", "step by step "),
    "constraints": ("at most ", "at least ", "no more than "),
    "simple request": ("what is ", "who is ", "when was ", "when is ", "when did ", "capital of "),
}
_BY_HEAD: dict[str, list[tuple[str, str]]] = {}
for _sign, _phrases in _PHRASES.items():
    for _phrase in _phrases:
        _BY_HEAD.setdefault(_phrase.partition(" ")[0], []).append((_sign, f" {_phrase}"))
"""For the first word of phrases, each with the sign that it is."""
_SIGN_OF = {word: word for word in _BY_HEAD} | {word: sign for sign, words in _WORDS.items() for word in words.split()}


@functools.lru_cache(maxsize=1 << 15)
def _sign_of(word: str) -> str | None:
    """What *word* speaks for: a sign, or itself as the first of a phrase. Most words of a text come in the next too."""
    if word in _CODE_WORDS:
        return "code"
    word = word.lower()
    if (sign := _SIGN_OF.get(word)) is not None:
        return sign
    return "reasoning words" if word.startswith(_REASONING_STEMS) else None


def _counted(text: str) -> Counter[str | None]:
    """How often each sign is seen in *text*. Pure, and linear in its length."""
    words = _WORD.findall(text)
    seen = Counter(map(_sign_of, words))
    if heads := _BY_HEAD.keys() & seen.keys():
        spaced = f" {' '.join(words).lower()} "
        for word in heads:
            for sign, phrase in _BY_HEAD[word]:
                seen[sign] += spaced.count(phrase)
    seen["steps"] = len(_STEP.findall(text))
    if "```" in text:
        seen["code"] += text.count("```")
    if "    " in text or "\t" in text:
        seen["code"] += len(_INDENTED.findall(text))
    if "}" in text or "{" in text or ";" in text:
        seen["code"] += len(_LINE_OF_CODE.findall(text))
    if "\\" in text:
        seen["mathematics"] += len(_TEX.findall(text))
    if not text.isascii():
        seen["mathematics"] += len(_FORMULA.findall(text))
    return seen


ENOUGH: Mapping[str, float] = MappingProxyType(
    {
        "reasoning words": 3,
        "steps": 5,
        "sequence words": 4,
        "constraints": 5,
        "code": 8,
        "mathematics": 3,
        "simple request": 2,
    }
)
"""What is looked for in a text, and how much of it says all that it can say: more counts no further."""

_LONG_TOKENS = 1200
"""From this length on, length says no more."""

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


class TaskFacts(NamedTuple):
    """What a text tells about the work it asks for."""

    complexity: float
    evidence: tuple[Evidence, ...]
    input_tokens: int


class TaskAnalyzer:
    """Judges texts by *weights*, the library's own unless others are given. Unknown names in them are refused."""

    def __init__(self, weights: Mapping[str, float] = WEIGHTS) -> None:
        unknown = weights.keys() - WEIGHTS.keys()
        if unknown:
            raise ValueError(f"no such sign: {', '.join(sorted(unknown))}; there are {', '.join(WEIGHTS)}")
        self._judged = functools.partial(_judged, dict(weights))
        self._kept = functools.lru_cache(256)(self._judged)

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}  # which can not be pickled

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._kept = functools.lru_cache(256)(self._judged)

    def analyze_complexity(self, text: str) -> float:
        """How hard *text* looks, from 0 (trivial) to 1 (as hard as tasks come)."""
        return self.analyze(text).complexity

    def analyze(self, text: str) -> TaskFacts:
        """How hard *text* looks, and what made it look so. Of short texts it is kept: some come again and again."""
        return self._kept(text) if may_be_kept(text) else self._judged(text)


def _judged(weights: Mapping[str, float], text: str) -> TaskFacts:
    read = text if len(text) <= LONGEST_READ else f"{text[: LONGEST_READ // 2]}\n{text[-LONGEST_READ // 2 :]}"
    tokens = estimate_tokens(text)
    length = min(1.0, (tokens if read is text else estimate_tokens(read)) / _LONG_TOKENS)
    seen = _counted(read)
    evidence = [Evidence("base", 1.0, weights.get("base", 0.0))]
    if (weight := weights.get("length")) and length:
        evidence.append(Evidence("length", round(length, 3), round(weight * length, 3)))
    for sign, enough in ENOUGH.items():
        if (weight := weights.get(sign)) and (count := seen.get(sign)):
            value = min(1.0, count / enough)
            evidence.append(Evidence(sign, round(value, 3), round(weight * value, 3)))
    score = sum([each.contribution for each in evidence])
    return TaskFacts(
        complexity=round(min(1.0, max(0.0, score)), 3),
        evidence=tuple(evidence),
        input_tokens=tokens,
    )
