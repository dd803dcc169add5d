"""What all caches have in common: how large an entry may be, how long it is kept, and what a cache has done."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigurationError

LARGEST_BYTES = 8 * 1024 * 1024
"""An entry that is larger is not kept."""


@dataclass(slots=True)
class CacheStatistics:
    """What a cache has done since it was made. *dropped* are entries that could not be kept, *refused* those found that
    were not as we had left them."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    dropped: int = 0
    refused: int = 0


def seconds(ttl: float) -> float:
    """*ttl*, if it is a time to live. Raises ``ConfigurationError``."""
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl < math.inf:
        raise ConfigurationError(f"ttl is a number of seconds above 0, not {ttl!r}")
    return float(ttl)
