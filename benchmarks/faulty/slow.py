"""What takes long, what fails, and what does so at random."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Sequence
from random import Random

from .said import (
    CHUNKED_HEAD,
    EVENTS,
    JSON,
    PIECES,
    ROLE,
    STREAM,
    TEXT,
    Asked,
    Forever,
    Play,
    Script,
    Step,
    as_json,
    chunk,
    chunked,
    completion,
    embeddings,
    event,
    failure,
    head,
    said,
    sized,
    texts,
    until_closed,
    well,
)
from .streams import ERROR, HTML

_HANG = Play((), "hang")
_CHUNKED = tuple(chunk(each) for each in STREAM)


def _dripped(asked: Asked, _: Random) -> Play:
    """The right answer, a byte at a time: complete in half a minute, and not before."""
    body = as_json(embeddings() if "input" in asked else completion())
    kind = JSON
    if asked.get("stream"):
        body, kind = b"".join(STREAM), EVENTS
    steps: list[Step] = [head(kind, f"content-length: {len(body)}")]
    for byte in body:
        steps += [bytes((byte,)), 30 / len(body)]
    return Play(steps)


def _in(days: float) -> str:
    return f"retry-after: {email.utils.formatdate(time.time() + days * 86_400, usegmt=True)}"


def _always(play: Play) -> Script:
    return lambda *_: play


def _fails(status: int, *lines: str, after_s: float = 0.0) -> Script:
    return lambda *_: Play((after_s, *failure(status, *lines).steps), "keep")


ANY: dict[str, Script] = {
    "hangs": _always(_HANG),
    "hangs after the head": lambda asked, _: Play(
        (CHUNKED_HEAD if asked.get("stream") else head(JSON, "content-length: 900"),), "hang"
    ),
    "head byte for byte": _always(Play((b"HTTP/1.1 200 X\r\nx-pad: ", Forever(b"x", 0.3)))),
    "answer byte for byte": _dripped,
    "500": _fails(500),
    "502": _fails(502),
    "503": _fails(503),
    "504": _fails(504),
    "529": _fails(529),
    "500 after 0.8 s": _fails(500, after_s=0.8),
    "500 after 1.9 s": _fails(500, after_s=1.9),
    "429": _fails(429),
    "429, Retry-After 1": _fails(429, "retry-after: 1"),
    "429, Retry-After 30": _fails(429, "retry-after: 30"),
    "429, Retry-After 3600": _fails(429, "retry-after: 3600"),
    "429, Retry-After a date": lambda *_: failure(429, _in(30 / 86_400)),
    "429, retry-after-ms 1500": _fails(429, "retry-after-ms: 1500"),
    "503, Retry-After 1": _fails(503, "retry-after: 1"),
    "503, Retry-After 30": _fails(503, "retry-after: 30"),
    "closed before the head": _always(Play(())),
    "reset before the head": _always(Play((0.02,), "reset")),
}
"""What may happen to whatever is asked, and how long it then takes to hear of it is the question."""
ELSEWHERE = ("resets", "nobody", "deaf")
"""Addresses, not scripts: connections are reset, refused, or never answered."""

STREAMED: dict[str, Script] = {
    "comments for ever": _always(Play((CHUNKED_HEAD, Forever(chunk(b": ping\n\n"), 0.3)))),
    "roles for ever": _always(Play((CHUNKED_HEAD, Forever(chunk(ROLE), 0.3)))),
    "text for ever": _always(Play((CHUNKED_HEAD, Forever(chunk(event({"content": "more "})), 0.3)))),
    "stalls after the role": _always(Play((CHUNKED_HEAD, _CHUNKED[0]), "hang")),
    "stalls in the text": _always(Play((CHUNKED_HEAD, *_CHUNKED[:4]), "hang")),
    "stalls before the end": _always(Play((CHUNKED_HEAD, *_CHUNKED[: len(PIECES)]), "hang")),
    "text at 1.9 s, then a stall": _always(Play((CHUNKED_HEAD, 1.9, *_CHUNKED[:4]), "hang")),
}


def _begun(events: Sequence[bytes], body: bytes) -> Script:
    """A stream of these *events*, or *body* for a whole answer."""
    return lambda asked, _: chunked(events) if asked.get("stream") else sized(body)


FAILING: tuple[Script, ...] = (
    *(_fails(status) for status in (408, 429, 500, 502, 503, 504, 529)),
    _fails(429, "retry-after: 1"),
    _fails(503, "retry-after: 1"),
    _always(sized(HTML, status=502, kind="content-type: text/html")),
    _always(sized(HTML, kind="content-type: text/html")),
    _always(sized(as_json(ERROR))),
    _always(sized(b"")),
    _always(Play(())),
    _always(Play((0.02,), "reset")),
    _always(_HANG),
    _begun([ROLE, said(ERROR)], as_json(completion())[:80]),
    _begun([ROLE], as_json({**completion(), "choices": []})),
    _begun([ROLE, STREAM[-1]], as_json(completion(None))),
    _begun([b"data: {broken\n\n"], as_json("Internal Server Error")),
)
"""Ways to fail before anything is said, so that another candidate can always help."""


def failing(share: float) -> Script:
    """Fails in that share of all calls, each time in a way of its own."""

    def script(asked: Asked, chance: Random) -> Play:
        return chance.choice(FAILING)(asked, chance) if chance.random() < share else well(asked)

    return script


SLOW_SHARE = 0.03
FIRST_S, SLOW_S, GAP_S = 0.08, 1.5, 0.02
_TAILED = (ROLE, *texts(["".join(PIECES[at : at + 5]) for at in range(0, len(PIECES), 5)]), *STREAM[-3:])


def tailed(asked: Asked, chance: Random) -> Play:
    """A stream of six pieces that begins after about 80 ms; three in a hundred begin 1.5 s later."""
    first_s = min(chance.lognormvariate(0, 0.35), 4) * FIRST_S + (SLOW_S if chance.random() < SLOW_SHARE else 0)
    steps: list[Step] = [CHUNKED_HEAD, first_s]
    for each in _TAILED:
        steps += [chunk(each), GAP_S]
    return Play((*steps, b"0\r\n\r\n"), "keep")


_NUMBER = re.compile(r"Request (\d+):")
CUT_SHARE = 0.3


def number_of(asked: Asked) -> int:
    found = _NUMBER.search(str(asked.get("messages")))
    assert found
    return int(found[1])


def cut_at(number: int) -> int | None:
    """After how many pieces request *number* is cut; the same for everybody who asks."""
    chance = Random(number)
    place = chance.randint(1, len(PIECES) - 1)
    return place if chance.random() < CUT_SHARE else None


_CUTS: tuple[Callable[[Sequence[bytes]], Play], ...] = (
    until_closed,
    lambda events: until_closed(events, "reset"),
    lambda events: chunked(events, ended=False),
    chunked,
    lambda events: chunked([*events, said(ERROR)]),
    lambda events: chunked([*events, STREAM[-1]]),
    lambda events: Play((CHUNKED_HEAD, *(chunk(each) for each in events)), "hang"),
)


def cutting(asked: Asked, _: Random) -> Play:
    """Three streams of ten are cut, each at a place and in a way of its own."""
    number = number_of(asked)
    place = cut_at(number)
    if place is None or not asked.get("stream"):
        return well(asked)
    return _CUTS[number % len(_CUTS)](STREAM[: 1 + place])


def going_on(asked: Asked, _: Random) -> Play:
    """Goes on from the part of the text that it is shown; every other time it says one to six words again first."""
    shown = "\n".join(str(message.get("content")) for message in asked["messages"])
    known = next((n for n in range(len(PIECES), 0, -1) if TEXT[: len("".join(PIECES[:n]))].rstrip() in shown), 0)
    if not known or not asked.get("stream"):
        return well(asked)
    number = number_of(asked)
    again = 1 + number // 2 % 6 if number % 2 else 0
    return chunked([ROLE, *texts(PIECES[max(0, known - again) :]), *STREAM[-3:]])
