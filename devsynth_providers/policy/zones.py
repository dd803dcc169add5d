"""Time zones by their names."""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

from ..errors import ConfigurationError


@cache
def zone_of(name: str) -> tzinfo:
    """The zone called *name*. Raises ``ConfigurationError`` if there is none."""
    if name == "UTC":
        return UTC  # also on machines that have no table of the others
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(
            f"no time zone is called {name!r}; write UTC, or one like Europe/Berlin (of machines that have no table of "
            "them, after pip install tzdata)"
        ) from None
