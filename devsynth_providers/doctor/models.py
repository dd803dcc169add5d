"""The models of a policy: configured, reachable, by which lane; and whether each rule has one that is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping

from .. import catalogue
from ..policy import Policy
from ..port import ProviderPort
from ..providers.base import BaseProvider
from ..providers.local import LocalProvider
from ..providers.settings import Settings
from ..router import Router
from .finding import Finding, Level
from .servers import Reach, facade, reach

LOAD_S = 60.0
"""How long LiteLLM may take to be imported, and llama.cpp to be loaded: seconds, on a slow machine many."""
_LEVELS: dict[str, Level] = {"broken": "broken", "in doubt": "warning"}
_LOADING = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
_BY_CHOICE = frozenset(("transport is litellm", "no translators are proved for it"))


def configured(stated: Policy, router: Router, known: Settings | None = None) -> list[Finding]:
    """Which models of *stated* can be asked at all, what is in doubt about them, and which rules are left with none.

    *known* are settings from files, too: a key there is one that these models do not see.
    """
    found = [
        Finding("models", "warning", name, f"not configured: {why}", _set_up(why, known))
        for name, why in router.unavailable.items()
    ]
    for rule in stated.rules:
        if not any(name in router.providers for name in rule.models):
            message = "none of its models is configured: whoever comes to it is refused"
            found.append(Finding("models", "broken", f"rule {rule.name}", message, "configure one, or add another"))
    return found


def retired(stated: Policy, today: str) -> list[Finding]:
    """Which models of *stated* are switched off by *today* (ISO 8601), or will be."""
    found = []
    for name, model in stated.models.items():
        entry = None if model.base_url else catalogue.find(model.provider, model.id)
        if entry is not None and entry.retired is not None:
            gone = entry.gone(today)
            message = f"its provider {'switched' if gone else 'switches'} it off on {entry.retired}"
            found.append(Finding("models", "warning" if gone else "ok", name, message, "name another model"))
    return found


def _set_up(why: str, known: Settings | None) -> str:
    if "is not set" in why:
        elsewhere = known and known.variable(why.partition(" ")[0])
        if elsewhere:
            return f"export it: a policy's models read the environment only, not {elsewhere.source.rpartition(':')[0]}"
        return "set it, or leave the model out"
    if "DEVSYNTH_DISABLE_PROVIDERS" in why:
        return "unset it to ask models"
    return "install it, or leave the model out" if "is not installed" in why else "correct it, or leave the model out"


async def reachable(router: Router, timeout_s: float) -> list[Finding]:
    """Whether the server of each configured model is there, and knows the model."""
    reached = await reach(router.providers, timeout_s)
    return [_reached(name, each, router.providers[name]) for name, each in reached.items()]


def _reached(name: str, reached: Reach, provider: ProviderPort) -> Finding:
    facts = {"state": reached.state, "latency_s": reached.latency_s, "error": reached.error}
    level: Level = _LEVELS.get(reached.state, "ok")
    message, advice = reached.message, reached.advice
    if reached.listed is False:
        level = "warning"
        message += f"; {provider.model.id} is not among them"
        advice = "look at the name, or have the server load it"
    return Finding("models", level, name, message, advice, facts)


async def lanes(router: Router) -> list[Finding]:
    """By which lane each configured model with a server is asked. The first answer imports LiteLLM, in seconds."""
    found = []
    for name, provider in router.providers.items():
        ours = facade(provider)
        if ours is not None and not isinstance(ours, LocalProvider):
            found.append(await _lane(name, ours))
    return found


async def _lane(name: str, provider: BaseProvider) -> Finding:
    try:
        async with asyncio.timeout(LOAD_S):
            why_not = await provider.why_not_direct()
    except TimeoutError:
        return Finding(
            "models", "broken", name, f"LiteLLM is not imported after {LOAD_S:g} s", "try again when it is quiet"
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, LiteLLM can not be imported here
        message = f"LiteLLM can not be imported: {type(error).__name__}: {error}"
        return Finding("models", "broken", name, message, "pip install --force-reinstall litellm, or ask its log")
    facts = {"lane": "direct" if why_not is None else "litellm"}
    if why_not is None:
        return Finding("models", "ok", name, "the direct lane: our own wire sends", "", facts)
    if why_not in _BY_CHOICE:
        return Finding("models", "ok", name, f"LiteLLM itself sends: {why_not}", "", facts)
    message = f"LiteLLM itself sends, which is slower: {why_not}"
    return Finding("models", "warning", name, message, "install a version of LiteLLM that the tests ran on", facts)


async def local_engine(router: Router, variables: Mapping[str, str]) -> list[Finding]:
    """Whether llama.cpp runs on this machine: tried in a process of its own, which it may take down with it."""
    if not any(isinstance(facade(provider), LocalProvider) for provider in router.providers.values()):
        return []
    variables = {name: variables[name] for name in _LOADING if name in variables}  # no key stays in this frame
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import llama_cpp", stdout=-3, stderr=-3, stdin=-3, env=variables
    )
    try:
        async with asyncio.timeout(LOAD_S):
            code = await process.wait()
    except TimeoutError:
        code = None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code == 0:
        return [Finding("models", "ok", "llama.cpp", "can be loaded")]
    message = f"can not be loaded: {'no end' if code is None else f'its process ended with {code}'}"
    advice = "build it on this machine: pip install --force-reinstall --no-binary :all: llama-cpp-python"
    return [Finding("models", "broken", "llama.cpp", message, advice)]
