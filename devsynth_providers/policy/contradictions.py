"""What is wrong with a policy though each of its lines is right: rules that nothing reaches, models that can never be
asked, ceilings below any call. Each with the path of the place in the file where it can be mended."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from .. import catalogue
from ..types import MAX_TOKENS, Model
from .policy import Policy
from .reach import Reach
from .rules import Rule, When, needs_of
from .sections import Example
from .shorthands import nearest

Path = tuple[str | int, ...]


class Contradiction(NamedTuple):
    """One of them: where, what, and what to do."""

    path: Path
    message: str
    suggestion: str | None = None
    warning: bool = False
    """Whether the policy can be used all the same: a part of it does nothing."""


def contradictions(policy: Policy, providers: Collection[str] | None = None) -> Iterable[Contradiction]:
    """All of them. *providers* are the names a model may have there; any, if not given."""
    models = {name: catalogue.complete(model) for name, model in policy.models.items()}
    yield from _of_models(policy.models, providers)
    yield from _of_rules(policy.rules, models, assumes_price=policy.unknown_price != "refuse")
    for index, entry in enumerate(policy.access):
        yield from _of_names(entry.models or (), models, ("access", index, "models"), "this entry of access")
    yield from _of_access(policy)
    for key in policy.limits:
        known = {*models, *(model.provider for model in models.values())}
        if key not in known:
            yield Contradiction(("limits", key), f"{key!r} is no model and no provider of one", nearest(key, known))
    yield from _of_budgets(policy, models)
    used = {name for rule in policy.rules for name in rule.models}
    for name in models:
        if name not in used:
            yield Contradiction(("models", name), f"no rule asks {name!r}", warning=True)
    for index, example in enumerate(policy.tests):
        yield from _of_example(example, policy, ("tests", index))


def _of_access(policy: Policy) -> Iterable[Contradiction]:
    """Roles that several entries leave nothing for."""
    left: dict[str, frozenset[str]] = {}
    for index, entry in enumerate(policy.access):
        for role in entry.role if entry.models is not None else ():
            allowed = frozenset(entry.models or ())
            if role in left and left[role] and not left[role] & allowed:
                message = f"nothing is left for role {role!r}: all its entries hold, and they have no model in common"
                yield Contradiction(("access", index, "models"), message, "name it in one entry")
            left[role] = left.get(role, allowed) & allowed


def _of_budgets(policy: Policy, models: Mapping[str, Model]) -> Iterable[Contradiction]:
    """Budgets that are spent before the first call, or say what means nothing."""
    worst = [model.worst_micros(1, int(MAX_TOKENS)) for model in models.values()]
    known = [micros for micros in worst if micros is not None]
    for index, budget in enumerate(policy.budgets):
        if known and len(known) == len(worst) and min(known) / 1_000_000 > budget.limit_usd:
            message = (
                f"limit_usd {_plain(budget.limit_usd)} is below the worst case of one call at every model: the "
                f"cheapest could cost ${min(known) / 1_000_000:.6f} with the default max_tokens of {int(MAX_TOKENS)}"
            )
            yield Contradiction(("budgets", index, "limit_usd"), message)
        if budget.scope == "run" and budget.when_unavailable != "refuse":
            message = "when_unavailable says nothing of a run: what one has spent stands in no ledger"
            yield Contradiction(("budgets", index, "when_unavailable"), message, "leave it out", warning=True)
        if budget.per in ("call", "total") and budget.zone != "UTC":
            whose = "a run" if budget.scope == "run" else f"a budget per {budget.per}"
            message = f"zone says nothing of {whose}, which never begins anew"
            yield Contradiction(("budgets", index, "zone"), message, "leave it out", warning=True)


def _of_example(example: Example, policy: Policy, path: Path) -> Iterable[Contradiction]:
    """Names in a test that nothing has."""
    expect, inside = example.expect, (*path, "expect")
    rules = [rule.name for rule in policy.rules]
    if expect.rule is not None and expect.rule not in rules:
        yield Contradiction((*inside, "rule"), f"no rule is called {expect.rule!r}", nearest(expect.rule, rules))
    if expect.first is not None:
        for each in _of_names([expect.first], policy.models, (), ""):
            yield each._replace(path=(*inside, "first"))
    yield from _of_names(expect.models or (), policy.models, (*inside, "models"), "this test")
    yield from _of_names(expect.rejected, policy.models, (*inside, "rejected"), "this test")


def _of_models(models: Mapping[str, Model], providers: Collection[str] | None) -> Iterable[Contradiction]:
    """In the facts of models."""
    for key, model in models.items():
        if model.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", model.api_key_env):
            message = "api_key_env is the name of a variable that holds the key, not the key"
            yield Contradiction(("models", key, "api_key_env"), message)
        if providers is not None and model.provider not in providers:
            hint = nearest(model.provider, providers) or f"there are: {', '.join(sorted(providers))}"
            yield Contradiction(("models", key, "provider"), f"no provider is called {model.provider!r}", hint)
        longest, window = model.max_output_tokens, model.context_window
        if longest is not None and window is not None and longest > window:
            message = f"max_output_tokens {longest} do not fit the window of {window}"
            yield Contradiction(("models", key, "max_output_tokens"), message)


def _of_names(names: Iterable[str], known: Collection[str], path: Path, whose: str) -> Iterable[Contradiction]:
    """In a list of names of models."""
    seen: set[str] = set()
    for position, name in enumerate(names):
        if name not in known:
            yield Contradiction((*path, position), f"no model is called {name!r}", nearest(name, known))
        elif name in seen:
            yield Contradiction((*path, position), f"{whose} names {name!r} twice")
        seen.add(name)


def _of_rules(rules: tuple[Rule, ...], known: Mapping[str, Model], *, assumes_price: bool) -> Iterable[Contradiction]:
    """In the rules: their names, their order, and what each asks of its models."""
    first: dict[str, int] = {}
    for index, rule in enumerate(rules):
        path: Path = ("rules", index)
        if rule.name in first:
            yield Contradiction((*path, "name"), f"a second rule called {rule.name!r}")
        first.setdefault(rule.name, index)
        yield from _of_names(rule.models, known, (*path, "models"), f"rule {rule.name!r}")
        models = [known[name] for name in rule.models if name in known]
        never = list(_never_asked(rule, models, path, assumes_price=assumes_price))
        yield from never
        if len(never) == len(rule.models) and all(each.warning for each in never):
            message = f"rule {rule.name!r} can ask none of its models"
            yield Contradiction((*path, "models"), message, "lower min_quality, or name another model")
        yield from _below_any_call(rule, models, path)
        yield from _of_spaces(rule, models, path)
        if rule.hedge is not None and len(set(rule.models)) < 2:
            message = f"rule {rule.name!r} names only one model: there is none to hedge with"
            yield Contradiction((*path, "hedge"), message, "name a second model", warning=True)
        if rule.join_embeddings_s is not None and rule.max_cost_usd is not None:
            message = f"rule {rule.name!r} joins no embeddings: each request has a ceiling of cost of its own"
            yield Contradiction((*path, "join_embeddings_s"), message, "leave max_cost_usd to budgets", warning=True)
    yield from _not_reached(rules)
    if not rules[-1].when.everything:
        hint = "add a last rule without 'when'"
        yield Contradiction(("rules", len(rules) - 1), "the last rule does not match all requests", hint)


def _not_reached(rules: tuple[Rule, ...]) -> Iterable[Contradiction]:
    reach = Reach([rule.when for rule in rules])
    for index, rule in enumerate(rules):
        if reach.never(index):
            path: Path = ("rules", index, "when")
            yield Contradiction(path, f"rule {rule.name!r} can never match: its conditions exclude each other")
        elif (before := reach.shadowed_by(index)) is not None:
            names = " and ".join(repr(rules[each].name) for each in before)
            if len(before) == 1 and rules[before[0]].when.everything:
                message = f"rule {rules[before[0]].name!r} matches all, so that {rule.name!r} is never reached"
                yield Contradiction(("rules", before[0]), message)
                return  # all further rules are behind it too
            message = f"rule {rule.name!r} is never reached: {names} before it {_take(before)} all that it matches"
            yield Contradiction(("rules", index), message, "put it before, or change its conditions")


def _take(before: Collection[int]) -> str:
    return "takes" if len(before) == 1 else "take"


def _never_asked(rule: Rule, models: Iterable[Model], path: Path, *, assumes_price: bool) -> Iterable[Contradiction]:
    """Models that whatever matches the rule can not be asked of."""
    needs, least_tokens = needs_of(rule.when), _least_tokens(rule.when)
    for model in models:
        why, warning = None, False
        if needs and model.abilities is not None and (missing := needs - model.abilities):
            why = f"the rule is for requests that need {', '.join(sorted(missing))}, which it is not known to do"
        elif model.context_window is not None and least_tokens >= model.context_window and not _embeds(model):
            why = f"the rule is for more than {least_tokens:g} tokens, its window holds {model.context_window}"
        elif model.price is None and not assumes_price and rule.max_cost_usd is not None:
            why = "its price is not known, and the rule has max_cost_usd"
        elif model.price is None and not assumes_price and rule.max_expected_cost_usd is not None:
            why = "its price is not known, and the rule has max_expected_cost_usd"
        elif rule.min_quality is not None and model.quality is None:
            why, warning = "its quality is not stated, and the rule has min_quality", True
        elif rule.min_quality is not None and model.quality is not None and model.quality < rule.min_quality:
            why, warning = f"its quality is {model.quality:g}, the rule's min_quality {rule.min_quality:g}", True
        if why is not None:
            place = (*path, "models", rule.models.index(model.name))
            yield Contradiction(place, f"rule {rule.name!r} can never ask {model.name!r}: {why}", warning=warning)


def _embeds(model: Model) -> bool:
    """Whether it may be given more than fits its window: many texts, each of which does."""
    return model.abilities is not None and "embeddings" in model.abilities


def _below_any_call(rule: Rule, models: Collection[Model], path: Path) -> Iterable[Contradiction]:
    """A ceiling that no model of the rule can keep with an answer of the default length."""
    if rule.max_cost_usd is None or not models:
        return
    worst = [micros for model in models if (micros := model.worst_micros(1, int(MAX_TOKENS))) is not None]
    if len(worst) == len(models) and min(worst) / 1_000_000 > rule.max_cost_usd:
        message = (
            f"max_cost_usd {_plain(rule.max_cost_usd)} is below the worst case of every model of rule {rule.name!r}: "
            f"the cheapest could cost ${min(worst) / 1_000_000:.6f} with the default max_tokens of {int(MAX_TOKENS)}"
        )
        yield Contradiction((*path, "max_cost_usd"), message)


def _plain(usd: float) -> str:
    """*usd* in figures that a policy takes, too."""
    return f"{usd:.9f}".rstrip("0").rstrip(".")


def _of_spaces(rule: Rule, models: Iterable[Model], path: Path) -> Iterable[Contradiction]:
    """A rule for embeddings whose models make vectors of several spaces."""
    if "embeddings" not in needs_of(rule.when):
        return
    able = [model for model in models if model.abilities is None or "embeddings" in model.abilities]
    for model in able[1:]:
        if model.id != able[0].id:
            place = (*path, "models", rule.models.index(model.name))
            message = f"vectors of {model.name!r} can not be compared with those of {able[0].name!r}"
            yield Contradiction(place, message, "a rule that embeds names models of one vector space")


def _least_tokens(when: When) -> float:
    """Tokens that every request of which *when* holds has at least, as far as it says so itself."""
    own = when.input_tokens
    said = [0.0, *(_least_tokens(each) for each in when.all)]
    if own is not None:
        said += [bound for bound in (own.above, own.between[0] if own.between else None) if bound is not None]
    return max(said)
