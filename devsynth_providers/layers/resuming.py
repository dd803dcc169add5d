"""Another model goes on where an answer broke off, and the answer says so."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from dataclasses import replace

from typing_extensions import override

from .. import telemetry
from ..analysis import estimate_tokens
from ..errors import ContentFiltered, NotPaid, ProviderError, StreamInterrupted
from ..port import ProviderPort
from ..reply import Reply
from ..types import ChatRequest, Chunk, Message, Request, Usage
from .seam import Seam
from .wrapper import Wrapper

GO_ON = (
    "Your answer was cut off. Go on exactly where it stops, in the middle of a word if it stops there. "
    "Repeat nothing of it, and say nothing about the interruption."
)
"""What a model is told that can not be given the beginning of its answer."""

_FORMS = frozenset(
    (
        "response_format",
        "structured_outputs",
        "json_schema",
        "grammar",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
    )
)
"""Parameters that hold an answer to a form as a whole: neither of its halves would have it."""
_THOUGHTS = frozenset(("reasoning_effort", "thinking"))
"""Parameters with which a model thinks first, and then no beginning of its answer can be given to it."""
_CALLS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=")
"""How models write a call of a tool where their server does not take it out of the text."""


class Resuming(Wrapper):
    """When a streamed answer of *inner* breaks off, have one of *continuations*, as they are listed, go on from there.

    Asked are those that have not failed in this request and whose window holds what was asked and said; if none is
    left, whoever broke off: a lost connection often passes. Not more are asked than there are. They get the answer so
    far to go on with (ability ``prefill``), or are told to; what they repeat of it is left out, and the first piece
    after the seam has ``continued_by``. Nothing is held back but what may be such a repetition. Calls of tools, and
    answers of a certain form (JSON), are never put together from two. If nobody goes on, the answer breaks off as
    without this layer.
    """

    def __init__(
        self,
        inner: ProviderPort,
        continuations: Sequence[ProviderPort],
        *,
        stops_at: Collection[str] = (ContentFiltered.kind,),
    ) -> None:
        super().__init__(inner)
        self._continuations = tuple(continuations)
        self._stops_at = stops_at

    @override
    async def send(self, request: Request) -> Reply:
        request = request.begun()
        first = await self.inner.send(request)
        if not isinstance(request, ChatRequest) or not request.stream:
            return first
        answer = _Answer(request, first, self._continuations, self._stops_at)
        reply = await Reply.open(first.model, answer.chunks())
        reply.cached, reply.degraded, reply.attempts = first.cached, first.degraded, first.attempts
        answer.reply = weakref.ref(reply)  # one that is forgotten is so at once
        return reply.on_finish(answer.finish)


class _Answer:
    """One answer, by as many models as it takes."""

    def __init__(
        self, request: ChatRequest, first: Reply, candidates: Sequence[ProviderPort], stops_at: Collection[str]
    ) -> None:
        self._request = request
        self._candidates = candidates
        self._stops_at = stops_at
        self._way_back = telemetry.way_back()  # when it breaks off, the span of the request is not the current one
        self.reply: Callable[[], Reply | None] = lambda: None
        self._half = first
        self._halves = [first]
        self._seam: Seam | None = None
        self._broken_model = ""
        self._failed: set[str] = set()
        self._asked = 0
        self._said: list[str] = []
        self._called = False

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Its pieces, as they are delivered."""
        try:
            while True:
                try:
                    async for piece in self._half:
                        if (chunk := self._joined(piece)) is not None:
                            self._said.append(chunk.text)
                            self._called = self._called or bool(chunk.tool_calls)
                            yield chunk
                    return
                except StreamInterrupted as error:
                    broken = error
                if not await self._goes_on(broken):
                    yield Chunk(finish_reason="length")
                    return
        finally:
            await self._half.aclose()

    def finish(self, reply: Reply, error: BaseException | None) -> None:
        """Tell *reply* what all of them used."""
        used = [usage for half in self._halves if (usage := half.usage or half.reported_usage) is not None]
        reply.usage = _together(used) if used else None
        reply.attempts = self._request.call.tally.attempts or reply.attempts

    def _joined(self, piece: Chunk) -> Chunk | None:
        """*piece* as it is delivered; nothing, while it may be a repetition or is one. Such a piece is forgotten if the
        half breaks off there: nobody has seen it."""
        if self._seam is None:
            return piece if self._said else replace(piece, model=piece.model or self._half.response_model)
        new = self._seam.join(piece.text, last=bool(piece.finish_reason or piece.tool_calls))
        if new is None or (chunk := replace(piece, text=new)).empty:
            return None
        name = self._half.model.name
        with self._way_back():
            facts = {"from": self._broken_model, "to": name}
            said = sum(map(len, self._said))
            telemetry.event("stream.continued", **facts, characters=said, overlap=self._seam.overlap)
            telemetry.mark("devsynth.stream.continued", True)
        self._seam = None
        self._halves.append(self._half)
        if (reply := self.reply()) is not None:
            reply.model, reply.degraded = self._half.model, True
        return replace(chunk, continued_by=name, model=piece.model or self._half.response_model)

    async def _goes_on(self, broken: StreamInterrupted) -> bool:
        """Whether somebody does; not if all tokens were used. Raises what *broken* is if nobody can."""
        said, self._broken_model = "".join(self._said), self._half.model.name
        self._failed.add(self._broken_model)
        cause = broken.__cause__ if isinstance(broken.__cause__, ProviderError) else broken
        why = self._final(said, cause)
        left = self._request.max_tokens - estimate_tokens(said)
        if why is None and left < 1:
            why = "length"
        elif why is None:
            why = await self._asked_on(said, left)
        if why is None:
            self._seam = Seam(said)
            return True
        with self._way_back():
            telemetry.event("stream.not_continued", model=self._broken_model, reason=why, characters=len(said))
        if why == "length":
            return False
        broken.partial = said
        raise cause  # whoever reads this makes it what it is to one who has seen all that was said

    def _final(self, said: str, cause: ProviderError) -> str | None:
        """Why nobody may go on, if so."""
        parameters = self._request.parameters
        if self._called or (self._request.tools and any(mark in said for mark in _CALLS)):
            return "tool_call"
        if not _FORMS.isdisjoint((*parameters, *(parameters.get("extra_body") or ()))):
            return "response_format"
        if not said.isascii() and said != said.encode("utf-8", "replace").decode():
            return "half_a_character"  # which no message can hold
        return cause.kind if cause.kind in self._stops_at else None

    async def _asked_on(self, said: str, left: int) -> str | None:
        """Ask whoever can, until one begins. Why nobody did, if so."""
        why = "nobody_left"
        for provider in self._able():
            able = "prefill" in (provider.model.abilities or ()) and _THOUGHTS.isdisjoint(self._request.parameters)
            request = _fitted(continued(self._request, said, left, prefill=able), provider.model.context_window)
            if request is None:
                continue
            if self._asked == len(self._candidates):
                return "asked_enough"
            deadline = request.call.deadline
            if deadline is not None and asyncio.get_running_loop().time() >= deadline:
                return "deadline"
            self._asked += 1
            try:
                with self._way_back():
                    self._half = await provider.send(request)
            except NotPaid as unpaid:
                why = unpaid.kind
                if not unpaid.passes_on:
                    return why
            except ProviderError as error:
                self._failed.add(provider.model.name)
                why = error.kind
                if why in self._stops_at:
                    return why
            else:
                return None
        return why

    def _able(self) -> Iterator[ProviderPort]:
        """Those who have not failed, and then the one that broke off."""
        tried = self._request.call.tally.attempts
        failed = self._failed | {each.model for each in tried if each.error not in (None, "cancelled")}
        yield from (each for each in self._candidates if each.model.name not in failed)
        yield from (each for each in self._candidates if each.model.name == self._broken_model)


def continued(request: ChatRequest, said: str, max_tokens: int, *, prefill: bool) -> ChatRequest:
    """*request* for whoever goes on from *said*. White space at its end is left out: Anthropic refuses a beginning of
    an answer that ends in some, and the seam knows of it."""
    said = said.rstrip()
    messages = request.messages
    if said and messages[-1].role == "assistant" and not messages[-1].tool_calls:  # the caller began the answer itself
        messages = (*messages[:-1], replace(messages[-1], content=messages[-1].content + said))
    elif said:
        messages = (*messages, Message("assistant", said))
    if said and not prefill:
        messages = (*messages, Message("user", GO_ON))
    return replace(request, messages=messages, max_tokens=max_tokens).on(reason="continuation")


def _fitted(request: ChatRequest, window: int | None) -> ChatRequest | None:
    """*request*, for an answer no longer than the *window* has room for; ``None`` if it has none."""
    room = request.max_tokens if window is None else window - estimate_tokens(request.text)
    if room < 1:
        return None
    return request if request.max_tokens <= room else replace(request, max_tokens=room)


def _together(used: Sequence[Usage]) -> Usage:
    total = used[0]
    for usage in used[1:]:
        total = Usage(
            total.input_tokens + usage.input_tokens,
            total.output_tokens + usage.output_tokens,
            total.cached_input_tokens + usage.cached_input_tokens,
            total.cache_write_tokens + usage.cache_write_tokens,
            total.reasoning_tokens + usage.reasoning_tokens,
            total.estimated or usage.estimated,
        )
    return total
