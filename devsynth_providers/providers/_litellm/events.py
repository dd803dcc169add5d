"""The events of a stream, for as long as its provider has more to say: both lanes hear them here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from ...errors import MalformedResponse, ProviderError
from ..sse import Event, EventDecoder, EventTooLarge
from ..wire import Answer
from .reading import MAX_ANSWER_BYTES, Reader

_MAX_TRAILER_BYTES = 64 * 1024
_TRAILER_S = 0.05
"""How long to listen after the last event for the end of the body, which leaves the connection to the next call."""
_USAGE_S = 2.0
"""How long to listen after the finish reason for the usage; the answer is whole by then."""

T = TypeVar("T")


async def each_event(answer: Answer, reader: Reader, read: Callable[[Event], T]) -> AsyncGenerator[T, None]:
    """What *read*, a method of *reader*, makes of each event in *answer*. What it raises, and what happens to the
    connection, counts until the finish reason is there."""
    decoder = EventDecoder()
    size = 0
    try:
        while True:
            async with asyncio.timeout(_USAGE_S if reader.finished else None):
                bytes_ = await answer.piece()
            size += len(bytes_)
            if size > MAX_ANSWER_BYTES:
                raise MalformedResponse(f"a stream of more than {MAX_ANSWER_BYTES} bytes")
            for event in decoder.feed(bytes_) if bytes_ else decoder.flush():
                last = reader.last(event)
                if last:
                    await _trailer(answer)
                yield read(event)
                if last:
                    return
            if not bytes_:
                return
    except EventTooLarge as error:
        raise MalformedResponse(str(error)) from None
    except (ProviderError, TimeoutError):
        if not reader.finished:  # else it was whole, whatever happened to the connection afterwards
            raise


async def _trailer(answer: Answer) -> None:
    try:
        async with asyncio.timeout(_TRAILER_S):
            await answer.read(_MAX_TRAILER_BYTES)
    except (TimeoutError, ProviderError):
        return  # the connection is closed then, and that is all
