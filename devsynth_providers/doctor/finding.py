"""One thing found, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["ok", "warning", "broken"]
Section = Literal["versions", "settings", "environment", "models", "telemetry", "stores", "trial"]


@dataclass(frozen=True, slots=True)
class Finding:
    """*message* says what is the case with *subject*; *advice* what to do, where there is something to be done.

    *facts* are for programs: a version, a latency, a cost.
    """

    section: Section
    level: Level
    subject: str
    message: str
    advice: str = ""
    facts: Mapping[str, str | float | None] = field(default_factory=dict)
