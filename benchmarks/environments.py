"""Environments of their own for peers whose dependencies are not ours: made on demand, kept in ``.venvs``."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from peers import HERE

HOME = Path(__file__).parent
_OWN_SETTINGS = ("OPENAI_", "ANTHROPIC_", "LITELLM_", "OTEL_", "DEVSYNTH_", "LANGSMITH_", "LANGCHAIN_")


class NotMade(Exception):
    """There is no such environment here; the message says why."""


@cache
def python(name: str) -> str:
    """The interpreter of environment *name*, which is made if it is not there, or of another version."""
    if name == HERE:
        return sys.executable
    wanted = _requirements(name).read_text()
    made = HOME / ".venvs" / name
    stamp, interpreter = made / "installed.txt", made / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making benchmarks/.venvs/{name}", file=sys.stderr)
        _run(sys.executable, "-m", "venv", "--clear", str(made))
        _run(str(interpreter), "-m", "pip", "install", "--quiet", "-r", str(_requirements(name)))
        stamp.write_text(wanted)
    return str(interpreter)


def versions(name: str) -> str:
    """What is compared in environment *name*."""
    if name == HERE:
        return " ".join(f"{each}=={metadata.version(each)}" for each in ("aiohttp", "httpx", "litellm", "openai"))
    lines = _requirements(name).read_text().splitlines()
    return " ".join(line for line in lines if not line.startswith("#"))


def variables() -> dict[str, str]:
    """The environment of every worker: no key, proxy or setting of yours, and nothing that phones home."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OWN_SETTINGS) and not name.lower().endswith("_proxy")
    }
    return kept | {
        "PYTHONPATH": str(HOME.parent),
        "PYTHONHASHSEED": "0",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
        "LITELLM_LOCAL_BLOG_POSTS": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LANGSMITH_TRACING": "false",
    }


def _requirements(name: str) -> Path:
    return HOME / "requirements" / f"{name}.txt"


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except subprocess.CalledProcessError as error:
        raise NotMade((error.stderr.strip() or str(error)).splitlines()[-1]) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMade(str(error)) from None
