"""The command line: ``devsynth-providers``. Needs the extra ``cli``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say how to get what it needs."""
    try:
        from .app import run  # noqa: PLC0415 - typer and rich are an extra
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print("error: the command line needs its extra: pip install 'devsynth_providers[cli]'", file=sys.stderr)
        sys.exit(3)
    sys.exit(run())
