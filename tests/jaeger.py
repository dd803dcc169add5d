"""A real Jaeger on loopback, started as users start it, and what its query API says of traces."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

from .servers import free_port

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
MISSING = "needs Jaeger: 'scripts/jaeger get' builds it, with Go"


def program() -> str | None:
    """Jaeger's program, if there is one; scripts/test builds it where there is Go."""
    return shutil.which("jaeger") or shutil.which(Path(sys.prefix, "jaeger", "jaeger"))


def eventually(look: Callable[[], T], within_s: float = 30.0) -> T:
    """What *look* returns, as soon as that is something."""
    until = time.monotonic() + within_s
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


@dataclass(frozen=True)
class Span:
    """One, as Jaeger's page is told of it."""

    id: str
    name: str
    parent: str | None
    follows: tuple[str, ...]
    start_us: int
    tags: dict[str, Any]
    logs: tuple[tuple[str, dict[str, Any]], ...]

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """One of those in an answer of ``/api/traces``."""
        pointing = {
            kind: [each["spanID"] for each in told["references"] if each["refType"] == kind]
            for kind in ("CHILD_OF", "FOLLOWS_FROM")
        }
        logs = [{field["key"]: field["value"] for field in log["fields"]} for log in told["logs"]]
        return cls(
            id=told["spanID"],
            name=told["operationName"],
            parent=next(iter(pointing["CHILD_OF"]), None),
            follows=tuple(pointing["FOLLOWS_FROM"]),
            start_us=told["startTime"],
            tags={tag["key"]: tag["value"] for tag in told["tags"]},
            logs=tuple((str(log.pop("event", "")), log) for log in logs),
        )


@dataclass(frozen=True)
class Trace:
    """The span of a request, and those below it, oldest first."""

    request: Span
    below: tuple[Span, ...]

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        spans = sorted(map(Span.of, told["spans"]), key=lambda span: span.start_us)
        (request,) = [span for span in spans if span.parent is None]
        return cls(request, tuple(span for span in spans if span is not request))

    @property
    def attempts(self) -> list[Span]:
        return [span for span in self.below if "devsynth.attempt" in span.tags]

    @property
    def whole(self) -> bool:
        """Whether all its attempts have arrived."""
        return bool(len(self.attempts) == self.request.tags.get("devsynth.attempts"))


class JaegerServer:
    """One that scripts/jaeger started, on free ports, with *options*; it ends as it does by Ctrl-C."""

    def __init__(self, directory: Path, *options: str) -> None:
        ports = set[int]()
        while len(ports) < 4:
            ports.add(free_port())
        self._ports = dict(zip(("page", "grpc", "http", "metrics"), ports, strict=True))
        self._options = [word for name, port in self._ports.items() for word in (f"--{name}", str(port))]
        self._options += options
        self._log = directory / "jaeger.log"
        self._process: subprocess.Popen[bytes] | None = None

    def endpoint(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"

    def get(self, path: str, **query: str) -> Any:
        """The answer of its query API."""
        with urllib.request.urlopen(f"{self.endpoint('page')}{path}?{urlencode(query)}", timeout=10) as answer:
            return json.load(answer)

    def counted(self) -> str:
        """What it has counted of spans, for Prometheus."""
        with urllib.request.urlopen(f"{self.endpoint('metrics')}/metrics", timeout=10) as answer:
            return str(answer.read(), "utf-8")

    @property
    def has_a_placeholder(self) -> bool:
        """Whether it was built without its page."""
        with urllib.request.urlopen(f"{self.endpoint('page')}/search", timeout=10) as answer:
            return b"not the Jaeger UI" in answer.read()

    def find(self, service: str, operation: str | None = None, **tags: str) -> list[Trace]:
        """The traces that its search page finds, oldest first; what is written ``__`` in *tags* is a dot."""
        looked_for = {name.replace("__", "."): value for name, value in tags.items()}
        query = {"service": service, "limit": "100", "lookback": "1h", "tags": json.dumps(looked_for)}
        told = self.get("/api/traces", **query, **({"operation": operation} if operation else {}))["data"]
        return sorted(map(Trace.of, told), key=lambda trace: trace.request.start_us)

    def __enter__(self) -> Self:
        environment = {**os.environ, "JAEGER_METRICS_EVERY": "200ms"}
        with self._log.open("wb") as log:
            command = [str(ROOT / "scripts" / "jaeger"), *self._options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        if not eventually(lambda: self._ended() or self._answers(), 60.0) or self._ended():
            self.__exit__(None, None, None)
            raise RuntimeError(f"Jaeger did not start: {self._log.read_text()[-2000:]}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _answers(self) -> bool:
        try:
            for name in ("grpc", "http"):
                socket.create_connection(("127.0.0.1", self._ports[name]), timeout=1.0).close()
            return "data" in self.get("/api/services")
        except (OSError, urllib.error.URLError):
            return False
