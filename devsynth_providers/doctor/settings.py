"""The settings: what each is, and where it comes from. Of a key only that it is set."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..policy import Policy
from ..providers.base import BaseProvider
from ..providers.known import GENERAL, of_provider
from ..providers.settings import Setting, Settings
from .finding import Finding

SWITCHES = {
    "offline": "every model is answered by the stub",
    "disable_providers": "no model can be asked",
}
_READ_ELSEWHERE = frozenset(("LOCAL_MODEL", "LOCAL_MODEL_PATH", "LOCAL_MODEL_THREADS"))


def settings(known: Settings, policy: Policy | None) -> list[Finding]:
    """What is set, for all and for the providers of *policy*; of the other providers only what somebody has said."""
    used = {model.provider for model in policy.models.values()} if policy else set()
    listed = known.listing()
    chosen = [each for each in listed if "." not in each.name or each.name.partition(".")[0] in used]
    told = {each.source for each in chosen}
    for each in listed:
        if (each.given or each.problem) and each.source not in told:
            chosen.append(each)
            told.add(each.source)
    keys = {*_keys(known, used, policy)} - {each.source.rpartition(" ")[2] for each in chosen if each.secret}
    return [_finding(each) for each in chosen] + [_key(name, known) for name in sorted(keys)]


def _finding(setting: Setting) -> Finding:
    facts = {"value": setting.shown, "source": setting.source}
    if setting.problem:
        return Finding("settings", "broken", setting.name, setting.problem, "correct it there", facts)
    if setting.name in SWITCHES and setting.value:
        message = f"on ({setting.source}): {SWITCHES[setting.name]}"
        return Finding("settings", "warning", setting.name, message, "unset it to ask models", facts)
    if setting.name.endswith("tls.verify") and not setting.value:
        message = f"off ({setting.source}): every server is believed, whoever it is"
        return Finding("settings", "warning", setting.name, message, "name its authority: DEVSYNTH_TLS_CA_FILE", facts)
    return Finding("settings", "ok", setting.name, f"{setting.shown or 'none'} ({setting.source})", "", facts)


def _keys(known: Settings, used: Collection[str], policy: Policy | None) -> Iterator[str]:
    """The variables that hold the keys of *policy*."""
    for name in used:
        if name in known.registry:
            cls = known.registry.find(name)
            if issubclass(cls, BaseProvider) and cls.key_variable:
                yield cls.key_variable
    for model in policy.models.values() if policy else ():
        if model.api_key_env:
            yield model.api_key_env


def _key(name: str, known: Settings) -> Finding:
    key = known.variable(name)
    message = "not set" if key is None else f"set ({key.source})"
    return Finding("settings", "ok", name, message, "", {"value": "not set" if key is None else "set"})


def read(known: Settings, policy: Policy | None) -> set[str]:
    """The variables that this library reads, *policy*'s own among them."""
    names = set(_READ_ELSEWHERE)
    for each in GENERAL.values():
        names.update(each.variables)
    for provider in known.registry.names():
        for each in of_provider(provider, known.registry.find(provider)).values():
            names.update(each.variables)
    return names | {model.api_key_env for model in policy.models.values() if model.api_key_env} if policy else names
