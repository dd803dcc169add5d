"""The switches, the proxies, and what is set though nobody reads it. Values are never told: some are keys."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from urllib.parse import urlsplit

from ..providers.wire import proxy_of
from .finding import Finding

ELSEWHERE = {
    "OPENAI_BASE_URL": "give the model a base_url",
    "OPENAI_API_BASE": "give the model a base_url",
    "ANTHROPIC_BASE_URL": "give the model a base_url",
    "OPENROUTER_BASE_URL": "give the model a base_url",
    "OPENAI_ORG_ID": "it is OPENAI_ORGANIZATION here",
    "OPENAI_ORGANISATION": "it is OPENAI_ORGANIZATION here",
    "LITELLM_LOG": "LiteLLM's own log is off",
    "LITELLM_MODEL_COST_MAP_URL": "prices are of the catalogue and the policy",
    "AZURE_OPENAI_ENDPOINT": "a model of provider litellm, azure/…, reads AZURE_API_BASE",
}
"""Variables that others read and we do not, with what to do instead."""

_OURS = ("OPENAI_", "ANTHROPIC_", "OPENROUTER_", "LMSTUDIO_", "LM_STUDIO_", "LOCAL_MODEL")
_SHARED = ("DEVSYNTH_", "PROVIDER_")
"""Beginnings of names that other programs use too: only what looks like a slip of the pen is told."""


def unread(variables: Mapping[str, str], read: Collection[str], file: str | None = None) -> list[Finding]:
    """The variables that are set, in *file* if one is named, and look as if they mattered, and are not in *read*."""
    found = []
    for name in sorted(variables):
        if name in read or not variables[name].strip():
            continue
        near = difflib.get_close_matches(name, read, n=1, cutoff=0.85)
        meant = f"did you mean {near[0]}?" if near else ""
        if name in ELSEWHERE:
            found.append(_set_but_not_read(name, ELSEWHERE[name], file))
        elif name.startswith(_OURS) or (meant and name.startswith(_SHARED)):
            found.append(_set_but_not_read(name, meant, file))
    return found


def _set_but_not_read(name: str, advice: str, file: str | None) -> Finding:
    where = f" in {file}" if file else ""
    return Finding("environment", "warning", name, f"is set{where}, and nothing here reads it", advice)


def proxies(urls: Iterable[str]) -> list[Finding]:
    """By which way each host of *urls* is asked, where a proxy is in force for any of them."""
    ways = {urlsplit(url).netloc: proxy_of(url, None) for url in urls}
    if not any(ways.values()):
        return []
    return [
        Finding(
            "environment",
            "ok",
            host,
            f"is asked through the proxy {_address(proxy)}" if proxy else "is asked without a proxy",
            "" if proxy is None else f"NO_PROXY={host.partition(':')[0]} asks it directly",
        )
        for host, proxy in sorted(ways.items())
    ]


def _address(url: str) -> str:
    """*url* without the name and the password that may stand in it."""
    return url.rpartition("://")[2].rpartition("@")[2].partition("/")[0]  # a password may have a slash in it
