"""The language of policy files as JSON Schema, for editors: from the same types that files are checked against.

A file that ``extends`` another may leave out what that one says, and say ``null`` to take it away; so there are two
forms of most things, a whole one and a partial one.
"""

from __future__ import annotations

import re
from typing import Any

from . import shapes
from .descriptions import describe
from .policy import Policy
from .problems import adapter
from .shorthands import NOT_FOR_FILES
from .variables import SECRET

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"}
_NAMES = {"not": {"pattern": r"\$\{"}}
_NULL = {"type": "null"}
_REF = "#/$defs/"
_PARTIAL = "Partial"
_NEVER_MERGED = ("access", "budgets", "tests", "extends", "variables", "name", "version")

Schema = dict[str, Any]


def policy_schema() -> Schema:
    """The schema of a policy file."""
    raw = adapter(Policy).json_schema()
    types: dict[str, Schema] = raw.pop("$defs") | {"Policy": raw}
    whole = {name: _written_out(name, schema) for name, schema in types.items()}
    _shorthands(whole)
    partial = {_PARTIAL + name: _partial(name, schema) for name, schema in whole.items()}
    del whole["Policy"]["properties"]["extends"]
    return {
        "$schema": DRAFT,
        "title": "A policy of devsynth_providers",
        "description": "Which model answers which request, within which limits. Money in USD, time in seconds.",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": f"{_REF}{_PARTIAL}Policy"},
        "else": {"$ref": f"{_REF}Policy"},
        "$defs": _used(whole | partial),
    }


def _written_out(owner: str, schema: Schema) -> Schema:
    """*schema* of a type as files spell it, with what each key means."""
    made: Schema = _plain(schema)
    properties = {shapes.spelled(key): each for key, each in made.get("properties", {}).items()}
    for key, each in properties.items():
        if (told := describe(owner, key)) is not None:
            each["description"] = told
    made["properties"] = properties
    made.pop("description", None)
    if "required" in made:
        made["required"] = [shapes.spelled(key) for key in made["required"]]
    return made


def _plain(schema: Any) -> Any:
    """*schema* without what tells an editor nothing, and with variables and single words where they may be."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: _plain(each) for name, each in value.items()} if key == "properties" else _plain(value)
        for key, value in schema.items()
        if key not in ("title", "uniqueItems", "default")
    }
    if isinstance(default := schema.get("default"), str | int | float) and default != "":
        made["default"] = default
    if made.get("type") == "string" and ("enum" in made or "const" in made):
        return _either({key: made.pop(key) for key in ("type", "enum", "const") if key in made}, _VARIABLE, **made)
    if made.get("type") == "array" and _is_word(made.get("items", {})):
        array = {key: made.pop(key) for key in ("type", "items", "minItems", "maxItems") if key in made}
        return _either(array["items"], array, **made)
    return _either(*made.pop("anyOf"), **made) if "anyOf" in made else made


def _is_word(schema: Schema) -> bool:
    return schema.get("type") == "string" or all(each.get("type") == "string" for each in schema.get("anyOf", [{}]))


def _either(*schemas: Schema, **further: Any) -> Schema:
    """One of *schemas*; those that are nothing but a choice themselves become part of this one."""
    flat = [each for one in schemas for each in (one["anyOf"] if set(one) == {"anyOf"} else [one])]
    return {"anyOf": flat, **further}


def _shorthands(types: dict[str, Schema]) -> None:
    """What the reader writes out before the types are asked."""
    model = types["Model"]
    model["properties"] = {key: each for key, each in model["properties"].items() if key not in NOT_FOR_FILES}
    model["required"].remove("name")
    price = model["properties"]["price"]
    price["anyOf"] = [{"type": "string", "enum": ["free", "catalogue"]}, _VARIABLE, *price["anyOf"]]
    policy = types["Policy"]["properties"]
    policy["models"]["propertyNames"] = {"not": {"pattern": r"^tag:|\$\{"}}
    rule = types["Rule"]["properties"]
    types["Defaults"] = {
        "type": "object",
        "properties": {key: rule[key] for key in rule if key not in ("name", "when", "models")},
        "additionalProperties": False,
    }
    secret = "|".join("".join(f"[{letter}{letter.lower()}]" for letter in part) for part in SECRET)
    name = {"pattern": f"^(?!.*({secret}))[A-Za-z_][A-Za-z0-9_]*$"}
    listed = {"type": "array", "items": {"type": "string", **name}}
    mapped = {
        "type": "object",
        "propertyNames": name,
        "additionalProperties": {"type": ["string", "null"]},
    }
    policy["variables"] = {"anyOf": [listed, mapped], "description": describe("Policy", "variables")}
    policy["defaults"] = {"$ref": f"{_REF}Defaults", "description": describe("Policy", "defaults")}
    policy["extends"] = {"type": "string", "pattern": r"\S", **_NAMES, "description": describe("Policy", "extends")}


def _partial(owner: str, schema: Schema) -> Schema:
    """*schema* for a file that changes what another says."""
    made = dict(schema)
    required = {"Rule": ["name"], "Policy": ["extends"]}.get(owner)
    made.pop("required", None)
    if required:
        made["required"] = required
    made["properties"] = {
        key: each if key == "extends" or (owner, key) == ("Rule", "name") else _removable(key, each, owner)
        for key, each in schema.get("properties", {}).items()
    }
    return made


def _removable(key: str, schema: Schema, owner: str) -> Schema:
    described = {name: schema[name] for name in ("description", "default") if name in schema}
    bare = {name: each for name, each in schema.items() if name not in described}
    inside = bare if owner == "Policy" and key in _NEVER_MERGED else _with_parts(bare)
    made = _either(inside, _NULL, **described)
    made["anyOf"] = [each for place, each in enumerate(made["anyOf"]) if each not in made["anyOf"][:place]]
    return made


def _with_parts(schema: Any) -> Any:
    """*schema* with the partial forms of the types in it; where keys are the user's own, a null may take one away."""
    if isinstance(schema, list):
        return [_with_parts(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _with_parts(each) for key, each in schema.items()}
    if isinstance(reference := schema.get("$ref"), str):
        made["$ref"] = reference.replace(_REF, _REF + _PARTIAL)
    if isinstance(values := made.get("additionalProperties"), dict):
        made["additionalProperties"] = _either(values, _NULL)
    return made


def _used(types: dict[str, Schema]) -> dict[str, Schema]:
    """Those of *types* that a policy can have, in the order of their names."""
    wanted = ["Policy", f"{_PARTIAL}Policy"]
    for name in wanted:
        found = re.findall(rf"'\$ref': '{re.escape(_REF)}(\w+)'", repr(types[name]))
        wanted += [each for each in found if each not in wanted]
    return {name: types[name] for name in sorted(set(wanted))}
