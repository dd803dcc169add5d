"""How a command ends early: whoever started it interrupts it, or whoever read it has left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

INTERRUPTED = 130
NOBODY_READS = 141


@contextmanager
def leaving_well() -> Iterator[None]:
    """Let what is in this block end with the right exit code if it is interrupted, or nobody reads what it wrote."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        drop_output()
        raise typer.Exit(NOBODY_READS) from None


def drop_output() -> None:
    """Let what is still to be written go nowhere: else Python would complain, and change the exit code, at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
