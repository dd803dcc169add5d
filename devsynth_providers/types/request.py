"""What is asked: messages or texts, what the answer may cost, and for whom it is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, Unpack

from typing_extensions import override

from ..errors import InvalidRequest
from .changed import changed
from .left_out import MAX_TOKENS, TEMPERATURE
from .limits import LIMITS, NO_LIMITS, Limits, is_number
from .options import LENGTHS, NOT_PARAMETERS, Options, refuse_near_misses
from .run_budget import RunBudget
from .tally import Tally

Role = Literal["system", "user", "assistant", "tool"]
AttemptReason = Literal["primary", "retry", "fallback", "hedge", "continuation"]

_PLAIN = frozenset(("chat",))
_ROLES = frozenset(("system", "user", "assistant", "tool"))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the model wants called; *arguments* is the JSON text it wrote, whole but unchecked."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise InvalidRequest(f"a message's role is one of {', '.join(sorted(_ROLES))}, not {self.role!r}")
        _check_text(self.content, "a message's content")

    @classmethod
    def of(cls, message: Message | Mapping[str, Any]) -> Message:
        """*message* itself, or one made from OpenAI's dictionary form."""
        if isinstance(message, Message):
            return message
        if not isinstance(message, Mapping) or "role" not in message:
            raise InvalidRequest("a message is a Message, or a mapping with role and content")
        calls = message.get("tool_calls") or ()
        if "content" not in message and not calls:
            raise InvalidRequest("a message needs content, or tool_calls")
        return cls(
            role=message["role"],
            content=message.get("content") or "",
            tool_calls=tuple(
                ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls
            ),
            tool_call_id=message.get("tool_call_id"),
        )


def new_id() -> str:
    """What tells a call from all others, anywhere: 128 random bits."""
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How far a request has come: filled in by the layers, left alone by callers.

    *deadline* is a moment on the event loop's clock; *attempt* is the number of the one being made, and *reason*
    why it is made; *tally* is what all of them come to. *rule* is who decided, by a *complexity* of so much, and *runs*
    are the budgets of the code that asks.
    """

    id: str = ""
    deadline: float | None = None
    rule: str = ""
    complexity: float | None = None
    runs: tuple[RunBudget, ...] = ()
    attempt: int = 1
    reason: AttemptReason = "primary"
    tally: Tally = field(default_factory=Tally, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What every request says about itself, whatever it asks for."""

    task: str | None = None
    project: str | None = None
    role: str | None = None
    tags: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    call: Call = field(default_factory=Call)

    @property
    def text(self) -> str:
        """All that the model has to read, for counting."""
        raise NotImplementedError

    @property
    def task_text(self) -> str:
        """The part of it that says what is to be done, for judging its difficulty."""
        return self.text

    @property
    def needs(self) -> frozenset[str]:
        """The abilities a model must have to take this request."""
        raise NotImplementedError

    @property
    def sampled(self) -> bool:
        """Whether the answer is drawn by chance: another call would bring another one."""
        return False

    def on(self, **changes: Any) -> Self:
        """The same request further on its way: *changes* are fields of ``Call``."""
        return changed(self, call=changed(self.call, **changes))

    def due(self, deadline: float) -> Self:
        """The same request, to be answered by *deadline* if it had no earlier one."""
        own = self.call.deadline
        return self if own is not None and own <= deadline else self.on(deadline=deadline)

    def begun(self) -> Self:
        """The same request as a call of its own, unless it is part of one: whoever is asked first says this."""
        return self if self.call.id else self.on(id=new_id(), tally=Tally())


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(Request):
    """A conversation to be continued."""

    messages: tuple[Message, ...]
    temperature: float = TEMPERATURE
    max_tokens: int = MAX_TOKENS
    stop: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    stream: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.messages:
            raise InvalidRequest("a request needs a prompt or messages")
        if not (is_number(self.temperature) and 0 <= self.temperature <= 2):
            raise InvalidRequest(f"temperature must be between 0 and 2, not {self.temperature!r}")
        if not is_number(self.max_tokens) or not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise InvalidRequest(f"max_tokens must be positive, and a whole number, not {self.max_tokens!r}")
        if self.parameters:
            _check_parameters(self.parameters)

    @property
    @override
    def text(self) -> str:
        parts = [message.content for message in self.messages]
        parts += [call.arguments for message in self.messages for call in message.tool_calls]
        if self.tools:
            parts.append(json.dumps(self.tools, ensure_ascii=False, default=str))
        return "\n".join(parts)

    @property
    @override
    def task_text(self) -> str:
        asked = [message.content for message in self.messages if message.role == "user"]
        return "\n".join(asked) or self.text

    @property
    @override
    def sampled(self) -> bool:
        return self.temperature > 0

    @property
    @override
    def needs(self) -> frozenset[str]:
        if not self.tools and not self.parameters:
            return _PLAIN
        needs = {"chat"}
        if self.tools:
            needs.add("tools")
        if self.parameters.get("response_format") is not None:
            needs.add("json")
        return frozenset(needs)

    @classmethod
    def of(cls, prompt: str | None = None, *, stream: bool = False, **options: Unpack[Options]) -> ChatRequest:
        """A request from what callers write: a prompt, or *messages*, and any of ``Options``."""
        given: dict[str, Any] = dict(options)
        history = given.pop("messages", None) or ()
        if history and isinstance(history, str | Mapping):
            raise InvalidRequest("messages is a list of messages; a prompt is given as the prompt")
        messages = [Message.of(message) for message in history]
        if system_prompt := given.pop("system_prompt", None):
            messages.insert(0, Message("system", system_prompt))
        if prompt is not None:
            if prompt == "":
                raise InvalidRequest("the prompt is empty")
            messages.append(Message("user", prompt))
        stop = given.pop("stop_sequences", None) or ()
        named = {name: given.pop(name) for name in ("temperature", "max_tokens") if name in given}
        tools = given.pop("tools", None) or ()
        if tools and (isinstance(tools, str | Mapping) or not all(isinstance(tool, Mapping) for tool in tools)):
            raise InvalidRequest("tools is a list of tools, each a mapping in OpenAI's form")
        about = take_context(given) if given else {}
        if given:
            refuse_near_misses(given)
        return cls(
            messages=tuple(messages),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            tools=tuple(tools),
            stream=stream,
            parameters=given,
            **named,
            **about,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest(Request):
    """Texts to be turned into vectors, one for each, in the same order."""

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.texts:
            raise InvalidRequest("there is nothing to embed: give at least one text")
        for text in self.texts:
            if not text:
                raise InvalidRequest("an empty text has no embedding")
            _check_text(text, "a text to embed")

    @property
    @override
    def text(self) -> str:
        return "\n".join(self.texts)

    @property
    @override
    def needs(self) -> frozenset[str]:
        return frozenset(("embeddings",))


def take_context(options: dict[str, Any]) -> dict[str, Any]:
    """Move the routing keywords out of *options*, as fields of ``Request``."""
    given = {name: options.pop(name) for name in LIMITS if name in options}
    limits = Limits(**given) if given else NO_LIMITS
    tags = options.pop("tags", None) or ()
    about: dict[str, Any] = {name: options.pop(name) for name in ("task", "project", "role") if name in options}
    for name, value in about.items():
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"{name} must be text, not {value!r}")
        _check_text(value or "", name)
    return {**about, "tags": (tags,) if isinstance(tags, str) else tuple(tags), "limits": limits}


def _check_parameters(given: Mapping[str, Any]) -> None:
    seed = given.get("seed")
    if seed is not None and type(seed) is not int:
        raise InvalidRequest(f"seed must be a whole number, not {seed!r}")
    body = given.get("extra_body") or {}
    inside = [each for each in body.values() if isinstance(each, Mapping)]  # options, generationConfig, …
    for name, instead in NOT_PARAMETERS.items():
        if name in given or name in body or (name in LENGTHS and any(name in each for each in inside)):
            raise InvalidRequest(f"{name!r} is not a parameter of a request; {instead}")
    top_p = given.get("top_p")
    if top_p is not None and not (is_number(top_p) and 0 <= top_p <= 1):
        raise InvalidRequest(f"top_p must be between 0 and 1, not {top_p!r}")


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise InvalidRequest(f"{what} must be text, not {type(text).__name__}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRequest(f"{what} holds a lone surrogate, which no provider accepts") from None
