"""What outlives a call: the cache and the ledger."""

from __future__ import annotations

from ..errors import ConfigurationError
from ..stores.ledger_file import opened
from ..stores.places import default_cache, default_ledger, private
from .finding import Finding


def stores() -> list[Finding]:
    """The findings about the user's own cache and ledger."""
    return [_cache(), _ledger()]


def _cache() -> Finding:
    directory = default_cache()
    if not directory.exists():
        return Finding("stores", "ok", "cache", "nothing is kept yet: it begins with the first rule that says cache")
    try:
        private(directory)
    except ConfigurationError as error:
        return Finding("stores", "broken", "cache", str(error), "a rule with cache can not be carried out before")
    size = sum(file.stat().st_size for file in directory.glob("*") if file.is_file())
    return Finding("stores", "ok", "cache", f"{size / 1_000_000:.1f} MB in {directory}")


def _ledger() -> Finding:
    file = default_ledger()
    if not file.exists():
        return Finding("stores", "ok", "ledger", "nothing is written yet: it begins with the first policy with budgets")
    try:
        with opened(file, "ro") as database:
            (entries,) = database.execute("SELECT count(*) FROM entries").fetchone()
    except ConfigurationError as error:
        return Finding("stores", "broken", "ledger", str(error), "a policy with budgets is refused before")
    return Finding("stores", "ok", "ledger", f"{entries} attempts, {file.stat().st_size / 1_000_000:.1f} MB in {file}")
