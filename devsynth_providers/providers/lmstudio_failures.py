"""What LM Studio's failures mean, where it tells them in another way than others do."""

from __future__ import annotations

import re

from ..analysis import estimate_tokens
from ..errors import (
    ContextTooLong,
    EmptyResponse,
    MalformedResponse,
    ModelNotFound,
    ProviderError,
    ProviderUnavailable,
    RequestRejected,
)
from ..types import Model, Request
from . import failures

NEAR_WINDOW = 0.8
"""How full the window must be, by an estimate, for an empty answer to mean that the prompt did not fit."""

_NOT_THERE = re.compile(r"no models? (?:is |are )?(?:currently )?loaded|failed to load|invalid model identifier", re.I)
_WINDOW = re.compile(r"context (?:length|size)\D{1,40}?(\d+) tokens", re.I)
_UNCLEAR = (EmptyResponse, MalformedResponse, ProviderUnavailable, RequestRejected)
"""What a prompt that is too long, or a model that is not there, can look like."""


def meaning(error: ProviderError, request: Request, model: Model) -> ProviderError:
    """What *error* says, where LM Studio says it in another way than others do; else *error* itself."""
    message = str(error)
    if isinstance(error, ContextTooLong):
        return _sized(error, message)
    if not isinstance(error, _UNCLEAR):
        return error
    cls: type[ProviderError] | None = None
    if isinstance(error, EmptyResponse):
        counted = error.usage.input_tokens if error.usage else 0
        tokens = max(counted, estimate_tokens(request.text))
        if model.context_window is not None and tokens > NEAR_WINDOW * model.context_window:
            cls = ContextTooLong
            message = f"{message}, and the prompt is about as long as the window: {tokens} tokens"
    elif failures.kind(400, error.code, message) is ContextTooLong:
        cls = ContextTooLong  # whatever the status: it comes inside an answer with status 200, too
    elif error.code == "model_not_found" or _NOT_THERE.search(message):
        cls = ModelNotFound
    elif isinstance(error, RequestRejected) and "unloaded" in message:
        cls = ProviderUnavailable  # asked again, it is loaded again
    if cls is None:
        return error
    ours = failures.failure(cls, message, model, status=error.status, code=error.code)
    ours.usage = error.usage
    return _sized(ours, message) if isinstance(ours, ContextTooLong) else ours


def _sized(error: ContextTooLong, message: str) -> ContextTooLong:
    """*error* with the window that *message* tells, where it was not known before."""
    if error.context_window is None and (said := _WINDOW.search(message)):
        error.context_window = int(said[1])
    return error
