"""The cost ceiling of a request, held over all its attempts."""

from __future__ import annotations

from typing_extensions import override

from ..analysis import estimate_tokens
from ..errors import BudgetExceeded
from ..reply import Reply
from ..types import ChatRequest, Request
from .wrapper import Wrapper


class Metered(Wrapper):
    """Let an attempt begin only if the request can still pay for the worst it may cost.

    The worst is the whole prompt and as many tokens of answer as were asked for, each of the dearest class. What
    failed attempts may have cost is in the request already; a model whose price is not known can promise nothing, and
    is refused.
    """

    @override
    async def send(self, request: Request) -> Reply:
        ceiling_usd = request.limits.max_cost_usd
        if ceiling_usd is not None:
            self._check(request, round(ceiling_usd * 1_000_000))
        return await self.inner.send(request)

    def _check(self, request: Request, ceiling_micros: int) -> None:
        output_tokens = request.max_tokens if isinstance(request, ChatRequest) else 0
        worst = self.model.worst_micros(estimate_tokens(request.text), output_tokens)
        if worst is None:
            raise BudgetExceeded(f"{self.model.name} has no known price, and the request has a cost ceiling")
        if request.call.spent_micros + worst > ceiling_micros:
            spent = request.call.spent_micros / 1_000_000
            raise BudgetExceeded(
                f"{self.model.name} could cost ${worst / 1_000_000:.6f}, of ${ceiling_micros / 1_000_000:.6f} "
                f"for this request ${spent:.6f} is spent"
            )
