"""Equal requests under way at the same time are one call, whole or streamed."""

from __future__ import annotations

from typing_extensions import override

from .. import telemetry
from ..batches import tell_remembered
from ..errors import DevSynthError
from ..flights import Flights
from ..port import ProviderPort
from ..reply import Reply
from ..types import Plan, Request, Tenant, Timeouts, fingerprint
from .wrapper import Wrapper


class Coalesced(Wrapper):
    """Let a request listen to the call of an equal one that is under way; one that is like no other begins a call.

    Equal is what has one fingerprint, under one decision, with the same limits, and paid from the same budgets; which
    requests take part, says the rule of the *plan*. The call belongs to all who listen: it has the time that the policy
    gives, *total_s*, goes on when who began it is cancelled, late or gone, and is ended when nobody listens any more.
    Each of its attempts, and what it cost, is told by one of them: who began it, or, after an early leave, who has
    listened longest. The answers of those who tell of none are ``shared``.
    """

    def __init__(
        self, inner: ProviderPort, plan: Plan, flights: Flights, *, total_s: float = Timeouts().total_s
    ) -> None:
        super().__init__(inner)
        self._plan = plan
        self._flights = flights
        self._total_s = total_s

    @override
    async def send(self, request: Request) -> Reply:
        key = self._key(request) if self._plan.conduct.shares(sampled=request.sampled) else None
        if key is None:
            return await self.inner.send(request)
        request = request.begun()
        flight = self._flights.under_way(key)
        if flight is None:
            flight = self._flights.begin(key, self.inner, request, total_s=self._total_s)
        else:
            telemetry.event("coalesced", leader=flight.request.call.id)
            flight.link()
        try:
            return await flight.heard(request)
        except DevSynthError as error:  # the call may have had more time than this request
            tell_remembered(error, request, self.model.id)
            raise

    def _key(self, request: Request) -> str | None:
        plan = self._plan
        models = (candidate.model for candidate in plan.candidates)
        payers = request.task, [id(run) for run in request.call.runs]  # what one can not pay for, another may
        return fingerprint(Tenant.of(request), request, models, plan.policy, plan.rule, request.limits, *payers)
