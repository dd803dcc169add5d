"""A recorded stream, cut at any byte, and what must have been delivered of it by then."""

from __future__ import annotations

import json
from dataclasses import dataclass

from devsynth_providers import FallbackProvider, ProviderError, StreamInterrupted

from ..loopback import HEARD, Answer, Place
from .play import WELL

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


@dataclass(frozen=True)
class Recording:
    """What a server sent, with the *marks* that count: how many bytes there are when each piece of text is there, or
    the finish reason, whose text is ``None``."""

    bytes: bytes
    marks: tuple[tuple[int, str | None], ...]

    def told(self, at: int) -> tuple[str, bool]:
        """The text in the first *at* bytes, and whether it is finished."""
        there = [text for size, text in self.marks if size <= at]
        return "".join(filter(None, there)), None in there


def _recorded(*events: tuple[str | None, dict[str, object]]) -> Recording:
    """Events, each with the text that it adds; what adds none has an empty one, and the finish reason ``None``."""
    sent, marks = _HEAD, []
    for text, event in events:
        data = b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
        marks.append((len(sent) + len(data), text))
        sent += data + b"\n\n"
    return Recording(sent, tuple(marks))


def _openai(text: str) -> tuple[str, dict[str, object]]:
    return text, {"choices": [{"delta": {"content": text}}]}


def _anthropic(text: str) -> tuple[str, dict[str, object]]:
    return text, {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


RECORDINGS = {
    "openai": _recorded(
        _openai("grün "),
        _openai("🙂"),
        (None, {"choices": [{"delta": {}, "finish_reason": "stop"}]}),
        ("", {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}),
    ),
    "anthropic": _recorded(
        ("", {"type": "message_start", "message": {"usage": {"input_tokens": 4, "output_tokens": 1}}}),
        _anthropic("grün "),
        _anthropic("🙂"),
        (None, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
    ),
}


async def wrong_with(provider: FallbackProvider, place: Place, recording: Recording, at: int, then: str) -> str | None:
    """What is wrong with what comes of *recording*, cut at byte *at*; ``None`` if nothing is."""
    text, finished = recording.told(at)
    place.heard.clear()
    place.script(Answer([recording.bytes[:at], *([HEARD] if text else [])], headless=True, then=then))
    heard, error = "", None
    try:
        async for piece in provider.generate_stream("hi"):
            heard += piece
            if heard == text:
                place.heard.set()
    except ProviderError as caught:
        error = caught
    if text and not finished:
        fine = isinstance(error, StreamInterrupted) and heard == error.partial == text
    else:
        fine = error is None and heard == (text if finished else WELL)
    return None if fine else f"cut at {at} by {then}, {text!r}, finished {finished}: came {heard!r}, {error!r}"
