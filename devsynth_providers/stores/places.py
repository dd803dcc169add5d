"""Where the user's own things are, by the XDG base directories."""

from __future__ import annotations

import os
from pathlib import Path


def state_directory() -> Path:
    """Of what should outlive a restart: keys, ledgers."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "devsynth_providers"


def cache_directory() -> Path:
    """Of what may be lost."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "devsynth_providers"


def default_ledger() -> Path:
    """The file of the ledger, if no other is named."""
    return state_directory() / "ledger.sqlite3"
