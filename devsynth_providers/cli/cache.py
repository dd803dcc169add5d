"""The commands that look after a cache of answers: show, export, prune and clear."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigurationError, InvalidRequest
from ..stores.cache_reader import Kept, Looked, entries, key_of, look
from ..stores.cache_upkeep import Old, clear, old, prune
from ..stores.ledger_file import moment
from ..stores.places import default_cache
from ..stores.secret import default_key
from .leaving import leaving_well
from .moments import FORMS, moment_of
from .output import written
from .table import counted, entries_of, megabytes, room, wrapped

cache_app = typer.Typer(help="Look after the cache, where answers are kept.", no_args_is_help=True)

CacheOption = Annotated[Path | None, typer.Option(help="The cache's directory; the user's own, if not given.")]
KeyOption = Annotated[
    Path | None, typer.Option(help="The file of the key that entries are signed with; the user's own, if not given.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON object, for programs.")]
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}


@cache_app.command("show")
def show_command(cache: CacheOption = None, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """How much is kept, and how much of that is good for something. Only reads.

    Exit codes: 0 done, 2 wrong usage, 3 there is no cache, or it can not be read.
    """
    with leaving_well(as_json=as_json):
        secret = _key(key)
        found = look(cache or default_cache(), secret)
        if as_json:
            print(json.dumps(_as_dict(found, secret is not None), ensure_ascii=False))
        else:
            for line in _told(found, key, secret is not None):
                print("\n".join(wrapped(line, room(), 11)))


@cache_app.command("export")
def export_command(
    cache: CacheOption = None,
    key: KeyOption = None,
    output: Annotated[Path | None, typer.Option(help="Write it into this file.")] = None,
) -> None:
    """Every entry that the key verifies, a JSON object in each line, oldest first: answers, as they are. Only reads.

    Exit codes: 0 done, 2 wrong usage, 3 there is no cache, no key, or it can not be read.
    """
    with leaving_well():
        secret, directory = _key(key), cache or default_cache()
        if secret is None:
            raise ConfigurationError(f"there is no key at {default_key()}, so no entry can be told from a forged one")
        with entries(directory, secret) as found, written(output, never=directory) as text:
            for each in found:
                text.write(json.dumps(_exported(each)) + "\n")


@cache_app.command("prune")
def prune_command(
    cache: CacheOption = None,
    key: KeyOption = None,
    before: Annotated[str | None, typer.Option(help=f"Also what was kept before: {FORMS}.")] = None,
    to_size: Annotated[
        str | None, typer.Option(help="Also the oldest, until the rest has room in: 500kB, 64MB.")
    ] = None,
    unverified: Annotated[bool, typer.Option("--unverified", help="Also what the key does not verify.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; else it is only said what would be.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what has expired, and what else is said. Routers may work meanwhile.

    Exit codes: 0 done, or said what would be, 2 wrong usage, 3 there is no cache, or it can not be written.
    """
    directory = cache or default_cache()
    with leaving_well(as_json=as_json):
        wanted = Old(before=moment_of(before, "--before"), size_bytes=_bytes(to_size), unverified=unverified)
        secret = _key(key)
        if unverified and secret is None:
            raise ConfigurationError(f"there is no key at {default_key()}: say cache clear to remove all")
        found = None if yes else old(directory, secret, wanted)
        removed = prune(directory, secret, wanted) if yes else 0
        if as_json:
            print(json.dumps({"found": removed if found is None else found, "removed": removed}))
        elif found is None:
            print(f"removed {entries_of(removed)}")
        else:
            about = "about " if found and to_size is not None else ""
            print(f"{about}{entries_of(found)} would go" + ("; say --yes" if found else ""))


@cache_app.command("clear")
def clear_command(
    cache: CacheOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether that is meant.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget every answer, and what was put aside because it was broken. Routers may work meanwhile.

    Exit codes: 0 done, or not wanted after all, 2 nobody is there to ask, 3 there is no cache, or it is not writable.
    """
    directory = cache or default_cache()
    with leaving_well(as_json=as_json):
        wanted = yes or _confirmed(f"forget every answer in {directory}?", asks=not as_json)
        removed = clear(directory) if wanted else 0
        if as_json:
            print(json.dumps({"removed": removed}))
        else:
            print(f"removed {entries_of(removed)}" if wanted else "nothing is removed")


def _key(file: Path | None) -> bytes | None:
    if file is not None and not file.exists():
        raise ConfigurationError(f"there is no key at {file}")
    return key_of(file)


def _confirmed(question: str, *, asks: bool) -> bool:
    if not asks or sys.stdin is None or not sys.stdin.isatty():
        raise InvalidRequest("nobody is there to ask whether every answer is to be forgotten: say --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _bytes(said: str | None) -> int | None:
    if said is None:
        return None
    told = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*(|k|m|g|ki|mi|gi)b?", said.strip(), re.IGNORECASE)
    if told is None:
        raise InvalidRequest(f"--to-size {said!r} is no size; write 500kB, 64MB or 1GiB")
    return int(float(told[1]) * _UNITS[told[2].lower()])


def _told(found: Looked, key: Path | None, has_key: bool) -> Iterator[str]:
    limit = "" if found.limit_bytes is None else f", of {megabytes(found.limit_bytes)} at most"
    yield f"cache      {found.directory}"
    yield f"size       {megabytes(found.size_bytes)}{limit}"
    yield f"entries    {found.entries}: {found.valid} good, {found.expired} expired, {found.unverified} not verified"
    if found.oldest_at is not None and found.newest_at is not None:
        yield f"kept       from {moment(found.oldest_at)} to {moment(found.newest_at)}"
    if found.valid:
        yield f"scopes     {found.scopes}; whose they are, and what was asked, stands there only as hashes"
    if found.aside:
        yield (
            f"put aside  {counted(found.aside, 'broken file')}, {megabytes(found.aside_bytes)}; cache clear removes "
            "what is put aside, too"
        )
    if not has_key:
        yield f"key        there is none at {default_key()}: nothing can be verified; name one with --key"
    elif found.unverified:
        yield (
            f"key        {key or default_key()} has not signed {entries_of(found.unverified)}: of another key, or "
            "changed by somebody; a router with this key takes them for misses, cache prune --unverified removes them"
        )


def _as_dict(found: Looked, has_key: bool) -> dict[str, object]:
    oldest, newest = (None if at is None else moment(at) for at in (found.oldest_at, found.newest_at))
    return {
        "directory": str(found.directory),
        "size_bytes": found.size_bytes,
        "limit_bytes": found.limit_bytes,
        "entries": found.entries,
        "valid": found.valid,
        "expired": found.expired,
        "unverified": found.unverified,
        "scopes": found.scopes,
        "oldest_at": oldest,
        "newest_at": newest,
        "aside": found.aside,
        "aside_bytes": found.aside_bytes,
        "key": has_key,
    }


def _exported(each: Kept) -> dict[str, object]:
    stored_at = None if each.stored_at is None else moment(each.stored_at)
    return {"key": each.row, "stored_at": stored_at, "expires_at": moment(each.expires_at), "value": each.value}
