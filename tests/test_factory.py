"""The factory: which provider comes of what is set, what is left out, what is refused, and that no key is seen."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Unpack

import pytest
from typing_extensions import override

from devsynth_providers import (
    AnthropicProvider,
    ChatRequest,
    ConfigurationError,
    FallbackProvider,
    LMStudioProvider,
    LocalProvider,
    Model,
    NotConfigured,
    OpenAIProvider,
    PolicyError,
    ProviderFactory,
    ProviderPort,
    ProviderRegistry,
    ProviderUnavailable,
    Reply,
    Request,
    Retry,
    Router,
    StubProvider,
    SyncRouter,
    Timeouts,
    stack,
)
from devsynth_providers.layers.defaults import Defaults
from devsynth_providers.policy.file import parse_policy
from devsynth_providers.providers.base import Common
from devsynth_providers.testing import ScriptedProvider

from .conftest import Ask
from .loopback import Answer, Loopback

KEY = "sk-canary-4711"

create = ProviderFactory.create


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return KEY


def told(provider: ProviderPort) -> Any:
    """What the provider was made with, as its wire has it."""
    return provider.inner.__dict__ if isinstance(provider, Defaults) else provider.__dict__


def settings_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "default.yml"
    path.write_text(text)
    return path


def env_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / ".env"
    path.write_text(text)
    path.chmod(0o600)
    return path


def names(provider: ProviderPort) -> list[str]:
    assert isinstance(provider, FallbackProvider)
    return [each.model.provider for each in provider.providers]


class Parrot(ProviderPort):
    """A user's own: made from a Model."""

    def __init__(self, model: Model, *, threads: int = 1) -> None:
        self._model = model
        self.threads = threads

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        return await ScriptedProvider(f"{self.model.id}: {request.text}").send(request)


class Strict(OpenAIProvider):
    """A user's own, like those of the library."""

    provider: ClassVar[str] = "strict"
    model_variables: ClassVar[tuple[str, ...]] = ("STRICT_LLM",)
    key_variable: ClassVar[str | None] = "STRICT_KEY"

    def __init__(self, model: str | Model | None = None, **common: Unpack[Common]) -> None:
        super().__init__(model, **common)


def test_by_default_it_is_openai(key: str) -> None:
    provider = create()
    assert isinstance(provider, OpenAIProvider)
    assert provider.model.name == "gpt-4-turbo"


def test_the_environment_names_the_provider_and_arguments_go_before_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVSYNTH_PROVIDER", "lmstudio")
    monkeypatch.setenv("LMSTUDIO_MODEL", "qwen3")
    monkeypatch.setenv("OPENAI_MODEL", "gpt-4o")
    by_environment = create()
    assert isinstance(by_environment, LMStudioProvider)
    assert by_environment.model.name == "qwen3"
    assert create("openai").model.name == "gpt-4o"
    assert create("openai", "gpt-4").model.name == "gpt-4"
    assert create("openai", config={"model": "gpt-4"}).model.name == "gpt-4"


def test_it_is_asked_on_the_class_and_on_an_instance_and_by_both_names(key: str) -> None:
    kind = Enum("kind", {"OPENAI": "openai"})
    for made in (
        ProviderFactory.create("stub"),
        ProviderFactory().create("stub"),
        ProviderFactory.create_provider("stub"),
        ProviderFactory().create_provider("stub", use_fallback=False),
    ):
        assert isinstance(made, StubProvider)
    assert isinstance(create(kind.OPENAI), OpenAIProvider)


def test_an_unknown_provider_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="no provider is called 'opneai'; did you mean 'openai'") as caught:
        create("opneai")
    assert isinstance(caught.value, ConfigurationError)
    with pytest.raises(ConfigurationError, match="did you mean 'openai'"):
        create("OpenAI")
    assert "anthropic, litellm, lmstudio, local, openai, openrouter, stub" in str(caught.value)


def test_a_missing_key_is_told_before_anything_is_opened() -> None:
    code = """
import sys
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith(("socket.", "subprocess.")) else None)
from devsynth_providers import NotConfigured, ProviderFactory
try:
    ProviderFactory.create("anthropic", "claude")
except NotConfigured as error:
    print(error)
print(opened, sorted({"litellm", "openai", "aiohttp"} & set(sys.modules)))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert done.stdout.splitlines() == ["ANTHROPIC_API_KEY is not set, and no api_key is given", "[] []"]


def test_a_chain_is_the_primary_then_the_fallbacks_then_the_local_one(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTUDIO_MODEL", "qwen3")
    monkeypatch.setenv("DEVSYNTH_FALLBACK_PROVIDER", "lmstudio")
    assert names(create()) == ["openai", "lmstudio"]
    assert names(create("stub")) == ["stub", "lmstudio"]
    monkeypatch.setenv("DEVSYNTH_USE_LOCAL_FALLBACK", "true")
    assert names(create(registry=local_is_a_stub())) == ["openai", "lmstudio", "stub"]
    monkeypatch.setenv("PROVIDER_FALLBACK_ORDER", "stub,openai,lmstudio")
    assert names(create(registry=local_is_a_stub())) == ["openai", "stub", "lmstudio", "stub"]
    assert isinstance(create(use_fallback=False), OpenAIProvider)


def local_is_a_stub() -> ProviderRegistry:
    registry = ProviderRegistry()
    registry.register("local", StubProvider)
    return registry


def test_what_lacks_its_key_is_left_out_of_a_chain_and_the_log_says_so(
    key: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PROVIDER_FALLBACK_ORDER", "anthropic,stub")
    monkeypatch.setenv("ANTHROPIC_MODEL", "claude")
    with caplog.at_level(logging.WARNING, "devsynth_providers"):
        assert names(create()) == ["openai", "stub"]
    (record,) = caplog.records
    assert record.name == "devsynth_providers"
    assert record.getMessage() == (
        "provider anthropic is left out: ANTHROPIC_API_KEY is not set, and no api_key is given"
    )


def test_if_nobody_is_left_the_error_says_why_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVSYNTH_FALLBACK_PROVIDER", "anthropic")
    with pytest.raises(NotConfigured) as caught:
        create()
    assert "openai: OPENAI_API_KEY is not set" in str(caught.value)
    assert "anthropic: AnthropicProvider needs a model" in str(caught.value)


def test_a_setting_that_is_wrong_is_never_a_reason_to_fall_back(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVSYNTH_FALLBACK_PROVIDER", "lmstudio")
    monkeypatch.setenv("LMSTUDIO_MODEL", "q")
    monkeypatch.setenv("LMSTUDIO_BASE_URL", "ftp://x")
    with pytest.raises(ConfigurationError, match="must start with http"):
        create()
    monkeypatch.setenv("DEVSYNTH_FALLBACK_PROVIDER", "lmstduio")
    with pytest.raises(ConfigurationError, match="did you mean 'lmstudio'"):
        create()


async def test_a_missing_key_never_becomes_a_stub_unless_somebody_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NotConfigured):
        create()
    monkeypatch.setenv("DEVSYNTH_SAFE_DEFAULT_PROVIDER", "stub")
    with caplog.at_level(logging.WARNING, "devsynth_providers"):
        assert isinstance(create(), StubProvider)
    assert "stub answers, by environment DEVSYNTH_SAFE_DEFAULT_PROVIDER" in caplog.text
    monkeypatch.setenv("DEVSYNTH_SAFE_DEFAULT_PROVIDER", "null")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY is not set"):
        await create().generate("hi")
    monkeypatch.setenv("DEVSYNTH_SAFE_DEFAULT_PROVIDER", "openai")
    with pytest.raises(ConfigurationError, match="must be 'stub' or 'null', not 'openai'"):
        create()


async def test_offline_it_is_the_stub_whatever_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVSYNTH_OFFLINE", "1")
    provider = create("anthropic", "claude")
    assert isinstance(provider, StubProvider)
    assert await provider.generate("hi") == "[stub:stub-llm] hi"


async def test_switched_off_every_call_raises_and_nothing_is_opened(
    ask: Ask, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVSYNTH_DISABLE_PROVIDERS", "true")
    monkeypatch.setenv("DEVSYNTH_OFFLINE", "true")
    provider = create("openai", "gpt-4o")
    assert provider.model.name == "gpt-4o"
    for call in (ask(provider), provider.embed("hi")):
        with pytest.raises(ConfigurationError, match="switched off by environment DEVSYNTH_DISABLE_PROVIDERS"):
            await call
    plan = "no model of rule|DEVSYNTH_DISABLE_PROVIDERS is set"
    with pytest.raises(Exception, match=plan):
        Router.from_policy("ci").plan("hi")


def test_what_config_says_reaches_the_provider(tmp_path: Path) -> None:
    provider = create(
        "openai",
        "m",
        config={
            "api_key": KEY,
            "base_url": "http://127.0.0.1:9/v1",
            "organization": "org",
            "timeout": 7,
            "max_retries": 3,
            "transport": "litellm",
            "tls": {"verify": False},
            "proxy": "",
        },
    )
    made = told(provider)
    assert provider.model.base_url == "http://127.0.0.1:9/v1"
    assert provider.model.transport == "litellm"
    assert made["_organization"] == "org"
    assert made["_total_s"] == 7
    assert made["_layered"].retry == Retry(attempts=4)
    assert made["_wire"]._network.tls.verify is False
    assert made["_wire"]._network.proxy == ""


@pytest.mark.parametrize(
    ("config", "variables", "attempts"),
    [
        ({"retry_attempts": 3}, {}, 3),
        ({"max_retries": 3}, {}, 4),
        ({"max_retries": 0}, {"PROVIDER_MAX_RETRIES": "3"}, 1),
        ({}, {"PROVIDER_MAX_RETRIES": "3"}, 4),
        ({}, {}, 3),
        ({"retry_attempts": 2}, {"DEVSYNTH_PROVIDER_MAX_RETRIES": "5"}, 2),
    ],
)
def test_attempts_count_the_first_one_and_retries_do_not(
    key: str, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], variables: dict[str, str], attempts: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert told(create(config=config))["_layered"].retry.attempts == attempts


async def test_three_retries_are_four_calls(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_MAX_RETRIES", "3")
    monkeypatch.setenv("PROVIDER_INITIAL_DELAY", "0")
    server.script(Answer([b"{}"], status=503))
    async with create("openai", config={"base_url": server.url, "model": "m"}) as provider:
        with pytest.raises(ProviderUnavailable):
            await provider.generate("hi")
    assert len(server.requests) == 4


def test_waits_between_attempts_are_settings_too(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_INITIAL_DELAY", "0.1")
    monkeypatch.setenv("PROVIDER_MAX_DELAY", "2")
    assert told(create())["_layered"].retry == Retry(attempts=3, initial_s=0.1, cap_s=2)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"modle": "x"}, "unknown key 'modle'; did you mean 'model'"),
        ({"api_base": "x"}, "unknown key 'api_base'; did you mean 'base_url'"),
        ({"tls": {"verfy": True}}, "unknown key 'tls.verfy'; did you mean 'tls.verify'"),
        ({"tls": True}, "tls is a Tls, or a mapping"),
        ({"timeout": "soon"}, "argument: openai.timeout must be a number of seconds above 0, not 'soon'"),
        ({"temperature": 3}, "argument: openai.temperature must be a number from 0 to 2"),
        ({"retry_attempts": 3, "max_retries": 2}, "give one of them"),
        ({"model_path": "x"}, "openai takes no 'model_path'"),
        ({"base_url": "openai.com"}, "must start with http:// or https://"),
        ({"tls": {"ca_file": "/nowhere.pem"}}, "no such file is there"),
    ],
)
def test_a_config_that_is_wrong_is_refused(key: str, config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem.replace("(", r"\(")):
        create("openai", config=config)


def test_config_is_for_the_provider_that_was_asked_for_and_not_for_its_fallbacks(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVSYNTH_FALLBACK_PROVIDER", "lmstudio")
    monkeypatch.setenv("LMSTUDIO_MODEL", "q")
    chain = create("openai", config={"timeout": 7, "base_url": "http://127.0.0.1:9/v1"})
    assert isinstance(chain, FallbackProvider)
    first, second = chain.providers
    assert first.model.base_url == "http://127.0.0.1:9/v1"
    assert second.model.base_url == "http://localhost:1234/v1"
    assert told(second)["_total_s"] == 60


def test_a_file_and_an_env_file_are_enough(tmp_path: Path) -> None:
    file = settings_file(
        tmp_path,
        """
provider:
  primary: openai
  fallback: lmstudio
  openai: {model: gpt-4o, temperature: 0.2, retry_attempts: 5, timeout: 9}
  lmstudio: {model: qwen3, base_url: "http://127.0.0.1:4321"}
""",
    )
    chain = create(file=file, env_file=env_file(tmp_path, f"OPENAI_API_KEY={KEY}\n"))
    assert isinstance(chain, FallbackProvider)
    first, second = chain.providers
    assert (first.model.name, second.model.name) == ("gpt-4o", "qwen3")
    assert second.model.base_url == "http://127.0.0.1:4321/v1"
    assert told(first)["_layered"].retry.attempts == 5
    assert told(first)["_total_s"] == 9
    assert "OPENAI_API_KEY" not in os.environ


def test_a_file_that_says_what_a_provider_does_not_take_is_refused_with_its_line(tmp_path: Path) -> None:
    file = settings_file(tmp_path, "provider:\n  primary: stub\n  stub:\n    timeout: 3\n")
    with pytest.raises(ConfigurationError, match=r"default\.yml:4: stub takes no 'timeout'; it takes model"):
        create(file=file)
    with pytest.raises(PolicyError, match="3:12: unknown key 'modle'"):
        create(file=settings_file(tmp_path, "provider:\n  primary: openai\n  openai: {modle: x}\n"))


async def test_the_key_of_the_environment_goes_to_its_own_host_only(server: Loopback, tmp_path: Path, key: str) -> None:
    """Not even out of a .env file, which the provider itself does not read."""
    path = env_file(tmp_path, f"OPENAI_API_KEY={KEY}\nOTHER_KEY=of-that-server\n")
    config = {"base_url": server.url, "model": "m"}
    async with create("openai", config=config, env_file=path) as provider:
        await provider.generate("hi")
    async with create("openai", config={**config, "api_key_env": "OTHER_KEY"}, env_file=path) as provider:
        await provider.generate("hi")
    async with create("openai", config={**config, "api_key": KEY}) as provider:
        await provider.generate("hi")
    sent = [json.dumps(headers) for headers in server.headers]
    assert KEY not in sent[0]
    assert "of-that-server" in sent[1]
    assert KEY not in sent[1]
    assert KEY in sent[2]


def test_a_variable_that_is_named_and_not_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured, match="OTHER_KEY is not set, which argument names for the key of openai"):
        create("openai", config={"api_key_env": "OTHER_KEY"})


async def test_defaults_of_temperature_and_length_hold_where_the_caller_says_nothing(
    ask: Ask, server: Loopback
) -> None:
    config = {"base_url": server.url, "model": "m", "temperature": 0.1, "max_tokens": 77}
    async with create("openai", config=config) as provider:
        await ask(provider)
        await ask(provider, temperature=0.7, max_tokens=1000)
        await ask(provider, temperature=0)
        await provider.complete(ChatRequest.of("hi"))
    said = [(body["temperature"], body["max_tokens"]) for body in server.requests]
    assert said == [(0.1, 77), (0.7, 1000), (0, 77), (0.1, 77)]


def test_they_hold_from_ordinary_code_too() -> None:
    inner = ScriptedProvider("a", "b")
    with SyncRouter(Defaults(inner, temperature=0.1)) as provider:
        provider.generate("hi")
        provider.generate("hi", temperature=0.7)
    assert [request.temperature for request in inner.requests if isinstance(request, ChatRequest)] == [0.1, 0.7]


async def test_below_a_router_a_providers_defaults_do_not_apply() -> None:
    """The plan has priced what the request says."""
    inner = ScriptedProvider("a")
    await stack(Defaults(inner, max_tokens=4000)).generate("hi")
    (request,) = inner.requests
    assert isinstance(request, ChatRequest)
    assert request.max_tokens == 1000


def test_a_registered_class_is_made_from_a_model() -> None:
    registry = ProviderRegistry()
    registry.register("parrot", Parrot)
    provider = create("parrot", "polly", registry=registry, config={"threads": 3, "base_url": "http://h/v1"})
    assert isinstance(provider, Parrot)
    assert provider.model == Model(name="polly", provider="parrot", base_url="http://h/v1")
    assert provider.threads == 3
    with pytest.raises(ConfigurationError, match="parrot takes no 'timeout'"):
        create("parrot", registry=registry, config={"timeout": 3})


def test_a_registered_class_like_ours_reads_its_own_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry = ProviderRegistry()
    registry.register("strict", Strict)
    path = env_file(tmp_path, f"STRICT_LLM=x\nSTRICT_KEY={KEY}\n")
    assert create("strict", registry=registry, env_file=path).model.name == "x"


def test_a_name_of_the_library_may_be_taken_by_a_class_of_ones_own() -> None:
    registry = ProviderRegistry()
    registry.register("openai", Parrot)
    assert isinstance(create("openai", registry=registry), Parrot)
    assert "openai" in registry
    assert len(registry) == len(registry.names())


def test_register_is_for_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from devsynth_providers import registry

    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    ProviderFactory.register("parrot", Parrot)
    assert isinstance(create("parrot"), Parrot)
    with pytest.raises(ConfigurationError, match="not a class of providers"):
        ProviderFactory.register("str", str)  # type: ignore[arg-type]


POLICY = """
models: {{polly: {{provider: {name}, price: free}}}}
rules: [{{name: all, models: polly}}]
"""

MODULE = """
from devsynth_providers import StubProvider

class Acme(StubProvider):
    pass

not_one = 3
"""

Installs = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installs:
    """Puts a package on the path, installed as pip would leave it: a module, and what its metadata offers."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package: str, value: str | None, module: str = MODULE, name: str = "acme") -> None:
        (tmp_path / f"{package}_models.py").write_text(module)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        if value:
            (info / "entry_points.txt").write_text(f"[devsynth_providers.providers]\n{name} = {value}\n")

    return install


async def test_an_installed_package_offers_a_provider_by_its_name(install: Installs, tmp_path: Path) -> None:
    install("aone", "aone_models:Acme")
    registry = ProviderRegistry()
    assert "acme" in registry
    assert "acme" in [*registry]
    assert type(create("acme", registry=registry)).__name__ == "Acme"
    path = tmp_path / "p.yaml"
    path.write_text(POLICY.format(name="acme"))
    assert await Router.from_policy(path, registry=registry).generate("hi") == "[stub:stub-llm] hi"


@pytest.mark.parametrize(
    ("module", "value", "problem"),
    [
        (
            "import nowhere_to_be_found",
            "atwo_models:Acme",
            "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        ),
        (MODULE, "atwo_models:Acne", "AttributeError: "),
        ("1 / 0", "atwo_models:Acme", "ZeroDivisionError"),
        (MODULE, "atwo_models:not_one", "3 is not a class of providers"),
    ],
)
def test_an_entry_point_that_is_broken_says_whose_it_is(
    install: Installs, monkeypatch: pytest.MonkeyPatch, module: str, value: str, problem: str
) -> None:
    monkeypatch.delitem(sys.modules, "atwo_models", raising=False)
    install("atwo", value, module)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        create("acme")
    assert "which atwo offers" in str(caught.value)


def test_two_packages_that_offer_one_name_are_an_error(install: Installs) -> None:
    install("athree", "athree_models:Acme")
    install("afour", "afour_models:Acme")
    with pytest.raises(ConfigurationError, match="'acme' is offered by afour and athree: register the one"):
        create("acme")
    registry = ProviderRegistry()
    registry.register("acme", StubProvider)
    assert isinstance(create("acme", registry=registry), StubProvider)


@pytest.mark.parametrize("path", ["afive_models:Acme", "afive_models.Acme"])
async def test_a_policy_names_a_class_by_its_path_and_is_checked_without_importing_it(
    install: Installs, monkeypatch: pytest.MonkeyPatch, path: str, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "afive_models", raising=False)
    install("afive", None)
    text = POLICY.format(name=f'"{path}"')
    assert parse_policy(text, providers=ProviderRegistry()).models["polly"].provider == path
    assert "afive_models" not in sys.modules
    file = tmp_path / "p.yaml"
    file.write_text(text)
    assert await Router.from_policy(file).generate("hi") == "[stub:stub-llm] hi"
    assert type(create(path)).__name__ == "Acme"


def test_a_path_that_leads_nowhere_is_told_and_leaves_the_model_out_of_the_plan(tmp_path: Path) -> None:
    for path, problem in (
        ("nowhere_at_all.models:Acme", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("devsynth_providers:Nobody", "AttributeError"),
        ("devsynth_providers.registry", "is not a class of providers"),
    ):
        with pytest.raises(ConfigurationError, match=problem):
            create(path)
    file = tmp_path / "p.yaml"
    file.write_text(POLICY.format(name="nowhere_at_all.models:Acme"))
    with pytest.raises(Exception, match="No module named 'nowhere_at_all'"):
        Router.from_policy(file).plan("hi")


def test_a_path_with_a_typo_in_it_is_still_a_mistake_of_the_policy() -> None:
    with pytest.raises(PolicyError, match="no provider is called 'acme models'"):
        parse_policy(POLICY.format(name="acme models"), providers=ProviderRegistry())


def test_a_key_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not in a repr, not in an error, not in the log; wherever it came from, and wherever it was put by mistake."""
    seen: list[str] = []
    path = env_file(tmp_path, f"OPENAI_API_KEY={KEY}\nANTHROPIC_API_KEY={KEY} and more\n")
    monkeypatch.setenv("DEVSYNTH_FALLBACK_PROVIDER", "anthropic")
    with caplog.at_level(logging.DEBUG):
        for options in (
            {"env_file": path},
            {"config": {"api_key": KEY}},
            {"config": {"api_key": f"{KEY}\n\u00e4"}},
            {"config": {"api_key": [KEY]}},
            {"config": {"api_key_env": KEY}},
            {"file": settings_file(tmp_path, f"provider: {{openai: {{api_key: {KEY}}}}}")},
            {"file": settings_file(tmp_path, f"provider: {{openai: {{api_key_env: {KEY}}}}}")},
        ):
            try:
                provider = create(**options)
                seen += [repr(provider), str(provider), repr(provider.model)]
            except ConfigurationError as error:
                seen += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    assert len(seen) >= 14
    assert KEY not in caplog.text + "".join(seen)


@pytest.mark.local
@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_a_local_model_is_found_by_what_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF and more")
    named = tmp_path / "named.gguf"
    named.write_bytes(b"GGUF and more")
    with pytest.raises(NotConfigured, match="No such file"):
        create("local", config={"model_path": tmp_path / "nowhere.gguf"})
    by_variable = create("local", env_file=env_file(tmp_path, f"LOCAL_MODEL_PATH={own}\n"))
    assert isinstance(by_variable, LocalProvider)
    assert (by_variable.model.name, by_variable.model.path) == ("own", str(own))
    in_folder = env_file(tmp_path, f"LOCAL_MODEL_PATH={tmp_path}\nLOCAL_MODEL=named\n")
    assert create("local", env_file=in_folder).model.path == str(named)
    assert create("local", env_file=in_folder, config={"context_size": 99}).max_context_size == 99
    embedded = create("local", "smollm2-135m", env_file=in_folder)
    assert embedded.model.path is not None
    assert "SmolLM2" in embedded.model.path


def test_a_model_may_be_given_with_all_its_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_KEY", KEY)
    facts = Model(name="qwen", provider="openai", base_url="http://127.0.0.1:9/v1", api_key_env="VLLM_KEY", quality=0.5)
    provider = create("openai", facts, config={"timeout": Timeouts(total_s=5)})
    assert provider.model == facts
    assert told(provider)["_total_s"] == 5


def test_claude_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVSYNTH_PROVIDER", "anthropic")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_MODEL", "claude-sonnet-4-5")
    assert isinstance(create(), AnthropicProvider)
