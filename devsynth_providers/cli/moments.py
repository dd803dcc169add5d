"""Moments as the command line says them: a day, a time of a day, or how long ago."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from ..errors import InvalidRequest

_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LAST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
FORMS = "2026-11-26, 2026-11-26T08:30, or how long ago: 90m, 24h, 7d, 2w"


def moment_of(said: str | None, option: str) -> float | None:
    """*said* in seconds since 1970; ``None`` if nothing was. Days begin in UTC, and times without an offset are UTC."""
    if said is None:
        return None
    if ago := re.fullmatch(r"(\d{1,6})([mhdw])", said.strip()):
        return max(0.0, time.time() - int(ago[1]) * _SECONDS[ago[2]])
    try:
        there = datetime.fromisoformat(said.strip())
    except ValueError:
        raise InvalidRequest(f"{option} {said!r} is no moment; write {FORMS}") from None
    at = (there if there.tzinfo else there.replace(tzinfo=UTC)).timestamp()
    return min(max(0.0, at), _LAST)


def between(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    """Both ends of a span of time. Raises ``InvalidRequest`` if it ends before it begins."""
    begin, end = moment_of(since, "--since"), moment_of(until, "--until")
    if begin is not None and end is not None and begin >= end:
        raise InvalidRequest(f"--until {until} is not after --since {since}: nothing can be between them")
    return begin, end
