"""LiteLLM's own translators, as the direct lane calls them. They are not promised to be stable: what is expected of
them stands in ``contracts``, and is tried before they are used.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import load

if TYPE_CHECKING:
    from .dialects import Sent


@functools.lru_cache(maxsize=1024)
def chat_config(provider: str, model: str) -> Any:
    """LiteLLM's translator for chats with *model* of *provider*, its name for it; ``None`` if it has none."""
    litellm = load.load()
    try:
        return litellm.utils.ProviderConfigManager.get_provider_chat_config(model, litellm.LlmProviders(provider))
    except ValueError:  # not one of its providers: ours for local models
        return None


@functools.lru_cache(maxsize=1024)
def supported(provider: str, model: str) -> frozenset[str]:
    """The parameters of OpenAI's API that *model* takes: asked once, since it takes LiteLLM a while."""
    return frozenset(chat_config(provider, model).get_supported_openai_params(model))


@functools.lru_cache(maxsize=4096)
def takes_temperature(provider: str, model: str, temperature: float, effort: str | None) -> bool:
    """Whether *model* takes this *temperature*, beside this effort to reason; so it is where nobody knows."""
    config = chat_config(provider, model)
    if config is None:
        return True
    if "temperature" not in supported(provider, model):
        return False
    asked = {"temperature": temperature} | ({} if effort is None else {"reasoning_effort": effort})
    mapped: Mapping[str, Any] = config.map_openai_params(asked, {}, model, True)
    return "temperature" in mapped


class _Body:
    """As much of an HTTP response as LiteLLM's translators look at."""

    status_code = 200
    headers: Mapping[str, str] = {}
    text = ""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def json(self) -> dict[str, Any]:
        """The decoded body."""
        return self._data


class _NoLog:
    """LiteLLM's translators tell what they read to a log; this is none."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def response(provider: str, model: str, data: dict[str, Any], sent: Sent) -> Any:
    """LiteLLM's reading of a whole answer of *provider*."""
    return chat_config(provider, model).transform_response(
        model=model,
        raw_response=_Body(data),
        model_response=load.load().ModelResponse(),
        logging_obj=_NoLog(),
        request_data=sent.body,
        messages=sent.body.get("messages", []),
        optional_params=sent.options,
        litellm_params=sent.memory,
        encoding=None,
        api_key="",
        json_mode=sent.json_mode,
    )


def anthropic_iterator(*, json_mode: bool, memory: Mapping[str, Any]) -> Any:
    """LiteLLM's reader of Anthropic's events; *memory* has the names of tools that its translator had to change."""
    handler = importlib.import_module("litellm.llms.anthropic.chat.handler")
    iterator = handler.ModelResponseIterator(None, sync_stream=False, json_mode=json_mode)
    key: str = getattr(handler, "ANTHROPIC_TOOL_NAME_REVERSE_MAP_KEY", "")
    if memory.get(key):
        iterator.tool_name_reverse_map = memory[key]
    return iterator
