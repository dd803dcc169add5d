"""Their errors to ours: by status and code first, by type next, by text last. No key and no page gets through."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import (
    AuthenticationError,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    DevSynthError,
    MalformedResponse,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
    RequestRejected,
)
from ...types import Model

_QUOTA = re.compile(r"insufficient_quota|credit_balance|billing_hard_limit|spend_limit")
_OVERFLOW_CODES = frozenset(("context_length_exceeded", "context_window_exceeded", "exceed_context_size_error"))
_OVERFLOW = re.compile(
    r"maximum context length|context (?:length|window|size)|prompt is too long|input is too long"
    r"|too many (?:input )?tokens|exceeds? the (?:available )?context|reduce the length|n_ctx|n_keep",
    re.IGNORECASE,
)
_FILTER_CODES = frozenset(("content_filter", "content_policy_violation", "responsibleaipolicyviolation"))
_NOT_AN_ANSWER = re.compile(
    r"Empty or invalid response from LLM endpoint|Invalid response object|Expecting value"
    r"|Extra data|Unterminated string"
)
_UNREACHED = frozenset(("ConnectError", "ConnectTimeout"))
_KEYS = re.compile(
    r"\b(?:sk|pk|gsk|xai|hf|key)[-_][A-Za-z0-9_\-]{8,}|AIza[A-Za-z0-9_\-]{10,}|(?i:bearer)\s+[A-Za-z0-9._\-]{8,}"
)
LONGEST_MESSAGE = 400

_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    402: QuotaExhausted,
    403: AuthenticationError,
    404: ModelNotFound,
    408: ProviderTimeout,
    413: ContextTooLong,
    429: RateLimitError,
    504: ProviderTimeout,
}
_MADE_UP = 500
"""What LiteLLM says of whatever went wrong on its own side; believed only if the server was seen to say it."""
_UNBILLED = frozenset((409, 502, 503, 529))


def translate(error: Exception, model: Model, secrets: Sequence[str]) -> DevSynthError | None:
    """What *error* is to us; ``None`` if it did not come from LiteLLM or from below it."""
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, DevSynthError):
            return each
        if isinstance(each, ImportError):
            return ConfigurationError(f"LiteLLM lacks a package for {model.name}: {scrub(str(each), secrets)}")
    if not any(type(each).__module__.partition(".")[0] in ("litellm", "openai", "httpx", "aiohttp") for each in chain):
        return None
    status, code, told = _status(chain), _code(chain), _message(chain)
    code = code and scrub(code, secrets)[:64]
    kind = _kind(chain, status, code, told)
    ours = kind(scrub(told, secrets), provider=model.provider, model=model.name, status=status, code=code)
    if isinstance(ours, RateLimitError | ProviderUnavailable):
        ours.retry_after_s = _retry_after_s(chain)
    if isinstance(ours, ContextTooLong):
        ours.context_window = model.context_window
    if status in _UNBILLED or _unreached(chain) is not None:
        ours.billed = False
    return ours


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """*text* without keys, those in *secrets* and whatever looks like one, and no longer than a message should be."""
    for secret in secrets:
        if len(secret) >= 8:
            text = text.replace(secret, "[key]")
    text = _KEYS.sub("[key]", text)
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"


def _kind(chain: list[BaseException], status: int | None, code: str | None, told: str) -> type[ProviderError]:
    names = {type(each).__name__ for each in chain}
    lowered = (code or "").lower()
    if status in (None, 400, 403, 422, 429) and _QUOTA.search(lowered):
        return QuotaExhausted
    if lowered in _OVERFLOW_CODES or "ContextWindowExceededError" in names:
        return ContextTooLong
    if lowered in _FILTER_CODES or "ContentPolicyViolationError" in names:
        return ContentFiltered
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status is not None and 400 <= status < 500 and status != 409:
        return ContextTooLong if _OVERFLOW.search(told) else RequestRejected
    if names & {"Timeout", "APITimeoutError", "ConnectTimeout", "ReadTimeout", "TimeoutError"}:
        return ProviderTimeout
    if any(isinstance(each, json.JSONDecodeError | UnicodeDecodeError) for each in chain) or _NOT_AN_ANSWER.search(
        told
    ):
        return MalformedResponse
    return ProviderUnavailable


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "original_exception", None) or error.__cause__ or error.__context__


def _status(chain: list[BaseException]) -> int | None:
    """The status the server sent; LiteLLM gives one to a connection that failed too, which is not believed."""
    for each in reversed(chain):
        status = getattr(each, "status_code", None)
        if type(each).__module__.startswith("openai") and isinstance(status, int):
            return status
    told = next((s for each in chain if isinstance(s := getattr(each, "status_code", None), int)), None)
    names = {type(each).__name__ for each in chain}
    made_up = told == _MADE_UP or names & {"APIConnectionError", "APITimeoutError", "Timeout"}
    return None if made_up else told


def _code(chain: list[BaseException]) -> str | None:
    for each in reversed(chain):
        body: Any = getattr(each, "body", None)
        if isinstance(body, dict):
            inner = body.get("error", body)
            for key in ("code", "type"):
                if isinstance(inner, dict) and isinstance(inner.get(key), str):
                    return str(inner[key])
    return None


def _message(chain: list[BaseException]) -> str:
    """The innermost message: what the provider said, without what each floor above put before it."""
    for each in reversed(chain):
        body: Any = getattr(each, "body", None)
        inner = body.get("error", body) if isinstance(body, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get("message"), str):
            return str(inner["message"])
    if (unreached := _unreached(chain)) is not None:
        return f"{str(unreached).partition(' ssl:')[0]}: {str(chain[-1]) or 'it took too long'}"
    told = str(getattr(chain[0], "message", "")) or str(chain[0]) or type(chain[0]).__name__
    return re.sub(
        r"^(?:litellm\.)?(?:\w+(?:Error|Exception|Timeout)(?: - |: )\s*)+",
        "",
        told.partition("Traceback (most recent")[0],
    ).strip()


def _unreached(chain: list[BaseException]) -> BaseException | None:
    """The error that says that no connection came about, if there is one: then nothing was asked, or billed."""
    return next((each for each in chain if type(each).__name__ in _UNREACHED), None)


def _retry_after_s(chain: list[BaseException]) -> float | None:
    """How long the server wants to be left alone: milliseconds before seconds before a date; else ``None``."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - slow to import, rarely needed

    for each in chain:
        headers: Any = getattr(each, "litellm_response_headers", None) or getattr(
            getattr(each, "response", None), "headers", None
        )
        if not headers:
            continue
        if (ms := _number(headers.get("retry-after-ms"))) is not None:
            return ms / 1000
        if (seconds := _number(headers.get("retry-after"))) is not None:
            return seconds
        try:
            at = parsedate_to_datetime(headers["retry-after"])
            now = parsedate_to_datetime(headers["date"])  # the server's clock, not ours
            return max(0.0, (at - now).total_seconds())
        except (KeyError, TypeError, ValueError):
            continue
    return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
