"""Vectors that are not those of the texts."""

from __future__ import annotations

from typing import Any

from devsynth_providers import MalformedResponse

from ..loopback import Answer, as_json, vectors
from .rows import BATCH, EMBEDS, NEXT, VECTORS, Row, on_both, row


def _data(*data: Any) -> Answer:
    return as_json({"object": "list", "model": "served-model", "data": list(data)})


def _usage(usage: Any) -> Any:
    def answer(body: dict[str, Any]) -> Answer:
        rows = [{"index": at, "embedding": each} for at, each in enumerate(VECTORS[: len(body["input"])])]
        return as_json({"object": "list", "model": "served-model", "data": rows, "usage": usage})

    return answer


def _wrong(number: int, name: str, sent: Answer, **more: Any) -> Row:
    return row(number, name, sent, MalformedResponse, NEXT, ways=BATCH, **more)


_FINE = [1.0, 0.0]
# fmt: off
ROWS: list[Row] = [
    *on_both(
        [
            _wrong(68, "too few", vectors(_FINE)),
            row(69, "in another order", vectors([0.0, 1.0], [1.0, 0.0], indices=[1, 0]), "", ways=BATCH),
            _wrong(71, "NaN", vectors(_FINE, [1.0, float("nan")])),
        ]
    ),
    _wrong(68, "too many", vectors(_FINE, _FINE, _FINE)),
    _wrong(70, "an index twice", vectors(_FINE, [0.0, 1.0], indices=[0, 0])),
    _wrong(70, "an index beyond", vectors(_FINE, [0.0, 1.0], indices=[1, 2])),
    _wrong(70, "no index", _data({"embedding": _FINE}, {"embedding": _FINE})),
    row(70, "no data", _data(), MalformedResponse, NEXT, ways=EMBEDS),
    row(70, "null data", as_json({"object": "list", "data": None}), MalformedResponse, NEXT, ways=EMBEDS),
    row(70, "data left out", as_json({"object": "list"}), MalformedResponse, NEXT, ways=EMBEDS),
    row(70, "data of numbers", _data(1, 2), MalformedResponse, NEXT, ways=EMBEDS),
    _wrong(71, "infinite", vectors(_FINE, [float("inf"), float("-inf")])),
    _wrong(71, "null in it", vectors(_FINE, [1.0, None])),
    _wrong(71, "null", vectors(_FINE, None)),
    _wrong(71, "text in it", vectors(_FINE, [1.0, "2"])),
    _wrong(71, "text", vectors("text", "text")),
    _wrong(71, "beyond all floats", vectors(_FINE, [1.0, 10**400])),
    _wrong(71, "zeros", vectors(_FINE, [0.0, 0.0])),
    _wrong(71, "empty", vectors([], [])),
    _wrong(72, "two dimensions", vectors(_FINE, [1.0])),
    row(59, "no usage", _usage(None), "", ways=EMBEDS, estimated=True),
    row(60, "negative usage", _usage({"prompt_tokens": -5, "total_tokens": -5}), "", ways=EMBEDS, estimated=True),
    row(60, "absurd usage", _usage({"prompt_tokens": 10**9, "total_tokens": 10**9}), "", ways=EMBEDS, estimated=True),
]
# fmt: on
