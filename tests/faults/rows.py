"""What a row of the matrix says: what the far side does, and what must come of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from devsynth_providers import ProviderError, Timeouts, ToolCall

from ..loopback import Script, stream, vectors, whole

Way = Literal["generate", "generate_stream", "embed", "embed_batch"]
Lane = Literal["direct", "unified"]
Wire = Literal["openai", "anthropic"]
CHATS: tuple[Way, ...] = ("generate", "generate_stream")
WHOLE: tuple[Way, ...] = ("generate",)
STREAMED: tuple[Way, ...] = ("generate_stream",)
EMBEDS: tuple[Way, ...] = ("embed", "embed_batch")
BATCH: tuple[Way, ...] = ("embed_batch",)
ANY: tuple[Way, ...] = CHATS + EMBEDS

KEY = "sk-canary-0123456789abcdef"
PROMPT = "canary-of-the-prompt: what is the capital of France?"
LONG = Timeouts(first_token_s=20, idle_s=20, total_s=60)


class Then(NamedTuple):
    """How often the model is asked that has the fault, with two attempts allowed, and whether the next one is then."""

    tries: int
    passes_on: bool


AGAIN = Then(2, True)
NEXT = Then(1, True)
NOW = Then(1, False)
"""Nobody else is asked: it is an answer, or no answer of anybody would be another."""

Bill = Literal["N", "U", "Y"]
"""Whether it is billed: not, unknown, yes. What is not known is not counted as free."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault. *comes* is the text of the answer, or the class of the error if nobody else answers."""

    number: str
    """Of the catalogue of faults."""
    name: str
    sent: Script = (whole(), stream())
    comes: type[ProviderError] | str
    then: Then = NOW
    bill: Bill = "Y"
    ways: tuple[Way, ...] = ANY
    lanes: tuple[Lane, ...] = ("direct", "unified")
    wire: Wire = "openai"
    status: int | None = None
    partial: str | None = None
    """What is delivered before it breaks off, exactly."""
    somewhere: bool = False
    """Whether it breaks off within that text, nobody knows where."""
    after_s: float | None = None
    """When to come back, as the error must say it."""
    cap_s: float = 0.0
    """The longest wait between two attempts."""
    says: str = ""
    """What stands in the error's text."""
    echoes: bool = False
    """Whether the server's own message has the prompt in it, which is then in the error's text, and nowhere else."""
    where: str = ""
    """The server, if it is another than that of the matrix: one that takes no request."""
    requests: bool = True
    """Whether the request of each try arrives."""
    window: int = 32_768
    """The context window of the model behind; that of the one with the fault is 8192."""
    finish: str = "stop"
    calls: tuple[ToolCall, ...] = ()
    served: str = "served-model"
    """The model that the answer says it is of."""
    estimated: bool = False
    """Whether the usage of the answer is our own estimate, for the server told none that can be true."""
    told: tuple[int, int] | None = None
    """The usage of a failure that the server did tell."""
    clocks: Timeouts = LONG
    hangs: bool = False
    """Whether the server waits for the client to leave."""
    everywhere: bool = False
    """Whether it is played on both ends of the range of LiteLLM."""

    @property
    def id(self) -> str:
        return f"{self.number} {self.name}" + (", anthropic" if self.wire == "anthropic" else "")

    @property
    def fails(self) -> bool:
        return not isinstance(self.comes, str)


def row(number: str | int, name: str, sent: Any, comes: Any, then: Then = NOW, bill: Bill = "Y", **more: Any) -> Row:
    """A row; its status is that of an answer with one of failure, unless it says another."""
    if "status" not in more:
        status = getattr(sent, "status", 200)
        more["status"] = status if status >= 300 else None
    return Row(number=str(number), name=name, sent=sent, comes=comes, then=then, bill=bill, **more)


def embedded(body: dict[str, Any]) -> Any:
    """Sound vectors for *body*, as many as it has texts."""
    return vectors(*VECTORS[: len(body["input"])])


VECTORS = ([1.0, 0.0], [0.0, 1.0])
"""The vectors of the model that has the fault, if it answers after all."""


def on_both(rows: list[Row]) -> list[Row]:
    """*rows*, to be played on both ends of the range of LiteLLM too."""
    return [dataclasses.replace(each, everywhere=True) for each in rows]


def on_direct(rows: list[Row]) -> list[Row]:
    """*rows*, to be played on the direct lane alone: variations of what is decided before LiteLLM hears of it."""
    return [dataclasses.replace(each, lanes=("direct",)) for each in rows]
