"""Guesses before the call: deterministic, explained, bounded, quick on anything."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from devsynth_providers import TaskAnalyzer
from devsynth_providers.analysis import estimate_tokens

EASY = ["What is the capital of France?", "Fix the typo in the README", "Translate 'hello' to Spanish", "hi"]
MIDDLING = [
    "Write a function that parses ISO dates. It must reject invalid ones and never raise.",
    "Compare SQLite and PostgreSQL for a small service, then list three reasons for each.",
]
HARD = [
    "Design a distributed rate limiter with strong consistency. Compare the trade-offs and prove it cannot deadlock.",
    "Refactor this concurrent cache so that its invariants hold under a race condition, and analyze its complexity.",
]


def test_harder_tasks_score_higher() -> None:
    score = TaskAnalyzer().analyze_complexity
    assert max(map(score, EASY)) < min(map(score, MIDDLING)) < min(map(score, HARD))
    assert max(map(score, MIDDLING)) < min(map(score, HARD))


@pytest.mark.parametrize("text", EASY + MIDDLING + HARD)
def test_the_evidence_adds_up_to_the_score(text: str) -> None:
    facts = TaskAnalyzer().analyze(text)
    total = sum(each.contribution for each in facts.evidence)
    assert facts.complexity == pytest.approx(min(1, max(0, total)), abs=0.002)
    assert facts.evidence[0].name == "base"


def test_weights_can_be_brought_and_unknown_ones_are_refused() -> None:
    assert TaskAnalyzer({"base": 0.25}).analyze_complexity("anything at all") == 0.25
    with pytest.raises(ValueError, match="no such sign: lenght"):
        TaskAnalyzer({"lenght": 1})


class Unhashable(str):
    __hash__ = None  # type: ignore[assignment]


class Insensitive(str):
    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    @override
    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize("kind", [Unhashable, Insensitive])
def test_a_text_of_a_kind_of_ones_own_is_judged_as_the_text_that_it_is(kind: type[str]) -> None:
    analyzer = TaskAnalyzer()
    for text in ("hi", *HARD):
        assert estimate_tokens(kind(text)) == estimate_tokens(text)
        assert analyzer.analyze(kind(text)) == analyzer.analyze(text) == TaskAnalyzer().analyze(text)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_an_analyzer_can_be_copied_and_pickled(again: Callable[[TaskAnalyzer], TaskAnalyzer]) -> None:
    for analyzer in (TaskAnalyzer(), TaskAnalyzer({"base": 0.25})):
        before = analyzer.analyze(HARD[0])
        assert again(analyzer).analyze(HARD[0]) == before


@given(st.text(max_size=2000))
@pytest.mark.slow
def test_any_text_gets_a_score_between_nought_and_one_and_always_the_same(text: str) -> None:
    first = TaskAnalyzer().analyze(text)
    assert 0 <= first.complexity <= 1
    assert first == TaskAnalyzer().analyze(text)


def test_a_text_of_any_size_is_read_in_bounded_time() -> None:
    facts = TaskAnalyzer().analyze("design " * 1_000_000)
    assert facts.complexity > 0.5
    assert facts.input_tokens == pytest.approx(1_690_000, rel=0.01)


@pytest.mark.parametrize("filler", ["\n", " \n", "    \n", "- \n", "}\n", "`"])
def test_no_text_makes_it_slow(filler: str) -> None:
    """What would take a quadratic pattern minutes; there is no assertion on time: a hang is the failure."""
    assert TaskAnalyzer().analyze("x\n" + filler * 200_000).complexity <= 1


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("a", 1, 1),
        ("The quick brown fox jumps over the lazy dog.", 8, 12),  # 10 in cl100k_base
        ("def add(a: int, b: int) -> int:\n    return a + b\n", 10, 24),  # 19
        ("素早い茶色の狐がのろまな犬を飛び越える", 12, 30),  # 22
        ("Быстрая коричневая лиса прыгает через ленивую собаку", 15, 40),  # 21
    ],
)
def test_tokens_are_estimated_near_enough_to_plan_with(text: str, low: int, high: int) -> None:
    assert low <= estimate_tokens(text) <= high
