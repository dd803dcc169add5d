"""One span for a request, one below it for each attempt. Each ends once, whatever becomes of the answer.

Tokens stand on attempts; on the request they stand as ``devsynth.total.*``, so that summing ``gen_ai.usage.*`` counts
nothing twice. Without an SDK all of it is a no-op.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any, Self

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from typing_extensions import override

from .. import turns
from ..reply import Reply
from ..types import Attempt, ChatRequest, Chunk, Model, Plan, Request
from . import content, facts, logs, metrics, semconv
from .audience import Audience, audience, enter, leave
from .current import Current, breaker_state, racing

_tracer = trace.get_tracer("devsynth_providers")


class RequestSpan(Current):
    """The span of a whole request: the decision, every attempt, and the answer to its last piece. An error that leaves
    its ``with`` ends it."""

    def __init__(self, span: Span, request: Request, policy: str, audience: Audience) -> None:
        super().__init__(span)
        self._request = request
        self._audience = audience
        self._labels: metrics.Labels = {semconv.OPERATION: facts.operation(request), semconv.POLICY: policy}
        self._told: facts.Facts = {}
        self._started = time.monotonic()

    @override
    def __enter__(self) -> Self:
        self._here = enter(self._audience)
        return super().__enter__()

    @override
    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        leave(self._here)
        error = raised[1]
        if error is not None:
            self.finish(None, error)

    def decided(self, plan: Plan) -> None:
        """Note what the policy chose, and why not the others."""
        self._labels[semconv.RULE] = plan.rule
        if self._span.is_recording():
            self._told = {semconv.RULE: plan.rule, semconv.COMPLEXITY: float(plan.complexity)}
            self._span.add_event("policy.decide", facts.of_plan(plan))

    def finish(self, reply: Reply | None, error: BaseException | None) -> None:
        """End the span: the answer is whole, was left early, broke off, or, without a *reply*, never came."""
        if self._span.is_recording():
            about = self._told | facts.totals(self._request.call.tally.attempts)
            self._span.set_attributes(about if reply is None else about | facts.of_answer(reply, error))
        if self._audience.metrics is not None:
            self._measure(self._audience.metrics, reply, error)
        _end(self._span, error)

    def _measure(self, metered: metrics.Metrics, reply: Reply | None, error: BaseException | None) -> None:
        labels, context = self._labels, metrics.within(self._span)
        if metered.project_label and self._request.project:
            labels[semconv.PROJECT] = self._request.project
        if reply is not None and reply.first_token_s is not None and _streamed(self._request):
            metered.record(metrics.REQUEST_FIRST_CHUNK, reply.first_token_s, dict(labels), context)
        labels["devsynth.outcome"] = facts.outcome(error, whole=reply is not None and reply.finish_reason is not None)
        if error is not None and not facts.left(error):
            labels[semconv.ERROR_TYPE] = facts.kind(error)
        metered.record(metrics.REQUEST_DURATION, time.monotonic() - self._started, labels, context)


class AttemptSpan(Current):
    """The span of one try at one model, which hears inside its ``with`` that the attempt has to wait for its turn."""

    def __init__(
        self,
        span: Span,
        request: Request,
        model: Model,
        metered: metrics.Metrics | None,
        shown: content.Shown | None = None,
    ) -> None:
        super().__init__(span)
        self._request = request
        self._model = model
        self._metered = metered
        self._shown = shown
        self.wait_s = 0.0
        """Seconds that this attempt has waited for its turn."""
        self.queued = False
        """Whether it waits for it now."""

    @override
    def __enter__(self) -> AttemptSpan:
        self._listens = turns.listen(self)
        super().__enter__()
        return self

    @override
    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        turns.leave(self._listens)

    def waiting(self) -> None:
        """It waits; how long is told when its turn has come."""
        self.queued = True

    def begun(self, wait_s: float) -> None:
        """Its turn has come."""
        self.queued = False
        self.wait_s += wait_s

    def paced(self, reply: Reply) -> Reply:
        """*reply*, with the time that each further piece of it takes measured, where somebody measures."""
        metered = self._metered
        if metered is None or not _streamed(self._request):
            return reply
        labels, context = self._labels(metered), metrics.within(self._span)
        name = semconv.dialect().per_chunk

        async def measured(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
            clock = time.monotonic
            asked = clock()
            async for chunk in chunks:
                if chunk.text or chunk.tool_calls:
                    metered.record(name, clock() - asked, labels, context)
                yield chunk
                asked = clock()  # from when it is asked for: a slow reader is not the model's fault

        return reply.through(measured)

    def finish(self, attempt: Attempt, reply: Reply | None, error: BaseException | None) -> None:
        """End the span with what *attempt* says, and the *reply*, if there was the beginning of one."""
        span = self._span
        if span.is_recording():
            span.set_attributes(facts.of_outcome(attempt, reply, error))
            if self._shown is not None and reply is not None:
                self._shown.answer(span, reply)
        if self._metered is not None:
            self._measure(self._metered, attempt, error)
        if logs.wanted(error):
            with Current(span):
                logs.ended(attempt, error)
        _end(span, error)

    def _labels(self, metered: metrics.Metrics) -> metrics.Labels:
        labels: metrics.Labels = {**facts.who(self._request, self._model)}
        if metered.project_label and self._request.project:
            labels[semconv.PROJECT] = self._request.project
        return labels

    def _measure(self, metered: metrics.Metrics, attempt: Attempt, error: BaseException | None) -> None:
        labels, context, dialect = self._labels(metered), metrics.within(self._span), semconv.dialect()
        usage = attempt.usage
        if not usage.estimated:
            used = {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cache_read.input_tokens": usage.cached_input_tokens,
                "cache_write.input_tokens": usage.cache_write_tokens,
                "reasoning.output_tokens": usage.reasoning_tokens,
            }
            metered.tokens(used, labels, context)
        if attempt.cost_micros:
            costs = {**labels, semconv.COST_BASIS: attempt.cost_basis}
            metered.add(metrics.COST, attempt.cost_micros / 1_000_000, costs, context)
        if attempt.first_token_s is not None and _streamed(self._request):
            metered.record(dialect.first_chunk, attempt.first_token_s - attempt.wait_s, labels, context)
        if error is not None and not facts.left(error):
            labels[semconv.ERROR_TYPE] = facts.kind(error)
        took_s = attempt.latency_s - attempt.wait_s
        metered.record(dialect.duration(facts.operation(self._request)), took_s, labels, context)
        labels[semconv.REASON] = attempt.reason
        labels["devsynth.outcome"] = facts.outcome(error, whole=attempt.finish_reason is not None)
        metered.add(metrics.ATTEMPTS, 1, labels, context)


def request_span(request: Request, policy: str, version: str | None = None) -> RequestSpan:
    """Open the span of *request*: current inside the ``with``; it ends with the answer, or with the error."""
    here = audience()
    if not here.traces:
        return RequestSpan(trace.INVALID_SPAN, request, policy, here)
    about = facts.of_request(request) | {semconv.POLICY: policy}
    if version is not None:
        about[semconv.POLICY_VERSION] = version
    span = _started(f"{facts.operation(request)} {policy}", about)
    return RequestSpan(span, request, policy, here)


def attempt_span(request: Request, model: Model, *, show_content: bool = False) -> AttemptSpan:
    """Open the span of one attempt: current inside the ``with``; whoever opened it calls ``finish``. *show_content*
    says that the policy lets what is asked and answered be shown, where the environment wants that too."""
    here = audience()
    if not here.traces:
        return AttemptSpan(trace.INVALID_SPAN, request, model, here.metrics)
    kind = SpanKind.INTERNAL if model.provider in semconv.IN_PROCESS else SpanKind.CLIENT
    name = f"{facts.operation(request)} {model.id}"
    about = facts.of_attempt(request, model)
    if state := breaker_state():
        about[semconv.BREAKER_STATE] = state
    span = _started(name, about, kind)
    racing(span)
    shown = None
    if show_content and span.is_recording() and (shown := content.wanted(request)) is not None:
        shown.question(span)
    return AttemptSpan(span, request, model, here.metrics, shown)


def _streamed(request: Request) -> bool:
    return isinstance(request, ChatRequest) and request.stream


def _started(name: str, about: facts.Facts, kind: SpanKind = SpanKind.INTERNAL) -> Span:
    """A span that has begun; none, if what looks on fails: that is no reason to fail a call."""
    try:
        return _tracer.start_span(name, kind=kind, attributes=about)
    except Exception as error:  # noqa: BLE001 - samplers and processors are the application's
        logs.lost(type(error).__qualname__)
        return trace.INVALID_SPAN


def _end(span: Span, error: BaseException | None) -> None:
    if error is not None and facts.left(error):
        span.set_attribute(semconv.CANCELLED, True)
    elif error is not None:
        span.set_attribute(semconv.ERROR_TYPE, facts.kind(error))
        span.set_status(Status(StatusCode.ERROR, facts.described(error)))
    try:
        span.end()
    except Exception as failed:  # noqa: BLE001 - as above
        logs.lost(type(failed).__qualname__)
