"""Providers by the names that policies use."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, cast

from ..errors import ConfigurationError
from ..port import ProviderPort
from ..types import Model, Timeouts
from .base import BaseProvider
from .stub import StubProvider

_BUILT_IN = {
    "openai": ".openai:OpenAIProvider",
    "anthropic": ".anthropic:AnthropicProvider",
    "openrouter": ".openrouter:OpenRouterProvider",
    "litellm": ".anything:LiteLLMProvider",
    "lmstudio": ".lmstudio:LMStudioProvider",
    "local": ".local:LocalProvider",
    "stub": ".stub:StubProvider",
}
"""Where the classes that come with the library are; loaded when a model asks for one."""

_FALSE = frozenset(("", "0", "false", "no", "off"))


class ProviderRegistry:
    """Which class serves a model, by the name in its ``provider``. A new one knows those that come with the library."""

    def __init__(self) -> None:
        self._classes: dict[str, type[ProviderPort] | str] = dict(_BUILT_IN)

    def register(self, name: str, cls: type[ProviderPort]) -> None:
        """Let policies say ``provider: name`` for *cls*, which is called with a ``Model``."""
        if not (isinstance(cls, type) and issubclass(cls, ProviderPort)):
            raise ConfigurationError(f"{cls!r} is not a class of providers: it must extend ProviderPort")
        self._classes[name] = cls

    def names(self) -> list[str]:
        """The names that a policy may use."""
        return sorted(self._classes)

    def build(self, model: Model, timeouts: Timeouts) -> ProviderPort:
        """The provider of *model*. Raises ``ConfigurationError`` if it lacks something, before anything is opened.

        With ``DEVSYNTH_OFFLINE`` set it is the stub, whatever the model says: no socket, no process.
        """
        if os.environ.get("DEVSYNTH_OFFLINE", "").strip().lower() not in _FALSE:
            return StubProvider(model)
        if (cls := self._classes.get(model.provider)) is None:
            raise ConfigurationError(f"no provider is called {model.provider!r}; there are {', '.join(self.names())}")
        if isinstance(cls, str):
            module, _, name = cls.partition(":")
            cls = getattr(import_module(module, __package__), name)
        make: Any = cls
        return cast("ProviderPort", make(model, timeout=timeouts) if issubclass(make, BaseProvider) else make(model))


registry = ProviderRegistry()
"""The one that routers use unless they are given another."""
