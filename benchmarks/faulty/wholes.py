"""What can be wrong with an answer in one piece, and with vectors, though the status is 200."""

from __future__ import annotations

import math
from typing import Any

from .said import EVENTS, JSON, STREAM, TEXT, VECTORS, Play, as_json, completion, embeddings, head, sized
from .streams import ERROR, HTML

_HALF = TEXT[: len(TEXT) // 2]
_CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def faults() -> dict[str, Play]:
    """Answers in one piece."""
    good = as_json(completion())
    cut = good[: good.index("東".encode())]
    return {
        "cut": sized(cut),
        "cut, and closed": Play((head(JSON, "connection: close") + cut,)),
        "a length that is too long": Play((head(JSON, f"content-length: {len(good)}") + cut,)),
        "a length that is too short": Play((head(JSON, f"content-length: {len(cut)}") + good,)),
        "a page of HTML": sized(HTML, kind="content-type: text/html"),
        "a page of HTML, called JSON": sized(HTML),
        "nothing": sized(b""),
        "an error with status 200": sized(as_json(ERROR)),
        "null for text": sized(as_json(completion(None))),
        "no text": sized(as_json(completion(""))),
        "no choices": sized(as_json({**completion(), "choices": []})),
        "choices that are null": sized(as_json({**completion(), "choices": None})),
        "no message": sized(as_json({**completion(), "choices": [{"index": 0, "finish_reason": "stop"}]})),
        "text that is a number": sized(as_json(completion(5))),  # type: ignore[arg-type]
        "half, and no finish reason": sized(as_json(completion(_HALF, None))),
        "half, and finish reason length": sized(as_json(completion(_HALF, "length"))),
        "half, and finish reason error": sized(as_json(completion(_HALF, "error"))),
        "half, and the content filter": sized(as_json(completion(_HALF, "content_filter"))),
        "invalid UTF-8": sized(good.replace(b"fr\xc3\xbch", b"fr\xffh")),
        "Latin-1": sized(as_json(completion("Größe")).decode().encode("latin-1")),
        "not zipped, and said to be": Play((head(JSON, "content-encoding: gzip", "connection: close") + good,)),
        "a list": sized(b"[" + good + b"]"),
        "a text": sized(as_json("Internal Server Error")),
        "two answers in one": sized(good + good),
        "a stream": sized(b"".join(STREAM[: len(STREAM) // 2]), kind=EVENTS),
        "a call of a tool that nobody gave": sized(as_json(completion(None, "tool_calls", tool_calls=[_CALL]))),
    }


def of_vectors() -> dict[str, Play]:
    """Vectors: three were asked for, and the right ones are known."""
    one, two, three = (list(vector) for vector in VECTORS)
    rows: dict[str, Any] = {
        "index in another order": embeddings([two, three, one], [1, 2, 0]),
        "the same index twice": embeddings([one, two, three], [0, 0, 2]),
        "an index that is not there": embeddings([one, two, three], [1, 2, 3]),
        "NaN": embeddings([one, [math.nan, 0.5, 0.5, 0.5], three]),
        "infinity": embeddings([one, [math.inf, 0.5, 0.5, 0.5], three]),
        "null for a number": embeddings([one, [None, 0.5, 0.5, 0.5], three]),
        "null for a vector": embeddings([one, None, three]),
        "all zero": embeddings([one, [0.0] * 4, three]),
        "a short vector": embeddings([one, two[:2], three]),
        "a long vector": embeddings([one, [*two, 0.5], three]),
        "an empty vector": embeddings([one, [], three]),
        "a text for a number": embeddings([one, ["x", 0.5, 0.5, 0.5], three]),
        "a vector in a vector": embeddings([one, [two], three]),
        "one vector too few": embeddings([one, two]),
        "one vector too many": embeddings([one, two, three, one]),
        "no vectors": embeddings([]),
        "data that is null": {**embeddings(), "data": None},
        "an error with status 200": ERROR,
    }
    played = {name: sized(as_json(body)) for name, body in rows.items()}
    played["a page of HTML"] = sized(HTML, kind="content-type: text/html")
    played["cut"] = sized(as_json(embeddings())[:-120])
    return played
