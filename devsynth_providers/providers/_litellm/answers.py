"""What LiteLLM's objects say, as ours, and put to the proof: both lanes read answers here.

Usage that can not be true is none. Vectors are right only if there is one for each text, in order, finite and of one
dimension.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any

from ...errors import ContentFiltered, MalformedResponse
from ...types import EmbedRequest, Model, ToolCallPart, Usage, Vector


def text(message: Any, model: Model) -> str:
    """The text of a message or a delta. Raises ``ContentFiltered`` if it is a refusal."""
    if message.content:
        return str(message.content)
    own = getattr(message, "provider_specific_fields", None) or {}
    refused(getattr(message, "refusal", None) or own.get("refusal") or "", model)
    return ""


def refused(refusal: str, model: Model) -> None:
    """Raise ``ContentFiltered`` if there is a *refusal*."""
    if refusal:
        raise ContentFiltered(f"the model refused: {refusal}", provider=model.provider, model=model.name)


def tool_calls(message: Any) -> tuple[ToolCallPart, ...]:
    """The tool calls, or pieces of them, of a message or a delta."""
    calls = getattr(message, "tool_calls", None)
    if not calls:
        return ()
    return tuple(
        ToolCallPart(
            index if getattr(call, "index", None) is None else call.index,
            call.id or "",
            call.function.name or "",
            call.function.arguments or "",
        )
        for index, call in enumerate(calls)
    )


def usage(answer: Any) -> Usage | None:
    """The usage in *answer*, or ``None`` where there is none or it can not be true."""
    told = getattr(answer, "usage", None)
    if told is None:
        return None
    prompt, completion = told.prompt_tokens or 0, getattr(told, "completion_tokens", 0) or 0
    inner = getattr(told, "prompt_tokens_details", None)
    outer = getattr(told, "completion_tokens_details", None)
    cached = getattr(inner, "cached_tokens", None) or 0
    written = getattr(inner, "cache_creation_tokens", None) or 0
    reasoning = getattr(outer, "reasoning_tokens", None) or 0
    return checked(
        input_tokens=prompt,
        output_tokens=completion,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )


def checked(
    *,
    input_tokens: int | None,
    output_tokens: int | None,
    cached_input_tokens: int | None = None,
    cache_write_tokens: int | None = None,
    reasoning_tokens: int | None = None,
) -> Usage | None:
    """The usage that these counts make up, if it can be true; ``None`` counts as none."""
    counts = [input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens]
    if any(count is not None and (type(count) is not int or count < 0) for count in counts):
        return None
    asked, answered, cached, written, reasoned = (count or 0 for count in counts)
    told = Usage(asked, answered, cached, written, reasoned)
    return told if told.adds_up and told.input_tokens + told.output_tokens > 0 else None


class Vectors:
    """Reads the vectors of one model, which are of one dimension in every answer: others would be of another space."""

    def __init__(self) -> None:
        self._dimension: int | None = None

    def read(self, rows: Any, request: EmbedRequest, model: Model) -> tuple[Vector, ...]:
        """The vectors in *rows*, each with its index, in the order of the texts. Raises ``MalformedResponse``."""
        vectors = numbered(rows)
        problem = _problem([index for index, _ in vectors], [row for _, row in vectors], len(request.texts))
        if problem is None:
            dimension = len(vectors[0][1])
            self._dimension = self._dimension or dimension
            if dimension != self._dimension:
                problem = f"vectors of {dimension} numbers; those before had {self._dimension}"
        if problem:
            raise MalformedResponse(problem, provider=model.provider, model=model.name)
        return tuple(row for _, row in sorted(vectors, key=lambda each: each[0]))


def numbered(rows: Any) -> list[tuple[int, Vector]]:
    """The vectors in *rows*, each with its index: finite numbers all. Raises ``MalformedResponse``."""
    try:
        vectors = [(row["index"], _vector(row["embedding"])) for row in map(dict, rows)]
    except (TypeError, ValueError, KeyError, AttributeError, struct.error) as error:
        problem = f"embeddings in a form that is none: {type(error).__name__}"
        raise MalformedResponse(problem) from None
    for index, row in vectors:
        if type(index) is not int or not set(map(type, row)) <= _NUMBERS or not _finite(row):
            raise MalformedResponse("a vector with something in it that is no number")
    return vectors


def _vector(sent: Any) -> tuple[Any, ...]:
    """The numbers of one vector, sent as a list, or as 32-bit floats in base64."""
    if not isinstance(sent, str):
        return tuple(sent)
    packed = base64.b64decode(sent, validate=True)
    return struct.unpack(f"<{len(packed) // 4}f", packed)


_NUMBERS = {int, float}


def _finite(row: Sequence[float]) -> bool:
    """Whether all of *row* are finite: if not, neither is their sum; which may be too large, though, if they are."""
    try:
        return math.isfinite(sum(row)) or all(map(math.isfinite, row))
    except OverflowError:  # a whole number larger than any float
        return False


def _problem(indices: Sequence[int], rows: Sequence[Any], wanted: int) -> str | None:
    """What is wrong with vectors, or ``None``."""
    if sorted(indices) != list(range(wanted)):
        return f"{wanted} texts, but vectors number {sorted(indices)[:10]}"
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        return f"vectors of different length: {sorted(lengths)}"
    for row in rows:
        if not any(row):
            return "a vector of zeros"
    return None
