"""A request in the form that LiteLLM's calls and its translators take: OpenAI's, with what is not OpenAI's apart."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...types import ChatRequest, Message
from . import translators

_API_PARAMETERS = frozenset(
    (
        "top_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "response_format",
        "tool_choice",
        "parallel_tool_calls",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "reasoning_effort",
    )
)
"""Parameters of OpenAI's API that LiteLLM translates for other providers."""


class Asked(NamedTuple):
    """What is asked. *body* goes into the request's body as it is, and only there: as keywords its names could be
    LiteLLM's controls, which send the key elsewhere or answer without asking anybody."""

    messages: list[dict[str, Any]]
    options: dict[str, Any]
    body: dict[str, Any]


def asked(request: ChatRequest, provider: str, model: str) -> Asked:
    """*request* for LiteLLM's *provider* and *model*, with a temperature if the model takes one: some take only their
    own, and a preference is no reason to fail."""
    options: dict[str, Any] = {"max_tokens": request.max_tokens}
    if request.stream:
        options["stream"] = True
        options["stream_options"] = {"include_usage": True}
    if request.stop:
        options["stop"] = list(request.stop)
    if request.tools:
        options["tools"] = [dict(tool) for tool in request.tools]
    effort = request.parameters.get("reasoning_effort")
    if translators.takes_temperature(provider, model, request.temperature, None if effort is None else str(effort)):
        options["temperature"] = request.temperature
    body: dict[str, Any] = {}
    for name, value in request.parameters.items():
        if name in _API_PARAMETERS:
            options[name] = value
        elif name != "extra_body":
            body[name] = value
    body.update(request.parameters.get("extra_body") or {})
    return Asked([_message(message) for message in request.messages], options, body)


def _message(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    return plain
