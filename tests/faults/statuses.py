"""Refusals: what a status, a code, a header and a text say, whatever is asked."""

from __future__ import annotations

import json

from devsynth_providers import (
    AuthenticationError,
    ContentFiltered,
    ContextTooLong,
    MalformedResponse,
    ModelNotFound,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
    RequestRejected,
)

from ..loopback import Answer, as_json, failure
from .rows import AGAIN, CHATS, KEY, NEXT, NOW, PROMPT, Row, on_both, on_direct, row

_SERVER = "Wed, 21 Oct 2026 07:28:00 GMT"
_PAGE = b"<html><body>" + b"<p>bad gateway</p>" * 500


def _later(**headers: str) -> Answer:
    return failure(429, "slow down", **{name.replace("_", "-"): value for name, value in headers.items()})


def _raw(body: bytes, status: int, then: str = "close", length: int | None = None, **headers: str) -> Answer:
    return Answer([body], status=status, headers=headers, content_length=length, then=then)


# fmt: off
ROWS: list[Row] = [
    *on_both(
        [
            row(1, "429", failure(429, "slow down"), RateLimitError, AGAIN, "N"),
            row(2, "429, come back in 2 s", _later(retry_after="2"), RateLimitError, NEXT, "N", after_s=2),
            row(6, "429, no quota", failure(429, "no", "insufficient_quota"), QuotaExhausted, NEXT, "N"),
            row(10, "500", failure(500, "oops"), ProviderUnavailable, AGAIN, "U"),
            row(11, "502, a page", _raw(_PAGE, 502), ProviderUnavailable, AGAIN, "U"),
            row(16, "401, echoes the key", failure(401, f"wrong: {KEY}"), AuthenticationError, NEXT, "N"),
            row(18, "404", failure(404, "no such model", "model_not_found"), ModelNotFound, NEXT, "N"),
            row(19, "400", failure(400, "bad parameter"), RequestRejected, NOW, "N"),
            row(22, "400, overflow", failure(400, "no", "context_length_exceeded"), ContextTooLong, NEXT, "N"),
        ]
    ),
    row(2, "429, come back in 0 s", _later(retry_after="0"), RateLimitError, AGAIN, "N", after_s=0),
    row(2, "429, 0.02 s", _later(retry_after="0.02"), RateLimitError, AGAIN, "N", after_s=0.02, cap_s=0.1),
    *on_direct([
        row(3, "429, a date", _later(retry_after="Wed, 21 Oct 2026 07:28:30 GMT", date=_SERVER), RateLimitError, NEXT,
            "N", after_s=30),
        row(3, "429, a date gone by", _later(retry_after="Wed, 21 Oct 2026 07:27:00 GMT", date=_SERVER), RateLimitError,
            AGAIN, "N", after_s=0),
        row(3, "429, a far date", _later(retry_after="Fri, 31 Dec 9999 23:59:59 GMT", date=_SERVER), RateLimitError,
            NEXT, "N", after_s=86_400),
        row(4, "429, 20 ms", _later(retry_after_ms="20"), RateLimitError, AGAIN, "N", after_s=0.02, cap_s=0.1),
        row(4, "429, 20 ms before 9 s", _later(retry_after_ms="20", retry_after="9"), RateLimitError, AGAIN, "N",
            after_s=0.02, cap_s=0.1),
        row(5, "429, -1", _later(retry_after="-1"), RateLimitError, AGAIN, "N"),
        row(5, "429, nan", _later(retry_after="nan"), RateLimitError, AGAIN, "N"),
        row(5, "429, inf", _later(retry_after="inf"), RateLimitError, AGAIN, "N"),
        row(5, "429, 1e9", _later(retry_after="1e9"), RateLimitError, NEXT, "N", after_s=86_400),
        row(5, "429, 1e12 ms", _later(retry_after_ms="1e12"), RateLimitError, NEXT, "N", after_s=86_400),
        row(5, "429, soon", _later(retry_after="soon"), RateLimitError, AGAIN, "N"),
        row(5, "429, nothing", _later(retry_after=""), RateLimitError, AGAIN, "N"),
        row(5, "429, no ms, 2 s", _later(retry_after_ms="x", retry_after="2"), RateLimitError, NEXT, "N", after_s=2),
        row(5, "429, told twice", _later(retry_after="7\r\nretry-after: 9"), RateLimitError, NEXT, "N", after_s=7),
    ]),
    row(6, "429, no credit", failure(429, "no", "credit_balance_exhausted"), QuotaExhausted, NEXT, "N"),
    row(6, "429, project's limit", failure(429, "no", "project_spend_limit_exceeded"), QuotaExhausted, NEXT, "N"),
    row(6, "429, no quota by type", failure(429, "no", None, "insufficient_quota"), QuotaExhausted, NEXT, "N"),
    row(7, "429, enforced limit", failure(429, "no", "enforced_spend_limit_reached"), QuotaExhausted, NEXT, "N"),
    row(8, "429, slow_down", failure(429, "no", "slow_down"), RateLimitError, AGAIN, "N"),
    row(8, "503, overloaded", failure(503, "no", "server_is_overloaded"), ProviderUnavailable, AGAIN, "N"),
    row(9, "402", failure(402, "pay first"), QuotaExhausted, NEXT, "N"),
    row(9, "402, in flight", failure(402, "no", "openrouter_in_flight_budget", **{"retry-after": "2"}),
        RateLimitError, NEXT, "N", after_s=2),
    row(12, "503", failure(503, "no"), ProviderUnavailable, AGAIN, "N"),
    row(12, "503, 5 s", failure(503, "no", **{"retry-after": "5"}), ProviderUnavailable, NEXT, "N", after_s=5),
    row(13, "504", failure(504, "too slow"), ProviderTimeout, AGAIN, "U"),
    row(13, "408", failure(408, "too slow"), ProviderTimeout, AGAIN, "U"),
    row(14, "529", failure(529, "overloaded"), ProviderUnavailable, AGAIN, "N"),
    row(15, "409", failure(409, "conflict"), ProviderUnavailable, AGAIN, "N"),
    row(16, "401, revoked", failure(401, "revoked", "invalid_api_key"), AuthenticationError, NEXT, "N"),
    row(16, "400, a wrong key", failure(400, "no", "invalid_api_key"), AuthenticationError, NEXT, "N"),
    row(16, "401, the key as code", failure(401, "no", KEY), AuthenticationError, NEXT, "N"),
    row(17, "403", failure(403, "not in your region"), AuthenticationError, NEXT, "N"),
    row(18, "404, no API", _raw(b"404 page not found", 404), ModelNotFound, NEXT, "N", says="base_url"),
    row(19, "400, echoes the prompt", failure(400, f"no: {PROMPT}"), RequestRejected, NOW, "N", echoes=True),
    row(19, "405", failure(405, "no such method"), RequestRejected, NOW, "N"),
    row(20, "422", failure(422, "bad parameter"), RequestRejected, NOW, "N"),
    row(20, "422, a detail", as_json({"detail": [{"msg": "bad"}]}, 422), RequestRejected, NOW, "N"),
    row(21, "413", failure(413, "too large"), ContextTooLong, NEXT, "N"),
    row(21, "413, the next as small", failure(413, "too large"), ContextTooLong, NOW, "N", window=8192),
    row(24, "413, Groq", failure(413, "Request too large for model", "rate_limit_exceeded"), RateLimitError, AGAIN,
        "N"),
    row(25, "400, filtered", failure(400, "our policy", "content_filter"), ContentFiltered, NOW, "U", ways=CHATS),
    row(25, "400, policy", failure(400, "no", "content_policy_violation"), ContentFiltered, NOW, "U", ways=CHATS),
    row(25, "400, Azure", failure(400, "no", "ResponsibleAIPolicyViolation"), ContentFiltered, NOW, "U", ways=CHATS),
    *on_direct([
        row(11, "503, a large body", _raw(b"x" * 200_000, 503), ProviderUnavailable, AGAIN, "N"),
        row(11, "429, a cut body", _raw(b'{"error": {"mes', 429, length=500), RateLimitError, AGAIN, "N"),
        row(11, "401, an empty body", _raw(b"", 401, length=0), AuthenticationError, NEXT, "N"),
        row(11, "500, invalid UTF-8", _raw(b'{"error": "\xff\xfe"}', 500), ProviderUnavailable, AGAIN, "U"),
        row(11, "500, deep JSON", _raw(b'{"error":' + b"[" * 100_000, 500), ProviderUnavailable, AGAIN, "U"),
        row(11, "500, a list", _raw(json.dumps([{"error": "x"}]).encode(), 500), ProviderUnavailable, AGAIN, "U"),
        row(11, "500, an error that is text", as_json({"error": "oops"}, 500), ProviderUnavailable, AGAIN, "U"),
    ]),
    row(11, "401, a body without end", _raw(b"{", 401, "hang"), AuthenticationError, NEXT, "N", hangs=True),
    *(
        row(77, str(status), Answer([], status, {"location": "/elsewhere/v1"}, content_length=0), MalformedResponse,
            NEXT, "N")
        for status in (301, 302, 303, 307, 308)
    ),
    row(77, "302 to nowhere", Answer([], 302, {"location": "http://[x"}), MalformedResponse, NEXT, "N",
        says="redirect"),
    row(77, "304", Answer([], 304), MalformedResponse, NEXT, "N"),
]
# fmt: on

_OVERFLOWS = {
    "22 OpenAI": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    "22 vLLM": "This model's maximum context length is 8192 tokens; please reduce the length of the messages",
    "22 SGLang": "Requested token count exceeds the model's maximum context length of 8192 tokens",
    "22 llama.cpp": "the request exceeds the available context size, try increasing it",
    "22 Gemini": "The input token count (9000) exceeds the maximum number of tokens allowed (8192).",
    "23 Anthropic": "prompt is too long: 9000 tokens > 8192 maximum",
    "23 LM Studio": "Trying to keep the first 9000 tokens when context the overflows. n_keep >= n_ctx",
    "23 Bedrock": "Input is too long for requested model.",
}
ROWS += on_direct(
    [row(who[:2], who[3:], failure(400, text), ContextTooLong, NEXT, "N") for who, text in _OVERFLOWS.items()]
)
