"""The wires that the direct lane speaks. LiteLLM's translators say what a provider wants to be sent and what its answer
means; a dialect adds what only the raw bytes tell: whether the provider itself said that it was done, and what failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from ...errors import MalformedResponse, ProviderUnavailable
from ...types import EmbedRequest, Model, Usage
from ..sse import Event
from . import answers, translators


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it goes over the wire. *memory* is what the translator of the answer wants to be reminded of."""

    url: str
    headers: Mapping[str, str] = field(repr=False)  # a key is in them, and errors are shown with variables
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

    @property
    def no_usage(self) -> dict[str, int] | None:
        """What translators get in place of usage, which is read without them."""

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

    def finish(self, data: Mapping[str, Any]) -> str | None:
        """The finish reason that the provider gives in *data*, in its own word: a whole answer, or an event's."""

    def usage(self, data: Mapping[str, Any], told: dict[str, Any]) -> Usage | None:
        """The usage of the answer as far as *data* tells it; *told* is what earlier events of the answer told, and is
        added to. Read here, and not by the translators, of which older ones lose parts of it."""

    def refusal(self, data: Mapping[str, Any]) -> str:
        """What of a refusal is in *data*, where it has a place of its own that the translators pass over."""

    def check(self, data: dict[str, Any], model: Model) -> None:
        """Raise the failure that *data* tells of in another place than an error's, and fill in what some servers leave
        out and no translator can do without."""


_LEFT_OUT = (("id", ""), ("created", 0), ("model", ""))


class OpenAIChat:
    """OpenAI's chat completions and embeddings, and every server that speaks them."""

    embeds: ClassVar[bool] = True
    no_usage: ClassVar[dict[str, int] | None] = None

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

    def finish(self, data: Mapping[str, Any]) -> str | None:
        return next((each for choice in data.get("choices") or () if (each := choice.get("finish_reason"))), None)

    def usage(self, data: Mapping[str, Any], told: dict[str, Any]) -> Usage | None:
        counts = data.get("usage")
        if not isinstance(counts, Mapping):
            return None
        if counts.get("prompt_tokens") is None:
            return None
        asked, written = counts.get("prompt_tokens_details"), counts.get("completion_tokens_details")
        asked = asked if isinstance(asked, Mapping) else {}
        written = written if isinstance(written, Mapping) else {}
        return answers.checked(
            input_tokens=counts["prompt_tokens"],
            output_tokens=counts.get("completion_tokens"),
            cached_input_tokens=asked.get("cached_tokens"),
            cache_write_tokens=asked.get("cache_write_tokens"),
            reasoning_tokens=written.get("reasoning_tokens"),
        )

    def refusal(self, data: Mapping[str, Any]) -> str:
        said = [choice.get("delta") or choice.get("message") or {} for choice in data.get("choices") or ()]
        return "".join(each.get("refusal") or "" for each in said)

    def check(self, data: dict[str, Any], model: Model) -> None:
        for name, nothing in _LEFT_OUT:
            data.setdefault(name, nothing)
        if data.get("object") == "chat.completion.chunk" and "choices" not in data and "usage" not in data:
            raise MalformedResponse("a piece of the answer has no choices", provider=model.provider, model=model.name)
        for choice in data.get("choices") or ():
            choice.setdefault("index", 0)
            choice.setdefault("finish_reason", None)
            if "message" in choice:
                choice["message"].setdefault("role", "assistant")
            elif choice.get("delta") is None:
                choice["delta"] = {}
            content = (choice.get("message") or choice.get("delta") or {}).get("content")
            if not isinstance(content, str | None):
                raise MalformedResponse(f"the answer's content is no text, but {type(content).__name__}")
            if choice.get("finish_reason") == "error":
                raise ProviderUnavailable("the answer ended in an error", provider=model.provider, model=model.name)


class AnthropicMessages:
    """Anthropic's messages, which have no embeddings."""

    litellm_name: ClassVar[str] = "anthropic"
    embeds: ClassVar[bool] = False
    no_usage: ClassVar[dict[str, int] | None] = {"input_tokens": 0, "output_tokens": 0}

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

    def finish(self, data: Mapping[str, Any]) -> str | None:
        place = data.get("delta") if data.get("type") == "message_delta" else data
        return place.get("stop_reason") if isinstance(place, Mapping) else None

    def usage(self, data: Mapping[str, Any], told: dict[str, Any]) -> Usage | None:
        begun = data.get("type") == "message_start"
        counts = (data["message"] if begun else data).get("usage")
        if not isinstance(counts, Mapping):
            return None
        for name, count in counts.items():
            if type(count) is int and count >= told.get(name, 0):  # they only grow
                told[name] = count
        if begun:
            return None  # it counts what is still to come as one token
        if "input_tokens" not in told:
            return None
        cached, written = told.get("cache_read_input_tokens", 0), told.get("cache_creation_input_tokens", 0)
        return answers.checked(
            input_tokens=told["input_tokens"] + cached + written,
            output_tokens=told.get("output_tokens"),
            cached_input_tokens=cached,
            cache_write_tokens=written,
        )

    def refusal(self, data: Mapping[str, Any]) -> str:
        return ""

    def check(self, data: dict[str, Any], model: Model) -> None:
        return
