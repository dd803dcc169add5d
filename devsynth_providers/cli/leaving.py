"""How a command ends early: it fails, whoever started it interrupts it, or whoever read it has left."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import typer

from ..errors import DevSynthError, NoModelFits
from ..types import Attempt

INTERRUPTED = 130
NOBODY_READS = 141


@contextmanager
def leaving_well(*, as_json: bool = False) -> Iterator[None]:
    """Let what is in this block end with the right exit code if it is interrupted, or nobody reads what it wrote.

    *as_json* also writes an object, whichever way it fails: nothing was written before, then.
    """
    try:
        with _told(as_json):
            yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        drop_output()
        raise typer.Exit(NOBODY_READS) from None


@contextmanager
def _told(as_json: bool) -> Iterator[None]:
    try:
        yield
    except DevSynthError as error:
        _write(failure(error), as_json)
        raise
    except KeyboardInterrupt:
        _write({"error": "interrupted", "message": "interrupted", "attempts": []}, as_json)
        raise
    except (BrokenPipeError, typer.Exit):
        raise
    except OSError as error:
        with suppress(OSError):  # it may be the output that can not be written
            _write({"error": "system", "message": of_system(error), "attempts": []}, as_json)
        raise
    except Exception as error:
        _write({"error": "bug", "message": f"{type(error).__name__}: {error}", "attempts": []}, as_json)
        raise


def _write(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(told, ensure_ascii=False), flush=True)


def of_system(error: OSError) -> str:
    """What the system has refused, and of which file."""
    return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"


def failure(error: DevSynthError) -> dict[str, Any]:
    """*error* for ``--json``."""
    attempts: tuple[Attempt, ...] = getattr(error, "attempts", ())
    told = {"error": error.kind, "message": str(error), "attempts": [asdict(attempt) for attempt in attempts]}
    if isinstance(error, NoModelFits):
        told["rejected"] = [each._asdict() for each in error.rejected]
    partial: str | None = getattr(error, "partial", None)
    return told if partial is None else told | {"partial": partial}


def drop_output() -> None:
    """Let what is still to be written go nowhere: else Python would complain, and change the exit code, at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
