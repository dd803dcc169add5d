"""Real OTLP receivers, by gRPC and by HTTP, that decode what an exporter sends; they may be slow, or refuse it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from typing_extensions import override


class Receiver(TraceServiceServicer):
    """Keeps every span it is sent, by gRPC. Its *endpoint* goes into ``OTEL_EXPORTER_OTLP_ENDPOINT``.

    It answers after *delay_s*; one that *refuses* says that what it was sent is wrong.
    """

    protocol = "grpc"

    def __init__(self, *, delay_s: float = 0.0, refuses: bool = False) -> None:
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.resources: list[dict[str, Any]] = []
        self.delay_s = delay_s
        self.refuses = refuses
        self.asked = 0
        self._begin()

    def _begin(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        add_MetricsServiceServicer_to_server(_Metrics(self), self._server)  # type: ignore[no-untyped-call]
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    @property
    def services(self) -> set[str]:
        return {each["service.name"] for each in self.resources}

    @override
    def Export(self, request: Any, context: Any) -> Any:
        self.take_spans(request)
        if self.refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not like this")
        return ExportTraceServiceResponse()

    def take_spans(self, request: Any) -> None:
        self.asked += 1
        time.sleep(self.delay_s)
        for resource in request.resource_spans if not self.refuses else ():
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def take_metrics(self, request: Any) -> None:
        self.asked += 1
        time.sleep(self.delay_s)
        for resource in request.resource_metrics if not self.refuses else ():
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_metrics:
                self.metrics |= {metric.name: metric for metric in scope.metrics}

    def named(self, name: str) -> list[Any]:
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start_time_unix_nano)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()


class _Metrics(MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    @override
    def Export(self, request: Any, context: Any) -> Any:
        self._receiver.take_metrics(request)
        if self._receiver.refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not like this")
        return ExportMetricsServiceResponse()


class HttpReceiver(Receiver):
    """The same by HTTP."""

    protocol = "http/protobuf"

    @override
    def _begin(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path.endswith("/v1/traces"):
                    receiver.take_spans(ExportTraceServiceRequest.FromString(body))
                else:
                    receiver.take_metrics(ExportMetricsServiceRequest.FromString(body))
                self.send_response(400 if receiver.refuses else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            @override
            def log_message(self, format: str, *args: Any) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"

    @override
    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in span.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
