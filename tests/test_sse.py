"""Events are the same wherever the network cuts their bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devsynth_providers.providers.sse import Event, EventDecoder, EventTooLarge

STREAM = (
    "\ufeffdata: first\n\n"
    ": a comment\n\n"
    'event: named\r\ndata: {"text": "grüße 🙂"}\r\n\r\n'
    "id: 7\rdata:two\rdata: lines\r\r"
    "retry: 5\nevent: nothing\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    Event("", b"first"),
    Event("named", '{"text": "grüße 🙂"}'.encode()),
    Event("", b"two\nlines"),
    Event("", b"[DONE]"),
]


def decoded(pieces: list[bytes]) -> list[Event]:
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.flush()


def test_events_have_a_name_and_data_and_nothing_else_is_one() -> None:
    assert decoded([STREAM]) == EVENTS


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_cut_at_any_byte_changes_nothing(cut: int) -> None:
    assert decoded([STREAM[:cut], STREAM[cut:]]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_nor_do_many(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:stop] for start, stop in itertools.pairwise(places)]
    assert decoded(pieces) == EVENTS


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 7),
)
def test_what_is_sent_is_what_arrives(texts: list[str], end: str, size: int) -> None:
    data = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [event.data.decode() for event in decoded(pieces)] == texts


def test_the_last_event_counts_even_without_its_empty_line() -> None:
    assert decoded([b"data: [DONE]"]) == [Event("", b"[DONE]")]
    assert decoded([b"data: [DONE]\r"]) == [Event("", b"[DONE]")]
    assert decoded([b""]) == []


def test_an_event_has_a_largest_size() -> None:
    for stream in (b"data: " + b"x" * 200, b"data: x\n" * 60):
        with pytest.raises(EventTooLarge, match="more than 100 bytes"):
            EventDecoder(100).feed(stream)


def test_many_small_events_are_not_one_large_one() -> None:
    decoder = EventDecoder(100)
    assert len([event for _ in range(100) for event in decoder.feed(b"data: 0123456789\n\n")]) == 100


@pytest.mark.parametrize("event", [*EVENTS, Event("", b"\n\n"), Event("e", b" x")])
def test_an_event_that_is_passed_on_is_the_same(event: Event) -> None:
    assert decoded([event.encoded]) == [event]
