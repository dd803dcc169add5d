"""A receiver of OTLP over HTTP on loopback, with a place for each who sends, that can say what came there."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from workload import PIECES, PROMPT

_CONTENT = (PROMPT[:40].encode(), "".join(PIECES[10:14]).encode())


class Got:
    """What came to one place: bodies as they are, until somebody asks."""

    def __init__(self) -> None:
        self.content = False
        """Whether a prompt or an answer was in any of it."""
        self._bodies: list[tuple[str, bytes]] = []

    def add(self, signal: str, body: bytes) -> None:
        self._bodies.append((signal, body))

    def taken(self) -> tuple[list[str], set[str]]:
        """The name of each span that came since the last time, and the names of metrics."""
        bodies, self._bodies = self._bodies, []
        spans: list[str] = []
        metrics: set[str] = set()
        for signal, body in bodies:
            self.content = self.content or any(each in body for each in _CONTENT)
            if signal == "traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    spans += [span.name for scope in resource.scope_spans for span in scope.spans]
            else:
                for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    metrics |= {metric.name for scope in measured.scope_metrics for metric in scope.metrics}
        return spans, metrics


class Receiver:
    """Takes whatever it is sent."""

    def __init__(self) -> None:
        self._places: list[Got] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._places))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def place(self) -> tuple[str, Got]:
        """The URL of a new place, and what comes there."""
        self._places.append(Got())
        return f"http://127.0.0.1:{self._server.server_port}/{len(self._places) - 1}", self._places[-1]


def _handler(places: list[Got]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            _, place, _, signal = self.path.split("/")
            places[int(place)].add(signal, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    return Handler
