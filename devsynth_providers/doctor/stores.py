"""What outlives a call: the cache and the ledger."""

from __future__ import annotations

from ..errors import ConfigurationError
from ..stores.response_cache import default_directory, private
from .finding import Finding


def stores() -> list[Finding]:
    """The findings about the cache and the ledger. No router of this version keeps a ledger, and that is said."""
    return [
        _cache(),
        Finding("stores", "ok", "ledger", "not kept by routers of this version: costs stand on answers and in traces"),
    ]


def _cache() -> Finding:
    directory = default_directory()
    if not directory.exists():
        return Finding("stores", "ok", "cache", "nothing is kept yet: it begins with the first rule that says cache")
    try:
        private(directory)
    except ConfigurationError as error:
        return Finding("stores", "broken", "cache", str(error), "a rule with cache can not be carried out before")
    size = sum(file.stat().st_size for file in directory.glob("*") if file.is_file())
    return Finding("stores", "ok", "cache", f"{size / 1_000_000:.1f} MB in {directory}")
