"""Listens to the spans of a schedule: each that starts must end, once."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from typing_extensions import override


@dataclass
class Spans:
    """What was heard. *recorded* is false where nobody listened."""

    recorded: bool = False
    open: dict[int, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """The ids of the calls whose span has ended."""
    attempts: Counter[str] = field(default_factory=Counter)
    """How many attempts each call has, by its id."""
    wrong: list[str] = field(default_factory=list)


class _Listener(SpanProcessor, logging.Handler):
    """Hears of spans and, from the SDK's log, of those that end twice."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.WARNING)
        self.heard = Spans()
        self._calls: dict[int, str] = {}
        self._provider: TracerProvider | None = None

    def begin(self) -> None:
        provider = trace.get_tracer_provider()
        if isinstance(provider, TracerProvider) and provider is not self._provider:
            provider.add_span_processor(self)
            logging.getLogger("opentelemetry.sdk.trace").addHandler(self)
            self._provider = provider
        self.heard = Spans(recorded=self._provider is not None and SOMETIMES.listens)
        self._calls = {}

    def end(self) -> Spans:
        heard, self.heard = self.heard, Spans()
        return heard

    @override
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.heard.open[span.get_span_context().span_id] = span.name
        call = (span.attributes or {}).get("devsynth.call_id")
        if call is not None:
            self._calls[span.get_span_context().span_id] = str(call)
        elif span.parent is not None:
            self.heard.attempts[self._calls.get(span.parent.span_id, "")] += 1

    @override
    def on_end(self, span: ReadableSpan) -> None:
        own = span.get_span_context()
        assert own is not None
        if self.heard.open.pop(own.span_id, None) is None:
            self.heard.wrong.append(f"{span.name} ended, and was not open")
        elif own.span_id in self._calls:
            self.heard.requests.append(self._calls[own.span_id])

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.heard.wrong.append(record.getMessage())


class _Sometimes(Sampler):
    """Spans only while somebody *listens*: they take longer than what they tell of."""

    def __init__(self) -> None:
        self.listens = True

    @override
    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *about: Any, **named: Any
    ) -> SamplingResult:
        _, attributes = (*about, None, None)[:2]
        decision = Decision.RECORD_AND_SAMPLE if self.listens else Decision.DROP
        return SamplingResult(decision, attributes or named.get("attributes"))

    @override
    def get_description(self) -> str:
        return "sometimes"


SPANS = _Listener()
SOMETIMES = _Sometimes()
