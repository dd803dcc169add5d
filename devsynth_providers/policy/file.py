"""Policies as YAML: a file in, a ``Policy`` out, or every mistake in it with its line, its column and a suggestion."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .. import catalogue
from ..errors import PolicyError, Problem
from ..types import Model, Timeouts
from . import yaml_nodes
from .contradictions import contradictions
from .policy import Policy
from .yaml_nodes import Document

Mistake = Callable[[Model, Timeouts], str | None]
"""Says what is wrong with a model that the file alone does not show, beginning with the key if it is one of them."""

_SUBJECT = re.compile(r"^(?:Value error, |Input |Tuple |String )|(?<=item) after validation.*|(?<=character).*")

PACKAGED = Path(__file__).parent.parent / "policies"
"""Where the policies that come with this library are."""


def packaged_names() -> list[str]:
    """Names under which ``load_policy`` finds a policy that came with this library."""
    return sorted(path.stem for path in PACKAGED.glob("*.yaml"))


def load_policy(
    source: str | Path,
    *,
    providers: Collection[str] | None = None,
    fill_in: bool = True,
    mistake: Mistake | None = None,
) -> Policy:
    """Read and check a policy: a path, or the name of a packaged one.

    *providers* are the names a model may have there; any, if not given. *mistake* is asked about each model whose
    provider is one of them. Without *fill_in*, nothing is added from the catalogue: what the file itself states. Raises
    ``PolicyError`` with all mistakes.
    """
    path = _find(source)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(str(path), [Problem(f"not UTF-8: byte {error.start}")]) from None
    except OSError as error:
        raise PolicyError(str(path), [Problem(f"can not be read: {error.strerror}")]) from None
    return parse_policy(text, file=str(path), name=path.stem, providers=providers, fill_in=fill_in, mistake=mistake)


def parse_policy(
    text: str,
    *,
    file: str = "<policy>",
    name: str = "policy",
    providers: Collection[str] | None = None,
    fill_in: bool = True,
    mistake: Mistake | None = None,
) -> Policy:
    """A policy from YAML text; *file* is what errors call it. Raises ``PolicyError`` with all mistakes."""
    try:
        document = yaml_nodes.read(text)
    except yaml_nodes.Unreadable as error:
        raise PolicyError(file, [error.args[0]]) from None
    problems = document.problems
    _spell_out(document, name)
    policy = None
    if isinstance(document.data, dict):
        try:
            policy = _adapter().validate_json(json.dumps(document.data), strict=True)
        except ValidationError as error:
            problems += _problems(error, document)
    else:
        problems.append(Problem("a policy is a mapping with the keys models and rules", 1, 1))
    if policy is not None:
        problems += _contradictions(policy, document, providers)
        problems += _mistakes(policy, document, providers, mistake) if mistake else ()
    if problems or policy is None:
        raise PolicyError(file, sorted(problems, key=lambda problem: (problem.line, problem.column)))
    if not fill_in:
        return policy
    models = {key: catalogue.complete(model) for key, model in policy.models.items()}
    return dataclasses.replace(policy, models=models)


def _find(source: str | Path) -> Path:
    if not isinstance(source, str | Path):
        raise PolicyError("policy", [Problem(f"a policy is named by a path or a name, not {type(source).__name__}")])
    if not str(source).strip():
        raise PolicyError(
            "policy", [Problem("no policy is named", suggestion=f"there are {', '.join(packaged_names())}")]
        )
    path = Path(source)
    named = PACKAGED / f"{source}.yaml"
    if path.is_file():
        return path
    if named.is_file():
        return named
    if path.exists():
        return path  # a folder: reading it says what is wrong
    names = packaged_names()
    near = difflib.get_close_matches(str(source), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"packaged policies: {', '.join(names)}"
    raise PolicyError(
        str(source), [Problem("there is no such file, and no packaged policy of this name", suggestion=hint)]
    )


@functools.cache
def _adapter() -> TypeAdapter[Policy]:
    return TypeAdapter(Policy)


def _spell_out(document: Document, name: str) -> None:
    """Write out in full what the file may leave short: names, ``price: free``, one name for a list of one."""
    data = document.data
    if not isinstance(data, dict):
        return
    data.setdefault("name", name)
    models = data.get("models")
    for key, model in models.items() if isinstance(models, dict) else ():
        if not isinstance(model, dict):
            continue
        if "name" in model:
            place = document.keys[("models", key, "name")]
            document.problems.append(Problem("unknown key 'name': a model is named by the key before it", *place))
        model["name"] = key
        match model.get("price"):
            case "free":
                model["price"] = {"input_usd_per_1m": 0, "output_usd_per_1m": 0}
            case "catalogue":
                del model["price"]
                _must_be_priced(document, key, model)
            case _:
                pass
    rules = data.get("rules")
    for rule in rules if isinstance(rules, list) else ():
        if isinstance(rule, dict):
            _as_list(rule, "models")
            _as_list(rule.get("when"), "task")


def _must_be_priced(document: Document, key: str, model: Mapping[str, Any]) -> None:
    entry = catalogue.find(str(model.get("provider")), str(model.get("model") or key))
    if "base_url" in model:
        problem = "the catalogue knows no prices of servers of one's own; state it, or say free"
        document.problems.append(Problem(problem, *document.place(("models", key, "price"))))
    elif entry is None or entry.price is None:
        document.problems.append(
            Problem(f"the catalogue has no price of {key!r}", *document.place(("models", key, "price")))
        )


def _as_list(mapping: object, key: str) -> None:
    if isinstance(mapping, dict) and isinstance(mapping.get(key), str):
        mapping[key] = [mapping[key]]


def _problems(error: ValidationError, document: Document) -> Iterable[Problem]:
    for each in error.errors(include_url=False):
        path, kind, seen, facts = each["loc"], each["type"], each["input"], each.get("ctx", {})
        *parent, key = path or ("policy",)
        if path in document.unread or (kind == "too_short" and len(seen) >= facts["min_length"]):
            continue  # told already: by the reader, or by what is wrong with the items
        if kind == "unexpected_keyword_argument":
            near = _nearest(str(key), _keys_at(tuple(parent)))
            yield Problem(f"unknown key {key!r}", *document.keys.get(path, document.place(path)), near)
        elif kind.startswith("missing"):
            owner = " ".join(f"{step + 1}" if isinstance(step, int) else step.removesuffix("s") for step in parent)
            what = f"{owner} has no {key!r}" if parent else f"no {key!r}"
            yield Problem(f"{what}, which is required", *document.place(tuple(parent)))
        else:
            name = next((step for step in reversed(path) if isinstance(step, str)), key)
            told = _SUBJECT.sub("", each["msg"])
            got = "" if isinstance(seen, dict | list) else f", not {json.dumps(seen)}"
            for theirs, ours in (("an object", "a mapping"), ("an array", "a list"), ("valid array", "list")):
                told = told.replace(theirs, ours)
            near = _nearest(str(seen), re.findall("'([^']+)'", str(facts.get("expected", ""))))
            if key == "price":
                told += ", free, or catalogue"
            elif kind == "float_type" and _is_exponent(seen):
                near = "YAML wants a point before the e, as in 1.0e-3"
            yield Problem(f"{name} {told}{got}", *document.place(path), near)


def _contradictions(policy: Policy, document: Document, providers: Collection[str] | None) -> Iterable[Problem]:
    """What each line alone does not show."""
    for path, message, suggestion, warning in contradictions(policy, providers):
        if not warning:
            yield Problem(message, *document.place(path), suggestion)


def _mistakes(
    policy: Policy, document: Document, providers: Collection[str] | None, mistake: Mistake
) -> Iterable[Problem]:
    """What whoever makes the models says of them, at the key that it begins with, or at the model."""
    for key, model in policy.models.items():
        known = providers is None or model.provider in providers
        if known and (told := mistake(catalogue.complete(model), policy.timeouts)) is not None:
            yield Problem(f"model {key!r}: {told}", *document.place(("models", key, told.partition(" ")[0])))


def _is_exponent(seen: object) -> bool:
    return isinstance(seen, str) and re.fullmatch(r"\d+e[-+]?\d+", seen, re.IGNORECASE) is not None


def _nearest(word: str, words: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    """The keys that the file may have at *path*, from the types themselves."""
    kind: Any = Policy
    for step in path:
        if dataclasses.is_dataclass(kind):
            kind = typing.get_type_hints(kind).get(str(step))
        else:
            kind = typing.get_args(kind)[1 if isinstance(step, str) else 0]
        if isinstance(kind, types.UnionType):
            kind = next(each for each in typing.get_args(kind) if each is not types.NoneType)
    return [each.name for each in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
