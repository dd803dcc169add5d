"""Amounts in other units than a policy counts in: what was meant, as the key and the number to write."""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal, InvalidOperation

_USD = ("_usd", "_usd_per_1m")

_ENDINGS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("_milliseconds", ("_s",), "0.001"),
    ("_millis", ("_s",), "0.001"),
    ("_ms", ("_s",), "0.001"),
    ("_seconds", ("_s",), "1"),
    ("_secs", ("_s",), "1"),
    ("_sec", ("_s",), "1"),
    ("_minutes", ("_s",), "60"),
    ("_mins", ("_s",), "60"),
    ("_min", ("_s",), "60"),
    ("_m", ("_s",), "60"),
    ("_hours", ("_s",), "3600"),
    ("_h", ("_s",), "3600"),
    ("_usd_per_token", ("_usd_per_1m",), "1000000"),
    ("_cost_per_token", ("_usd_per_1m",), "1000000"),
    ("_per_token", ("_usd_per_1m",), "1000000"),
    ("_usd_per_1k", ("_usd_per_1m",), "1000"),
    ("_cost_per_1k", ("_usd_per_1m",), "1000"),
    ("_per_1k", ("_usd_per_1m",), "1000"),
    ("_cost_per_1m", ("_usd_per_1m",), "1"),
    ("_per_1m", ("_usd_per_1m",), "1"),
    ("_per_million", ("_usd_per_1m",), "1"),
    ("_cents", _USD, "0.01"),
    ("_dollars", _USD, "1"),
    ("_usd", _USD, "1"),
    ("", ("_s", *_USD, "_per_minute"), "1"),
)
"""How people end a key, how we do, and how many of our units one of theirs is."""

_OTHER_WORDS = {
    "timeout": ("total", "max_latency"),
    "total_timeout": ("total",),
    "connect_timeout": ("connect",),
    "idle_timeout": ("idle",),
    "latency": ("max_latency",),
    "max_time": ("max_latency",),
    "cost": ("max_cost",),
    "price": ("max_cost",),
    "max_price": ("max_cost",),
    "max_expected": ("max_expected_cost",),
    "expected_cost": ("max_expected_cost",),
    "ttft": ("first_token",),
    "max_first_token": ("first_token",),
    "first_token_latency": ("first_token",),
    "prompt": ("input",),
    "completion": ("output",),
    "cached": ("cached_input",),
    "initial_delay": ("initial",),
    "max_delay": ("cap",),
    "rpm": ("requests",),
    "tpm": ("tokens",),
}

_NAMES = {
    "s": "seconds",
    "usd": "USD",
    "usd_per_1m": "USD for a million tokens",
}

_AMOUNT = re.compile(r"([$€£]?)\s*([0-9][0-9_,]*(?:\.[0-9_]*)?|\.[0-9]+)(?:e([-+]?\d{1,2}))?\s*([a-zµ%¢$/ ]*)", re.I)

_UNITS: dict[str, dict[str, str]] = {
    "s": {
        **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "1"),
        **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), "0.001"),
        **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "60"),
        **dict.fromkeys(("h", "hour", "hours"), "3600"),
    },
    "usd": {
        **dict.fromkeys(("$", "usd", "dollar", "dollars"), "1"),
        **dict.fromkeys(("¢", "c", "ct", "cent", "cents"), "0.01"),
    },
    "share": {"%": "0.01", "percent": "0.01"},
    "tokens": {"token": "1", "tokens": "1", "tok": "1", "k": "1000", "k tokens": "1000", "m": "1000000"},
}


def right_key(key: str, value: object, known: Collection[str]) -> str | None:
    """What to write in place of *key*, if it is one of the *known* keys with another unit, or with none."""
    for ending, ours, factor in _ENDINGS:
        if not key.lower().endswith(ending):
            continue
        stem = key.lower().removesuffix(ending)
        for word in (stem, *_OTHER_WORDS.get(stem, ())):
            for right in (word + each for each in ours):
                if right in known and right != key:
                    number = _in_words(value, right, factor)
                    return f"write {right}: {number}" if number else f"write {right}, in {_unit_name(right)}"
    return None


def right_number(key: str, text: str) -> str | None:
    """The number to write where *text* stands, if it is one with a unit, or in quotes."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or len(text) > 40:
        return None
    sign, digits, exponent, unit = match[1], _plain(match[2]), match[3], " ".join(match[4].lower().split())
    factor = _factor(_unit(key), sign or unit)
    if factor is None or (sign and unit not in ("", "usd")):
        return None
    try:
        return _shown(Decimal(digits) * Decimal(factor).scaleb(int(exponent or 0)))
    except InvalidOperation:
        return None


def from_percent(key: str, number: float) -> str | None:
    """What to write for *number* where a share from 0 to 1 is wanted, if it may be per cent."""
    return f"write {key}: {_shown(Decimal(repr(number)) / 100)}" if 2 < number <= 100 else None


def from_milliseconds(key: str, number: float) -> str | None:
    """What to write for *number* where seconds are wanted, if it may be milliseconds."""
    return f"if these are milliseconds, write {key}: {_shown(Decimal(repr(number)) / 1000)}"


def _in_words(value: object, right: str, factor: str) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _shown(Decimal(repr(value)) * Decimal(factor))
    return right_number(right, value) if isinstance(value, str) else None


def _plain(digits: str) -> str:
    """*digits* without what parts thousands: ``1,000`` is a thousand, ``0,05`` is five hundredths."""
    digits = digits.replace("_", "")
    thousands = re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+(\.\d*)?", digits)
    return digits.replace(",", "") if thousands else digits.replace(",", ".")


def _unit(key: str) -> str:
    if key.endswith("tokens_per_s"):
        return ""
    if "usd" in key:
        return "usd"
    if key.endswith("_s"):
        return "s"
    if "quality" in key or key in ("above", "below", "complexity", "explore"):
        return "share"
    return "tokens" if "tokens" in key or key == "context_window" else ""


def _factor(unit: str, written: str) -> str | None:
    return _UNITS.get(unit, {}).get(written) if written else "1"


def _unit_name(key: str) -> str:
    ending = next((each for each in ("usd_per_1m", "usd", "s") if key.endswith(f"_{each}")), "")
    return _NAMES.get(ending, "a whole number")


def _shown(number: Decimal) -> str:
    whole = number == number.to_integral_value()
    return f"{number.to_integral_value() if whole else number.normalize():f}"
