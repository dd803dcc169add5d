"""Calls with telemetry and without, in one process, over whatever an application has set up."""

from __future__ import annotations

import logging
import math
import os
from typing import Any, ClassVar

from workload import check_text

from . import Missing, Peer

SINK = "BENCHMARK_OTLP"
"""The variable that says where a receiver of OTLP is."""


def set_up(state: str) -> tuple[Any, ...]:
    """The SDK as *state* says: none, one that samples nothing, or one that exports in batches by OTLP over HTTP.

    Metrics are exported when they are flushed: that is done once in a while, and costs the same with calls and without.
    """
    if state == "no SDK":
        return ()
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    sink = os.environ[SINK]
    provider = TracerProvider(sampler=ALWAYS_OFF if state == "sampled out" else ALWAYS_ON)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{sink}/v1/traces"), max_queue_size=100_000))
    trace.set_tracer_provider(provider)
    if state != "spans and metrics":
        return (provider,)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{sink}/v1/metrics"), export_interval_millis=math.inf)
    meters = MeterProvider([reader])
    metrics.set_meter_provider(meters)
    return provider, meters


class Instrumented(Peer):
    """``on call`` and ``off stream`` are kinds of calls."""

    spans: ClassVar[int] = 1
    """How many spans a call has, whole or streamed."""
    metrics: ClassVar[bool] = True
    """Whether it measures anything, too."""

    def __init__(self, url: str, wire: str, *, state: str) -> None:
        super().__init__(url, wire)
        self.state = state
        self.providers = set_up(state)

    async def other(self, what: str) -> None:
        switch, kind = what.split()
        self.switch(switch == "on")
        check_text(await (self.call() if kind == "call" else self.stream()))

    async def settle(self) -> None:
        for each in self.providers:
            each.force_flush()

    def switch(self, on: bool) -> None:
        """Let the calls that follow be told of, or not."""
        raise NotImplementedError


class _Nothing:
    """What takes the place of every span."""

    wait_s = 0.0
    queued = False

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def __call__(self, *_: Any, **__: Any) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return self

    def paced(self, reply: Any) -> Any:
        return reply


class Ours(Instrumented):
    """Without: with every function of our telemetry in place of which stands one that does nothing."""

    spans = 2  # of the request, and of its attempt

    async def open(self) -> None:
        from devsynth_providers import telemetry

        from . import ours

        self.telemetry = telemetry
        nothing = _Nothing()
        given = lambda *_, **__: nothing  # noqa: E731 - there are six of it
        stubs = dict.fromkeys(("request_span", "attempt_span", "teller", "linker", "way_back", "Beside"), given)
        stubs |= dict.fromkeys(("event", "mark", "count", "measure"), nothing)
        self.stubs = {**stubs, "upstream": lambda _: {}}
        self.real = {name: getattr(telemetry, name) for name in self.stubs}
        self.on = True
        self.peer = self.made(ours)
        await self.peer.open()

    def made(self, ours: Any) -> Peer:
        peer: Peer = ours.Ours(self.url, self.wire, lane="direct", routed=True, traced=False)
        return peer

    def switch(self, on: bool) -> None:
        if on != self.on:
            vars(self.telemetry).update(self.real if on else self.stubs)
            self.on = on

    async def call(self) -> str:
        return await self.peer.call()

    async def stream(self) -> str:
        return await self.peer.stream()


class OursBare(Ours):
    def made(self, ours: Any) -> Peer:
        peer: Peer = ours.Inside(self.url, self.wire, traced=False)
        return peer


class SdkAlone(OursBare):
    """What OpenTelemetry's SDK takes for the same: the spans of one of our calls, with all they say, made again."""

    metrics = False

    async def open(self) -> None:
        if self.state == "no SDK":
            raise Missing("there is none to be measured")
        await super().open()
        from opentelemetry import context, trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from devsynth_providers.telemetry import spans

        told, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(told))
        real, spans._tracer = spans._tracer, provider.get_tracer("sample")
        self.said: dict[str, tuple[Any, Any]] = {}
        for kind, ask in (("call", self.call), ("stream", self.stream)):
            self.text = await ask()
            attempt, request = told.get_finished_spans()[-2:]
            self.said[kind] = request, attempt
        spans._tracer = real
        self.context, self.trace, self.tracer = context, trace, trace.get_tracer("alone")

    async def other(self, what: str) -> None:
        switch, kind = what.split()
        if switch == "on":
            self.tell(*self.said[kind])
        check_text(self.text)

    def tell(self, request: Any, attempt: Any) -> None:
        span = self.tracer.start_span(request.name, attributes=request.attributes)
        token = self.context.attach(self.trace.set_span_in_context(span))
        for event in request.events:
            span.add_event(event.name, event.attributes)
        self.tracer.start_span(attempt.name, kind=attempt.kind, attributes=attempt.attributes).end()
        self.context.detach(token)
        span.end()


class LiteLlm(Instrumented):
    async def open(self) -> None:
        if self.state == "no SDK":
            raise Missing("without an SDK it sets one up itself, and exports")
        from .lite import Bare

        self.peer = Bare(self.url, self.wire)
        await self.peer.open()
        logging.getLogger("LiteLLM").setLevel(logging.ERROR)  # that its proxy is not installed, it says each time
        from litellm.integrations.opentelemetry import OpenTelemetry, OpenTelemetryConfig
        from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

        self.worker = GLOBAL_LOGGING_WORKER
        self.callback = OpenTelemetry(
            config=OpenTelemetryConfig(
                exporter="otlp_http",  # into the provider that is there
                endpoint=f"{os.environ[SINK]}/v1/traces",
                enable_metrics=self.state == "spans and metrics",
                capture_message_content="no_content",  # as the others
            )
        )

    async def settle(self) -> None:
        await self.worker.flush()  # it tells of a call when that has been answered
        await super().settle()

    def switch(self, on: bool) -> None:
        wanted = [self.callback] if on else []
        if self.peer.litellm.callbacks != wanted:
            for name in ("callbacks", "success_callback", "failure_callback", "input_callback"):
                setattr(self.peer.litellm, name, [])
            for name in ("_async_success_callback", "_async_failure_callback", "_async_input_callback"):
                setattr(self.peer.litellm, name, [])
            self.peer.litellm.callbacks = wanted

    async def call(self) -> str:
        return await self.peer.call()

    async def stream(self) -> str:
        return await self.peer.stream()


class PydanticAi(Instrumented):
    async def open(self) -> None:
        from pydantic_ai.models.instrumented import InstrumentationSettings, InstrumentedModel

        from .frameworks import PydanticAi as Bare

        self.peer = Bare(self.url, self.wire)
        await self.peer.open()
        self.bare = self.peer.model
        self.instrumented = InstrumentedModel(self.bare, InstrumentationSettings(include_content=False))

    def switch(self, on: bool) -> None:
        self.peer.model = self.instrumented if on else self.bare

    async def call(self) -> str:
        return await self.peer.call()

    async def stream(self) -> str:
        return await self.peer.stream()


class OpenInference(Instrumented):
    metrics = False

    async def open(self) -> None:
        from openinference.instrumentation import TraceConfig
        from openinference.instrumentation.openai import OpenAIInstrumentor

        from .sdks import OpenAI

        self.peer = OpenAI(self.url, self.wire)
        await self.peer.open()
        self.instrumentor = OpenAIInstrumentor()
        self.hidden = TraceConfig(hide_inputs=True, hide_outputs=True)  # as the others: without content
        self.on = False

    def switch(self, on: bool) -> None:
        if on and not self.on:
            self.instrumentor.instrument(config=self.hidden)
        elif self.on and not on:
            self.instrumentor.uninstrument()
        self.on = on

    async def call(self) -> str:
        return await self.peer.call()

    async def stream(self) -> str:
        return await self.peer.stream()
