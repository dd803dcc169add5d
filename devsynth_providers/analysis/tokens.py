"""How many tokens a text is, roughly: quick enough to ask before every call, with nothing to load."""

from __future__ import annotations

ASCII_CHARACTERS_PER_TOKEN = 4.0
"""English prose and code in the vocabularies of today's models: OpenAI's own rule of thumb."""

OTHER_CHARACTERS_PER_TOKEN = 1.5
"""Other scripts: from about 1 (Chinese, Japanese) to about 2.5 (Cyrillic, Greek) characters; on the safe side."""


def estimate_tokens(text: str) -> int:
    """About how many tokens *text* is; 0 only for an empty text."""
    if not text:
        return 0
    ascii_characters = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    others = len(text) - ascii_characters
    return max(1, round(ascii_characters / ASCII_CHARACTERS_PER_TOKEN + others / OTHER_CHARACTERS_PER_TOKEN))
