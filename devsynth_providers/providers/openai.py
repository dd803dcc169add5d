"""OpenAI's API, and servers that speak it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

from typing_extensions import override

from ..errors import ConfigurationError
from ..types import Model
from ._litellm.dialects import Dialect, OpenAIChat
from .base import BaseProvider, Common


class OpenAIProvider(BaseProvider):
    """A model of OpenAI's, by ``OPENAI_API_KEY``; or any server that speaks its protocol, by *base_url*.

    The key in the environment goes to OpenAI only: another server gets one only if it is given one, by *api_key* or
    by its model's ``api_key_env``.
    """

    provider: ClassVar[str] = "openai"
    prefix: ClassVar[str] = "openai"
    default_model: ClassVar[str | None] = "gpt-4-turbo"
    model_variables: ClassVar[tuple[str, ...]] = ("OPENAI_MODEL",)
    default_url: ClassVar[str | None] = "https://api.openai.com/v1"
    key_variable: ClassVar[str | None] = "OPENAI_API_KEY"

    def __init__(
        self, model: str | Model | None = None, *, organization: str | None = None, **common: Unpack[Common]
    ) -> None:
        self._organization = (organization or os.environ.get("OPENAI_ORGANIZATION") or "").strip() or None
        if self._organization and not (self._organization.isascii() and self._organization.isprintable()):
            raise ConfigurationError("organization has characters in it that no name of one has")
        super().__init__(model, **common)

    @override
    def _dialect(self) -> Dialect:
        return OpenAIChat(organization=self._organization)

    @override
    def _extra(self) -> Mapping[str, Any]:
        return {"organization": self._organization} if self._organization else {}
