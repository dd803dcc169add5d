"""What those who let calls wait for their turn have in common: what a call is taken to use, and how one is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .. import telemetry
from ..analysis import estimate_tokens
from ..errors import LimitReached, ProviderError
from ..limits import Ticket
from ..types import ChatRequest, Model, Request, Usage

SPARE_S = 0.05
"""A turn that comes so short before the deadline is none."""

Over = Callable[[int | None], None]
"""To be told when a call is over, and the tokens that it used, ``None`` where nobody knows."""


class Others(Protocol):
    """Those who send to the same providers from elsewhere."""

    async def leave(self, model: Model, request: Request, ticket: Ticket) -> Over:
        """Wait until the call to *model* whose turn has come with *ticket* may be made, as far as they are concerned.
        Raises ``LimitReached`` if that would not be in time."""


def nobody_counts(tokens: int | None) -> None:
    """Nobody needs to be told that it is over."""


def most_tokens(request: Request) -> int:
    """What a call is taken to use before it is made: the whole prompt, and as much of answer as is asked for."""
    return estimate_tokens(request.text) + (request.max_tokens if isinstance(request, ChatRequest) else 0)


def told(usage: Usage | None, most: int) -> int | None:
    """The tokens that *usage* tells of; ``None`` if it tells nothing, or what can not be true of a call that was taken
    to use at *most* so many: a false word must neither free a minute nor fill it."""
    if usage is None or min(usage.input_tokens, usage.output_tokens) < 0:
        return None
    tokens = usage.input_tokens + usage.output_tokens
    return tokens if tokens <= 10 * most + 10_000 else None


def used(error: BaseException, most: int) -> int | None:
    """As ``told``, of a call that has come to nothing by *error*."""
    tokens = told(error.usage, most) if isinstance(error, ProviderError) else None
    if tokens is None and isinstance(error, ProviderError) and not error.billed:
        return 0
    return tokens


def refusal(model: Model, gate: str, expected_s: float | None, waited_s: float | None = None) -> LimitReached:
    """The turn of a call to *model* does not come in time, at *gate*: it is told of, and what is to be raised."""
    telemetry.event("limit.refused", limit=gate, expected_wait_s=expected_s, wait_s=waited_s)
    when = (
        "did not come in time"
        if expected_s is None
        else f"would come in about {expected_s:.3g} s, and it has no time for that"
    )
    error = LimitReached(
        f"{gate} is asked as much as its limits allow; the turn of this call {when}",
        provider=model.provider,
        model=model.name,
        code="local_limit",
    )
    error.retry_after_s = expected_s
    return error
