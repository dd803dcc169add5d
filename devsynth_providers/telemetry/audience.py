"""Who listens. To find that out costs more than all the rest where nobody does: it is asked once for a request."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from opentelemetry import trace

from .metrics import Label, Metrics, gathered


class Audience(NamedTuple):
    """Whether there is an SDK for spans, and where measurements go, ``None`` without one for metrics."""

    traces: bool
    metrics: Metrics | None


_here: ContextVar[Audience | None] = ContextVar("devsynth_audience", default=None)
enter, leave = _here.set, _here.reset
"""Inside a request its audience is the one that it had when it began."""


def audience() -> Audience:
    """Who listens here."""
    return _here.get() or Audience(not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), gathered())


def count(name: str, amount: int = 1, **labels: Label) -> None:
    """Count *amount* more, with *labels* of ours: ``model`` stands for ``devsynth.model``."""
    if amount and (metered := audience().metrics) is not None:
        metered.add(name, amount, {f"devsynth.{key}": value for key, value in labels.items()})


def measure(name: str, value: float, **labels: Label) -> None:
    """Note one *value*, with *labels* as ``count`` has them."""
    if (metered := audience().metrics) is not None:
        metered.record(name, value, {f"devsynth.{key}": each for key, each in labels.items()})
