"""Who takes part in which scenario, by the names that the tables have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .side import Setup, Side

OURS = "ours"
HEDGED, CONTINUED = "ours, `hedge: {after: p95, max_extra: 0.05}`", "ours, `on_break: continue`"
UNIFIED = "ours, `transport: litellm`"
EARLY = "ours, `first_token_s: 0.5`"
GROUPS, ORDERED = "litellm.Router, fallbacks", "litellm.Router, one group by order"
STRICT = "litellm.Router, strict"
STRICT_ORDERED = "litellm.Router, strict, one group by order"
EARLY_THEIRS = "litellm.Router, `stream_timeout=0.5`"
UNCOOLED, UNCOOLED_ORDERED = "litellm.Router, fallbacks, no cooldowns", "litellm.Router, one group, no cooldowns"


@dataclass(frozen=True)
class Entry:
    """Where a side is, and how it differs from how it comes; *needs* is a key that rules must know."""

    home: str
    settings: Mapping[str, Any]
    needs: str = ""

    def make(self, setup: Setup, addresses: Mapping[str, str]) -> Side:
        module, _, name = self.home.partition(":")
        cls: Callable[..., Side] = getattr(import_module(f"faulty.{module}"), name)
        return cls(setup, addresses, **self.settings)


def _ours(needs: str = "", **settings: Any) -> Entry:
    return Entry("ours:Ours", settings, needs)


def _theirs(**settings: Any) -> Entry:
    return Entry("lite:LiteLLM", settings)


SIDES: dict[str, Entry] = {
    OURS: _ours(),
    UNIFIED: _ours(transport="litellm"),
    HEDGED: _ours("hedge", rule={"hedge": {"after": "p95", "max_extra": 0.05}}),
    CONTINUED: _ours("on_break", rule={"on_break": "continue"}),
    EARLY: _ours(timeouts={"first_token_s": 0.5}),
    GROUPS: _theirs(),
    ORDERED: _theirs(ordered=True),
    STRICT: _theirs(strict=True),
    STRICT_ORDERED: _theirs(strict=True, ordered=True),
    EARLY_THEIRS: _theirs(stream_timeout=0.5),
    UNCOOLED: _theirs(disable_cooldowns=True),
    UNCOOLED_ORDERED: _theirs(disable_cooldowns=True, ordered=True),
}
TAKES_PART: dict[str, tuple[str, ...]] = {
    "silent": (OURS, UNIFIED, GROUPS),
    "deadline": (OURS, UNIFIED, GROUPS, STRICT, STRICT_ORDERED),
    "outage": (OURS, GROUPS, ORDERED),
    "success": (OURS, GROUPS, ORDERED),
    "tail": (OURS, EARLY, HEDGED, GROUPS, EARLY_THEIRS),
    "cut": (OURS, CONTINUED, UNCOOLED, UNCOOLED_ORDERED),
}
