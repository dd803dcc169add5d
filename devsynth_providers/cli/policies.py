"""The commands that look after policy files: check, test, show, list, explain, diff, replay, and their schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..doctor.mistakes import mistake
from ..errors import ConfigurationError, InvalidRequest, PolicyError, Problem
from ..policy.decision import Log, read_log
from ..policy.diff import diff
from ..policy.examples import Outcome, try_examples
from ..policy.file import load_policy, packaged_names, resolved
from ..policy.replay import replay
from ..policy.schema import policy_schema
from ..policy.sources import PACKAGED
from ..providers.registry import registry
from .leaving import leaving_well
from .table import counted, drawn, room

policy_app = typer.Typer(help="Look after policy files.", no_args_is_help=True)

Sources = Annotated[list[str] | None, typer.Argument(help="Policy files, or names of packaged policies.")]
Source = Annotated[str, typer.Argument(help="A policy file, or the name of a packaged policy.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON object, for programs.")]


@policy_app.command("check")
def check_command(
    policies: Annotated[list[str], typer.Argument(help="Policy files, or names of packaged policies.")],
    as_json: JsonOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for mistakes.")] = False,
) -> None:
    """Find every mistake in policy files, with its place, and warn of what does nothing.

    Exit codes: 0 all are right, 2 wrong usage, 3 one is not.
    """
    with leaving_well(as_json=as_json):
        found: list[tuple[str, list[Problem], list[Problem]]] = []
        for source in policies:
            warnings: list[Problem] = []
            try:
                policy = load_policy(source, providers=registry, mistake=mistake, warnings=warnings)
            except PolicyError as error:
                found.append((error.file, list(error.problems), []))
                _say(error, aside=True, unless=as_json)
            else:
                found.append((source, [], warnings))
                for line in _warned(warnings):
                    _say(line, aside=True, unless=as_json)
                sizes = f"{counted(len(policy.models), 'model')}, {counted(len(policy.rules), 'rule')}"
                _say(f"{source}: right; {sizes}", unless=as_json)
        right = not any(problems or (strict and warnings) for _, problems, warnings in found)
        if as_json:
            problems = [asdict(each) for _, problems, _ in found for each in problems]
            warned = [asdict(each) for _, _, warnings in found for each in warnings]
            sources = {file: not problems for file, problems, _ in found}
            print(json.dumps({"ok": right, "policies": sources, "problems": problems, "warnings": warned}))
    if not right:
        raise typer.Exit(3)


@policy_app.command("test")
def try_command(
    policies: Sources = None,
    as_json: JsonOption = False,
) -> None:
    """Try the examples that policies have in their section tests; of all packaged ones, if none is named.

    Each is decided as the file has it: with every model configured, and nothing measured. Exit codes: 0 all are
    decided as expected, 2 wrong usage, 3 one is not, or a policy is wrong.
    """
    with leaving_well(as_json=as_json):
        tried = [(source, _outcomes(source)) for source in policies or packaged_names()]
        for source, outcomes in tried:
            for line in _tested(source, outcomes):
                _say(line, unless=as_json)
        right = all(each.passed for _, outcomes in tried for each in outcomes)
        if as_json:
            told = [_as_dict(source, each) for source, outcomes in tried for each in outcomes]
            print(json.dumps({"ok": right, "tests": told}, ensure_ascii=False))
    if not right:
        raise typer.Exit(3)


@policy_app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """The policies that come with the library, and what each is for."""
    with leaving_well(as_json=as_json):
        rows = [(name, *_about(name)) for name in packaged_names()]
        if as_json:
            keys = ("name", "about", "file")
            print(json.dumps({"policies": [dict(zip(keys, row, strict=True)) for row in rows]}))
            return
        for line in drawn(("policy", "what it is for"), [(name, about) for name, about, _ in rows], width=room()):
            print(line)


@policy_app.command("show")
def show_command(policy: Source) -> None:
    """A policy as YAML, with all that it extends, its defaults in each rule, and models for tags.

    Variables stay as they are written. Exit codes: 0 done, 3 the policy is wrong.
    """
    with leaving_well():
        print(resolved(policy), end="")


@policy_app.command("schema")
def schema_command() -> None:
    """The JSON Schema of policy files, for editors: they complete keys from it, and say what each means."""
    with leaving_well():
        print(json.dumps(policy_schema(), indent=2, ensure_ascii=False))


@policy_app.command("diff")
def diff_command(
    old: Source,
    new: Source,
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts to decide by both.")] = None,
    log: Annotated[Path | None, typer.Option(help="A decision log, to decide its requests by both.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What NEW would decide otherwise than OLD, of prompts, or of the requests in a decision log.

    Exit codes: 0 done, whatever it found, 2 wrong usage, 3 a policy or the log is wrong.
    """
    with leaving_well(as_json=as_json):
        if (log is None) == (not prompts):
            raise InvalidRequest("give prompts, or a decision log by --log")
        found = diff(load_policy(old), load_policy(new), _log(log) if log else prompts or ())
        print(json.dumps(found.as_json(), ensure_ascii=False) if as_json else found)


@policy_app.command("replay")
def replay_command(
    log: Annotated[Path, typer.Argument(help="A decision log, as Router(…, decisions=…) writes it.")],
    old: Annotated[str, typer.Option(help="The policy to compare with: the one that was in force.")],
    new: Annotated[str, typer.Option(help="The policy to try.")],
    picture: Annotated[Path | None, typer.Option(help="Draw it too: an SVG file.")] = None,
    seed: Annotated[int, typer.Option(help="For the intervals; the same seed draws the same.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """How cost, latency, refusals and the share of each model would have moved, had NEW decided yesterday's requests.

    With intervals, and the share of requests that the log can not speak to. Exit codes: 0 done, 3 a policy or the log
    is wrong.
    """
    with leaving_well(as_json=as_json):
        found = replay(load_policy(old), load_policy(new), _log(log), seed=seed)
        print(json.dumps(found.as_json(), ensure_ascii=False) if as_json else found, flush=True)
        if picture is not None:
            picture.write_text(found.as_svg(), encoding="utf-8")


def _log(path: Path) -> Log:
    try:
        log = read_log(path)
    except OSError as error:
        raise ConfigurationError(f"{path} can not be read: {error.strerror}") from None
    if not log:
        why = "; ".join(f"{count} {reason}" for reason, count in log.unreadable.items())
        raise ConfigurationError(f"{path} has no decision in it" + (f": {why}" if why else ""))
    return log


def _outcomes(source: str) -> list[Outcome]:
    return list(try_examples(load_policy(source, providers=registry)))


def _tested(source: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    failed = [each for each in outcomes if not each.passed]
    for each in failed:
        yield f"{source}: test {each.number}, {each.title}:"
        yield from (f"    {line}" for failure in each.failures for line in failure.splitlines())
    if not outcomes:
        yield f"{source}: no tests"
    elif failed:
        yield f"{source}: {len(failed)} of {counted(len(outcomes), 'test')} failed"
    else:
        yield f"{source}: {counted(len(outcomes), 'test')} passed"


def _as_dict(source: str, outcome: Outcome) -> dict[str, Any]:
    plan = outcome.plan
    return {
        "policy": source,
        "number": outcome.number,
        "test": outcome.title,
        "passed": outcome.passed,
        "failures": outcome.failures,
        "rule": None if plan is None else plan.rule,
        "models": [] if plan is None else plan.models,
    }


def _warned(warnings: Sequence[Problem]) -> Iterator[str]:
    return (f"{each.file}:{each.line}:{each.column}: warning: {each.message}" for each in warnings)


def _about(name: str) -> tuple[str, str]:
    """The first sentence of what a packaged policy says of itself, and its file."""
    path = PACKAGED / f"{name}.yaml"
    said = [line.removeprefix("#").strip() for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    text = " ".join(line for line in said if line and not line.startswith("yaml-language-server"))
    return text.partition(". ")[0].rstrip("."), str(path)


def _say(line: object, *, aside: bool = False, unless: bool = False) -> None:
    if not unless:
        print(line, file=sys.stderr if aside else sys.stdout)
