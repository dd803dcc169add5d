"""What is installed, whether the tests have run on it, and what is missing."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from .finding import Finding, Level

NAME = "devsynth_providers"
MALICIOUS = {"litellm": ("1.82.7", "1.82.8")}
"""Releases that stole the secrets of the machines they ran on."""
LEFT_BEHIND = "litellm_init.pth"
"""What 1.82.8 put beside the packages: it runs whenever Python starts, also after an upgrade."""
BESIDE = ("openai",)
"""Not required here, but worth knowing: LiteLLM brings it along, and is particular about its version."""
EXTRAS = {
    "local": "models on this machine",
    "cli": "the command line",
}
_STOLEN = "uninstall it now, and change every key and password that this machine has had"

Version = Callable[[str], str | None]


class Requirement(NamedTuple):
    """A package that this library wants: the versions its tests have run on, and the extra it belongs to."""

    name: str
    bounds: str
    extra: str | None


def versions(installed: Version, requirements: Sequence[Requirement], folders: Iterable[str] = ()) -> list[Finding]:
    """The findings about packages. *installed* knows the version of each; *folders* are where packages lie."""
    found = [
        Finding("versions", "ok", "Python", platform.python_version()),
        Finding("versions", "ok", NAME, __version__),
    ]
    for name in (*BESIDE, *MALICIOUS):
        if not any(name == each.name for each in requirements):
            requirements = (*requirements, Requirement(name, "", None))
    found += [finding for each in requirements if (finding := _version(each, installed(each.name))) is not None]
    for folder in folders:
        if (Path(folder) / LEFT_BEHIND).exists():
            message = f"malware: {LEFT_BEHIND} lies in {folder}, and runs whenever Python starts"
            found.append(Finding("versions", "broken", "litellm", message, f"delete it; {_STOLEN}"))
    return found


def _version(wanted: Requirement, version: str | None) -> Finding | None:
    level: Level = "ok"
    name = wanted.name
    if version is None and wanted.extra is not None:
        return Finding(
            "versions", "ok", name, f"not installed; it is for {EXTRAS[wanted.extra]}", _install(wanted.extra)
        )
    if version is None and not wanted.bounds:
        return None
    facts = {"version": version, "tested": wanted.bounds}
    if version is None:
        return Finding("versions", "broken", name, "not installed", f"pip install '{name}{wanted.bounds}'", facts)
    if version in MALICIOUS.get(name, ()):
        message = f"{version} is malware: it steals the keys and passwords of the machine it runs on"
        return Finding("versions", "broken", name, message, _STOLEN, facts)
    message = version
    advice = ""
    if wanted.bounds and not within(version, wanted.bounds):
        level, message = "warning", f"{version}, and the tests have run on {wanted.bounds} only"
        advice = f"pip install '{name}{wanted.bounds}'"
    return Finding("versions", level, name, message, advice, facts)


def _install(extra: str) -> str:
    return f"pip install '{NAME}[{extra}]'"


def within(version: str, bounds: str) -> bool:
    """Whether *version* is in *bounds*, as in ``>=1.2,<2,!=1.5``."""
    return all(_holds(version, bound) for bound in bounds.split(",") if bound)


def _holds(version: str, bound: str) -> bool:
    operator, limit = re.match(r"([<>=!~]+)\s*(.+)", bound.strip()).groups()  # type: ignore[union-attr]
    ours, theirs = _numbers(version), _numbers(limit)
    match operator:
        case ">=":
            return ours >= theirs
        case "<=":
            return ours <= theirs
        case ">":
            return ours > theirs
        case "<":
            return ours < theirs
        case "!=":
            return ours != theirs
        case "~=":
            return ours >= theirs and ours[: len(theirs) - 1] == theirs[:-1]
        case _:
            return ours == theirs


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(\.\d+)*", version.partition("+")[0])
    numbers = [int(each) for each in release[0].split(".")] if release else [0]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def required() -> list[Requirement]:
    """What this library says that it needs; nothing if it is not installed as a package."""
    try:
        lines = importlib.metadata.requires(NAME) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [each for line in lines if (each := _requirement(line)) is not None]


def _requirement(line: str) -> Requirement | None:
    text, _, condition = line.partition(";")
    extra = re.search(r"extra\s*==\s*['\"](\w+)", condition)
    if extra is not None and extra[1] not in EXTRAS:
        return None
    parts = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*\(?([^)]*)\)?", text.strip())
    return parts and Requirement(
        parts[1].lower(), ",".join(sorted(_bounds(parts[2]), key=_by_kind)), extra and extra[1]
    )


def _bounds(text: str) -> list[str]:
    return [bound.strip() for bound in text.split(",") if bound.strip()]


def _by_kind(bound: str) -> tuple[int, str]:
    return (">=<!".find(bound[0]), bound)


def installed_version(name: str) -> str | None:
    """The version of the package *name* here, or ``None``."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_folders() -> list[str]:
    """Where packages lie on this machine."""
    return [folder for folder in dict.fromkeys(sys.path) if folder and Path(folder).is_dir()]


def litellm_may_run(found: Iterable[Finding]) -> bool:
    """Whether *found* has nothing against importing LiteLLM."""
    return not any(finding.subject == "litellm" and finding.level == "broken" for finding in found)
