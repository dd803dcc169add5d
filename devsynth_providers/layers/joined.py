"""Texts that several callers want embedded at about the same time are asked for in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from .. import telemetry
from ..batches import ByText, Capacity, may_be_parted, once, tell_remembered
from ..errors import BudgetExceeded, DevSynthError
from ..flights import Flight, Flights
from ..port import ProviderPort
from ..reply import Reply
from ..types import Chunk, EmbedRequest, Plan, Request, Tenant, Timeouts, Usage, fingerprint
from .wrapper import Wrapper


class Joined(Wrapper):
    """Let requests to embed wait a moment for others, and ask *whole* for the texts of all, each text once.

    Joined is what has one tenant, task, tags, decision, limits and run budgets, if the rule of the *plan* says for how
    long the first waits (``join_embeddings_s``). A batch that has no room left goes at once; a request that fills one
    alone, or has a ceiling of cost of its own, goes to *inner*, as it is. A batch that is refused for what it says, or
    can not be paid whole, is parted between its callers, by halves, until who is to blame is alone, and asks *inner*.

    The call belongs to all who wait for it, as one of ``Coalesced`` does: it has the time that the policy gives, each
    of them has no more than its own, and it ends when nobody is left. One of them tells of its attempts and what they
    cost; the answers of the others are ``shared``. Of the tokens, each has its share by the length of its texts.
    """

    def __init__(
        self,
        inner: ProviderPort,
        whole: ProviderPort,
        plan: Plan,
        flights: Flights,
        *,
        total_s: float = Timeouts().total_s,
    ) -> None:
        super().__init__(inner)
        self._whole = whole
        self._plan = plan
        self._flights = flights
        self._total_s = total_s

    @override
    async def send(self, request: Request) -> Reply:
        window_s, started = self._plan.conduct.join_embeddings_s, asyncio.get_running_loop().time()
        if window_s is None or not isinstance(request, EmbedRequest) or (key := self._key(request)) is None:
            return await self.inner.send(request)
        request = request.begun()
        while True:
            flight, batch = self._boarding(key, request, window_s)
            seat = batch.board(request.texts, self._plan.input_tokens)
            try:
                return (await batch.answer(await flight.heard(request), seat)).since(started)
            except DevSynthError as error:
                if (half := batch.half_of(seat)) is None or not _may_be_parted(error):
                    batch.tell(error, seat)
                    tell_remembered(error, request, self.model.id)
                    raise
                # Those of the same half of the same batch are here in the same turn of the loop.
                key, window_s = f"{key} {flight.request.call.id} {half}", 0.0
            finally:
                batch.leave(seat)

    @property
    def _capacity(self) -> Capacity:
        return Capacity.of(candidate.model for candidate in self._plan.candidates)

    def _key(self, request: EmbedRequest) -> str | None:
        """What those have in common who may be joined; ``None`` if *request* waits for nobody."""
        plan, capacity = self._plan, self._capacity
        fills = len(request.texts) >= capacity.texts or plan.input_tokens >= capacity.tokens
        if fills or request.limits.max_cost_usd is not None:
            return None
        any_text = replace(request, texts=("any",))
        models = (candidate.model for candidate in plan.candidates)
        about = request.limits, request.task, request.tags, [id(run) for run in request.call.runs]
        return fingerprint(Tenant.of(request), any_text, models, "joined", plan.policy, plan.rule, *about)

    def _boarding(self, key: str, request: EmbedRequest, window_s: float) -> tuple[Flight, _Batch]:
        """A call that has not begun, with room for *request*."""
        flight = self._flights.under_way(key)
        if flight is not None and isinstance(batch := flight.inner, _Batch):
            if batch.has_room(request.texts, self._plan.input_tokens):
                telemetry.event("joined", leader=flight.request.call.id)
                flight.link()
                return flight, batch
            batch.go()
        batch = _Batch(self.inner, self._whole, self._capacity, window_s)
        return self._flights.begin(key, batch, request, total_s=self._total_s), batch


class _Batch(Wrapper):
    """Callers who wait, and the one request for the texts of all who still do when it goes."""

    def __init__(self, inner: ProviderPort, whole: ProviderPort, capacity: Capacity, window_s: float) -> None:
        super().__init__(inner)
        self._whole = whole
        self._capacity = capacity
        self._window_s = window_s
        self._go = asyncio.Event()
        self._texts: dict[str, None] = {}
        self._tokens = 0
        self._seats: dict[int, tuple[str, ...]] = {}
        self._aboard: dict[int, tuple[str, ...]] = {}
        self._failed = ByText({}, {})

    def has_room(self, texts: Sequence[str], tokens: int) -> bool:
        """Whether *texts* of so many *tokens* may join those that wait."""
        new = sum(text not in self._texts for text in set(texts))
        fits = len(self._texts) + new <= self._capacity.texts and self._tokens + tokens <= self._capacity.tokens
        return fits and not self._go.is_set()

    def board(self, texts: tuple[str, ...], tokens: int) -> int:
        """The seat of a caller who wants *texts* embedded."""
        seat = len(self._seats)
        self._seats[seat] = texts
        self._texts |= dict.fromkeys(texts)
        self._tokens += tokens
        if len(self._texts) >= self._capacity.texts:
            self.go()
        return seat

    def leave(self, seat: int) -> None:
        """Nobody waits there any more."""
        self._seats[seat] = ()

    def go(self) -> None:
        """Wait for nobody else."""
        self._go.set()

    @override
    async def send(self, request: Request) -> Reply:
        assert isinstance(request, EmbedRequest)
        timer = asyncio.get_running_loop().call_later(self._window_s, self.go)
        try:
            await self._go.wait()
        finally:
            timer.cancel()
        self._aboard = {seat: texts for seat, texts in self._seats.items() if texts}
        self._texts = dict.fromkeys(text for texts in self._aboard.values() for text in texts)
        if len(self._aboard) == 1:
            (alone,) = self._aboard.values()
            return await self.inner.send(replace(request, texts=alone))
        telemetry.event("batch.joined", requests=len(self._aboard), texts=len(self._texts))
        try:
            return await self._whole.send(replace(request, texts=tuple(self._texts)))
        except DevSynthError as error:
            self._failed = ByText.of(error, tuple(self._texts))
            raise

    def tell(self, error: DevSynthError, seat: int) -> None:
        """Have *error* say what came of the texts of who has *seat*, and of nobody else's."""
        if len(self._aboard) > 1:
            self._failed.tell(error, self._aboard[seat])

    def half_of(self, seat: int) -> int | None:
        """In which half of the callers *seat* was; ``None`` if there was only one."""
        seats = list(self._aboard)
        return None if len(seats) < 2 else int(seats.index(seat) >= len(seats) // 2)

    async def answer(self, heard: Reply, seat: int) -> Reply:
        """What of *heard* is for who has *seat*."""
        answer = await heard.read()
        vectors, usage = answer.vectors, answer.usage
        if len(self._aboard) > 1:
            vector_of = dict(zip(self._texts, vectors, strict=True))
            vectors, usage = tuple(vector_of[text] for text in self._aboard[seat]), self._share(usage, seat)
        own = Chunk(vectors=vectors, finish_reason=answer.finish_reason, usage=usage, model=answer.response_model)
        reply = await Reply.open(heard.model, once(own))
        reply.attempts, reply.usage = heard.attempts, usage
        reply.cached, reply.degraded, reply.shared = heard.cached, heard.degraded, heard.shared
        return reply

    def _share(self, usage: Usage, seat: int) -> Usage:
        """Of *usage* the part of who has *seat*: all parts together are the whole."""
        lengths = {each: sum(map(len, texts)) for each, texts in self._aboard.items()}
        before = sum(length for each, length in lengths.items() if each < seat)
        after, whole = before + lengths[seat], sum(lengths.values())

        def part(tokens: int) -> int:
            return tokens * after // whole - tokens * before // whole

        return Usage(
            input_tokens=part(usage.input_tokens),
            output_tokens=part(usage.output_tokens),
            cached_input_tokens=part(usage.cached_input_tokens),
            cache_write_tokens=part(usage.cache_write_tokens),
            reasoning_tokens=part(usage.reasoning_tokens),
            estimated=True,
        )


def _may_be_parted(error: DevSynthError) -> bool:
    """Whether it may be of some of the callers alone."""
    return isinstance(error, BudgetExceeded) or may_be_parted(error)
