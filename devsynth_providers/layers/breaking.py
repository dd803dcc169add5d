"""A server that fails, or is slow, is left alone for a while."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from typing_extensions import override

from .. import telemetry, turns
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
from ..health import NEUTRAL, Circuit, Pass, State, Verdict
from ..port import ProviderPort
from ..reply import Reply
from ..timers import ring_at
from ..types import ChatRequest, Model, Request, Timeouts
from .wrapper import Wrapper

LOST = 1 / 3
"""The share of its time after which an attempt that nothing has come of may be lost, if others go the same way."""
NO_KEY_S = 300.0
"""A key that was refused is not shown again for so long."""
NO_MONEY_S = 600.0
"""An account that is spent is asked again after so long."""
SLOWEST_TOKENS_PER_S = 5.0
"""A whole answer is not slow for being long: each second may bring so few tokens."""

_OURS = (CircuitOpen, LimitReached, ContextTooLong, RequestRejected, ContentFiltered)
"""What the request is to blame for, not the server."""
_CLOSED = "closed"
"""The code of an error that the end of its provider here has made."""
_FORBIDDEN = 403
"""May be for this prompt, or this address, alone: not what a wrong key is."""
_HERE = frozenset(("localhost", "127.0.0.1", "::1"))


class Breaking(Wrapper):
    """Let no attempt through while the *circuit* is open: ``CircuitOpen`` at once. It learns from how attempts end.

    An answer that came whole is good, one that broke off is bad, one that the caller left or that nobody paid says
    nothing. Half of the time that *timeouts* allow for the first content is slow; and running out of time says
    something only of a model that had as much. A whole answer is silent until it is done: where nothing has come of
    several, nor of any other since, that says something while they last. What runs on this machine is never slow: no
    other server would be asked for being faster. *spread* hears of each change.
    """

    def __init__(
        self,
        inner: ProviderPort,
        circuit: Circuit,
        timeouts: Timeouts = Timeouts(),
        spread: Callable[[Model, Circuit], None] | None = None,
    ) -> None:
        super().__init__(inner)
        self.circuit = circuit
        self._spread = spread
        self._total_s = timeouts.total_s
        self._enough_s = min(timeouts.first_token_s, timeouts.total_s) / 2
        self._slow_s = math.inf if _on_this_machine(inner.model) else self._enough_s

    @override
    async def send(self, request: Request) -> Reply:
        time = asyncio.get_running_loop().time
        started, deadline = time(), request.call.deadline
        allowed_s = self._total_s if deadline is None else deadline - started
        leave = self._admitted(request, allowed_s)
        note = self._notary()
        may_take_s = self._may_take_s(request)
        lost_s = max(self._enough_s, min(allowed_s * LOST, may_take_s))
        watch = _Watch(
            lambda since, lost: note(self.circuit.unheard(leave, since, lost=lost)),
            () if may_take_s == math.inf else sorted({self._enough_s, lost_s}),
        )
        try:
            with watch, telemetry.Beside(self._state(leave)):
                reply = await self.inner.send(request)
        except BaseException as error:
            note(self.circuit.settle(leave, self._of_error(error, time() - started)))
            raise
        note(self.circuit.heard(leave, slow=time() - watch.since > may_take_s))

        def finish(reply: Reply, error: BaseException | None) -> None:
            late = error is not None and deadline is not None and time() >= deadline
            if error is None:
                verdict = self._of_answer(reply, request, started)
            else:
                verdict = NEUTRAL if late else self._of_error(error, time() - started)
            note(self.circuit.settle(leave, verdict))

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
            telemetry.count(telemetry.BREAKER_TRANSITIONS, model=self.model.name, state="half_open")
        return leave

    def _state(self, leave: Pass) -> State:
        """What the circuit is, of which *leave* was got."""
        if leave.probe:
            return "half_open"
        return "closed" if self.circuit.closed else "open"  # but for slowness alone

    def _notary(self) -> Callable[[State | None], None]:
        """What notes on the span that is current now where the circuit was led to, also when it no longer is."""
        tell, circuit = telemetry.teller(), self.circuit

        def note(led_to: State | None) -> None:
            if led_to == "open":
                reason, retry_after_s = circuit.reason, circuit.retry_after_s
                tell("breaker.open", model=self.model.name, reason=reason, retry_after_s=retry_after_s)
            elif led_to == "closed":
                tell("breaker.closed", model=self.model.name)
            if led_to is not None:
                telemetry.count(telemetry.BREAKER_TRANSITIONS, model=self.model.name, state=led_to)
                if self._spread is not None:
                    self._spread(self.model, circuit)

        return note

    def _may_take_s(self, request: Request, tokens: int | None = None) -> float:
        """How long the first content may take; a whole answer comes at once, of so many *tokens*, or as it may be."""
        if not isinstance(request, ChatRequest) or request.stream:
            return self._slow_s
        return self._slow_s + (request.max_tokens if tokens is None else tokens) / SLOWEST_TOKENS_PER_S

    def _of_answer(self, reply: Reply, request: Request, started: float) -> Verdict:
        if not reply.finish_reason:
            return NEUTRAL
        usage = reply.usage or reply.reported_usage
        may_take_s = self._may_take_s(request, usage.output_tokens if usage else 0)
        waited_s = reply.attempts[-1].wait_s if reply.attempts else 0.0
        return Verdict(good=True, slow=reply.begun is not None and reply.begun - started - waited_s > may_take_s)

    def _of_error(self, error: BaseException, took_s: float) -> Verdict:
        if not isinstance(error, ProviderError) or isinstance(error, _OURS) or error.code == _CLOSED:
            return NEUTRAL
        waited_s = error.attempts[-1].wait_s if error.attempts else 0.0
        ours = isinstance(error, ProviderTimeout) and error.billed and not error.status  # not theirs, nor to connect
        if ours and took_s - waited_s < self._enough_s:
            return NEUTRAL
        reason = f"{error.kind}, HTTP {error.status}" if error.status else error.kind
        if isinstance(error, QuotaExhausted):
            return Verdict(bad=True, reason=reason, at_once=True, hold_s=NO_MONEY_S)
        if isinstance(error, AuthenticationError) and error.status != _FORBIDDEN:
            return Verdict(bad=True, reason=reason, at_once=True, hold_s=NO_KEY_S)
        hold_s: float = getattr(error, "retry_after_s", None) or 0.0
        return Verdict(bad=True, reason=reason, at_once=isinstance(error, ModelNotFound), hold_s=hold_s)


class _Watch:
    """Says, while an attempt lasts, that nothing has come of it *after_s* seconds of work, and those are several.

    Waiting for its turn is no work. *say* hears when the work began, and whether that was the last time.
    """

    def __init__(self, say: Callable[[float, bool], None], after_s: Sequence[float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._say = say
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None
        self.since = self._loop.time()

    def __enter__(self) -> None:
        self._listens = turns.listen(self)
        self._set(0)

    def __exit__(self, *_: object) -> None:
        turns.leave(self._listens)
        self.waiting()

    def waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def begun(self, wait_s: float) -> None:
        self.waiting()
        self.since = self._loop.time()
        self._set(0)

    def _set(self, number: int) -> None:
        if number < len(self._after_s):
            self._timer = ring_at(self._loop, self.since + self._after_s[number], self._late, number)

    def _late(self, number: int) -> None:
        self._set(number + 1)
        self._say(self.since, number + 1 == len(self._after_s))


def _on_this_machine(model: Model) -> bool:
    return model.path is not None or urlsplit(model.base_url or "").hostname in _HERE
