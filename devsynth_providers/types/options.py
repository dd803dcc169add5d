"""The keywords that callers may use, as types; and those that they must not, with what to do instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from .request import Message


class Context(TypedDict, total=False):
    """For whom a request is and within which limits: what a policy decides by."""

    task: str | None
    project: str | None
    role: str | None
    tags: Sequence[str]
    max_cost_usd: float | None
    max_expected_cost_usd: float | None
    max_latency_s: float | None
    first_token_s: float | None
    min_quality: float | None


class Parameters(Context, total=False):
    """Keywords that ``generate`` and ``generate_stream`` take beside their named ones.

    The first group goes to the policy; the others go to the model as they are. Names that are not listed here
    go to the model too, so that a provider's own parameter needs no new release of this library.
    """

    top_p: float
    top_k: int
    seed: int
    presence_penalty: float
    frequency_penalty: float
    response_format: Mapping[str, Any]
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    logit_bias: Mapping[str, float]
    reasoning_effort: str
    user: str
    extra_body: Mapping[str, Any]


class Options(Parameters, total=False):
    """Every keyword of ``complete``, ``plan`` and ``ChatRequest.of``."""

    temperature: float
    max_tokens: int
    stop_sequences: Sequence[str] | None
    system_prompt: str | None
    messages: Sequence[Message | Mapping[str, Any]] | None
    tools: Sequence[Mapping[str, Any]] | None


NOT_PARAMETERS = {
    "model": "the policy chooses the model",
    "stream": "generate_stream, or ChatRequest(stream=True), streams",
    "stream_options": "usage is always asked for",
    "max_completion_tokens": "say max_tokens",
    "stop": "say stop_sequences",
    "n": "ask again for another answer",
    "best_of": "ask again for another answer",
    "messages": "give them as messages, or as a prompt",
    "prompt": "give it as the prompt",
    "tools": "give them as tools",
    "functions": "give them as tools",
    "temperature": "say temperature beside extra_body, not in it",
    "max_tokens": "say max_tokens beside extra_body, not in it",
    "max_output_tokens": "say max_tokens",
    "max_new_tokens": "say max_tokens",
    "num_predict": "say max_tokens",
    "n_predict": "say max_tokens",
    "maxTokens": "say max_tokens",
    "maxOutputTokens": "say max_tokens",
    "api_key": "give it to the provider, or name its variable in the policy (api_key_env)",
    "base_url": "give it to the provider, or to the model in the policy",
    "api_base": "give it to the provider, or to the model in the policy (base_url)",
    "timeout": "give it to the provider, or to the policy (timeouts)",
}
"""What would undo a decision made elsewhere, and where it is made: budgets, caches and plans go by what a request says
itself, and not by what stands in its parameters."""

LENGTHS = frozenset(("max_tokens", *(name for name, instead in NOT_PARAMETERS.items() if instead == "say max_tokens")))
"""Those that say how long an answer may be: looked for deeper in a body, too."""

_LOOK_ALIKES = frozenset(("min_tokens", "stop_token_ids", "min_p", "typical_p", "top_a"))
"""Parameters of some servers whose names are close to options, and are meant."""


def refuse_near_misses(parameters: Mapping[str, Any]) -> None:
    """A misspelt limit must not travel to a model as an unknown parameter, and limit nothing."""
    known = Options.__annotations__.keys()
    for name in parameters.keys() - known - _LOOK_ALIKES:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if near:
            raise InvalidRequest(f"unknown option {name!r}; did you mean {near[0]!r}?")
