"""What the documentation shows, works: every block of Python, YAML and shell in it is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from devsynth_providers import Settings
from devsynth_providers.policy.file import parse_policy
from devsynth_providers.providers.registry import registry

from . import schema

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(*languages: str) -> list[object]:
    return [
        pytest.param(match[2], id=f"{page.name}-{number}")
        for page in PAGES
        for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), 1)
        if match[1] in languages
    ]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", blocks("yaml"))
def test_policies_and_settings_are_right(text: str, tmp_path: Path) -> None:
    if not re.search(r"^provider:", text, re.MULTILINE):
        assert parse_policy(text, providers=registry).rules
        return
    path = tmp_path / "settings.yml"
    path.write_text(text, encoding="utf-8")
    for each in Settings(file=path).listing():
        assert each.problem is None


@pytest.mark.parametrize("text", blocks("dotenv"))
def test_variables_are_those_that_are_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    listing = Settings(env_file=path, environment={}).listing()
    used = {each.source.split()[-1] for each in listing if each.of_variable}
    assert used == {line.partition("=")[0] for line in text.splitlines() if "=" in line}


@pytest.mark.parametrize("session", blocks("console"))
def test_commands_print_what_they_are_said_to(session: str, tmp_path: Path) -> None:
    """Commands with an output below them are run and compared; others are only looked at for being there."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        line, _, expected = part.partition("\n")
        if not expected.strip():
            program = re.sub(r"^(?:\w+=\S+ )*", "", line).split(" ")[0]
            assert program in ("devsynth-providers", "docker") or (ROOT / program).exists(), line
            continue
        command = line.replace("devsynth-providers", f"{shlex.quote(sys.executable)} -m devsynth_providers", 1)
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )
        assert done.stdout == expected, done.stderr


def test_links_within_the_documentation_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_exit_codes_in_the_documentation_are_those_of_the_program() -> None:
    from devsynth_providers.cli import app, leaving

    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    told = [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]
    assert told == [int(code) for code in re.findall(r"^(\d+) ", app.__doc__ or "", re.MULTILINE)]
    assert {code for _, code in app.EXIT_CODES} | {0, 1, leaving.INTERRUPTED, leaving.NOBODY_READS} == set(told)


TELEMETRY = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
CONTENT = frozenset(("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"))


def named(begins: str, ends: str) -> list[set[str]]:
    """What the table between these names in its first column, each as all that it may stand for: ``.b`` after ``x.a.c``
    is ``x.b`` or ``x.a.b``."""
    found, steps = list[set[str]](), list[str]()
    for row in re.findall(r"^\| (`.*?) \|", TELEMETRY.partition(begins)[2].partition(ends)[0], re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            if name.startswith("."):
                found.append({".".join(steps[:n]) + name for n in range(1, len(steps))})
            else:
                found.append({name})
                steps = name.split(".")
    return found


def test_what_spans_say_is_what_the_page_says() -> None:
    request, attempt = named("| on the request |", "`error.type` is"), named("| on an attempt |", "| on the request |")
    known = schema.ATTEMPT.keys() | {"gen_ai.request.top_k"}
    assert schema.REQUEST.keys() <= set[str]().union(*request)
    assert known - CONTENT <= set[str]().union(*attempt, *request)
    assert [each for each in request if not each & schema.REQUEST.keys()] == []
    assert [each for each in attempt if not each & known] == []
    assert [
        each for each in schema.EVENTS if each not in TELEMETRY and f".{each.split('.')[-1]}" not in TELEMETRY
    ] == []
