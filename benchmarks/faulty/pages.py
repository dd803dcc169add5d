"""The part of ``docs/reliability.md`` that a run writes, and where it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from . import picture, report
from .scenarios import Scale

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
_BEGIN, _END = "<!-- from here to the end mark: written by benchmarks/resilience.py -->", "<!-- end mark -->"


def versions() -> str:
    """What is compared."""
    names = ("devsynth_providers", "litellm", "openai", "aiohttp", "httpx")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def generated(run: Mapping[str, Any], scale: Scale) -> str:
    """All tables of *run*, under what it ran on."""
    found = run["found"]
    loads = ", ".join(f"{name} {load:.0f}" for name, load in run.get("load", {}).items())
    return "\n".join(
        (
            f"{run['heading']}; {run['versions']}. Load average of the machine over five minutes: {loads}.\n",
            report.summary(found),
            "",
            report.details(found, scale),
        )
    )


def write(run: Mapping[str, Any], scale: Scale) -> None:
    """Rewrite what stands between the marks, and the picture."""
    text = PAGE.read_text(encoding="utf-8")
    between = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
    told = f"{_BEGIN}\n\n{generated(run, scale)}\n{_END}"
    PAGE.write_text(between.sub(lambda _: told, text), encoding="utf-8")
    PAGE.with_suffix(".svg").write_text(picture.as_svg(run["found"], run["heading"]), encoding="utf-8")
