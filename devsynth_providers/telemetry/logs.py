"""What the library says by standard ``logging``: on one logger, quiet until an application listens, with the ids of the
trace it belongs to, and without keys.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from typing_extensions import override

from ..scrubbing import without_keys
from ..types import Attempt
from . import facts

NAME = "devsynth_providers"
_log = logging.getLogger(NAME)


class TraceIds(logging.Filter):
    """Puts ``trace_id`` and ``span_id`` on every record, as Jaeger shows them; empty where nothing is traced."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        here = trace.get_current_span().get_span_context()
        record.trace_id = f"{here.trace_id:032x}" if here.is_valid else ""
        record.span_id = f"{here.span_id:016x}" if here.is_valid else ""
        return True


class Scrubbed(logging.Filter):
    """Takes keys out of every record: those in *secrets*, and whatever looks like one."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit fail nobody who logs without this filter
            said, record.args = str(record.msg), None
        clean = without_keys(said, self._secrets)
        if clean != said:
            record.msg, record.args = clean, None
        if record.exc_info:
            record.exc_text = without_keys(logging.Formatter().formatException(record.exc_info), self._secrets)
            record.exc_info = None
        return True


def quiet() -> None:
    """Say nothing unless an application listens, and nothing without these filters."""
    if not any(isinstance(each, logging.NullHandler) for each in _log.handlers):
        _log.addHandler(logging.NullHandler())
        _log.addFilter(TraceIds())
        _log.addFilter(Scrubbed())


@functools.cache
def lost(kind: str) -> None:
    """Say, once for each *kind* of error, that an application's own sampler or processor fails, and spans are lost."""
    _log.warning("spans are lost: what this application has put into its tracer provider raises %s", kind)


def wanted(error: BaseException | None) -> bool:
    """Whether somebody wants to hear of an attempt that ended so."""
    return _log.isEnabledFor(_level(error))


def ended(attempt: Attempt, error: BaseException | None) -> None:
    """Tell of *attempt*. Nothing that a provider has said is in it: that may repeat the prompt."""
    how = facts.outcome(error, whole=attempt.finish_reason is not None)
    about: dict[str, Any] = {
        "event": "attempt.ended",
        "model": attempt.model,
        "provider": attempt.provider,
        "attempt": attempt.number,
        "reason": attempt.reason,
        "outcome": how,
        "latency_s": round(attempt.latency_s, 6),
        "input_tokens": attempt.usage.input_tokens,
        "output_tokens": attempt.usage.output_tokens,
        "cost_usd": attempt.cost_usd,
    }
    why = ""
    if error is not None and not facts.left(error):
        about["error"] = facts.kind(error)
        why = f": {facts.described(error)}"
    said = "attempt %d (%s) at %s %s after %.3f s%s"
    _log.log(
        _level(error),
        said,
        *(attempt.number, attempt.reason, attempt.model, how, attempt.latency_s, why),
        extra={"devsynth": about},
    )


def _level(error: BaseException | None) -> int:
    return logging.DEBUG if error is None or facts.left(error) else logging.INFO


quiet()
