"""The wires that the direct lane speaks. LiteLLM's translators say what a provider wants to be sent and what its answer
means; a dialect adds what only the raw bytes tell: whether the provider itself said that it was done, and what failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from ...errors import ProviderUnavailable
from ...types import EmbedRequest, Model
from ..sse import Event
from . import translators


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it goes over the wire. *memory* is what the translator of the answer wants to be reminded of."""

    url: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    json_mode: bool = False


class Dialect(Protocol):
    """One provider's wire."""

    @property
    def litellm_name(self) -> str:
        """LiteLLM's name of the provider whose translators these are."""

    @property
    def embeds(self) -> bool:
        """Whether there are embeddings on this wire."""

    def url(self, base_url: str) -> str:
        """Where chats go."""

    def headers(self) -> dict[str, str]:
        """Headers beside those of the translator."""

    def embedding(self, request: EmbedRequest, model: str, base_url: str, key: str) -> Sent:
        """*request* for this wire."""

    def iterator(self, config: Any, sent: Sent) -> Any:
        """LiteLLM's reader of this provider's events."""

    def last(self, event: Event) -> bool:
        """Whether *event* says that no more will come."""

    def says_nothing(self, event: Event) -> bool:
        """Whether *event* is only there to keep the connection."""

    def finished(self, data: Mapping[str, Any]) -> bool:
        """Whether the provider gives a finish reason in *data*: a whole answer, or one event of a stream."""

    def counted(self, data: Mapping[str, Any]) -> bool:
        """Whether the usage in *data* is that of the answer up to there."""

    def refusal(self, data: Mapping[str, Any]) -> str:
        """What of a refusal is in *data*, where it has a place of its own that the translators pass over."""

    def check(self, data: Mapping[str, Any], model: Model) -> None:
        """Raise the failure that *data* tells of in another place than an error's."""


class OpenAIChat:
    """OpenAI's chat completions and embeddings, and every server that speaks them."""

    embeds: ClassVar[bool] = True

    def __init__(self, litellm_name: str = "openai", organization: str | None = None) -> None:
        self._litellm_name = litellm_name
        self._organization = organization

    @property
    def litellm_name(self) -> str:
        return self._litellm_name

    def url(self, base_url: str) -> str:
        return f"{base_url}/chat/completions"

    def headers(self) -> dict[str, str]:
        return {"OpenAI-Organization": self._organization} if self._organization else {}

    def embedding(self, request: EmbedRequest, model: str, base_url: str, key: str) -> Sent:
        body = {"model": model, "input": list(request.texts), "encoding_format": "float"}
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **self.headers()}
        return Sent(f"{base_url}/embeddings", headers, body)

    def iterator(self, config: Any, sent: Sent) -> Any:
        return config.get_model_response_iterator(iter(()), False, sent.json_mode)

    def last(self, event: Event) -> bool:
        return event.data == b"[DONE]"

    def says_nothing(self, event: Event) -> bool:
        return False

    def finished(self, data: Mapping[str, Any]) -> bool:
        return any(choice.get("finish_reason") for choice in data.get("choices") or ())

    def counted(self, data: Mapping[str, Any]) -> bool:
        return True

    def refusal(self, data: Mapping[str, Any]) -> str:
        said = [choice.get("delta") or choice.get("message") or {} for choice in data.get("choices") or ()]
        return "".join(each.get("refusal") or "" for each in said)

    def check(self, data: Mapping[str, Any], model: Model) -> None:
        for choice in data.get("choices") or ():
            if choice.get("finish_reason") == "error":
                raise ProviderUnavailable("the answer ended in an error", provider=model.provider, model=model.name)


class AnthropicMessages:
    """Anthropic's messages, which have no embeddings."""

    litellm_name: ClassVar[str] = "anthropic"
    embeds: ClassVar[bool] = False

    def url(self, base_url: str) -> str:
        return f"{base_url}/v1/messages"

    def headers(self) -> dict[str, str]:
        return {}

    def embedding(self, request: EmbedRequest, model: str, base_url: str, key: str) -> Sent:
        raise AssertionError("refused before it comes here")

    def iterator(self, config: Any, sent: Sent) -> Any:
        return translators.anthropic_iterator(json_mode=sent.json_mode, memory=sent.memory)

    def last(self, event: Event) -> bool:
        return event.name == "message_stop"

    def says_nothing(self, event: Event) -> bool:
        return event.name == "ping"

    def finished(self, data: Mapping[str, Any]) -> bool:
        place = data.get("delta") if data.get("type") == "message_delta" else data
        return isinstance(place, Mapping) and bool(place.get("stop_reason"))

    def counted(self, data: Mapping[str, Any]) -> bool:
        return data.get("type") != "message_start"  # which counts what is to come as one token

    def refusal(self, data: Mapping[str, Any]) -> str:
        return ""

    def check(self, data: Mapping[str, Any], model: Model) -> None:
        return
