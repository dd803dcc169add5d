"""What a provider's refusal means, by status and code first and by text last. No key and no page gets through."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..errors import (
    AuthenticationError,
    ContentFiltered,
    ContextTooLong,
    MalformedResponse,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
    RequestRejected,
)
from ..scrubbing import LONGEST_MESSAGE, scrub
from ..types import Model
from .wire import Answer

LONGEST_S = 86_400.0
"""Whoever wants to be left alone for longer than a day is not believed."""
_MAX_BYTES = 64 * 1024

_QUOTA = re.compile(r"insufficient_quota|credit_balance|billing_hard_limit|billing_error|spend_limit")
_QUOTA_TEXT = re.compile(r"credit balance is too low", re.IGNORECASE)
_OVERFLOW_CODES = frozenset(
    ("context_length_exceeded", "context_window_exceeded", "exceed_context_size_error", "request_too_large")
)
_OVERFLOW_TEXT = re.compile(
    r"maximum context length|context (?:length|window|size)|prompt is too long|input is too long"
    r"|too many (?:input )?tokens|exceeds? the (?:(?:available )?context|maximum number of tokens)|reduce the length"
    r"|n_ctx|n_keep",
    re.IGNORECASE,
)
_BY_CODE: dict[str, type[ProviderError]] = {
    "rate_limit_exceeded": RateLimitError,
    "rate_limit_error": RateLimitError,
    "too_many_requests": RateLimitError,
    "openrouter_in_flight_budget": RateLimitError,
    "invalid_api_key": AuthenticationError,
    "authentication_error": AuthenticationError,
    "model_not_found": ModelNotFound,
    "not_found_error": ModelNotFound,
    "deploymentnotfound": ModelNotFound,
}
"""What these codes mean, whatever the status that they come with."""
_FILTER_CODES = frozenset(("content_filter", "content_policy_violation", "responsibleaipolicyviolation"))

_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    402: QuotaExhausted,
    403: AuthenticationError,
    404: ModelNotFound,
    408: ProviderTimeout,
    409: ProviderUnavailable,
    413: ContextTooLong,
    429: RateLimitError,
    504: ProviderTimeout,
}
_BY_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that Anthropic documents for each type of error: an error inside a stream has only the type."""
_UNBILLED = frozenset((409, 503, 529))
_BEGINNING_S = 2.0
"""How long the body of an error may take: its status is known, and what it means."""


_ANSWERS = frozenset(("choices", "content", "data", "candidates"))
"""What only an answer has."""


class Told(NamedTuple):
    """What an error's body says."""

    message: str
    code: str | None = None
    status: int | None = None
    """The status inside the body; some send it with a 200 outside."""


def kind(status: int | None, code: str | None, message: str) -> type[ProviderError] | None:
    """The class of an error, as far as status, code and text tell; ``None`` if they do not."""
    lowered = (code or "").lower()
    if _QUOTA.search(lowered) or (status in (None, 400, 402, 403, 429) and _QUOTA_TEXT.search(message)):
        return QuotaExhausted
    if lowered in _BY_CODE:
        return _BY_CODE[lowered]
    if lowered in _OVERFLOW_CODES:
        return ContextTooLong
    if lowered in _FILTER_CODES:
        return ContentFiltered
    if status is None:
        return None
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 300 <= status < 400:
        return MalformedResponse
    if 400 <= status < 500:
        return ContextTooLong if _OVERFLOW_TEXT.search(message) else RequestRejected
    return ProviderUnavailable


def failure(
    cls: type[ProviderError],
    message: str,
    model: Model,
    *,
    status: int | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
) -> ProviderError:
    """An error of *cls*, scrubbed, with all that is known of it."""
    code = code and scrub(code, secrets)[:64]
    error = cls(scrub(message, secrets), provider=model.provider, model=model.name, status=status, code=code)
    if isinstance(error, RateLimitError | ProviderUnavailable):
        error.retry_after_s = retry_after_s(headers or {})
    if isinstance(error, ContextTooLong):
        error.context_window = model.context_window
    if status in _UNBILLED or (status is not None and 300 <= status < 400):
        error.billed = False
    return error


async def refusal(answer: Answer, model: Model, secrets: Sequence[str]) -> ProviderError:
    """What *answer*, which has a status of failure, means. To be raised by whoever has no key among its variables."""
    return of(answer, await answer.beginning(_MAX_BYTES, _BEGINNING_S), model, secrets)


def of(answer: Answer, body: bytes, model: Model, secrets: Sequence[str]) -> ProviderError:
    """What *answer*, which has a status of failure and said *body*, means."""
    said = told(body)
    cls = kind(answer.status, said.code, said.message) or ProviderError
    message = said.message
    if answer.status == 404 and "model" not in f"{said.code} {message}".lower():
        message = f"{message}: is the path in base_url right?"
    if str(answer.status) not in message:
        message = f"HTTP {answer.status}: {message}"
    return failure(cls, message, model, status=answer.status, code=said.code, headers=answer.headers, secrets=secrets)


def told(body: bytes) -> Told:
    """What *body* says, if it is an error in any of the forms in use; else its beginning, as it stands."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        text = re.sub(r"<[^>]*>|\s+", " ", body[:4000].decode("utf-8", "replace"))
        return Told(" ".join(text.split()) or "no body")
    return inner(data) or Told(json.dumps(data)[:LONGEST_MESSAGE])


def inner(data: Any) -> Told | None:
    """The error that stands in *data*, decoded JSON; ``None`` if none does."""
    if not isinstance(data, dict):
        return None
    error = data.get("error")
    if error is None and not data.keys() & _ANSWERS and (data.get("object") == "error" or "detail" in data):
        error = data
    if error and isinstance(error, str):
        return Told(error)
    if not error or not isinstance(error, dict):
        return None
    said = error.get("message") or error.get("detail") or error.get("type") or "an error without a message"
    code, type_ = error.get("code"), error.get("type")
    number = int(code) if isinstance(code, str) and code.isdecimal() and len(code) == 3 else code
    status = number if type(number) is int and 400 <= number < 600 else _BY_TYPE.get(str(type_))
    names = [each for each in (code, type_) if isinstance(each, str) and not each.isdecimal()]
    name = next((each for each in names if _telling(each)), next(iter(names), None))
    return Told(said if isinstance(said, str) else json.dumps(said), name, status)


def _telling(code: str) -> bool:
    """Whether *code* alone says what an error is."""
    return kind(None, code, "") is not None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server wants to be left alone: milliseconds before seconds before a date; else ``None``.

    A date counts from the server's own clock, and from ours only where it does not tell that. At most a day.
    """
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - slow to import, rarely needed

    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return min(ms / 1000, LONGEST_S)
    if (seconds := _number(headers.get("retry-after"))) is not None:
        return min(seconds, LONGEST_S)
    try:
        at = parsedate_to_datetime(headers["retry-after"])
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return min(max(0.0, (at - now).total_seconds()), LONGEST_S)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
