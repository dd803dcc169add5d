"""What can be wrong with a stream that begins with status 200, each as one script; and what only looks wrong."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from .said import (
    CHUNKED_HEAD,
    DONE,
    EVENTS,
    JSON,
    PIECES,
    ROLE,
    STOP,
    STREAM,
    TEXT,
    USAGE,
    Play,
    as_json,
    chunk,
    chunked,
    completion,
    event,
    head,
    said,
    sized,
    texts,
    until_closed,
)

HTML = b"<!doctype html><html><head><title>502</title></head><body>Bad gateway</body></html>"
ERROR = {"error": {"message": "The model is overloaded", "type": "server_error", "code": 503}}
_TEXT_HTML = "content-type: text/html"
_MIDDLE = 1 + len(PIECES) // 2
_ALL = 1 + len(PIECES)
_END = (STOP, USAGE, DONE)
_PLACES = {
    "before anything": 0,
    "after the role": 1,
    "after the first text": 2,
    "in the middle": _MIDDLE,
    "after the last text": _ALL,
}


def faults() -> dict[str, Play]:
    """By name; none of them says the whole text and that it is whole."""
    return dict((*_cuts(), *_ends_too_early(), *_no_streams(), *_errors(), *_malformed(), *_bytes(), *_http()))


def harmless() -> dict[str, Play]:
    """Streams that look odd and are whole: each must be answered."""
    return {
        "as it should be": chunked(STREAM),
        "until the connection is closed": until_closed(STREAM),
        "lines that end with CR LF": chunked([each.replace(b"\n", b"\r\n") for each in STREAM]),
        "no space after data:": chunked([each.replace(b"data: ", b"data:") for each in STREAM]),
        "comments between events": chunked([part for each in STREAM for part in (b": ping\n\n", each)]),
        "byte for byte": chunked([bytes((each,)) for each in b"".join(STREAM)]),
        "no usage": chunked([*STREAM[:_ALL], STOP, DONE]),
        "no [DONE]": chunked([*STREAM[:_ALL], STOP]),
        "cut after the finish reason": until_closed([*STREAM[:_ALL], STOP], "reset"),
    }


def _cuts() -> Iterator[tuple[str, Play]]:
    for place, upto in _PLACES.items():
        events = STREAM[:upto]
        yield f"closed {place}", until_closed(events)
        yield f"reset {place}", until_closed(events, "reset")
        yield f"chunks without an end {place}", chunked(events, ended=False)
        yield f"ended by a proxy {place}", chunked(events)
    middle = STREAM[_MIDDLE]
    wide = STREAM[1]
    places = {
        "in the JSON of an event": middle[: len(middle) // 2],
        "in a character": wide[: wide.index("ß".encode()) + 1],
        "within data:": middle[:3],
        "after data:": middle[:6],
        "before an event's blank line": middle[:-1],
    }
    for place, part in places.items():
        before = STREAM[:1] if part.startswith(wide[:20]) and b"\xc3" in part[-1:] else STREAM[:_MIDDLE]
        yield f"closed {place}", until_closed([*before, part])
        yield f"ended by a proxy {place}", chunked([*before, part])


def _ends_too_early() -> Iterator[tuple[str, Play]]:
    for place, upto in _PLACES.items():
        yield f"[DONE] {place}", chunked([*STREAM[:upto], DONE])
    yield "finish reason error in the middle", chunked([*STREAM[:_MIDDLE], event(finish="error"), DONE])
    yield "finish reason length in the middle", chunked([*STREAM[:_MIDDLE], event(finish="length"), USAGE, DONE])
    yield "content filter in the middle", chunked([*STREAM[:_MIDDLE], event(finish="content_filter"), DONE])
    yield "a finish reason and no text", chunked([ROLE, *_END])
    yield "null as the only text", chunked([event({"role": "assistant", "content": None}), *_END])
    yield "usage and nothing else", chunked([USAGE, DONE])


def _no_streams() -> Iterator[tuple[str, Play]]:
    yield "a page of HTML", sized(HTML, kind=_TEXT_HTML)
    yield "a page of HTML, called a stream", sized(HTML, kind=EVENTS)
    yield "a page of HTML in an event", chunked([b"data: " + HTML + b"\n\n"])
    yield "nothing", sized(b"", kind=EVENTS)
    yield "nothing, called JSON", sized(b"")
    yield "blank lines", chunked([b"\n\n\n\n"])
    yield "comments only", chunked([b": ping\n\n"] * 5)
    yield "comments and [DONE]", chunked([b": ping\n\n", DONE])
    yield "plain text", sized(TEXT.encode(), kind="content-type: text/plain")
    yield "an error with status 200", sized(as_json(ERROR))
    yield "an error with status 200, called a stream", sized(as_json(ERROR), kind=EVENTS)
    yield "an answer in one piece that was cut", sized(as_json(completion())[:150])
    yield "an answer in one piece, with no text", sized(as_json(completion("")), kind=JSON)


def _errors() -> Iterator[tuple[str, Play]]:
    told = said(ERROR)
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": ERROR["error"]}
    yield "an error as the first event", chunked([told, DONE])
    yield "an error after the role", chunked([ROLE, told, DONE])
    yield "an error in the middle", chunked([*STREAM[:_MIDDLE], told, DONE])
    yield "event: error in the middle", chunked([*STREAM[:_MIDDLE], b"event: error\n" + told, DONE])
    yield "an error as text in the middle", chunked([*STREAM[:_MIDDLE], b"data: Internal Server Error\n\n", DONE])
    yield "an error beside the text", chunked([*STREAM[:_MIDDLE], said({"choices": [choice], **ERROR}), DONE])


def _malformed() -> Iterator[tuple[str, Play]]:
    """One event of text says nothing that can be read, and the rest goes on as if it had."""
    good = STREAM[_MIDDLE]
    for name, bad in {
        "broken JSON": good.replace(b'"choices":', b'"choices"'),
        "half of an event": good[: len(good) // 2] + b"\n\n",
        "an event without choices": said({"id": "c1", "object": "chat.completion.chunk"}),
        "choices that are null": said({"id": "c1", "choices": None}),
        "text that is a number": event({"content": 5}),
        "text that is a list": event({"content": ["x"]}),
        "a number for an event": b"data: 42\n\n",
    }.items():
        yield f"{name} in the middle", chunked([*STREAM[:_MIDDLE], bad, *STREAM[_MIDDLE + 1 :]])
    yield "broken JSON first", chunked([STREAM[1].replace(b'"choices":', b'"choices"'), *STREAM[2:]])
    yield (
        "a line without its colon in the middle",
        chunked([*STREAM[:_MIDDLE], good.replace(b"data:", b"data"), *STREAM[_MIDDLE + 1 :]]),
    )


def _bytes() -> Iterator[tuple[str, Play]]:
    for place, at in (("first", 1), ("in the middle", _MIDDLE), ("last", _ALL - 1)):
        bad = event({"content": "W\0rt "}).replace(b"\\u0000", b"\xff")
        yield f"invalid UTF-8 {place}", chunked([*STREAM[:at], bad, *STREAM[at + 1 :]])
    lone = event({"content": "W\0rt "}).replace(b"\\u0000", b"\xc3")
    yield "half a character in the middle", chunked([*STREAM[:_MIDDLE], lone, *STREAM[_MIDDLE + 1 :]])
    yield "Latin-1", chunked([event({"content": "Größe "}).decode().encode("latin-1"), *STREAM[2:]])
    yield "UTF-16", sized(b"".join(STREAM).decode().encode("utf-16"), kind=EVENTS)


def _http() -> Iterator[tuple[str, Play]]:
    whole = b"".join(STREAM)
    packed = gzip.compress(whole)
    zipped = head(EVENTS, "content-encoding: gzip", "connection: close")
    yield "not zipped, and said to be", Play((zipped + whole,))
    yield "zipped, and cut", Play((zipped + packed[: len(packed) // 2],))
    middle = len(b"".join(STREAM[:_MIDDLE]))
    yield "a length that is too long", Play((head(EVENTS, f"content-length: {middle * 2}") + whole[:middle],))
    yield "a length that is too short", Play((head(EVENTS, f"content-length: {middle}") + whole,))
    yield "a chunk of no length", Play((CHUNKED_HEAD, *(chunk(each) for each in STREAM[:_MIDDLE]), b"zz\r\n"))


assert texts(PIECES) == STREAM[1:_ALL]
