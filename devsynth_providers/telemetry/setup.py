"""Set-up in one line, by the variables that are standard: exporters in batches, and an end that does not wait long.

The SDK reads most of them itself: the sampler, the resource, sizes and delays of batches, where collectors are. What is
left is which exporters, by which protocol, and who has a provider already.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from opentelemetry import metrics, trace

from ..errors import ConfigurationError
from .logs import NAME
from .metrics import label_projects

_DOORS = {"grpc": "grpc", "http/protobuf": "http"}
_CLOSING_S = 0.5
_ending: list[tuple[Any, Sequence[Any]]] = []
"""Providers that are to be ended with the process, each with what it exports by."""
_log = logging.getLogger(NAME)


def configure(
    *,
    service_name: str = "devsynth_providers",
    exporter: Any = None,
    metrics: bool = True,
    project_label: bool = False,
    exit_s: float = 1.0,
) -> None:
    """Send spans and, unless *metrics* is false, metrics as the standard ``OTEL_*`` variables say.

    With *exporter*, spans go there in place of that, as each ends. An application that has a provider of spans, or of
    metrics, keeps it; *exporter* is added to it. *project_label* puts the project of requests on metrics: for
    applications with few of them. What was not sent when the process ends is sent within *exit_s* seconds, or dropped.
    Raises ``ConfigurationError`` for an exporter or a protocol that there is not.
    """
    label_projects(project_label)
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    _trace(service_name, exporter, exit_s)
    if metrics and exporter is None:
        _measure(service_name, exit_s)


def _trace(service_name: str, exporter: Any, exit_s: float) -> None:
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the SDK, only for those who trace
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        exporters = [] if exporter is not None else list(_exporters("traces"))
        if not exporters and exporter is None:
            return
        provider = TracerProvider(resource=_resource(service_name), shutdown_on_exit=False)
        for each in exporters:
            provider.add_span_processor(BatchSpanProcessor(each))
        trace.set_tracer_provider(provider)
        _at_exit(provider, exporters, exit_s)
    if exporter is not None and isinstance(provider, TracerProvider):
        provider.add_span_processor(SimpleSpanProcessor(exporter))


def _measure(service_name: str, exit_s: float) -> None:
    if not type(metrics.get_meter_provider()).__module__.startswith("opentelemetry.metrics"):
        return
    exporters = list(_exporters("metrics"))
    if not exporters:
        return
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    readers = [PeriodicExportingMetricReader(each) for each in exporters]
    provider = MeterProvider(readers, resource=_resource(service_name), shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    _at_exit(provider, exporters, exit_s)


def _exporters(signal: str) -> Iterator[Any]:
    """What ``OTEL_TRACES_EXPORTER``, or ``OTEL_METRICS_EXPORTER``, names: OTLP, where it names nothing."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    for name in (os.environ.get(variable) or "otlp").split(","):
        if name.strip() == "otlp":
            yield _otlp(signal)
        elif name.strip() == "console":
            yield _console(signal)
        elif name.strip() != "none":
            raise ConfigurationError(f"{variable} is {name.strip()!r}; use one of otlp, console, none")


def _otlp(signal: str) -> Any:
    variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    variable = next((each for each in variables if os.environ.get(each)), variables[1])
    protocol = os.environ.get(variable) or "grpc"
    if protocol not in _DOORS:
        raise ConfigurationError(f"{variable} is {protocol!r}; use one of {', '.join(_DOORS)}")
    what, name = {"traces": ("trace", "OTLPSpanExporter"), "metrics": ("metric", "OTLPMetricExporter")}[signal]
    module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{_DOORS[protocol]}.{what}_exporter")
    return getattr(module, name)()


def _console(signal: str) -> Any:
    if signal == "traces":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415 - as above

        return ConsoleSpanExporter()
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter  # noqa: PLC0415

    return ConsoleMetricExporter()


def _resource(service_name: str) -> Any:
    """What the environment says of this service; *service_name*, where it does not name it."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above

    found = Resource.create()
    if str(found.attributes.get("service.name", "")).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": service_name}))
    return found


def _at_exit(provider: Any, exporters: Sequence[Any], exit_s: float) -> None:
    if not _ending:
        atexit.register(_end, exit_s)
    _ending.append((provider, exporters))


def _end(within_s: float) -> None:
    """Send what is left, and wait no longer than that for it: the SDK itself would wait for a collector that is down
    until it has tried again often enough. A connection that is still at work then is closed: left open, it may hold the
    process up for most of a minute."""
    deadline = time.monotonic() + within_s
    sending = [(_begun(each.shutdown), by) for each, by in _ending]
    late = [(thread, by) for thread, by in sending if not _ended(thread, deadline)]
    if not late:
        return
    _log.warning("spans or metrics are lost: whoever takes them did not within %g s of the end", within_s)
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would complain of being closed, piece by piece
    # Beside each other, and not here: a connection may wait for what is under way on it.
    closing = [_begun(each.shutdown) for _, by in late for each in by]
    deadline = time.monotonic() + _CLOSING_S
    for thread in (*closing, *(thread for thread, _ in late)):
        _ended(thread, deadline)


def _begun(work: Callable[[], object]) -> threading.Thread:
    """A thread that does *work*; where it can not begin any more, as in Python 3.12.0 and 3.12.1 at the end of the
    interpreter, it is done here."""
    thread = threading.Thread(target=_quietly, args=(work,), daemon=True)
    try:
        thread.start()
    except RuntimeError:
        thread.run()
    return thread


def _ended(thread: threading.Thread, deadline: float) -> bool:
    """Whether *thread* has come to its end by then."""
    if thread.ident is None:
        return True
    thread.join(max(0.0, deadline - time.monotonic()))
    return not thread.is_alive()


def _quietly(end: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):  # there is nobody left to tell
        end()
