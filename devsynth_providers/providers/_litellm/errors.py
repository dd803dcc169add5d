"""LiteLLM's errors to ours. What it made up is told from what the server said; the key that hangs on them stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
    RequestRejected,
)
from ...scrubbing import scrub
from ...types import Model
from .. import failures

_NOT_AN_ANSWER = re.compile(
    r"Empty or invalid response from LLM endpoint|Invalid response object|Expecting value"
    r"|Extra data|Unterminated string|Unable to get json response|has no attribute 'model_dump'"
)
_NO_KEY = re.compile(
    r"missing\b.{0,40}\b(?:api[ _]?)?key|api[ _]key.{0,60}(?:must be set|not set|is missing)", re.IGNORECASE
)
_NO_PROVIDER = "LLM Provider NOT provided"
_UNREACHED = frozenset(("ConnectError", "ConnectTimeout"))
_UNSENT = "UnsupportedParamsError"
_TIMEOUTS = frozenset(("Timeout", "APITimeoutError", "ConnectTimeout", "ReadTimeout", "TimeoutError"))
_MADE_UP = 500
"""What LiteLLM says of whatever went wrong on its own side; believed only if the server was seen to say it."""
_THEIRS = frozenset(("litellm", "openai", "httpx", "aiohttp"))


def translate(error: Exception, model: Model, secrets: Sequence[str]) -> DevSynthError | None:
    """What *error* is to us; ``None`` if it did not come from LiteLLM or from below it."""
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, DevSynthError):
            return each
        if isinstance(each, ImportError):
            lacking = scrub(str(each), secrets)
            return ConfigurationError(f"LiteLLM lacks a package for {model.name}: {lacking}")
    if not any(type(each).__module__.partition(".")[0] in _THEIRS for each in chain):
        return None
    status, code, message = _status(chain), _code(chain), _message(chain)
    cls = _kind(chain, status, code, message)
    ours = failures.failure(cls, message, model, status=status, code=code, headers=_headers(chain), secrets=secrets)
    if _unreached(chain) is not None:
        ours.billed = False
    if type(error).__name__ == _UNSENT:
        ours.status, ours.passes_on = None, True  # nothing was sent: another model may take it
    return ours


def _kind(chain: list[BaseException], status: int | None, code: str | None, message: str) -> type[ProviderError]:
    names = {type(each).__name__ for each in chain}
    if _NO_PROVIDER in message:
        return ModelNotFound
    told = failures.kind(status, code, message)
    if told in (None, RequestRejected, ProviderUnavailable) and _NO_KEY.search(message):
        return AuthenticationError
    if told in (None, RequestRejected, ProviderUnavailable):  # LiteLLM knows some texts that we do not
        if "ContextWindowExceededError" in names:
            return ContextTooLong
        if "ContentPolicyViolationError" in names:
            return ContentFiltered
    if told is not None:
        return told
    if names & _TIMEOUTS:
        return ProviderTimeout
    if any(isinstance(each, json.JSONDecodeError | UnicodeDecodeError) for each in chain):
        return MalformedResponse
    return MalformedResponse if _NOT_AN_ANSWER.search(message) else ProviderUnavailable


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


def _headers(chain: list[BaseException]) -> Mapping[str, str]:
    for each in chain:
        headers: Any = getattr(each, "litellm_response_headers", None) or getattr(
            getattr(each, "response", None), "headers", None
        )
        if headers:
            found: Mapping[str, str] = headers
            return found
    return {}
