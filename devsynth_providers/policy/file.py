"""Policies as YAML: a file in, a ``Policy`` out, or every mistake in it with its line, its column and a suggestion."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import catalogue
from ..errors import PolicyError, Problem
from ..types import Model, Timeouts
from . import merging, shapes, shorthands, sources, variables, yaml_nodes
from .contradictions import contradictions
from .policy import Policy
from .problems import typed
from .rules import Rule
from .sources import packaged_names
from .yaml_nodes import Document, Node

__all__ = ["Mistake", "load_policy", "packaged_names", "parse_policy", "resolved"]

Mistake = Callable[[Model, Timeouts], str | None]
"""Says what is wrong with a model that the file alone does not show, beginning with the key if it is one of them."""


def policy_files(source: str | Path) -> tuple[Path, ...]:
    """The files that the policy *source* is read from, its own first, those that it extends after it.

    Raises ``PolicyError`` if one of them is not there, or is no policy.
    """
    path = sources.find(source)
    _, _, files = merging.read_whole(sources.read_text(path), str(path))
    return tuple(map(Path, files))


def load_policy(
    source: str | Path,
    *,
    providers: Collection[str] | None = None,
    fill_in: bool = True,
    mistake: Mistake | None = None,
    environment: Mapping[str, str] | None = None,
    warnings: list[Problem] | None = None,
) -> Policy:
    """Read and check a policy: a path, or the name of a packaged one.

    *providers* are the names a model may have there; any, if not given. *mistake* is asked about each model whose
    provider is one of them. Without *fill_in*, nothing is added from the catalogue: what the file itself states.
    Variables are taken from *environment*, or from the process's own. To *warnings* is added what can be left as it is:
    parts that do nothing. Raises ``PolicyError`` with all mistakes.
    """
    path = sources.find(source)
    return parse_policy(
        sources.read_text(path),
        file=str(path),
        name=path.stem,
        providers=providers,
        fill_in=fill_in,
        mistake=mistake,
        environment=environment,
        warnings=warnings,
    )


def parse_policy(
    text: str,
    *,
    file: str = "<policy>",
    name: str = "policy",
    providers: Collection[str] | None = None,
    fill_in: bool = True,
    mistake: Mistake | None = None,
    environment: Mapping[str, str] | None = None,
    warnings: list[Problem] | None = None,
) -> Policy:
    """A policy from YAML text; *file* is what errors call it, and what it extends is looked for beside that.

    Raises ``PolicyError`` with all mistakes.
    """
    root, problems = _filled(text, file, os.environ if environment is None else environment)
    node, found = shorthands.spell_out(root, name)
    document = Document.of(node)
    policy, misfits = typed(document, Policy)
    problems += [*found, *misfits]
    if policy is not None:
        told = [
            (each, document.problem(each.message, each.path, each.suggestion))
            for each in contradictions(policy, providers)
        ]
        problems += [problem for each, problem in told if not each.warning]
        problems += _mistakes(policy, document, providers, mistake) if mistake else ()
        if warnings is not None:
            warnings += [problem for each, problem in told if each.warning]
    if problems or policy is None:
        raise _error(file, problems)
    if not fill_in:
        return policy
    models = {key: catalogue.complete(model) for key, model in policy.models.items()}
    return dataclasses.replace(policy, models=models)


def resolved(source: str | Path) -> str:
    """The policy as YAML, with all that it extends, the defaults in each rule, and models for tags.

    Variables stay as they are written. Raises ``PolicyError``, as ``load_policy``, if it is wrong.
    """
    path = sources.find(source)
    text = sources.read_text(path)
    policy = parse_policy(text, file=str(path), name=path.stem)
    root, _ = _filled(text, str(path), os.environ)
    said: dict[str, Any] = {key: _as_written(node) for key, node in root.value.items() if key != "defaults"}
    said.setdefault("name", policy.name.replace("$", "$$"))
    order = ["name", "version", "variables", *shapes.keys(Policy)]
    return yaml_nodes.write({key: said[key] for key in dict.fromkeys(order) if key in said})


def _filled(text: str, file: str, environment: Mapping[str, str]) -> tuple[Node, list[Problem]]:
    """The tree of *text* with what it extends, its variables, defaults and tags, and what is wrong with those."""
    root, problems, _ = merging.read_whole(text, file)
    problems += variables.expand(root, environment)
    problems += shorthands.expand_tags(root)
    defaults, misplaced = shorthands.defaults_of(root)
    problems += misplaced
    if defaults is not None:
        _, misfits = typed(Document.of(shorthands.as_rule(defaults)), Rule)
        problems += misfits
        if not (misplaced or misfits):
            shorthands.fill_in(root, defaults)
    return root, problems


def _as_written(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _as_written(each) for key, each in node.value.items()}
    if isinstance(node.value, list):
        return [_as_written(each) for each in node.value]
    return node.value if node.written is None else node.written


def _error(file: str, problems: Iterable[Problem]) -> PolicyError:
    """All *problems*, each once, in the order of the file, and after that of those it extends."""
    order = list(dict.fromkeys([file, *(each.file for each in problems)]))
    once = dict.fromkeys(problems)
    return PolicyError(file, sorted(once, key=lambda each: (order.index(each.file or file), each.line, each.column)))


def _mistakes(
    policy: Policy, document: Document, providers: Collection[str] | None, mistake: Mistake
) -> Iterable[Problem]:
    """What whoever makes the models says of them, at the key that it begins with, or at the model."""
    for key, model in policy.models.items():
        known = providers is None or model.provider in providers
        if known and (told := mistake(catalogue.complete(model), policy.timeouts)) is not None:
            yield document.problem(f"model {key!r}: {told}", ("models", key, told.partition(" ")[0]))
