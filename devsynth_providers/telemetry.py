"""The only module that knows OpenTelemetry: one span for a request, one below it for each attempt.

Without an SDK all of it is a no-op. Content never reaches a span; what does is listed in ``docs/telemetry.md``.
Names follow the GenAI semantic conventions v1.41, ours start with ``devsynth.``. Tokens stand on attempts; on the
request they stand as ``devsynth.total.*``, so that summing ``gen_ai.usage.*`` counts nothing twice.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, Token
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from typing_extensions import override

from . import turns
from .errors import ConfigurationError, DevSynthError, ProviderError
from .reply import Reply
from .types import Attempt, ChatRequest, Model, Plan, Request, Tally

T = TypeVar("T")
Attribute = str | bool | int | float | list[str]

_PROVIDER_NAMES = {"lmstudio": "lm_studio", "local": "llama_cpp"}
_IN_PROCESS = frozenset(("local", "stub"))


_tracer = trace.get_tracer("devsynth_providers")


class Racer:
    """One of two that are asked at the same time: its spans tell which of the other it lost to."""

    def __init__(self) -> None:
        self._span: Span = trace.INVALID_SPAN

    async def run(self, work: Awaitable[T]) -> T:
        """Do *work*, as a task of its own; the attempts in it are this one's."""
        _racer.set(self)
        return await work

    def attempted(self, span: Span) -> None:
        """Its next attempt has begun."""
        self._span = span

    def lost_to(self, winner: Racer) -> None:
        """Link what it is doing now to what *winner* did."""
        if self._span.is_recording():
            self._span.add_link(winner._span.get_span_context())


_racer: ContextVar[Racer | None] = ContextVar("devsynth_racer", default=None)


class _Current:
    """A span that is the current one inside a ``with``, which does not end it. Without an SDK it is ``INVALID_SPAN``,
    and nothing changes."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[context.Context] | None = None

    def __enter__(self) -> Self:
        if self._span is not trace.INVALID_SPAN:
            self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, *raised: Any) -> None:
        if self._token is not None:
            context.detach(self._token)


class RequestSpan(_Current):
    """The span of a whole request: the decision, every attempt, and the answer to its last piece. An error that leaves
    its ``with`` ends it."""

    def __init__(self, span: Span, tally: Tally) -> None:
        super().__init__(span)
        self._tally = tally

    @override
    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        error = raised[1]
        if error is not None:
            self.fail(error)

    def decided(self, plan: Plan) -> None:
        """Note what the policy chose, and why not the others."""
        if not self._span.is_recording():
            return
        self._span.set_attributes(
            {
                "devsynth.policy.name": plan.policy,
                "devsynth.policy.rule": plan.rule,
                "devsynth.task.complexity": plan.complexity,
            }
        )
        facts: dict[str, Attribute] = {
            "devsynth.policy.order": list(plan.models),
            "devsynth.policy.rejected": [f"{r.model}: {r.code}" for r in plan.rejected],
            "devsynth.task.evidence": [f"{e.name}={e.value:g} ({e.contribution:+.2f})" for e in plan.evidence],
            "devsynth.input_tokens.estimated": plan.input_tokens,
        }
        if plan.explored:
            facts["devsynth.policy.explored"] = True
        facts |= {f"devsynth.limit.{name}": value for name, value in plan.limits.given.items()}
        self._span.add_event("policy.decide", facts)

    def finish(self, reply: Reply, error: BaseException | None) -> None:
        """End the span: the answer is whole, was left early, or broke off."""
        if self._span.is_recording():
            facts = _totals(self._tally.attempts)
            facts["gen_ai.response.model"] = reply.response_model or reply.model.name
            facts["devsynth.degraded"] = reply.degraded or bool(reply.continued_by)
            facts["devsynth.cache.hit"] = reply.cached
            if finish_reason := reply.finish_reason:
                facts["gen_ai.response.finish_reasons"] = [finish_reason]
            elif error is None:
                facts["devsynth.stream.abandoned"] = True
            if reply.first_token_s is not None:
                facts["gen_ai.response.time_to_first_chunk"] = reply.first_token_s
            self._span.set_attributes(facts)
        _end(self._span, error)

    def fail(self, error: BaseException) -> None:
        """End the span of a request that was never answered."""
        if self._span.is_recording():
            self._span.set_attributes(_totals(self._tally.attempts))
        _end(self._span, error)


class AttemptSpan(_Current):
    """The span of one try at one model, which hears inside its ``with`` that the attempt has to wait for its turn."""

    def __init__(self, span: Span) -> None:
        super().__init__(span)
        self.wait_s = 0.0
        """Seconds that this attempt has waited for its turn."""
        self.queued = False
        """Whether it waits for it now."""

    @override
    def __enter__(self) -> Self:
        self._listens = turns.listen(self)
        return super().__enter__()

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

    def finish(self, attempt: Attempt, response_model: str, error: BaseException | None) -> None:
        """End the span with what *attempt* says."""
        if self._span.is_recording():
            facts: dict[str, Attribute] = {
                "gen_ai.usage.input_tokens": attempt.usage.input_tokens,
                "gen_ai.usage.output_tokens": attempt.usage.output_tokens,
                "devsynth.cost.basis": attempt.cost_basis,
                "devsynth.usage.estimated": attempt.usage.estimated,
            }
            if attempt.cost_micros is not None:
                facts["devsynth.cost.usd_micros"] = attempt.cost_micros
            if attempt.wait_s:
                facts["devsynth.attempt.wait_s"] = attempt.wait_s
            if attempt.first_token_s is not None:
                facts["gen_ai.response.time_to_first_chunk"] = attempt.first_token_s
            if response_model:
                facts["gen_ai.response.model"] = response_model
            if attempt.finish_reason:
                facts["gen_ai.response.finish_reasons"] = [attempt.finish_reason]
            elif error is None:
                facts["devsynth.stream.abandoned"] = True
            self._span.set_attributes(facts)
            status = getattr(error, "status", None)
            if status:
                self._span.set_attribute("http.response.status_code", status)
        _end(self._span, error)


def request_span(request: Request, policy: str) -> RequestSpan:
    """Open the span of *request*: current inside the ``with``; it ends with the answer, or with the error."""
    if not _somebody_listens():
        return RequestSpan(trace.INVALID_SPAN, request.call.tally)
    span = _tracer.start_span(f"{_operation(request)} {policy}", attributes=_request_facts(request))
    return RequestSpan(span, request.call.tally)


def attempt_span(request: Request, model: Model) -> AttemptSpan:
    """Open the span of one attempt: current inside the ``with``; whoever opened it calls ``finish``."""
    if not _somebody_listens():
        return AttemptSpan(trace.INVALID_SPAN)
    kind = SpanKind.INTERNAL if model.provider in _IN_PROCESS else SpanKind.CLIENT
    name = f"{_operation(request)} {model.id}"
    span = _tracer.start_span(name, kind=kind, attributes=_attempt_facts(request, model))
    if (racer := _racer.get()) is not None:
        racer.attempted(span)
    return AttemptSpan(span)


def event(name: str, **facts: Attribute | None) -> None:
    """Note something on the current span."""
    teller()(name, **facts)


def teller() -> Callable[..., None]:
    """What notes things as ``event`` does, on the span that is current now, also when it no longer is."""
    span = trace.get_current_span()

    def tell(name: str, **facts: Attribute | None) -> None:
        if span.is_recording():
            span.add_event(name, {key: value for key, value in facts.items() if value is not None})

    return tell


def linker() -> Callable[[], None]:
    """What links the span that is current when it is called to the one that is current now."""
    to = trace.get_current_span().get_span_context()

    def link() -> None:
        if to.is_valid:
            trace.get_current_span().add_link(to)

    return link


def way_back() -> Callable[[], _Current]:
    """What makes the span that is current now the current one again: for what is done when others read the answer."""
    span = trace.get_current_span()
    return lambda: _Current(span)


def mark(name: str, value: Attribute) -> None:
    """Say something of the current span, unless it has ended: whoever began a call that others share may have left."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute(name, value)


def trace_id() -> str | None:
    """The id of the current trace as Jaeger shows it, or ``None`` where nothing is traced."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def configure(*, service_name: str = "devsynth_providers", exporter: Any = None) -> None:
    """Send spans by OTLP as the standard ``OTEL_*`` variables say, or, in its place, to *exporter* as each ends.

    An application that has set tracing up keeps its own set-up; *exporter* is added to it. Raises
    ``ConfigurationError`` for an ``OTEL_EXPORTER_OTLP_PROTOCOL`` other than ``grpc`` and ``http/protobuf``.
    """
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the SDK, only for those who trace
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        name = os.environ.get("OTEL_SERVICE_NAME", service_name)
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        if exporter is None:
            provider.add_span_processor(BatchSpanProcessor(_otlp_exporter()))
        trace.set_tracer_provider(provider)
    if exporter is not None and isinstance(provider, TracerProvider):
        provider.add_span_processor(SimpleSpanProcessor(exporter))


def _otlp_exporter() -> Any:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"
    )
    doors = {"grpc": "grpc", "http/protobuf": "http"}
    if protocol not in doors:
        raise ConfigurationError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; use one of {', '.join(doors)}")
    module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{doors[protocol]}.trace_exporter")
    return module.OTLPSpanExporter()


def _operation(request: Request) -> str:
    return "chat" if isinstance(request, ChatRequest) else "embeddings"


def _somebody_listens() -> bool:
    """Whether there is an SDK. Without one nothing is gathered, and no context changed, for spans that nobody makes."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _request_facts(request: Request) -> dict[str, Attribute]:
    facts: dict[str, Attribute] = {"gen_ai.operation.name": _operation(request), "devsynth.call_id": request.call.id}
    about = {"devsynth.project_id": request.project, "devsynth.task": request.task, "devsynth.role": request.role}
    facts |= {name: value for name, value in about.items() if value}
    if request.tags:
        facts["devsynth.tags"] = list(request.tags)
    return facts


def _attempt_facts(request: Request, model: Model) -> dict[str, Attribute]:
    facts: dict[str, Attribute] = {
        "gen_ai.operation.name": _operation(request),
        "gen_ai.provider.name": _PROVIDER_NAMES.get(model.provider, model.provider),
        "gen_ai.request.model": model.id,
        "devsynth.model": model.name,
        "devsynth.attempt": request.call.attempt,
        "devsynth.attempt.reason": request.call.reason,
    }
    if isinstance(request, ChatRequest):
        facts["gen_ai.request.temperature"] = request.temperature
        facts["gen_ai.request.max_tokens"] = request.max_tokens
        facts["gen_ai.request.stream"] = request.stream
        if request.stop:
            facts["gen_ai.request.stop_sequences"] = list(request.stop)
    if model.base_url:
        facts["server.address"], facts["server.port"] = _server(model.base_url)
    return facts


@functools.lru_cache(maxsize=256)
def _server(base_url: str) -> tuple[str, int]:
    """Host and port, which are the same for all calls of a model."""
    address = urlsplit(base_url)
    return address.hostname or "", address.port or (443 if address.scheme == "https" else 80)


def _totals(attempts: tuple[Attempt, ...]) -> dict[str, Attribute]:
    facts: dict[str, Attribute] = {
        "devsynth.attempts": len(attempts),
        "devsynth.total.input_tokens": sum(attempt.usage.input_tokens for attempt in attempts),
        "devsynth.total.output_tokens": sum(attempt.usage.output_tokens for attempt in attempts),
    }
    costs = [attempt.cost_micros for attempt in attempts]
    known = [cost for cost in costs if cost is not None]
    if len(known) == len(costs):
        facts["devsynth.total.cost.usd_micros"] = sum(known)
    return facts


def _end(span: Span, error: BaseException | None) -> None:
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        span.set_attribute("devsynth.cancelled", True)
    elif error is not None:
        kind = error.kind if isinstance(error, DevSynthError) else type(error).__qualname__
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR, _described(error, kind)))
    span.end()


def _described(error: BaseException, kind: str) -> str:
    """What is wrong, in our words: a provider's may repeat the prompt, and content never reaches a span."""
    if isinstance(error, ProviderError):
        said = [f"HTTP {error.status}" if error.status else "", error.code or ""]
        return f"{kind} ({', '.join(filter(None, said))})" if any(said) else kind
    return str(error).partition("\n")[0][:200] if isinstance(error, DevSynthError) else kind
