"""Providers by the names that policies use."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator
from importlib import import_module
from typing import Any, cast

from typing_extensions import override

from ..errors import ConfigurationError, DevSynthError, NotConfigured
from ..port import ProviderPort
from ..types import Model, Timeouts
from .base import BaseProvider
from .network import truth
from .stub import StubProvider

GROUP = "devsynth_providers.providers"
"""The group of entry points in which an installed package offers its providers."""

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

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*", re.ASCII)


class ProviderRegistry(Collection[str]):
    """Which class serves a model, by the name in its ``provider``. A new one knows those that come with the library.

    A name is looked for among those that were registered, then among those that come with the library, then in the
    entry points of installed packages; one with a dot in it is the path of a class, as in ``acme.models:AcmeProvider``.
    As a collection it has the names that can be built, and says so of a name without importing its class.
    """

    def __init__(self) -> None:
        self._classes: dict[str, type[ProviderPort] | str] = dict(_BUILT_IN)
        self._found: dict[str, type[ProviderPort]] = {}

    def register(self, name: str, cls: type[ProviderPort]) -> None:
        """Let policies say ``provider: name`` for *cls*, which is called with a ``Model``.

        The name may be one that comes with the library: *cls* then takes its place.
        """
        self._classes[name] = _checked(cls, name)

    def names(self) -> list[str]:
        """The names that were registered or come with the library; entry points and paths are not among them."""
        return sorted(self._classes)

    def find(self, name: str) -> type[ProviderPort]:
        """The class called *name*. Raises ``ConfigurationError`` if there is none, or what is there is no provider."""
        cls = self._classes.get(name) or self._found.get(name) or _from_entry_point(name) or _from_path(name)
        if isinstance(cls, str):
            module, _, attribute = cls.partition(":")
            return cast("type[ProviderPort]", getattr(import_module(module, __package__), attribute))
        if cls is None:
            known = [*self]
            near = difflib.get_close_matches(name.lower(), known, n=1)
            hint = f"did you mean {near[0]!r}? There" if near else "there"
            raise ConfigurationError(f"no provider is called {name!r}; {hint} are {', '.join(known)}")
        if name not in self._classes:
            self._found[name] = cls  # what is installed does not change under a running program
        return cls

    def build(self, model: Model, timeouts: Timeouts) -> ProviderPort:
        """The provider of *model*. Raises ``NotConfigured`` if it lacks something, and ``ConfigurationError`` if what
        is there is wrong, before anything is opened.

        With ``DEVSYNTH_OFFLINE`` set it is the stub, whatever the model says: no socket, no process. With
        ``DEVSYNTH_DISABLE_PROVIDERS`` set there is none.
        """
        if switched_on("DEVSYNTH_DISABLE_PROVIDERS"):
            raise NotConfigured("DEVSYNTH_DISABLE_PROVIDERS is set")
        if switched_on("DEVSYNTH_OFFLINE"):
            return StubProvider(model)
        return self.make(model, timeouts)

    def make(self, model: Model, timeouts: Timeouts) -> ProviderPort:
        """The provider of *model*, whatever the switches in the environment say. Raises as ``build`` does."""
        make: Any = self.find(model.provider)
        try:
            built = make(model, timeout=timeouts) if issubclass(make, BaseProvider) else make(model)
        except DevSynthError:
            raise
        except Exception as error:  # a class of somebody's own
            raise ConfigurationError(f"provider {model.provider!r} can not be made: {_told(error)}") from error
        return cast("ProviderPort", built)

    @override
    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (
            name in self._classes or _DOTTED.fullmatch(name) is not None or name in _offered()
        )

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._classes, *_offered()}))

    @override
    def __len__(self) -> int:
        return len({*self._classes, *_offered()})


def switched_on(variable: str) -> bool:
    """Whether the switch *variable* is on in the environment."""
    return truth(variable, os.environ.get(variable), False)


def _offered() -> dict[str, list[Any]]:
    """The entry points of installed packages, by their names: looked up when a name is not known otherwise."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - reads what all installed packages say of themselves

    offered: dict[str, list[Any]] = {}
    for each in entry_points(group=GROUP):
        offered.setdefault(each.name, []).append(each)
    return offered


def _from_entry_point(name: str) -> type[ProviderPort] | None:
    found = _offered().get(name)
    if found is None:
        return None
    whose = " and ".join(sorted(each.dist.name if each.dist else "a package" for each in found))
    if len(found) > 1:
        raise ConfigurationError(f"provider {name!r} is offered by {whose}: register the one that is meant")
    try:
        cls = found[0].load()
    except Exception as error:
        raise ConfigurationError(
            f"provider {name!r}, which {whose} offers, can not be loaded from {found[0].value}: {_told(error)}"
        ) from error
    return _checked(cls, f"{name}, which {whose} offers,")


def _from_path(path: str) -> type[ProviderPort] | None:
    if not _DOTTED.fullmatch(path):
        return None
    module, _, attribute = path.rpartition(":" if ":" in path else ".")
    try:
        cls = getattr(import_module(module), attribute)
    except Exception as error:
        raise ConfigurationError(f"provider {path!r} can not be loaded: {_told(error)}") from error
    return _checked(cls, path)


def _checked(cls: object, name: str) -> type[ProviderPort]:
    if not (isinstance(cls, type) and issubclass(cls, ProviderPort)):
        raise ConfigurationError(f"{name}: {cls!r} is not a class of providers: it must extend ProviderPort")
    return cls


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


registry = ProviderRegistry()
"""The one that routers use unless they are given another."""
