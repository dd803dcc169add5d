"""The trace goes on at servers of one's own: they are told which span asks. Vendors are told nothing."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..types import Model

_OWN_PROVIDERS = frozenset(("lmstudio",))
_traceparent = TraceContextTextMapPropagator()
_NOTHING: Mapping[str, str] = {}


def upstream(model: Model) -> Mapping[str, str]:
    """Headers that tell the server of *model* which span is current here; none if it is not to know."""
    if not (_is_own(model.provider, model.base_url) if model.propagate is None else model.propagate):
        return _NOTHING
    carrier: dict[str, str] = {}
    _traceparent.inject(carrier)
    return carrier


@functools.lru_cache(maxsize=256)
def _is_own(provider: str, base_url: str | None) -> bool:
    """Whether a server is surely no vendor's: LM Studio, this machine, or a private address."""
    if provider in _OWN_PROVIDERS:
        return True
    host = (urlsplit(base_url or "").hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_private
