"""How many tokens a text is, roughly: quick enough to ask before every call, with nothing to load.

The bytes of the text are sorted into classes, and each class costs what it costs in the vocabulary that needs more for
it: ``o200k_base`` (gpt-4o and later) or ``cl100k_base`` (gpt-4, the embeddings, and nearest to most others). For
scripts that the older one hardly knows, this is far more than the newer one takes: for Hindi three times as much. The
first byte of a character in UTF-8 says which script it is of; little else is looked at.

The rates were fitted in November 2026 to manual pages, messages of programs and tutorials in thirty languages, and to
code, data and logs, so that they are rather too high than too low, and English and code come nearest. How near, on
other texts, is measured by ``benchmarks/tokens.py``.
"""

from __future__ import annotations

import functools

_RATES = {
    # name of the class: tokens for each character of it
    "l": 0.24,  # a-z
    "u": 0.32,  # A-Z
    "d": 0.45,  # digits, in threes at most
    "s": 0.0,  # a space belongs to the word after it
    "n": 0.55,  # ends of lines, tabs
    "p": 1.15,  # other ASCII
    "i": 2.2,  # Latin letters beyond ASCII: what they break in two
    "g": 1.1,  # Greek
    "c": 0.62,  # Cyrillic
    "h": 1.18,  # Hebrew
    "r": 0.92,  # Arabic
    "m": 2.35,  # Armenian, Syriac, Thaana
    "b": 2.0,  # Indian scripts, Lao, Tibetan
    "e": 2.95,  # Ethiopic, and others
    "q": 1.75,  # typographic signs, arrows, boxes, formulas
    "k": 1.15,  # kana
    "z": 1.12,  # Han
    "o": 1.25,  # Hangul
    "f": 1.6,  # full-width forms
    "x": 2.95,  # emoji, and whatever else
}
_CHEAPER = (
    # pairs of bytes that begin a script for which its class is too dear, and by how much
    ("b", b"\xe0\xa4", 0.72),  # Devanagari
    ("b", b"\xe0\xa5", 0.72),
    ("b", b"\xe0\xb8", 1.0),  # Thai
    ("b", b"\xe0\xb9", 1.0),
    ("e", b"\xe1\x83", 0.8),  # Georgian
    ("e", b"\xe1\x9e", 1.2),  # Khmer
    ("e", b"\xe1\x9f", 1.2),
    ("e", b"\xe1\xba", 1.95),  # Vietnamese
    ("e", b"\xe1\xbb", 1.95),
    ("q", b"\xe2\x80", 0.5),  # quotation marks and dashes
)
_PAIR_OF_SIGNS = -1.25
"""Two signs in a row are often one token."""
_CHANGE = 0.45
"""From a letter to a digit or back, which is always another token."""
_APART = 1.55
"""A number after a space is at least two tokens, however short it is."""
_WORDS = (b"sl", b"su", b"nl", b"nu")
"""Where a word begins that is not the first: each is a token at least."""
_LETTERS_A_WORD = 5.5
_BEYOND = 0.5
"""For each letter more than words of that length have: words of other languages, or no words at all."""


def _classes() -> bytes:
    """For each byte the class of the character that begins with it."""
    table = bytearray(b"x" * 256)
    for name, first, last in (
        ("p", 0x00, 0x7F),
        ("l", 0x61, 0x7A),
        ("u", 0x41, 0x5A),
        ("d", 0x30, 0x39),
        ("s", 0x20, 0x20),
        ("n", 0x09, 0x0A),
        ("n", 0x0D, 0x0D),
        ("i", 0xC2, 0xCC),
        ("g", 0xCD, 0xCF),
        ("c", 0xD0, 0xD3),
        ("m", 0xD4, 0xDF),
        ("h", 0xD6, 0xD7),
        ("r", 0xD8, 0xDB),
        ("b", 0xE0, 0xE0),
        ("e", 0xE1, 0xE1),
        ("q", 0xE2, 0xE2),
        ("k", 0xE3, 0xE3),
        ("z", 0xE4, 0xE9),
        ("o", 0xEA, 0xED),
        ("f", 0xEF, 0xEF),
    ):
        table[first : last + 1] = name.encode() * (last + 1 - first)
    return bytes(table)


_CLASSES = _classes()
_CONTINUATIONS = bytes(range(0x80, 0xC0))
_OTHERS = [(name.encode(), name, rate) for name, rate in _RATES.items() if name not in "ludsnp"]


LONGEST_KEPT = 2_000
"""Characters of texts whose estimates are kept: one request asks several times, and others come again."""


def estimate_tokens(text: str) -> int:
    """About how many tokens *text* is, rather too many than too few; 0 only for an empty text."""
    return _kept(text) if may_be_kept(text) else _estimated(text)


def may_be_kept(text: str) -> bool:
    """Whether what is found out of *text* may be kept for equal ones: texts of a kind of their own may say themselves
    what they are equal to."""
    return type(text) is str and len(text) <= LONGEST_KEPT


def _estimated(text: str) -> int:
    if not text:
        return 0
    raw = text.encode("utf-8", "replace")
    kinds = raw.translate(_CLASSES, b"" if text.isascii() else _CONTINUATIONS)
    lower, upper, digits = kinds.count(b"l"), kinds.count(b"u"), kinds.count(b"d")
    spaces, breaks, signs = kinds.count(b"s"), kinds.count(b"n"), kinds.count(b"p")
    letters = _RATES["l"] * lower + _RATES["u"] * upper
    letters += _BEYOND * max(0.0, lower + upper - _LETTERS_A_WORD * (spaces + breaks + signs + 1))
    tokens = max(letters, sum(map(kinds.count, _WORDS)) + 1.0) if letters else 0.0
    tokens += _RATES["n"] * breaks + _RATES["p"] * signs + _PAIR_OF_SIGNS * kinds.count(b"pp")
    if digits:
        tokens += _RATES["d"] * digits + _CHANGE * (kinds.count(b"ld") + kinds.count(b"dl"))
        tokens += _APART * kinds.count(b"sd")
    if lower + upper + digits + spaces + breaks + signs < len(kinds):
        tokens += _of_other_scripts(raw, kinds)
    return max(1, round(tokens))


_kept = functools.lru_cache(256)(_estimated)


def _of_other_scripts(raw: bytes, kinds: bytes) -> float:
    counts = {name: (count, rate) for each, name, rate in _OTHERS if (count := kinds.count(each))}
    tokens = sum(count * rate for count, rate in counts.values())
    return tokens - sum(raw.count(pair) * less for name, pair, less in _CHEAPER if name in counts)
