"""Where settings come from: the first that says anything decides, and every setting tells who that was."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devsynth_providers import ConfigurationError, PolicyError, ProviderRegistry, StubProvider
from devsynth_providers.providers.known import GENERAL, of_provider
from devsynth_providers.providers.registry import registry
from devsynth_providers.providers.settings import Settings

KEY = "sk-canary-4711"
"""Must never be seen again."""

FILE = """\
logging: {level: INFO}
provider:
  primary: anthropic
  fallback: [openai, local]
  use_local_fallback: true
  timeout: 30
  openai:
    model: gpt-4o
    temperature: 0.2
    retry_attempts: 5
    max_tokens:
    tls: {verify: false}
  lmstudio:
    base_url: "http://localhost:4321/v1"
"""


def settings_file(tmp_path: Path, text: str = FILE) -> Path:
    path = tmp_path / "default.yml"
    path.write_text(text)
    return path


def env_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / ".env"
    path.write_text(text)
    path.chmod(0o600)
    return path


def problems(tmp_path: Path, text: str) -> list[str]:
    path = settings_file(tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        Settings(file=path)
    return str(caught.value).replace(f"{path}:", "").splitlines()


ORDER = ("argument", "environment", ".env", "file")

EXAMPLES = st.sampled_from(
    [  # the setting, its variable, values that are told apart, and what is usual
        ("model", "OPENAI_MODEL", ("m1", "m2", "m3", "m4"), "gpt-4-turbo"),
        ("timeout", "OPENAI_HTTP_TIMEOUT", (1, 2.5, 3, 4), 60),
        ("max_retries", "PROVIDER_MAX_RETRIES", (0, 1, 2, 3), None),
        ("tls.ca_file", "DEVSYNTH_TLS_CA_FILE", ("a", "b", "c", "d"), None),
        ("organization", "OPENAI_ORGANIZATION", ("a", "b", "c", "d"), None),
    ]
)


@settings(max_examples=200)
@given(who=st.sets(st.sampled_from(ORDER)), example=EXAMPLES)
def test_the_first_who_says_anything_decides(
    tmp_path_factory: pytest.TempPathFactory, who: set[str], example: tuple[str, str, tuple[Any, ...], Any]
) -> None:
    key, variable, values, usual = example
    folder = tmp_path_factory.mktemp("settings")
    said = dict(zip(ORDER, values, strict=True))
    block = f"tls: {{{key.removeprefix('tls.')}: {said['file']}}}" if "tls" in key else f"{key}: {said['file']}"
    found = Settings(
        environment={variable: str(said["environment"])} if "environment" in who else {},
        env_file=env_file(folder, f"# mine\n{variable}='{said['.env']}'\n") if ".env" in who else None,
        file=settings_file(folder, f"provider:\n  openai: {{{block}}}") if "file" in who else None,
    ).find(key, "openai", argument=said["argument"] if "argument" in who else None)
    first = next((each for each in ORDER if each in who), "nobody")
    assert found.value == said.get(first, usual)
    assert (
        found.source
        == {
            "argument": "argument",
            "environment": f"environment {variable}",
            ".env": f"{folder / '.env'}:2 {variable}",
            "file": f"{folder / 'default.yml'}:2 provider.openai.{key}",
            "nobody": "default",
        }[first]
    )


@pytest.mark.parametrize(
    ("variables", "key", "provider", "value"),
    [
        ({"DEVSYNTH_PROVIDER": "lmstudio"}, "primary", None, "lmstudio"),
        ({"DEVSYNTH_FALLBACK_PROVIDER": "local"}, "fallback", None, ("local",)),
        (
            {"DEVSYNTH_FALLBACK_PROVIDER": "local", "PROVIDER_FALLBACK_ORDER": "lmstudio, openai,"},
            "fallback",
            None,
            ("lmstudio", "openai"),
        ),
        (
            {"PROVIDER_FALLBACK_ORDER": "a", "DEVSYNTH_PROVIDER_FALLBACK_ORDER": "openai"},
            "fallback",
            None,
            ("openai",),
        ),
        ({"DEVSYNTH_USE_LOCAL_FALLBACK": "yes"}, "use_local_fallback", None, True),
        ({"DEVSYNTH_OFFLINE": "1"}, "offline", None, True),
        ({"DEVSYNTH_DISABLE_PROVIDERS": "off"}, "disable_providers", None, False),
        ({"DEVSYNTH_SAFE_DEFAULT_PROVIDER": "stub"}, "safe_default_provider", None, "stub"),
        ({"OPENAI_MODEL": "  "}, "model", "openai", "gpt-4-turbo"),
        ({"OPENAI_ORGANIZATION": "org"}, "organization", "openai", "org"),
        ({"OPENAI_BASE_URL": "http://elsewhere/v1"}, "base_url", "openai", "https://api.openai.com/v1"),
        ({"OPENAI_HTTP_TIMEOUT": "15", "DEVSYNTH_HTTP_TIMEOUT": "10"}, "timeout", "openai", 15),
        ({"DEVSYNTH_HTTP_TIMEOUT": "10.5"}, "timeout", "anthropic", 10.5),
        ({"LM_STUDIO_HTTP_TIMEOUT": "30"}, "timeout", "lmstudio", 30),
        ({"LM_STUDIO_ENDPOINT": "http://a:1"}, "base_url", "lmstudio", "http://a:1"),
        (
            {"LM_STUDIO_ENDPOINT": "http://a:1", "LMSTUDIO_BASE_URL": "http://b:1/v1"},
            "base_url",
            "lmstudio",
            "http://b:1/v1",
        ),
        ({"LM_STUDIO_MODEL": "q"}, "model", "lmstudio", "q"),
        ({"DEVSYNTH_LMSTUDIO_RETRIES": "1", "PROVIDER_MAX_RETRIES": "3"}, "max_retries", "lmstudio", 1),
        ({"DEVSYNTH_LMSTUDIO_RETRIES": "1", "PROVIDER_MAX_RETRIES": "3"}, "max_retries", "openai", 3),
        ({"DEVSYNTH_PROVIDER_MAX_RETRIES": "2", "PROVIDER_MAX_RETRIES": "3"}, "max_retries", "openai", 2),
        ({"PROVIDER_INITIAL_DELAY": "0.1"}, "initial_delay", "openai", 0.1),
        ({"PROVIDER_MAX_DELAY": "4"}, "max_delay", "openai", 4),
        ({"LOCAL_MODEL": "mistral"}, "model", "local", "mistral"),
        ({"LOCAL_MODEL_PATH": "/models"}, "model_path", "local", "/models"),
        ({"DEVSYNTH_TLS_VERIFY": "false"}, "tls.verify", "openai", False),
        ({"DEVSYNTH_TLS_CA_FILE": "/ca.pem"}, "tls.ca_file", "openrouter", "/ca.pem"),
        ({"ANTHROPIC_MODEL": "c"}, "model", "anthropic", "c"),
        ({"OPENROUTER_MODEL": "a/b"}, "model", "openrouter", "a/b"),
    ],
)
def test_variables_are_understood_in_both_spellings(
    variables: dict[str, str], key: str, provider: str | None, value: object
) -> None:
    assert Settings(environment=variables).find(key, provider).value == value


@pytest.mark.parametrize(
    ("variables", "key", "problem"),
    [
        (
            {"OPENAI_HTTP_TIMEOUT": "soon"},
            "timeout",
            "environment OPENAI_HTTP_TIMEOUT: openai.timeout must be a number",
        ),
        ({"OPENAI_HTTP_TIMEOUT": "inf"}, "timeout", "a number of seconds above 0, not inf"),
        ({"PROVIDER_MAX_RETRIES": "-1"}, "max_retries", "a whole number from 0 to 19, .* not -1"),
        ({"DEVSYNTH_TLS_VERIFY": "maybe"}, "tls.verify", "a switch: true or false, not 'maybe'"),
    ],
)
def test_a_variable_that_makes_no_sense_is_told_by_its_name(variables: dict[str, str], key: str, problem: str) -> None:
    made = Settings(environment=variables)
    with pytest.raises(ConfigurationError, match=problem):
        made.find(key, "openai")
    (listed,) = [each for each in made.listing("openai") if each.problem]
    assert listed.name == f"openai.{key}"
    assert listed.source in (listed.problem or "")


def test_a_setting_that_is_not_there_is_told_with_what_was_meant() -> None:
    with pytest.raises(ConfigurationError, match="no setting 'modle'; did you mean 'model'"):
        Settings().find("modle", "openai")
    with pytest.raises(ConfigurationError, match="no setting 'api_base'; did you mean 'base_url'"):
        Settings().find("api_base", "openai")


def test_a_file_says_things_for_one_provider_or_for_all(tmp_path: Path) -> None:
    made = Settings(file=settings_file(tmp_path), environment={})
    assert made.find("primary").value == "anthropic"
    assert made.find("fallback").value == ("openai", "local")
    assert made.find("use_local_fallback").value is True
    assert made.find("timeout", "anthropic").value == 30
    assert made.find("temperature", "openai").value == 0.2
    assert made.find("tls.verify", "openai").value is False
    assert made.find("tls.verify", "anthropic").value is True
    assert made.find("max_tokens", "openai").given is False
    assert made.find("retry_attempts", "openai").source.endswith("default.yml:10 provider.openai.retry_attempts")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("primry: openai", "2:3: 'primry' is neither a setting nor a provider; did you mean 'primary'?"),
        ("primary: opneai", "2:12: no provider is called 'opneai'; did you mean 'openai'?"),
        ("fallback: [openai, acme]", "2:22: no provider is called 'acme'; there are anthropic,"),
        ("opneai: {model: x}", "2:3: 'opneai' is neither a setting nor a provider; did you mean 'openai'?"),
        ("openai: {modle: x}", "2:12: unknown key 'modle'; did you mean 'model'?"),
        ("openai: {path: x}", "2:12: unknown key 'path'; did you mean 'model_path'?"),
        ("openai: gpt-4o", "2:11: openai is a mapping, with keys as model and base_url"),
        ("openai: {temperature: 3}", "2:25: temperature must be a number from 0 to 2, not 3"),
        ("openai: {temperature: warm}", "2:25: temperature must be a number from 0 to 2, not 'warm'"),
        ("openai: {max_tokens: true}", "2:24: max_tokens must be a whole number from 1 on, not True"),
        ('timeout: "30"', "2:12: timeout must be a number of seconds above 0, not '30'"),
        ("use_local_fallback: 1", "2:23: use_local_fallback must be a switch: true or false, not 1"),
        ("openai: {tls: true}", "2:17: tls is a mapping with the keys verify, ca_file, cert_file, key_file"),
        ("openai: {tls: {verfy: false}}", "2:18: unknown key 'verfy'; did you mean 'verify'?"),
        ("openai: {retry_attempts: 3, max_retries: 2}", "2:44: retry_attempts and max_retries say the same"),
        ("offline: true", "2:3: 'offline' is neither a setting nor a provider"),
        ("model: x", "2:3: 'model' is neither a setting nor a provider"),
        ("timeout: .inf", "2:12: .inf is not a number to count with"),
        ("openai: &a {model: x}", "2:11: not YAML: anchors and aliases are not allowed"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(tmp_path: Path, section: str, problem: str) -> None:
    (told,) = problems(tmp_path, f"provider:\n  {section}\n")
    assert told.startswith(problem)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    told = problems(tmp_path, "provider:\n  timeout: 0\n  openai:\n    modle: x\n    context_size: 0\n")
    assert [each.split(": ")[0] for each in told] == ["2:12", "4:5", "5:19"]


def test_a_file_without_a_section_or_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert problems(tmp_path, "providers: {}\n") == ["1:1: there is no section 'provider' in this file"]
    assert problems(tmp_path, "provider: openai\n")[0].startswith("1:11: provider is a mapping")
    with pytest.raises(PolicyError, match="No such file"):
        Settings(file=tmp_path / "nowhere.yml")


@pytest.mark.parametrize("line", ["api_key: {}", "api_key_env: {}", "api_kye: {}", "model: [{}]"])
def test_a_key_in_a_file_is_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    told = problems(tmp_path, f"provider:\n  openai:\n    {line.format(KEY)}\n")
    assert told[0].startswith("3:")
    if "model" not in line:
        assert KEY not in "".join(told)
    if "api_key:" in line:
        assert "name the variable that holds it; api_key_env: OPENAI_API_KEY" in told[0]


def test_a_provider_of_ones_own_has_settings_too(tmp_path: Path) -> None:
    path = settings_file(tmp_path, "provider: {primary: 'acme.models:Acme', 'acme.models:Acme': {model: x}}")
    assert Settings(file=path).find("primary").value == "acme.models:Acme"


def test_an_env_file_is_read_only_on_request_and_never_put_into_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file(tmp_path, f"export OPENAI_API_KEY={KEY}\nOPENAI_MODEL=gpt-${{USER}}\n")
    monkeypatch.chdir(tmp_path)
    assert Settings().find("api_key", "openai").value is None
    path = tmp_path / ".env"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors write it
    made = Settings(env_file=True)
    assert made.find("api_key", "openai").value == KEY
    assert made.find("model", "openai").value == "gpt-${USER}"
    assert made.find("api_key", "openai").source == ".env:1 OPENAI_API_KEY"
    assert "OPENAI_API_KEY" not in os.environ


def test_true_takes_an_env_file_if_there_is_one_and_a_path_means_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not Settings(env_file=True).find("primary").given
    with pytest.raises(ConfigurationError, match="No such file"):
        Settings(env_file=".env")


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o601, 0o644])
def test_an_env_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = env_file(tmp_path, f"OPENAI_API_KEY={KEY}\n")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"others: chmod 600 {path}"):
        Settings(env_file=path)


def test_an_env_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = env_file(tmp_path, "A=1\n")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        Settings(env_file=path)


def test_an_env_file_that_is_a_link_or_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    target.write_text("A=1\n")
    target.chmod(0o600)
    (tmp_path / ".env").symlink_to(target)
    with pytest.raises(ConfigurationError, match="symbolic link: name the file itself"):
        Settings(env_file=tmp_path / ".env")
    monkeypatch.chdir(tmp_path)
    target.unlink()
    with pytest.raises(ConfigurationError, match="symbolic link"):
        Settings(env_file=True)
    with pytest.raises(ConfigurationError, match="is not a file"):
        Settings(env_file=tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="is not a file"):
        Settings(env_file=tmp_path / "pipe")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"A=1\nB C=2 3\n", ".env:2: this is not NAME=value"),
        (b"A=\xff\n", "not UTF-8: byte 2"),
        (b"A=1\n" * 70_000, "larger than 256 KiB"),
    ],
)
def test_an_env_file_that_makes_no_sense_is_told_without_its_text(tmp_path: Path, content: bytes, problem: str) -> None:
    path = env_file(tmp_path, "")
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        Settings(env_file=path)
    assert "2 3" not in str(caught.value)


def test_a_key_is_shown_nowhere(tmp_path: Path) -> None:
    made = Settings(env_file=env_file(tmp_path, f"OPENAI_API_KEY={KEY}\n"), environment={"ANTHROPIC_API_KEY": KEY})
    found = [made.find("api_key", "openai"), made.find("api_key", "openai", argument=KEY)]
    listed = made.listing()
    assert {"openai.api_key", "anthropic.api_key"} <= {each.name for each in listed}
    assert found[0].shown == "set"
    assert KEY not in str([dataclasses.asdict(each) for each in listed])
    assert KEY not in f"{found} {[str(each) for each in found]} {listed} {[each.shown for each in listed]} {made!r}"
    with pytest.raises(ConfigurationError) as caught:
        made.find("api_key", "openai", argument=[KEY])
    assert KEY not in str(caught.value)


def test_a_password_in_a_url_is_not_shown() -> None:
    found = Settings(environment={"LMSTUDIO_BASE_URL": f"http://me:{KEY}@h/v1"}).find("base_url", "lmstudio")
    assert found.shown == "http://***@h/v1"


def test_the_listing_has_what_each_provider_takes_and_no_more() -> None:
    names = {each.name for each in Settings(environment={}).listing("local", "stub")}
    assert {"primary", "local.model", "local.timeout", "local.retry_attempts"} <= names
    assert not {"local.tls.verify", "local.base_url", "stub.timeout"} & names


OF_ANY_PROVIDER = re.compile(r"^(ANTHROPIC|OPENROUTER|OPENAI|LITELLM|STUB)_(?=HTTP_TIMEOUT)|^STUB_(?=MODEL)")


def test_every_setting_and_every_variable_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    known = {**GENERAL}
    for provider in registry.names():
        known |= {f"{provider}.{key}": each for key, each in of_provider(provider, registry.find(provider)).items()}
    for name, each in known.items():
        assert f"`{name.rpartition('.')[2]}`" in page, name
        for variable in each.variables:
            spelled = OF_ANY_PROVIDER.sub("<NAME>_", variable)
            assert f"`{variable}`" in page or f"`{spelled}`" in page, variable


def test_reading_the_environment_imports_neither_yaml_nor_dotenv() -> None:
    code = """
import sys
from devsynth_providers.providers.known import GENERAL, of_provider
from devsynth_providers.providers.registry import registry
from devsynth_providers.providers.settings import Settings
Settings().find("primary")
print(sorted({"litellm", "dotenv", "pydantic", "yaml"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_registry_of_ones_own_knows_its_own_names(tmp_path: Path) -> None:
    own = ProviderRegistry()
    own.register("acme", StubProvider)
    options: dict[str, Any] = {"registry": own, "environment": {"ACME_MODEL": "a"}}
    made = Settings(file=settings_file(tmp_path, "provider: {primary: acme}"), **options)
    assert made.find("model", "acme").value == "a"
