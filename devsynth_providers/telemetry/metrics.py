"""What is counted and measured. Without an SDK for metrics nothing is gathered; its instruments are made when the first
is needed. No label is a prompt, a key, a person, or anything else without an end of values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from opentelemetry import metrics, trace
from opentelemetry.context import Context

from . import semconv

Label = str | bool | int
Labels = dict[str, Label]

SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS: Final = tuple(4**power for power in range(14))
"""The bounds of buckets that the conventions advise."""

REQUEST_DURATION: Final = "devsynth.request.duration"
REQUEST_FIRST_CHUNK: Final = "devsynth.request.time_to_first_chunk"
QUEUE_WAIT: Final = "devsynth.queue.wait"
ATTEMPTS: Final = "devsynth.attempts"
COST: Final = "devsynth.cost"
CACHE_REQUESTS: Final = "devsynth.cache.requests"
BUDGET_REJECTIONS: Final = "devsynth.budget.rejections"
BREAKER_TRANSITIONS: Final = "devsynth.breaker.transitions"
_USAGE: Final = "gen_ai.client.inference.usage"
_TOKEN_USAGE: Final = "gen_ai.client.token.usage"

Kind = Literal["s", "tokens", "counter", "usd"]
_ABOUT: Final[Mapping[str, tuple[Kind, str]]] = {
    REQUEST_DURATION: ("s", "From a request to the last piece of its answer, over all attempts."),
    REQUEST_FIRST_CHUNK: ("s", "From a request to the first piece of a streamed answer, over all attempts."),
    QUEUE_WAIT: ("s", "How long an attempt waited for its turn."),
    ATTEMPTS: ("counter", "Attempts, by why they were made and how they ended."),
    COST: ("usd", "What attempts cost, as far as it is known."),
    CACHE_REQUESTS: ("counter", "Answers looked for in the cache."),
    BUDGET_REJECTIONS: ("counter", "Attempts that were not made, for a budget had too little left."),
    BREAKER_TRANSITIONS: ("counter", "Circuit breakers that opened, closed, or let a probe through."),
    _TOKEN_USAGE: ("tokens", "Tokens of an attempt, as the provider reported them."),
    **{
        f"{_USAGE}.{kind}": ("counter", f"{said} tokens, as the provider reported them.")
        for kind, said in (
            ("input_tokens", "Input"),
            ("output_tokens", "Output"),
            ("cache_read.input_tokens", "Cached input"),
            ("cache_write.input_tokens", "Input"),
            ("reasoning.output_tokens", "Reasoning"),
        )
    },
    **{
        name: ("s", what)
        for each in (semconv.Dialect(), semconv.Dialect(latest=True))
        for name, what in (
            (each.duration("chat"), "How long an attempt took, without its wait for a turn."),
            (each.duration("embeddings"), "How long an attempt took, without its wait for a turn."),
            (each.first_chunk, "How long a streamed answer took to begin."),
            (each.per_chunk, "How long each further piece of a streamed answer took."),
        )
    },
}


@dataclass(slots=True)
class Metrics:
    """The instruments of one provider of meters, each made when it is used first."""

    provider: Any
    project_label: bool = False
    _made: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, amount: float, labels: Labels, context: Context | None = None) -> None:
        """Count *amount* more."""
        (self._made.get(name) or self._make(name)).add(amount, labels, context)

    def record(self, name: str, value: float, labels: Labels, context: Context | None = None) -> None:
        """Note one *value* of many."""
        (self._made.get(name) or self._make(name)).record(value, labels, context)

    def tokens(self, used: Mapping[str, int], labels: Labels, context: Context) -> None:
        """Note the tokens that an attempt *used*, by their class. In 1.41 those of input and output are one histogram;
        the other classes have no name there, and go by the newer."""
        for kind, amount in used.items():
            if not amount:
                continue
            plain = {"input_tokens": "input", "output_tokens": "output"}.get(kind)
            if plain is not None and not semconv.dialect().latest:
                self.record(_TOKEN_USAGE, amount, {**labels, "gen_ai.token.type": plain}, context)
            else:
                self.add(f"{_USAGE}.{kind}", amount, labels, context)

    def _make(self, name: str) -> Any:
        kind, about = _ABOUT[name]
        meter = self.provider.get_meter("devsynth_providers")
        made: Any
        if kind == "counter":
            made = meter.create_counter(name, "{token}" if name.startswith(_USAGE) else "1", about)
        elif kind == "usd":
            made = meter.create_counter(name, "USD", about)
        else:
            unit, bounds = ("s", SECONDS) if kind == "s" else ("{token}", TOKENS)
            made = meter.create_histogram(name, unit, about, explicit_bucket_boundaries_advisory=bounds)
        self._made[name] = made
        return made


class _State:
    """What this process measures with."""

    project_label = False
    metrics: Metrics | None = None


def label_projects(wanted: bool) -> None:
    """Whether the project of a request is a label: each has a row of its own for every other label."""
    _State.project_label, _State.metrics = wanted, None


def gathered() -> Metrics | None:
    """Where measurements go; ``None`` where there is no SDK for metrics."""
    provider, known = metrics.get_meter_provider(), _State.metrics
    if known is not None and known.provider is provider:
        return known
    if type(provider).__module__.startswith("opentelemetry.metrics"):
        return None  # the API itself, which does nothing
    _State.metrics = made = Metrics(provider, _State.project_label)
    return made


def within(span: trace.Span) -> Context:
    """The context of *span*, so that an exemplar leads to it."""
    return trace.set_span_in_context(span)
