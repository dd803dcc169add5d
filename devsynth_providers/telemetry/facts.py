"""What spans and metrics say of a request and of its attempts: only what is known, and never a word of its content."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..errors import DevSynthError, ProviderError, StreamInterrupted
from ..reply import Reply
from ..scrubbing import without_keys
from ..types import Attempt, ChatRequest, Model, Plan, Request
from . import semconv as name
from .current import Attribute

Facts = dict[str, Attribute]


def operation(request: Request) -> str:
    """What the conventions call it."""
    return "chat" if isinstance(request, ChatRequest) else "embeddings"


def of_request(request: Request) -> Facts:
    """What is known of *request* before anything is decided."""
    facts: Facts = {name.OPERATION: operation(request), name.CALL_ID: request.call.id}
    about = {name.PROJECT: request.project, name.TASK: request.task, name.ROLE: request.role}
    facts |= {key: value for key, value in about.items() if value}
    if request.tags:
        facts[name.TAGS] = list(request.tags)
    if isinstance(request, ChatRequest) and request.stream:
        facts[name.REQUEST_STREAM] = True
    return facts


def of_plan(plan: Plan) -> Facts:
    """What was decided, for the event that tells it."""
    facts: Facts = {
        "devsynth.policy.order": list(plan.models),
        "devsynth.policy.candidates": [_candidate(each) for each in plan.candidates],
        "devsynth.policy.rejected": [f"{r.model}: {r.code}" for r in plan.rejected],
        "devsynth.task.evidence": [f"{e.name}={e.value:g} ({e.contribution:+.2f})" for e in plan.evidence],
        "devsynth.input_tokens.estimated": plan.input_tokens,
    }
    if plan.explored:
        facts["devsynth.policy.explored"] = True
    return facts | {f"devsynth.limit.{key}": value for key, value in plan.limits.given.items()}


def _candidate(candidate: Any) -> str:
    cost, took = candidate.cost_usd, candidate.latency_s
    said = ["price unknown" if cost is None else f"${cost:.6f}", "time unknown" if took is None else f"{took:.2f} s"]
    return f"{candidate.model.name}: {', '.join(said)}"


def of_attempt(request: Request, model: Model) -> Facts:
    """What is known of an attempt before it is made: what samplers may go by."""
    facts: Facts = {
        **who(request, model),
        name.MODEL: model.name,
        name.ATTEMPT: request.call.attempt,
        name.REASON: request.call.reason,
    }
    if isinstance(request, ChatRequest):
        facts[name.REQUEST_TEMPERATURE] = float(request.temperature)
        facts[name.REQUEST_MAX_TOKENS] = int(request.max_tokens)
        if request.stream:
            facts[name.REQUEST_STREAM] = True
        if request.stop:
            facts[name.REQUEST_STOP] = list(request.stop)
        if request.parameters:
            facts |= _parameters(request.parameters)
    return facts


def who(request: Request, model: Model) -> dict[str, str | int]:
    """What is asked of whom: the labels of every metric of an attempt, too."""
    facts: dict[str, str | int] = {
        name.OPERATION: operation(request),
        name.PROVIDER: name.PROVIDER_NAMES.get(model.provider, model.provider),
        name.REQUEST_MODEL: model.id,
    }
    if model.base_url:
        facts[name.SERVER_ADDRESS], facts[name.SERVER_PORT] = _server(model.base_url)
    return facts


def _parameters(given: Mapping[str, Any]) -> Facts:
    facts: Facts = {}
    for key, (attribute, kind) in name.dialect().parameters.items():
        value = given.get(key)
        if (
            isinstance(value, int | float | str)
            and not isinstance(value, bool)
            and (kind is str) == (isinstance(value, str))
        ):
            facts[attribute] = kind(value)
    wanted = given.get("response_format")
    if isinstance(wanted, Mapping):
        facts[name.OUTPUT_TYPE] = "text" if wanted.get("type") == "text" else "json"
    return facts


@functools.lru_cache(maxsize=256)
def _server(base_url: str) -> tuple[str, int]:
    """Host and port, which are the same for all calls of a model."""
    address = urlsplit(base_url)
    return address.hostname or "", address.port or (443 if address.scheme == "https" else 80)


def of_outcome(attempt: Attempt, reply: Reply | None, error: BaseException | None) -> Facts:
    """How *attempt* ended, and what it used."""
    usage = attempt.usage
    facts: Facts = {
        name.INPUT_TOKENS: usage.input_tokens,
        name.OUTPUT_TOKENS: usage.output_tokens,
        name.COST_BASIS: attempt.cost_basis,
        name.COST_ESTIMATED: attempt.cost_basis == "estimated",
        name.ESTIMATED_USAGE: usage.estimated,
    }
    if usage.cached_input_tokens:
        facts[name.CACHE_READ] = usage.cached_input_tokens
    if usage.cache_write_tokens:
        facts[name.CACHE_WRITE] = facts[name.CACHE_CREATION] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        facts[name.REASONING] = usage.reasoning_tokens
    if attempt.cost_micros is not None:
        facts[name.COST] = attempt.cost_micros
    if attempt.wait_s:
        facts[name.WAIT_S] = attempt.wait_s
    if attempt.first_token_s is not None:
        facts[name.FIRST_CHUNK] = attempt.first_token_s - attempt.wait_s
    if reply is not None:
        facts |= _of_end(reply, error)
        if reply.response_model:
            facts[name.RESPONSE_MODEL] = reply.response_model
    status = getattr(error, "status", None)
    if status:
        facts[name.HTTP_STATUS] = status
    return facts


def _of_end(reply: Reply, error: BaseException | None) -> Facts:
    """How an answer ended that had begun."""
    facts: Facts = {}
    if finish_reason := reply.finish_reason:
        facts[name.FINISH_REASONS] = [finish_reason]
    elif error is None:
        facts[name.ABANDONED] = True
    if isinstance(error, StreamInterrupted):
        facts[name.INTERRUPTED] = True
    if name.FINISH_REASONS not in facts and name.dialect().latest:
        facts[name.FINISH_REASONS] = ["error"]  # one was to be expected, and did not come
    vectors = next((piece.vectors for piece in reply.pieces if piece.vectors), None)
    if vectors:
        facts[name.DIMENSIONS] = len(vectors[0])
    return facts


def of_answer(reply: Reply, error: BaseException | None) -> Facts:
    """How a request ended that was answered, or was begun to be."""
    facts = _of_end(reply, error)
    facts[name.RESPONSE_MODEL] = reply.response_model or reply.model.name
    facts[name.DEGRADED] = reply.degraded or bool(reply.continued_by)
    facts[name.CACHE_HIT] = reply.cached
    if reply.shared:
        facts[name.SHARED] = True
    if reply.first_token_s is not None:
        facts[name.FIRST_CHUNK] = reply.first_token_s
    return facts


def totals(attempts: tuple[Attempt, ...]) -> Facts:
    """What *attempts* come to: under names of ours, so that sums over ``gen_ai.usage.*`` count nothing twice."""
    facts: Facts = {
        name.ATTEMPTS: len(attempts),
        name.TOTAL_INPUT: sum(attempt.usage.input_tokens for attempt in attempts),
        name.TOTAL_OUTPUT: sum(attempt.usage.output_tokens for attempt in attempts),
    }
    costs = [attempt.cost_micros for attempt in attempts]
    known = [cost for cost in costs if cost is not None]
    if len(known) == len(costs):
        facts[name.TOTAL_COST] = sum(known)
    return facts


def outcome(error: BaseException | None, *, whole: bool) -> str:
    """How it ended, in a word for metrics."""
    if error is None:
        return "answered" if whole else "abandoned"
    return "cancelled" if left(error) else "failed"


def left(error: BaseException | None) -> bool:
    """Whether the caller did not want it any more: that is no error."""
    return isinstance(error, asyncio.CancelledError | GeneratorExit)


def kind(error: BaseException) -> str:
    """The stable name of *error*."""
    return error.kind if isinstance(error, DevSynthError) else type(error).__qualname__


def described(error: BaseException) -> str:
    """What is wrong, in our words: a provider's may repeat the prompt, and content never reaches a span."""
    what = kind(error)
    if isinstance(error, ProviderError):
        said = [f"HTTP {error.status}" if error.status else "", error.code or ""]
        return f"{what} ({', '.join(filter(None, said))})" if any(said) else what
    return without_keys(str(error).partition("\n")[0])[:200] if isinstance(error, DevSynthError) else what
