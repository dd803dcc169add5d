"""What any span of ours may say: names, types, and what must be there. A check yields a sentence for each mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from devsynth_providers.telemetry.semconv import dialect

SCOPE = "devsynth_providers"
TEXTS: type = tuple
EVERYWHERE = {
    "gen_ai.operation.name": str,
    "gen_ai.request.stream": bool,
    "gen_ai.response.model": str,
    "gen_ai.response.finish_reasons": TEXTS,
    "gen_ai.response.time_to_first_chunk": float,
    "gen_ai.embeddings.dimension.count": int,
    "devsynth.stream.abandoned": bool,
    "devsynth.stream.interrupted": bool,
    "devsynth.cancelled": bool,
    "error.type": str,
}
REQUEST = {
    **EVERYWHERE,
    "devsynth.call_id": str,
    "devsynth.project_id": str,
    "devsynth.task": str,
    "devsynth.task.complexity": float,
    "devsynth.role": str,
    "devsynth.tags": TEXTS,
    "devsynth.policy.name": str,
    "devsynth.policy.version": str,
    "devsynth.policy.rule": str,
    "devsynth.attempts": int,
    "devsynth.total.input_tokens": int,
    "devsynth.total.output_tokens": int,
    "devsynth.total.cost.usd_micros": int,
    "devsynth.degraded": bool,
    "devsynth.shared": bool,
    "devsynth.cache.hit": bool,
    "devsynth.cache.tier": str,
    "devsynth.budget.remaining_micros": int,
    "devsynth.stream.continued": bool,
}
ATTEMPT = {
    **EVERYWHERE,
    "gen_ai.provider.name": str,
    "gen_ai.output.type": str,
    "gen_ai.request.model": str,
    "gen_ai.request.temperature": float,
    "gen_ai.request.max_tokens": int,
    "gen_ai.request.top_p": float,
    "gen_ai.request.seed": int,
    "gen_ai.request.frequency_penalty": float,
    "gen_ai.request.presence_penalty": float,
    "gen_ai.request.stop_sequences": TEXTS,
    "gen_ai.request.encoding_formats": TEXTS,
    "gen_ai.response.id": str,
    "gen_ai.usage.input_tokens": int,
    "gen_ai.usage.output_tokens": int,
    "gen_ai.usage.cache_read.input_tokens": int,
    "gen_ai.usage.cache_write.input_tokens": int,
    "gen_ai.usage.cache_creation.input_tokens": int,
    "gen_ai.usage.reasoning.output_tokens": int,
    "gen_ai.input.messages": str,
    "gen_ai.output.messages": str,
    "gen_ai.system_instructions": str,
    "server.address": str,
    "server.port": int,
    "http.response.status_code": int,
    "devsynth.model": str,
    "devsynth.attempt": int,
    "devsynth.attempt.reason": str,
    "devsynth.attempt.wait_s": float,
    "devsynth.transport": str,
    "devsynth.breaker.state": str,
    "devsynth.usage.estimated": bool,
    "devsynth.cost.usd_micros": int,
    "devsynth.cost.basis": str,
    "devsynth.cost.estimated": bool,
}
ALWAYS_ON_REQUEST = (
    *("gen_ai.operation.name", "devsynth.call_id", "devsynth.policy.name", "devsynth.policy.version"),
    *("devsynth.attempts", "devsynth.total.input_tokens", "devsynth.total.output_tokens"),
)
ALWAYS_ON_ATTEMPT = (
    *("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"),
    *("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "devsynth.model", "devsynth.attempt"),
    *("devsynth.attempt.reason", "devsynth.cost.basis", "devsynth.cost.estimated", "devsynth.usage.estimated"),
)
WORDS = {
    "gen_ai.operation.name": ("chat", "embeddings"),
    "gen_ai.output.type": ("text", "json"),
    "devsynth.attempt.reason": ("primary", "retry", "fallback", "hedge", "continuation"),
    "devsynth.breaker.state": ("closed", "open", "half_open"),
    "devsynth.cost.basis": ("reported", "computed", "estimated", "free", "unknown"),
    "devsynth.transport": ("direct", "litellm"),
    "devsynth.cache.tier": ("disk", "redis"),
}
EVENTS = frozenset(
    (
        *("policy.decide", "policy.shadow.differs", "policy.reload_failed", "retry.scheduled", "retry.denied"),
        *("fallback", "stream.continued", "stream.not_continued", "breaker.open", "breaker.half_open"),
        *("breaker.closed", "breaker.refused", "breaker.wait", "hedge.started", "hedge.won", "hedge.denied"),
        *("coalesced", "batch.split", "batch.halved", "limit.waited", "limit.refused", "cache.lookup"),
        *("cache.waited", "joined", "batch.joined"),
        *("budget.warned", "budget.rejected", "gen_ai.client.inference.operation.details"),
    )
)
ONCE_OR_NEVER = (("error.type", "devsynth.cancelled"), ("devsynth.stream.abandoned", "error.type"))


def mistakes(span: ReadableSpan) -> Iterator[str]:
    """Whatever is wrong with *span*, if it is ours."""
    if span.instrumentation_scope is None or span.instrumentation_scope.name != SCOPE:
        return
    facts = dict(span.attributes or {})
    attempt = "devsynth.attempt" in facts
    for what in _facts(facts, ATTEMPT if attempt else REQUEST):
        yield f"{span.name}: {what}"
    for name in ALWAYS_ON_ATTEMPT if attempt else ALWAYS_ON_REQUEST:
        if name not in facts:
            yield f"{span.name} has no {name}"
    for what in _shape(span, facts, attempt):
        yield f"{span.name}: {what}"


def _facts(facts: Mapping[str, Any], known: Mapping[str, type]) -> Iterator[str]:
    newer = {"gen_ai.request.top_k": int, "gen_ai.request.reasoning.level": str}
    known = {**known, **(newer if dialect().latest else {"gen_ai.request.top_k": float})}
    for name, value in facts.items():
        if name not in known:
            yield f"{name} is not in the schema"
        elif type(value) is not known[name]:
            yield f"{name} is {value!r}, not a {known[name].__name__}"
        elif type(value) is tuple and not all(isinstance(each, str) for each in value):
            yield f"{name} is {value!r}, which are not texts alone"
        elif name in WORDS and value not in WORDS[name]:
            yield f"{name} is {value!r}, which it never is"


def _shape(span: ReadableSpan, facts: Mapping[str, Any], attempt: bool) -> Iterator[str]:
    about = facts.get("gen_ai.request.model") if attempt else facts.get("devsynth.policy.name")
    if span.name != f"{facts.get('gen_ai.operation.name')} {about}":
        yield "its name is not what it does, and by whom"
    if span.kind is not SpanKind.INTERNAL and not (attempt and span.kind is SpanKind.CLIENT):
        yield f"its kind is {span.kind}"
    if (span.status.status_code is StatusCode.ERROR) != ("error.type" in facts):
        yield f"its status is {span.status.status_code}, and error.type {facts.get('error.type')}"
    if span.end_time is None or span.start_time is None or span.end_time < span.start_time:
        yield "it has not ended, or before it began"
    if ("server.address" in facts) != ("server.port" in facts):
        yield "an address without a port, or a port without an address"
    for one, other in ONCE_OR_NEVER:
        if one in facts and other in facts:
            yield f"{one} and {other} exclude each other"
    for event in span.events:
        if event.name not in EVENTS:
            yield f"the event {event.name} is not in the schema"
