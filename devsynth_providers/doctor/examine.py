"""The whole examination: every check, those that wait at the same time, each with its limit."""

from __future__ import annotations

import asyncio
import datetime
import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .. import catalogue
from ..errors import ConfigurationError, PolicyError
from ..policy import Policy
from ..policy.file import load_policy
from ..providers.env_file import read_env_file
from ..providers.registry import registry
from ..providers.settings import Settings
from ..router import Router
from . import collector, environment, models, stores, trial, versions
from . import settings as set_up
from .finding import Finding, Section
from .mistakes import mistake
from .servers import TIMEOUT_S

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What to look at: a policy, files of settings, and whether to ask models, all or those in *only*."""

    policy: str = "balanced"
    env_file: str | None = None
    settings_file: str | None = None
    trial: bool = False
    only: tuple[str, ...] = ()
    timeout_s: float = TIMEOUT_S


async def examine(
    wanted: Examination, told: Told = lambda _: None, *, version_of: versions.Version = versions.installed_version
) -> list[Finding]:
    """Every finding, in the order in which they are best read. *told* hears what is being done, in a few words;
    *version_of* knows what is installed."""
    installed = versions.versions(version_of, versions.required(), versions.package_folders())
    found = [*installed]
    stated, router, problems = _policy(wanted.policy)
    known, wrong = _known(wanted)
    found += [*wrong, *_settings(wanted, known, stated)]
    found += [*_around(router), *problems]
    told("asking servers")
    for each in await asyncio.gather(
        collector.telemetry(os.environ, wanted.timeout_s),
        _models(wanted, known, stated, router, versions.litellm_may_run(installed), told),
    ):
        found += each
    names = [*(stated.models if stated else ())]
    return sorted([*found, *stores.stores()], key=lambda each: _place(each, names))


_ORDER: Sequence[Section] = ("versions", "settings", "environment", "models", "telemetry", "stores", "trial")


def _place(finding: Finding, names: Sequence[str]) -> tuple[int, int]:
    """Section by section; what is found of one model stands together, in the order of the policy."""
    named = finding.section in ("models", "trial") and finding.subject in names
    return _ORDER.index(finding.section), names.index(finding.subject) if named else len(names)


def _policy(source: str) -> tuple[Policy | None, Router | None, list[Finding]]:
    try:
        stated = load_policy(source, providers=registry, fill_in=False, mistake=mistake)
        full = {name: catalogue.complete(model) for name, model in stated.models.items()}
        return stated, Router(replace(stated, models=full)), []
    except PolicyError as error:
        unread = not any(problem.line for problem in error.problems)
        advice = "name a policy file that is there" if unread else f"devsynth-providers policy check {source}"
        return None, None, [Finding("models", "broken", "policy", line, advice) for line in str(error).splitlines()]
    except ConfigurationError as error:
        return None, None, [Finding("models", "broken", "policy", str(error), "correct it")]


def _known(wanted: Examination) -> tuple[Settings | None, list[Finding]]:
    try:
        return Settings(env_file=wanted.env_file, file=wanted.settings_file), []
    except ConfigurationError as error:
        return None, [Finding("settings", "broken", "settings", str(error), "correct it there")]


def _settings(wanted: Examination, known: Settings | None, stated: Policy | None) -> list[Finding]:
    if known is None:
        return []
    try:
        found = set_up.settings(known, stated)
    except ConfigurationError as error:
        return [Finding("settings", "broken", "settings", str(error), "correct it there")]
    read = set_up.read(known, stated)
    found += environment.unread(os.environ, read)
    if wanted.env_file is None:
        return found
    lines = read_env_file(wanted.env_file)
    return found + environment.unread({name: line.value for name, line in lines.items()}, read, wanted.env_file)


def _around(router: Router | None) -> list[Finding]:
    models_ = router.policy.models.values() if router else ()
    return environment.proxies(model.base_url for model in models_ if model.base_url)


async def _models(
    wanted: Examination,
    known: Settings | None,
    stated: Policy | None,
    router: Router | None,
    litellm_may_run: bool,
    told: Told,
) -> list[Finding]:
    if stated is None or router is None:
        return []
    try:
        found = models.configured(stated, router, known)
        return found + await _asked(wanted, stated, router, litellm_may_run, told)
    finally:
        await router.aclose()


async def _asked(
    wanted: Examination, stated: Policy, router: Router, litellm_may_run: bool, told: Told
) -> list[Finding]:
    found = models.retired(stated, _today())
    for each in await asyncio.gather(
        models.reachable(router, wanted.timeout_s), models.local_engine(router, os.environ)
    ):
        found += each
    if not litellm_may_run:
        message = "nothing that needs LiteLLM was tried: it is not safe, or not installed"
        return [*found, Finding("models", "broken", "litellm", message, "see above")]
    told("loading LiteLLM")
    found += await models.lanes(router)
    if wanted.trial or wanted.only:
        names = wanted.only or tuple(router.providers)
        not_tried = {name: why for name in names if (why := _not_to_be_tried(name, router, found))}
        found += [
            Finding("trial", "broken", name, f"not tried: {why}", _before_a_trial(name, router))
            for name, why in not_tried.items()
        ]
        found += await trial.trial(router, [name for name in names if name not in not_tried], told)
    return found


def _not_to_be_tried(name: str, router: Router, found: Sequence[Finding]) -> str | None:
    if name not in router.providers:
        return router.unavailable.get(name, f"policy {router.policy.name!r} has no model of this name")
    gone = any(each.subject == name and each.facts.get("error") in ("unavailable", "timeout") for each in found)
    return "its server does not answer" if gone else None


def _before_a_trial(name: str, router: Router) -> str:
    if name in router.policy.models:
        return "see above, under models"
    near = difflib.get_close_matches(name, router.policy.models, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(router.policy.models)}"


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
