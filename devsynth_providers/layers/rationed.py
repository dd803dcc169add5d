"""No more than a provider takes, by all processes together: what they have sent is kept where all of them look."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from .. import telemetry, turns
from ..limits import Limiter
from ..policy import RateLimits
from ..port import ProviderPort
from ..reply import Reply
from ..stores.servers import Kind, server_key
from ..stores.shared import Full, Leave, Quota, Shared, SharedUnavailable
from ..types import Request, Timeouts
from .turn import SPARE_S, most_tokens, refusal, told, used
from .wrapper import Wrapper

AWAY_S = 5.0
"""What can not be reached is not asked again for so long: each time may take seconds."""
_log = logging.getLogger("devsynth_providers")


@dataclass(frozen=True, slots=True)
class _Gates:
    """What a call passes: for those who count, and, in the same order, for people."""

    quotas: Sequence[Quota]
    names: Sequence[str]


class Rationed(Wrapper):
    """Let a call pass whose turn it is in this process only if it is within the limits of all that use *shared*.

    The *limiter* says what these are. Whoever has no leave asks for it again, when there is likely to be some; no
    order is kept between processes. Where *shared* can not be reached the limits of this process hold alone.
    """

    def __init__(self, inner: ProviderPort, limiter: Limiter, shared: Shared, timeouts: Timeouts = Timeouts()) -> None:
        super().__init__(inner)
        self._limiter = limiter
        self._shared = shared
        self._total_s = timeouts.total_s
        self._warned = False
        self._away_until = 0.0

    @override
    async def send(self, request: Request) -> Reply:
        gates = self._gates(request)
        if not gates.quotas or time.monotonic() < self._away_until:
            return await self.inner.send(request)
        tokens = most_tokens(request)
        leave = await self._leave(request, gates, tokens)
        if leave is None:
            return await self.inner.send(request)
        try:
            reply = await self.inner.send(request)
        except BaseException as error:
            self._shared.left(gates.quotas, leave, used(error, tokens))
            raise
        return reply.on_finish(
            lambda reply, _: self._shared.left(gates.quotas, leave, told(reply.reported_usage, tokens))
        )

    async def _leave(self, request: Request, gates: _Gates, tokens: int) -> Leave | None:
        clock = asyncio.get_running_loop().time
        began, waits, name = clock(), False, ""
        deadline = began + self._total_s if request.call.deadline is None else request.call.deadline
        while True:
            try:
                answer = await self._shared.enter(gates.quotas, tokens, max(0.0, deadline - clock()))
            except SharedUnavailable as error:
                answer = None
                self._left_alone(error)
            if not isinstance(answer, Full):
                break
            name = gates.names[answer.number]
            if not waits:
                turns.waiting()
                waits = True
            if clock() + answer.wait_s > deadline - SPARE_S:
                turns.begun(clock() - began)
                raise refusal(self.model, name, answer.wait_s)
            await asyncio.sleep(answer.wait_s)
        if waits:
            waited_s = clock() - began
            turns.begun(waited_s)
            telemetry.measure(telemetry.QUEUE_WAIT, waited_s, model=self.model.name)
            telemetry.event("limit.waited", limit=name, wait_s=waited_s, shared=True)
        return answer

    def _gates(self, request: Request) -> _Gates:
        """For the provider's account at its place, and for the model there; of each, for the project, and for all."""
        model, project = self.model, request.project
        whole, own = self._limiter.rates(model)
        quotas, names = list[Quota](), list[str]()
        all_rates: tuple[tuple[Kind, str, RateLimits | None], ...] = (
            ("provider", model.provider, whole),
            ("model", model.name, own),
        )
        for kind, name, rates in all_rates:
            for each, of in ((rates, None), (None if rates is None else rates.per_project, project or "")):
                if each is not None and _limits(each):
                    gate = server_key(model, kind, "" if of is None else f"for {of}")
                    quotas.append(Quota(gate, each.requests_per_minute, each.tokens_per_minute, each.concurrent))
                    names.append(name if of is None else f"{name} for {of or 'requests of no project'}")
        return _Gates(quotas, names)

    def _left_alone(self, error: SharedUnavailable) -> None:
        self._away_until = time.monotonic() + AWAY_S
        if not self._warned:
            self._warned = True
            _log.warning("limits hold for this process alone: %s", error)


def _limits(rates: RateLimits) -> bool:
    return (rates.requests_per_minute, rates.tokens_per_minute, rates.concurrent) != (None, None, None)
