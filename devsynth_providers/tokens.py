"""How many tokens a text or a conversation is for a model, offline."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .analysis import estimate_tokens
from .errors import ConfigurationError, InvalidRequest
from .types import Message, Model
from .vocabularies import at_hand, pieces, table, vocabulary_of

ESTIMATE = "estimate"
"""What ``TokenCounter.encoding`` says where no table is at hand."""

_MESSAGE, _NAME, _REPLY = 3, 1, 3
_TOOLS, _PROPERTIES, _PROPERTY, _CHOICES, _CHOICE = 12, 3, 3, -3, 3
_TOOL = {"o200k_base": 7}
_OLDER_TOOL = 10
_CALL, _SEVERAL_CALLS = 5, 24

_COUNTED = frozenset(("type", "description", "enum", "properties", "items"))
_NOT_SEEN = frozenset(("required", "additionalProperties", "title", "$schema"))


class TokenCounter:
    """Counts tokens as *model* does: by its own vocabulary where that is public, else by the nearest.

    OpenAI's models are known by name: with a date, fine-tuned, and behind ``openai/``, ``azure/`` or
    ``openrouter/openai/``. For all others (Claude, Gemini, Llama, Qwen, Mistral, ...) no table of a current model is
    at hand, and ``cl100k_base`` stands in: Llama 3 and Qwen have grown out of it. Only the name is looked at: a model
    served under a name of OpenAI's is counted as that. How far off a stand-in is: docs/tokens.md.

    The table is read at the first count, in about a quarter of a second and some 70 MB, once for a process and an
    encoding; in a program that must not wait, do it before: ``await asyncio.to_thread(counter.load)``. Where LiteLLM
    has no table any more, ``estimate_tokens`` takes over, and ``encoding`` says so. Threads may share a counter.
    """

    def __init__(self, model: str | Model = "gpt-4o") -> None:
        self.model = model.id if isinstance(model, Model) else model
        if not isinstance(self.model, str) or not self.model:
            raise ConfigurationError(f"TokenCounter takes the name of a model, or a Model, not {model!r}")

    @property
    def exact(self) -> bool:
        """Whether texts are counted by the model's own vocabulary, and not by a stand-in."""
        return self._vocabulary[1]

    @property
    def encoding(self) -> str:
        """The vocabulary that is used: ``o200k_base``, ``cl100k_base``, ``p50k_base``, or ``estimate``."""
        return self._vocabulary[0]

    def load(self) -> None:
        """Read the table now. Raises ``ConfigurationError`` if it is damaged."""
        if self.encoding != ESTIMATE:
            table(self.encoding)

    def count(self, text: str) -> int:
        """How many tokens *text* is.

        What looks like a special token (``<|endoftext|>``) is text; a lone surrogate counts as U+FFFD. A text
        without a break for more than 30,000 characters is cut there, which may add a token at each cut.
        """
        if not isinstance(text, str):
            raise InvalidRequest(f"a text to count must be text, not {type(text).__name__}")
        if not text:
            return 0
        if self.encoding == ESTIMATE:
            return estimate_tokens(text)
        encode = table(self.encoding).encode_ordinary
        return sum(len(encode(piece)) for piece in pieces(text))

    def count_messages(
        self, messages: Sequence[Message | Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """How many tokens a request with *messages* and *tools* is, all that the provider adds to it included.

        This is what OpenAI publishes in its cookbook, "How to count tokens with tiktoken", and compares there with
        what its API bills: 3 tokens and the role for each message, 1 more for a name, 3 for the start of the reply;
        for tools 12, and for each of them 7 (10 with ``cl100k_base``), its name with its description, and what its
        parameters take. OpenAI calls it an estimate, and other providers have formats of their own. It treats flat
        parameters only; nested ones are counted by the same rule, and as JSON what no rule is known for. For calls of
        tools in the messages nothing is published: 5 tokens each beside name and arguments, and 24 if there are
        several, are one more than a user of OpenAI's forum was billed (topic 538914: 40, 89 and 114 tokens).
        """
        listed = not isinstance(messages, str | Mapping) and not isinstance(tools, str | Mapping)
        if not listed or not all(isinstance(tool, Mapping) for tool in tools):
            raise InvalidRequest("count_messages takes a list of messages, and a list of tools")
        read = [Message.of(message) for message in messages]
        total = _REPLY + sum(map(self._message, read)) + sum(map(self._name, messages))
        if sum(len(message.tool_calls) for message in read) > 1:
            total += _SEVERAL_CALLS
        return total + _TOOLS + sum(self._tool(tool) for tool in tools) if tools else total

    @functools.cached_property
    def _vocabulary(self) -> tuple[str, bool]:
        name, exact = vocabulary_of(self.model)
        return (name, exact) if at_hand(name) else (ESTIMATE, False)

    def _message(self, message: Message) -> int:
        calls = sum(_CALL + self.count(call.name) + self.count(call.arguments) for call in message.tool_calls)
        return _MESSAGE + self.count(message.role) + self.count(message.content) + calls

    def _name(self, given: Message | Mapping[str, Any]) -> int:
        name = given.get("name") if isinstance(given, Mapping) else None
        return _NAME + self.count(name) if name else 0

    def _tool(self, tool: Mapping[str, Any]) -> int:
        function = tool.get("function")
        if not isinstance(function, Mapping):
            return self._as_json(tool)  # a tool of the provider's own: its format is not known
        heading = f"{function.get('name', '')}:{_sentence(function)}"
        own = _TOOL.get(self.encoding, _OLDER_TOOL) + self.count(heading)
        return own + self._inside(function.get("parameters") or {})

    def _inside(self, schema: Mapping[str, Any]) -> int:
        """What the properties of *schema* take, and all else in it that the model may be shown."""
        properties, items = schema.get("properties"), schema.get("items")
        total = 0
        if isinstance(properties, Mapping) and properties:
            total += _PROPERTIES + sum(self._property(name, each) for name, each in properties.items())
        if isinstance(items, Mapping):
            total += self._property("", items)
        rest = {key: value for key, value in schema.items() if key not in _COUNTED and key not in _NOT_SEEN}
        return total + self._as_json(rest) if rest else total

    def _property(self, name: str, schema: object) -> int:
        if not isinstance(schema, Mapping):
            return _PROPERTY + self._as_json({name: schema})
        total = _PROPERTY + self.count(f"{name}:{schema.get('type', '')}:{_sentence(schema)}")
        if choices := schema.get("enum"):
            total += _CHOICES + sum(_CHOICE + self.count(str(choice)) for choice in choices)
        return total + self._inside(schema)

    def _as_json(self, value: object) -> int:
        return self.count(json.dumps(value, ensure_ascii=False, default=str))


def _sentence(described: Mapping[str, Any]) -> str:
    return str(described.get("description") or "").removesuffix(".")
