"""Where spans would go, and whether somebody is there to take them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..providers.threads import in_thread
from .finding import Finding, Level

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_USUAL_PORT = {"grpc": 4317, "http/protobuf": 4318}


async def telemetry(variables: Mapping[str, str], timeout_s: float) -> list[Finding]:
    """The findings about traces: is an endpoint set, is the protocol one that we have, does the port answer."""
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return [_found("warning", "spans go nowhere: OTEL_SDK_DISABLED is set", "unset it to have traces")]
    variable = next((name for name in _ENDPOINTS if variables.get(name, "").strip()), None)
    if variable is None:
        message = "spans go nowhere, unless the application sends them itself"
        return [_found("ok", message, f"{_ENDPOINTS[1]}=http://localhost:4317 sends them to a collector there")]
    protocol = next((value for name in _PROTOCOLS if (value := variables.get(name, "").strip())), "grpc")
    if protocol not in _USUAL_PORT:
        message = f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, which is not spoken here"
        return [_found("broken", message, f"use one of {', '.join(_USUAL_PORT)}")]
    return [await _reached(variable, variables[variable].strip(), protocol, timeout_s)]


async def _reached(variable: str, endpoint: str, protocol: str, timeout_s: float) -> Finding:
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        return _found("broken", f"{variable} is no address", "give it a URL, as in http://localhost:4317")
    port = port or (80 if parts.scheme == "http" and protocol != "grpc" else 443)
    where = f"spans go to {host}:{port} by {protocol} ({variable})"
    other = next(name for name in _USUAL_PORT if name != protocol)
    if port == _USUAL_PORT[other]:
        message = f"{where}, and {port} is the port where collectors take {other}"
        return _found("warning", message, f"OTEL_EXPORTER_OTLP_PROTOCOL={other}, or the port {_USUAL_PORT[protocol]}")
    try:
        async with asyncio.timeout(timeout_s):
            found = await in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            _, writer = await asyncio.open_connection(str(found[0][4][0]), port)
    except TimeoutError:
        return _found("broken", f"{where}, and it does not answer within {timeout_s:g} s", _START)
    except (OSError, UnicodeError):  # the second, of what can be no host's name
        return _found("broken", f"{where}, and nobody is there", _START)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return _found("ok", f"{where}, and somebody is there")


_START = "start the collector (the README has a Jaeger in one line), or correct the address"


def _found(level: Level, message: str, advice: str = "") -> Finding:
    return Finding("telemetry", level, "traces", message, advice)
