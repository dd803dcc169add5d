"""A server that fails, or is slow, is left alone for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from typing_extensions import override

from .. import telemetry
from ..errors import (
    AuthenticationError,
    CircuitOpen,
    ContentFiltered,
    ContextTooLong,
    LimitReached,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
    QuotaExhausted,
    RequestRejected,
)
from ..health import NEUTRAL, Circuit, Pass, Verdict
from ..port import ProviderPort
from ..reply import Reply
from ..types import ChatRequest, Model, Request, Timeouts
from .wrapper import Wrapper

LEASE_S = 120.0
"""How long an attempt without a deadline may take."""
NO_KEY_S = 300.0
"""A key that was refused is not shown again for so long."""
NO_MONEY_S = 600.0
"""An account that is spent is asked again after so long."""
SLOWEST_TOKENS_PER_S = 5.0
"""A whole answer is not slow for being long: each second may bring so few tokens."""

_OURS = (CircuitOpen, LimitReached, ContextTooLong, RequestRejected, ContentFiltered)
"""What the request is to blame for, not the server."""
_FORBIDDEN = 403
"""May be for this prompt, or this address, alone: not what a wrong key is."""
_HERE = frozenset(("localhost", "127.0.0.1", "::1"))


class Breaking(Wrapper):
    """Let no attempt through while the *circuit* is open: ``CircuitOpen`` at once. It learns from how attempts end.

    An answer that came whole is good, one that broke off is bad, one that the caller left or that nobody paid says
    nothing. Half of the time that *timeouts* allow for the first content is slow; and running out of time says
    something only of a model that had as much. What runs on this machine is never slow: no other server would be
    asked for being faster.
    """

    def __init__(self, inner: ProviderPort, circuit: Circuit, timeouts: Timeouts = Timeouts()) -> None:
        super().__init__(inner)
        self.circuit = circuit
        self._enough_s = min(timeouts.first_token_s, timeouts.total_s) / 2
        self._slow_s = float("inf") if _on_this_machine(inner.model) else self._enough_s

    @override
    async def send(self, request: Request) -> Reply:
        time = asyncio.get_running_loop().time
        started, deadline = time(), request.call.deadline
        leave = self._admitted(request, LEASE_S if deadline is None else deadline - started)
        tell = telemetry.teller()  # an answer ends when the span of the request is no longer the current one
        try:
            reply = await self.inner.send(request)
        except BaseException as error:
            self._settle(leave, self._of_error(error, time() - started), tell)
            raise
        if leave.probe:  # there is content: it is back, however long the rest will take
            self._settle(leave, Verdict(good=True), tell)
            leave = self.circuit.admit(LEASE_S) or leave

        def finish(reply: Reply, error: BaseException | None) -> None:
            late = error is not None and deadline is not None and time() >= deadline
            if error is None:
                verdict = self._of_answer(reply, request, started)
            else:
                verdict = NEUTRAL if late else self._of_error(error, time() - started)
            self._settle(leave, verdict, tell)

        return reply.on_finish(finish)

    def _admitted(self, request: Request, lease_s: float) -> Pass:
        leave = self.circuit.admit(lease_s)
        if leave is None:
            model, wait_s = self.model, self.circuit.retry_after_s
            telemetry.event("breaker.refused", model=model.name, reason=self.circuit.reason, retry_after_s=wait_s)
            refusal = CircuitOpen(
                f"{model.name} is not asked: {self.circuit}",
                provider=model.provider,
                model=model.name,
                code=CircuitOpen.kind,
            )
            refusal.retry_after_s, refusal.attempts = wait_s, request.call.tally.attempts
            raise refusal
        if leave.probe:
            telemetry.event("breaker.half_open", model=self.model.name, reason=self.circuit.reason)
        return leave

    def _settle(self, leave: Pass, verdict: Verdict, tell: Callable[..., None]) -> None:
        led_to = self.circuit.settle(leave, verdict)
        if led_to == "open":
            circuit = self.circuit
            tell("breaker.open", model=self.model.name, reason=circuit.reason, retry_after_s=circuit.retry_after_s)
        elif led_to == "closed":
            tell("breaker.closed", model=self.model.name)

    def _of_answer(self, reply: Reply, request: Request, started: float) -> Verdict:
        if not reply.finish_reason:
            return NEUTRAL
        may_take_s = self._slow_s
        if not (isinstance(request, ChatRequest) and request.stream):
            usage = reply.usage or reply.reported_usage
            may_take_s += (usage.output_tokens if usage else 0) / SLOWEST_TOKENS_PER_S
        waited_s = reply.attempts[-1].wait_s if reply.attempts else 0.0
        return Verdict(good=True, slow=reply.begun is not None and reply.begun - started - waited_s > may_take_s)

    def _of_error(self, error: BaseException, took_s: float) -> Verdict:
        if not isinstance(error, ProviderError) or isinstance(error, _OURS):
            return NEUTRAL
        waited_s = error.attempts[-1].wait_s if error.attempts else 0.0
        if isinstance(error, ProviderTimeout) and took_s - waited_s < self._enough_s:
            return NEUTRAL
        reason = f"{error.kind}, HTTP {error.status}" if error.status else error.kind
        if isinstance(error, QuotaExhausted):
            return Verdict(bad=True, reason=reason, at_once=True, hold_s=NO_MONEY_S)
        if isinstance(error, AuthenticationError) and error.status != _FORBIDDEN:
            return Verdict(bad=True, reason=reason, at_once=True, hold_s=NO_KEY_S)
        hold_s: float = getattr(error, "retry_after_s", None) or 0.0
        return Verdict(bad=True, reason=reason, at_once=isinstance(error, ModelNotFound), hold_s=hold_s)


def _on_this_machine(model: Model) -> bool:
    return model.path is not None or urlsplit(model.base_url or "").hostname in _HERE
