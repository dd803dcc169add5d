"""The cost ceiling of a request, held over all its attempts."""

from __future__ import annotations

from typing_extensions import override

from .. import telemetry
from ..accounts import worst_micros
from ..errors import BudgetExceeded
from ..reply import Reply
from ..types import Request
from .wrapper import Wrapper


class Metered(Wrapper):
    """Let an attempt begin only if the request can still pay for the worst it may cost.

    The worst is set aside until the attempt has ended. What others may have cost, or may yet, is in the request's
    tally; a model whose price is not known can promise nothing, and is refused.
    """

    @override
    async def send(self, request: Request) -> Reply:
        ceiling_usd = request.limits.max_cost_usd
        if ceiling_usd is None:
            return await self.inner.send(request)
        worst, tally = self._worst_micros(request, round(ceiling_usd * 1_000_000)), request.call.tally
        tally.hold(worst)
        try:
            reply = await self.inner.send(request)
        except BaseException:
            tally.hold(-worst)
            raise
        return reply.on_finish(lambda *_: tally.hold(-worst))

    def _worst_micros(self, request: Request, ceiling_micros: int) -> int:
        worst, tally = worst_micros(request, self.model), request.call.tally
        if worst is not None and tally.spent_micros + worst <= ceiling_micros:
            return worst
        telemetry.count(telemetry.BUDGET_REJECTIONS, scope="request")
        if worst is None:
            refusal = BudgetExceeded(f"{self.model.name} has no known price, and the request has a cost ceiling")
        else:
            refusal = BudgetExceeded(
                f"{self.model.name} could cost ${worst / 1_000_000:.6f}, of ${ceiling_micros / 1_000_000:.6f} "
                f"for this request ${tally.spent_micros / 1_000_000:.6f} is spent"
            )
        refusal.attempts, refusal.limit_usd = tally.attempts, ceiling_micros / 1_000_000
        refusal.spent_usd = tally.spent_micros / 1_000_000
        raise refusal
