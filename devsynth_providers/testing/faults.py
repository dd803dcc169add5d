"""What an upstream can do to a call, as values: which fault, to which requests, when."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ..errors import (
    AuthenticationError,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    MalformedResponse,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
    RequestRejected,
)
from ..types import Chunk, Model, Usage

Kind = Literal[
    "rate_limited",
    "server_error",
    "overloaded",
    "refused",
    "timeout",
    "cut",
    "malformed",
    "authentication",
    "quota_exhausted",
    "model_not_found",
    "context_too_long",
    "rejected",
    "content_filtered",
    "stall",
    "slow",
    "keep_alives",
    "empty",
    "truncated",
    "no_finish_reason",
    "no_usage",
    "wrong_usage",
    "vectors_missing",
    "vectors_doubled",
    "deaf",
]

Step = Chunk | ProviderError | float
"""A piece of the answer, an error in its place, or seconds to wait."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    It befalls a share of the requests, *rate*; where *requests* are given, only of those, counted from 1; where
    *between_s* is given, only of those that come from the first to before the second moment on the loop's clock.
    It strikes after so many *pieces* of the answer, or *characters*; before the first content, if neither is said. A
    whole answer, or vectors, come in one piece when they are done: there, whatever breaks off breaks off before.

    ============================================  ==================================================================
    ``rate_limited``, ``overloaded``              429 and 503; with *seconds*, it wants to be left alone so long
    ``server_error``, ``timeout``                 500 and 504; with *seconds*, only after so long
    ``refused``, ``cut``                          no connection; a connection that is lost
    ``malformed``                                 no answer, but something else
    ``authentication``, ``quota_exhausted``,      401, 429, 404 and 400: this model can not answer this request, or
    ``model_not_found``, ``context_too_long``,    none can
    ``rejected``, ``content_filtered``
    ``stall``, ``keep_alives``                    nothing for *seconds* (an hour); one keep-alive for each second
    ``slow``                                      *seconds* (one) before each piece
    ``empty``                                     a finish reason, and nothing else
    ``truncated``                                 the answer ends there, with ``length``
    ``no_finish_reason``, ``no_usage``            what should stand at the end does not
    ``wrong_usage``                               tokens that can not have been used
    ``vectors_missing``, ``vectors_doubled``      one too few, one too many
    ``deaf``                                      cancelled, it goes on for *seconds* (one)
    ============================================  ==================================================================
    """

    kind: Kind
    rate: float = 1.0
    requests: tuple[int, ...] | None = None
    between_s: tuple[float, float] | None = None
    seconds: float | None = None
    pieces: int = 0
    characters: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            near = difflib.get_close_matches(str(self.kind), get_args(Kind), n=1)
            raise ConfigurationError(f"there is no fault {self.kind!r}" + (f"; did you mean {near[0]!r}?" * bool(near)))
        if not 0 <= self.rate <= 1:
            raise ConfigurationError(f"the rate of a fault is a share from 0 to 1, not {self.rate!r}")
        if self.seconds is not None and not 0 <= self.seconds < math.inf:
            raise ConfigurationError(f"the seconds of a fault are a number from 0 on, not {self.seconds!r}")
        if self.kind == "empty" and (self.pieces or self.characters):
            raise ConfigurationError("an answer of which something has come is not empty: it is truncated")

    def may_befall(self, number: int, now: float) -> bool:
        """Whether the request that comes as the *number*th, at the moment *now*, is one of those in question."""
        if self.requests is not None and number not in self.requests:
            return False
        return self.between_s is None or self.between_s[0] <= now < self.between_s[1]

    def lasts(self, otherwise: float) -> float:
        """Its seconds, or *otherwise* if it does not say."""
        return otherwise if self.seconds is None else self.seconds

    def strike(self, model: Model) -> Iterator[Step]:
        """What comes of it at its place: pieces, waits in seconds, and an error or a finish reason that ends all."""
        match self.kind:
            case "stall":
                yield self.lasts(3600.0)
            case "keep_alives":
                for _ in range(int(self.lasts(3600.0))):
                    yield 1.0
                    yield Chunk()
            case "truncated":
                yield Chunk(finish_reason="length")
            case "empty":
                yield Chunk(finish_reason="stop")
            case kind if kind in _ERRORS:
                if self.seconds and kind in ("server_error", "timeout"):
                    yield self.seconds
                yield self._error(model)

    def _error(self, model: Model) -> ProviderError:
        cls, message, status = _ERRORS[self.kind]
        code = "insufficient_quota" if cls is QuotaExhausted else None
        error = cls(f"{message} ({self.kind})", provider=model.provider, model=model.name, status=status, code=code)
        if self.kind in ("refused", "overloaded"):
            error.billed = False
        if isinstance(error, RateLimitError | ProviderUnavailable) and self.kind in ("rate_limited", "overloaded"):
            error.retry_after_s = self.seconds
        if isinstance(error, ContextTooLong):
            error.context_window = model.context_window
        return error


_ERRORS: dict[str, tuple[type[ProviderError], str, int | None]] = {
    "rate_limited": (RateLimitError, "HTTP 429: slow down", 429),
    "server_error": (ProviderUnavailable, "HTTP 500: something went wrong", 500),
    "overloaded": (ProviderUnavailable, "HTTP 503: overloaded", 503),
    "refused": (ProviderUnavailable, "the connection was refused", None),
    "timeout": (ProviderTimeout, "HTTP 504: it took too long", 504),
    "cut": (ProviderUnavailable, "the connection was lost", None),
    "malformed": (MalformedResponse, "that is no answer", 200),
    "authentication": (AuthenticationError, "HTTP 401: who are you?", 401),
    "quota_exhausted": (QuotaExhausted, "HTTP 429: nothing is left to spend", 429),
    "model_not_found": (ModelNotFound, "HTTP 404: no such model", 404),
    "context_too_long": (ContextTooLong, "HTTP 400: maximum context length", 400),
    "rejected": (RequestRejected, "HTTP 400: what is that?", 400),
    "content_filtered": (ContentFiltered, "HTTP 400: not here", 400),
}
_IMPOSSIBLE = (Usage(10**9, 10**9), Usage(10**9, 0), Usage(0, 10**9), Usage(-5, -7))


class Course:
    """How an answer goes on, piece by piece, and where *faults* strike it. *choice* picks among wrong usages."""

    def __init__(self, faults: Sequence[Fault], model: Model, choice: int) -> None:
        self._kinds = {fault.kind for fault in faults}
        self._model = model
        self._usage = _IMPOSSIBLE[choice % len(_IMPOSSIBLE)]
        self._wait_s = sum(fault.lasts(1.0) for fault in faults if fault.kind == "slow")
        self._still = [fault for fault in faults if fault.kind in _PLACED]
        self._pieces = 0
        self._characters = 0
        self.ended = False
        """Whether a fault has ended the answer."""

    def due(self) -> Iterator[Step]:
        """What strikes here."""
        for fault in list(self._still):
            said, place = (self._pieces, fault.pieces)
            if fault.characters is not None:
                said, place = self._characters, fault.characters
            if said >= place:
                self._still.remove(fault)
                yield from fault.strike(self._model)
                self.ended = fault.kind in _LAST
            if self.ended:
                return

    def through(self, chunk: Chunk) -> Iterator[Step]:
        """What comes in place of *chunk*, a piece of the undisturbed answer."""
        if self._wait_s:
            yield self._wait_s
        if chunk.text:
            yield from self._said(chunk)
        else:
            yield self._end(chunk)

    def _said(self, chunk: Chunk) -> Iterator[Step]:
        left = chunk.text
        ends = [fault.characters - self._characters for fault in self._still if fault.characters is not None]
        for end in sorted({end for end in ends if 0 < end < len(left)}):
            said = end - (len(chunk.text) - len(left))
            yield Chunk(left[:said])
            left = left[said:]
            self._characters += said
            yield from self.due()
            if self.ended:
                return
        yield self._end(replace(chunk, text=left))
        self._characters += len(left)
        self._pieces += 1
        yield from self.due()

    def _end(self, chunk: Chunk) -> Chunk:
        """*chunk*, with what the faults make of the end of an answer and of vectors."""
        if chunk.finish_reason and "no_finish_reason" in self._kinds:
            chunk = replace(chunk, finish_reason=None)
        if chunk.usage and not self._kinds.isdisjoint(("no_usage", "wrong_usage")):
            chunk = replace(chunk, usage=None if "no_usage" in self._kinds else self._usage)
        if chunk.vectors and "vectors_missing" in self._kinds:
            chunk = replace(chunk, vectors=chunk.vectors[:-1])
        if chunk.vectors and "vectors_doubled" in self._kinds:
            chunk = replace(chunk, vectors=(*chunk.vectors, chunk.vectors[-1]))
        return chunk


_PLACED = frozenset((*_ERRORS, "stall", "keep_alives", "truncated", "empty"))
_LAST = frozenset(("truncated", "empty"))


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """*chunks* as the one piece that a whole answer is."""
    return Chunk(
        "".join(chunk.text for chunk in chunks),
        next((chunk.finish_reason for chunk in chunks if chunk.finish_reason), None),
        next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None),
        tuple(vector for chunk in chunks for vector in chunk.vectors),
        tuple(part for chunk in chunks for part in chunk.tool_calls),
        next((chunk.model for chunk in chunks if chunk.model), ""),
    )
