"""A request in the form that LiteLLM's calls and its translators take: OpenAI's, with what is not OpenAI's apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...types import ChatRequest, Message

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


def asked(request: ChatRequest, config: Any = None, model: str = "") -> Asked:
    """*request* for LiteLLM. *config* is its translator for *model*, if there is one: it tells whether the model takes
    a temperature. Some take only their own, and a preference is no reason to fail."""
    options: dict[str, Any] = {"max_tokens": request.max_tokens}
    if request.stream:
        options["stream"] = True
        options["stream_options"] = {"include_usage": True}
    if request.stop:
        options["stop"] = list(request.stop)
    if request.tools:
        options["tools"] = [dict(tool) for tool in request.tools]
    if config is None or _takes_temperature(config, model, request):
        options["temperature"] = request.temperature
    body: dict[str, Any] = {}
    for name, value in request.parameters.items():
        if name in _API_PARAMETERS:
            options[name] = value
        elif name != "extra_body":
            body[name] = value
    body.update(request.parameters.get("extra_body") or {})
    return Asked([_message(message) for message in request.messages], options, body)


def _takes_temperature(config: Any, model: str, request: ChatRequest) -> bool:
    if "temperature" not in config.get_supported_openai_params(model):
        return False
    effort = request.parameters.get("reasoning_effort")
    asked = {"temperature": request.temperature} | ({} if effort is None else {"reasoning_effort": effort})
    mapped: Mapping[str, Any] = config.map_openai_params(asked, {}, model, True)
    return "temperature" in mapped


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
