"""Any other model that LiteLLM knows by its name."""

from __future__ import annotations

import difflib
from typing import ClassVar, Unpack

from typing_extensions import override

from .. import catalogue
from ..errors import ConfigurationError
from ..port import ProviderPort
from ..types import Model, Network, Timeouts
from ._litellm.unified import Unified
from .base import NO_KEY, BaseProvider, Common

_OWN = frozenset(("openai", "anthropic", "openrouter", "lm_studio"))


class LiteLLMProvider(BaseProvider):
    """A model by LiteLLM's name for it, provider first, as in ``gemini/gemini-2.5-pro``.

    The key is *api_key*, or in the variable that the model's ``api_key_env`` names; without either, LiteLLM looks into
    the variables that it documents for the provider. A server at a *base_url* of its own is sent no other key.
    """

    provider: ClassVar[str] = "litellm"
    prefix: ClassVar[str] = ""

    def __init__(self, model: str | Model | None = None, **common: Unpack[Common]) -> None:
        if common.get("network") not in (None, Network()):
            raise ConfigurationError(
                "provider litellm sends by clients of LiteLLM's own, which take no network: set SSL_CERT_FILE, "
                "HTTPS_PROXY and the like in the environment"
            )
        super().__init__(model, **common)

    @override
    def _facts(self, model: str | Model | None, base_url: str | None) -> Model:
        facts = super()._facts(model, base_url)
        prefix, _, name = facts.id.partition("/")
        if not name:
            raise ConfigurationError(
                f"provider litellm wants the provider before the model's name, as in gemini/{facts.id}"
            )
        known = catalogue.litellm_providers()
        if prefix not in known and (near := difflib.get_close_matches(prefix, known, n=1, cutoff=0.75)):
            raise ConfigurationError(f"LiteLLM knows no provider {prefix!r}; did you mean {near[0]}/{name}?")
        if prefix in _OWN:
            own = prefix.replace("_", "")
            raise ConfigurationError(f"{prefix} has a provider of its own here: provider: {own}, model: {name}")
        return facts

    @override
    def _connect(self, model: Model, key: str, timeouts: Timeouts) -> ProviderPort:
        given = None if key == NO_KEY and model.base_url is None else key
        return Unified(model, target=model.id, api_key=given, base_url=model.base_url, wire=self._wire)
