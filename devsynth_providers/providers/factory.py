"""Providers from what is set: which one, with which model and key, and who answers if it can not."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from ..errors import ConfigurationError, NotConfigured
from ..layers.fallback import FallbackProvider
from ..port import ProviderPort
from ..types import Model
from .assembly import assembled
from .disabled import DisabledProvider
from .registry import ProviderRegistry, registry
from .settings import Settings
from .stub import StubProvider

log = logging.getLogger("devsynth_providers")


class ProviderFactory:
    """Makes providers from arguments, the environment, a ``.env`` file, a YAML file, in this order.

    Its methods need no instance, and work on one too.
    """

    @staticmethod
    def create(
        provider_type: str | Enum | None = None,
        model: str | Model | None = None,
        use_fallback: bool = True,
        *,
        config: Mapping[str, Any] | None = None,
        env_file: str | os.PathLike[str] | bool | None = None,
        file: str | os.PathLike[str] | None = None,
        registry: ProviderRegistry = registry,
    ) -> ProviderPort:
        """The provider *provider_type*, or the one that is set; with its fallbacks, if any are set.

        *model* and *config* are for this provider, never for its fallbacks. *env_file* is the path of a ``.env`` file,
        or ``True`` for the one in the working directory; *file* a YAML file with a section ``provider:``. What lacks a
        key, a package or a file is left out of a chain, with a warning in the log; if nobody is left,
        ``NotConfigured`` says why. Anything wrong is a ``ConfigurationError``. Nothing is opened before the first call.
        """
        if not isinstance(config, Mapping | None):
            raise ConfigurationError(f"config is a mapping of settings, not {type(config).__name__}")
        settings = Settings(env_file=env_file, file=file, registry=registry)
        named = provider_type.value if isinstance(provider_type, Enum) else provider_type
        given = dict(config or {}) | ({} if model is None else {"model": model})
        off = settings.find("disable_providers")
        if off.value:
            return DisabledProvider(f"all providers are switched off by {off.source}", _name(given.get("model")))
        if settings.find("offline").value:
            return StubProvider(given.get("model"))
        primary = settings.find("primary", argument=named).value
        names = list(dict.fromkeys((primary, *(_fallbacks(settings) if use_fallback else ()))))
        classes = [registry.find(name) for name in names]  # a name that nobody has is wrong, wherever it stands
        built: list[ProviderPort] = []
        lacking: dict[str, NotConfigured] = {}
        for name, cls in zip(names, classes, strict=True):
            try:
                built.append(assembled(name, cls, settings, given if name == primary else {}))
            except NotConfigured as error:
                lacking[name] = error
        if not built:
            return _safe_default(settings, lacking)
        for name, why in lacking.items():
            log.warning("provider %s is left out: %s", name, why)
        return built[0] if len(built) == 1 else FallbackProvider(built)

    create_provider = create

    @staticmethod
    def register(name: str, cls: type[ProviderPort]) -> None:
        """Let *cls* be asked for by *name*, here and in policies."""
        registry.register(name, cls)


def _fallbacks(settings: Settings) -> Iterator[str]:
    yield from settings.find("fallback").value
    if settings.find("use_local_fallback").value:
        yield "local"


def _safe_default(settings: Settings, lacking: Mapping[str, NotConfigured]) -> ProviderPort:
    """What somebody has said shall stand in where nothing is configured. Raises ``NotConfigured`` if nobody has."""
    why = "; ".join(f"{name}: {error}" for name, error in lacking.items())
    stand_in = settings.find("safe_default_provider")
    if not stand_in.given:
        if len(lacking) == 1:
            raise next(iter(lacking.values()))
        raise NotConfigured(f"no provider is configured: {why}")
    log.warning("no provider is configured: %s; %s answers, by %s", why, stand_in.value, stand_in.source)
    return StubProvider() if stand_in.value == "stub" else DisabledProvider(f"no provider is configured: {why}")


def _name(model: str | Model | None) -> str | None:
    return model.name if isinstance(model, Model) else model
