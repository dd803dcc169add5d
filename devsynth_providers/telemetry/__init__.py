"""The only door to OpenTelemetry: spans, metrics, the ids on logs, and how they are set up.

Importing it loads the API alone. What is emitted stands in ``docs/telemetry.md``.
"""

from .audience import count, measure
from .current import Attribute, Beside, Racer, event, linker, mark, teller, trace_id, way_back
from .logs import Scrubbed, TraceIds
from .metrics import BREAKER_TRANSITIONS, BUDGET_REJECTIONS, CACHE_REQUESTS, QUEUE_WAIT
from .propagation import upstream
from .setup import configure
from .spans import AttemptSpan, RequestSpan, attempt_span, request_span

__all__ = [
    "BREAKER_TRANSITIONS",
    "BUDGET_REJECTIONS",
    "CACHE_REQUESTS",
    "QUEUE_WAIT",
    "AttemptSpan",
    "Attribute",
    "Beside",
    "Racer",
    "RequestSpan",
    "Scrubbed",
    "TraceIds",
    "attempt_span",
    "configure",
    "count",
    "event",
    "linker",
    "mark",
    "measure",
    "request_span",
    "teller",
    "trace_id",
    "upstream",
    "way_back",
]
