"""Texts without keys: for whatever may be shown, logged or sent elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST_MESSAGE = 400
_KEYS = re.compile(
    r"\b(?:sk|pk|gsk|xai|hf|key)[-_][A-Za-z0-9_\-]{8,}|AIza[A-Za-z0-9_\-]{10,}|(?i:bearer)\s+[A-Za-z0-9._\-]{8,}"
)
# In a query, a header, a setting or JSON: called a key to somewhere, not to a table; long, and with a digit in it.
_NAMED = re.compile(
    r"""((?i:(?:api|access|secret|private|auth|client)[-_]?(?:key|token|secret)|\btoken|[?&]key)["']?\s?[=:]\s?["']?)"""
    r"""(?=[A-Za-z._\-/+]*[0-9])[A-Za-z0-9._\-/+]{16,}=*"""
)


def without_keys(text: str, secrets: Sequence[str] = ()) -> str:
    """*text* without keys, those in *secrets* and whatever looks like one."""
    for secret in secrets:
        if len(secret) >= 8:
            text = text.replace(secret, "[key]")
    return _NAMED.sub(r"\1[key]", _KEYS.sub("[key]", text))


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """*text* without keys, and no longer than a message should be."""
    text = without_keys(text, secrets)
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"
