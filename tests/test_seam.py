"""Where two texts meet: what is repeated is left out, what only looks like it stays, however it comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devsynth_providers.layers.seam import LONGEST, SHORTEST, Seam

BEFORE = "Ports are what the core asks for. Adapters are what the world"
WORDS = st.lists(st.sampled_from(("port", "adapter", "é", "the", "----", "\n", "a b", "0000", "  ")), max_size=30)
TEXTS = st.text(max_size=60) | WORDS.map(" ".join) | st.text("ab \n", max_size=60)


def joined(before: str, *pieces: str) -> str:
    seam = Seam(before)
    told = [seam.join(piece) for piece in pieces]
    return before + "".join(filter(None, [*told, seam.join("", last=True)]))


def held(before: str, *pieces: str) -> list[str | None]:
    seam = Seam(before)
    return [seam.join(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (BEFORE, " offers.", BEFORE + " offers."),
        (BEFORE, "what the world offers.", BEFORE + " offers."),
        (BEFORE, "Adapters are what the world offers.", BEFORE + " offers."),
        (BEFORE, BEFORE + " offers.", BEFORE + " offers."),
        ("Paris", "Paris is a town.", "Paris is a town."),
        (BEFORE[:-2], "what the world offers.", BEFORE + " offers."),
    ],
)
def test_words_sentences_and_whole_answers_that_are_repeated_are_left_out(before: str, after: str, text: str) -> None:
    assert joined(before, after) == joined(before, *after) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BEFORE, "the world offers."),  # a word or two may be chance: "had had"
        (BEFORE, "What the world offers."),  # not exactly
        (BEFORE, "Sure, going on: what the world offers."),  # chatter can not be known
        (BEFORE, "Ports are what the core asks for. And adapters"),  # begins anew, and goes on otherwise
        ("no", "no, never"),
        ("----------------", "----------------"),
        ("| - | - | - | - |", " - | - | - | - |"),
        ("x = 1000000000000", "0000000000000;"),
        ("<td></td><td></td><td></td>", "<td></td><td></td>"),
        ("row, row, row your boat\nrow, row, row your boat\n", "row, row, row your boat\n"),
    ],
)
def test_what_may_be_chance_a_pattern_or_something_else_stays(before: str, after: str) -> None:
    assert joined(before, after) == joined(before, *after) == before + after


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("Hello ", "world", "Hello world"),
        ("Hello ", " world", "Hello world"),  # it was given "Hello"
        ("Hello", " world", "Hello world"),
        ("one.\n", "\n\ntwo", "one.\n\ntwo"),
        ("def f():\n  ", "\n    return 1", "def f():\n    return 1"),
        ("one.\n\n", "two", "one.\n\ntwo"),
        (BEFORE + " ", "Adapters are what the world offers.", BEFORE + " offers."),
        (BEFORE + " ", "Adapters are what the world\noffers.", BEFORE + " \noffers."),  # another space is not the same
        (" \n", " \n\nHello", " \n\nHello"),
    ],
)
def test_white_space_at_the_end_is_not_doubled(before: str, after: str, text: str) -> None:
    assert joined(before, after) == joined(before, *after) == text


def test_only_what_may_be_a_repetition_is_held_back() -> None:
    assert held(BEFORE, " off", "ers") == [" off", "ers"]
    assert held(BEFORE, "Adapters ", "are what the ", "world", " offers", ".") == [None, None, "", " offers", "."]
    assert held(BEFORE, "Adapters ", "are quaint", ".") == [None, "Adapters are quaint", "."]
    assert held(BEFORE, *BEFORE) == [*[None] * (len(BEFORE) - 1), ""]


def test_so_much_is_held_back_at_most() -> None:
    lines = [f"line {number} of a long list\n" for number in range(200)]
    seam = Seam("".join(lines[:100]) + lines[7])
    so_far = 0
    for line in lines[100:]:
        so_far += len(line)
        if seam.join(line) is not None:
            break
    assert so_far <= LONGEST


@given(TEXTS, TEXTS)
def test_whatever_follows_only_exact_repetitions_of_the_end_are_left_out(before: str, after: str) -> None:
    whole = Seam(before)
    text = whole.join(after, last=True)
    assert whole.overlap is not None
    assert text == after[whole.overlap :]
    said = before.rstrip()
    assert any(
        said.endswith(after[:split]) and before.endswith(after[split : whole.overlap])
        for split in range(whole.overlap + 1)
    )
    assert joined(before, *after) == before + text


@given(TEXTS, TEXTS, st.integers(1, 9))
def test_how_it_is_cut_into_pieces_changes_nothing(before: str, after: str, size: int) -> None:
    pieces = [after[at : at + size] for at in range(0, len(after), size)]
    assert joined(before, *pieces) == joined(before, after)


@given(st.data())
def test_a_text_that_goes_on_rightly_is_whole_again(data: st.DataObject) -> None:
    """Whatever the text, wherever it was cut, and however much the second repeats, if it repeats exactly; unless the
    words at the seam stand there twice, when nobody can know."""
    text = data.draw(TEXTS.filter(bool))
    before = text[: data.draw(st.integers(1, len(text)))]
    said = before.rstrip()
    lengths = [0, *range(SHORTEST, len(said) + 1), *([len(said)] if len(said) >= 4 else [])]
    repeated = said[len(said) - data.draw(st.sampled_from(lengths)) :]
    after = repeated + text[len(said) :]
    if text.count(said[-SHORTEST:]) == 1 and not patterned(repeated):
        assert joined(before, *after) == joined(before, after) == text


def patterned(text: str) -> bool:
    return any(text[step:] == text[:-step] for step in range(1, len(text) // 2 + 1))
