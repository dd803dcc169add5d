"""The one owner of retries at the same model."""

from __future__ import annotations

import asyncio
import itertools
import random

from typing_extensions import override

from .. import telemetry
from ..errors import CircuitOpen, LimitReached, NotPaid, ProviderError
from ..health import RetryBudget
from ..port import ProviderPort
from ..reply import Reply
from ..types import Request, Retry
from .wrapper import Wrapper


class Retrying(Wrapper):
    """Ask the same model again after an error that may pass, while the deadline leaves time to wait.

    A provider that says how long to wait is obeyed; one that wants to be left alone for longer than ``cap_s``, or
    past the deadline, is not asked again here: the next model is. Nor is one whose next try could not be paid, or for
    which the *budget* that all models share has no retry left; requests earn it, before they come here.
    """

    def __init__(
        self,
        inner: ProviderPort,
        retry: Retry = Retry(),
        *,
        jitter: random.Random | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        super().__init__(inner)
        self.retry = retry
        self._jitter = jitter or random.Random()
        self._budget = budget

    @override
    async def send(self, request: Request) -> Reply:
        error: ProviderError | None = None
        for attempt in itertools.count(1):
            try:
                return await self.inner.send(request)
            except NotPaid:
                if error is None:
                    raise
                wait_s = None  # one more try can not be paid: what is to be told is why the last one failed
            except (CircuitOpen, LimitReached) as refusal:
                if error is None:
                    raise
                raise refusal from error  # why the last try failed says more than that there was no other
            except ProviderError as caught:
                error = caught
                wait_s = self._wait_s(attempt, error, request)
            if wait_s is None:
                raise error
            telemetry.event("retry.scheduled", model=self.model.name, reason=error.kind, delay_s=wait_s)
            request = request.on(reason="retry")
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    def _wait_s(self, attempt: int, error: ProviderError, request: Request) -> float | None:
        """How long to wait before asking again, or ``None`` if it is no use."""
        if not error.retryable or attempt >= self.retry.attempts:
            return None
        wait_s = self._jitter.uniform(0, min(self.retry.cap_s, self.retry.initial_s * 2 ** (attempt - 1)))
        asked: float = getattr(error, "retry_after_s", None) or 0.0
        if asked > self.retry.cap_s:
            return None
        wait_s = max(wait_s, asked)
        deadline = request.call.deadline
        if deadline is not None and asyncio.get_running_loop().time() + wait_s >= deadline:
            return None
        if self._budget is not None and not self._budget.spend():
            telemetry.event("retry.denied", model=self.model.name, reason=error.kind)
            return None
        return wait_s
