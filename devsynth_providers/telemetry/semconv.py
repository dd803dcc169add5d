"""The names that spans and metrics go by: OpenTelemetry's GenAI conventions in two dialects, and ours.

The conventions have moved on since version 1.41, which Jaeger's view of GenAI, dashboards and most instrumentation go
by; so it is the default. ``OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental`` chooses the newer names.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
OUTPUT_TYPE: Final = "gen_ai.output.type"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_STOP: Final = "gen_ai.request.stop_sequences"
REQUEST_ENCODINGS: Final = "gen_ai.request.encoding_formats"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
CACHE_CREATION: Final = "gen_ai.usage.cache_creation.input_tokens"
"""What ``CACHE_WRITE`` was called in 1.41, which Jaeger reads: both are said."""
REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
DETAILS: Final = "gen_ai.client.inference.operation.details"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_STATUS: Final = "http.response.status_code"
ERROR_TYPE: Final = "error.type"

CALL_ID: Final = "devsynth.call_id"
PROJECT: Final = "devsynth.project_id"
TASK: Final = "devsynth.task"
ROLE: Final = "devsynth.role"
TAGS: Final = "devsynth.tags"
COMPLEXITY: Final = "devsynth.task.complexity"
POLICY: Final = "devsynth.policy.name"
POLICY_VERSION: Final = "devsynth.policy.version"
RULE: Final = "devsynth.policy.rule"
MODEL: Final = "devsynth.model"
ATTEMPT: Final = "devsynth.attempt"
REASON: Final = "devsynth.attempt.reason"
WAIT_S: Final = "devsynth.attempt.wait_s"
TRANSPORT: Final = "devsynth.transport"
BREAKER_STATE: Final = "devsynth.breaker.state"
ESTIMATED_USAGE: Final = "devsynth.usage.estimated"
COST: Final = "devsynth.cost.usd_micros"
COST_BASIS: Final = "devsynth.cost.basis"
COST_ESTIMATED: Final = "devsynth.cost.estimated"
CACHE_HIT: Final = "devsynth.cache.hit"
DEGRADED: Final = "devsynth.degraded"
SHARED: Final = "devsynth.shared"
ABANDONED: Final = "devsynth.stream.abandoned"
INTERRUPTED: Final = "devsynth.stream.interrupted"
CANCELLED: Final = "devsynth.cancelled"
ATTEMPTS: Final = "devsynth.attempts"
TOTAL_INPUT: Final = "devsynth.total.input_tokens"
TOTAL_OUTPUT: Final = "devsynth.total.output_tokens"
TOTAL_COST: Final = "devsynth.total.cost.usd_micros"

PROVIDER_NAMES: Final = {"lmstudio": "lm_studio", "local": "llama_cpp"}
IN_PROCESS: Final = frozenset(("local", "stub"))
PARAMETERS: Final[Mapping[str, tuple[str, type]]] = {
    "top_p": ("gen_ai.request.top_p", float),
    "seed": ("gen_ai.request.seed", int),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
}
"""Parameters of a request that spans tell, as what, and of which type."""

_OPT_IN: Final = "gen_ai_latest_experimental"


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the two differ. *latest* is the newer."""

    latest: bool = False

    @classmethod
    def of(cls, opt_in: str | None) -> Self:
        """The one that ``OTEL_SEMCONV_STABILITY_OPT_IN``, a list with commas, asks for."""
        return cls(_OPT_IN in (each.strip() for each in (opt_in or "").split(",")))

    @property
    def parameters(self) -> Mapping[str, tuple[str, type]]:
        """As ``PARAMETERS``, with those that one dialect alone has, or has otherwise."""
        if self.latest:
            reasoning = {"reasoning_effort": ("gen_ai.request.reasoning.level", str)}
            return {**PARAMETERS, "top_k": ("gen_ai.request.top_k", int), **reasoning}
        return {**PARAMETERS, "top_k": ("gen_ai.request.top_k", float)}

    def duration(self, operation: str) -> str:
        """The metric of how long an attempt takes."""
        if not self.latest:
            return "gen_ai.client.operation.duration"
        return f"gen_ai.client.{'embeddings' if operation == 'embeddings' else 'inference'}.duration"

    @property
    def first_chunk(self) -> str:
        """The metric of how long a stream takes to begin."""
        return f"gen_ai.client.{'inference' if self.latest else 'operation'}.time_to_first_chunk"

    @property
    def per_chunk(self) -> str:
        """The metric of how long each further piece takes."""
        return f"gen_ai.client.{'inference' if self.latest else 'operation'}.time_per_output_chunk"


@functools.cache
def dialect() -> Dialect:
    """The one that this process speaks: what the environment said when it was first asked."""
    return Dialect.of(os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN"))
