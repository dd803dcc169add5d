"""Keys and prompts planted in everything that goes in, and looked for in everything that comes to be: nowhere."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from typing_extensions import override

from devsynth_providers import (
    FREE,
    AnthropicProvider,
    Budget,
    DecisionLog,
    DevSynthError,
    Keep,
    LMStudioProvider,
    Model,
    OpenAIProvider,
    Policy,
    Price,
    ProviderError,
    ResponseCache,
    Retry,
    Router,
    Rule,
    SqliteLedger,
)
from devsynth_providers.doctor.examine import Examination, examine
from devsynth_providers.doctor.servers import reach
from devsynth_providers.providers.base import BaseProvider

from .loopback import Answer, Loopback, as_json, delta, failure, sse, stream, vectors, whole
from .points import Points

pytestmark = pytest.mark.litellm

KEY = "sk-canary-0123456789abcdef"
PROMPT, SYSTEM, STOP, TOOL = "canary-prompt", "canary-system", "canary-stop", "canary-tool"
PLANTED = ("canary-0123", PROMPT, SYSTEM, TOOL)
"""What a request asks to stop at is told on its span: it is a setting, and no content."""

FAR_SIDES: dict[str, tuple[Answer, Answer]] = {
    "answers": (whole(), stream()),
    "repeats all": (failure(400, f"bad prompt: {PROMPT} {SYSTEM} {KEY}", f"bad_{KEY}"),) * 2,
    "refuses the key": (failure(401, f"Incorrect API key provided: {KEY}"),) * 2,
    "breaks off": (as_json({"choices": KEY}), sse(delta("w0"), {"error": {"message": f"{PROMPT} {KEY}"}})),
}
REPEATING = ("repeats all", "breaks off")


@pytest.mark.parametrize("far_side", FAR_SIDES)
@pytest.mark.parametrize("transport", ["auto", "litellm"])
async def test_what_is_planted_in_a_request_is_found_in_no_sink(
    server: Loopback,
    spans: Callable[[], list[ReadableSpan]],
    measured: Callable[[], Points],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    transport: str,
    far_side: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TEST_KEY", KEY)
    server.script(FAR_SIDES[far_side])
    ledger, cache = SqliteLedger(tmp_path / "ledger.db"), ResponseCache(directory=tmp_path / "cache")
    router = Router(_policy(server.url, transport), ledger=ledger, cache=cache, decisions=DecisionLog(tmp_path / "log"))
    tool = {"type": "function", "function": {"name": "look", "description": TOOL, "parameters": {}}}
    told: dict[str, str] = {"router": repr(router)}
    async with router:
        for number, ask in enumerate((router.complete, _streamed(router))):
            try:
                await ask(  # type: ignore[operator]
                    PROMPT, system_prompt=SYSTEM, stop_sequences=[STOP], tools=[tool], temperature=0, project="billing"
                )
            except DevSynthError as error:
                said = "".join(traceback.format_exception(error)) + repr(vars(error))
                if far_side in REPEATING:  # a message says what the server said
                    said = said.replace(PROMPT, "").replace(SYSTEM, "")
                told[f"error {number}"] = said
                told[f"frames {number}"] = _without_what_callers_hold(_with_variables(error))
    await ledger.aclose()
    await cache.aclose()
    told |= {"spans": str([span.to_json() for span in spans()]), "metrics": str(measured())}
    told |= {"log": caplog.text + str([vars(record) for record in caplog.records]), "output": str(capfd.readouterr())}
    told |= {f"{file.relative_to(tmp_path)}": _content(file) for file in _files(tmp_path)}
    assert KEY in str(server.headers)
    assert PROMPT in str(server.requests)
    assert "ledger.db" in told
    assert [(where, what) for where, text in told.items() for what in PLANTED if what in text] == []


@pytest.mark.parametrize("answer", [vectors([1.0, 0.0]), failure(503, "no")])
@pytest.mark.parametrize("transport", ["auto", "litellm"])
async def test_a_text_that_is_embedded_is_found_in_no_sink(
    server: Loopback,
    spans: Callable[[], list[ReadableSpan]],
    measured: Callable[[], Points],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    transport: str,
    answer: Answer,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TEST_KEY", KEY)
    server.script(answer)
    ledger, cache = SqliteLedger(tmp_path / "ledger.db"), ResponseCache(directory=tmp_path / "cache")
    log = DecisionLog(tmp_path / "log")
    told: dict[str, str] = {}
    async with Router(_policy(server.url, transport), ledger=ledger, cache=cache, decisions=log) as router:
        try:
            await router.embed_batch([PROMPT])
        except DevSynthError as error:
            told["error"] = "".join(traceback.format_exception(error)) + repr(vars(error))
    await ledger.aclose()
    await cache.aclose()
    told |= {"spans": str([span.to_json() for span in spans()]), "metrics": str(measured()), "log": caplog.text}
    told |= {f"{file.relative_to(tmp_path)}": _content(file) for file in _files(tmp_path)}
    assert PROMPT in str(server.requests)
    assert "ledger.db" in told
    assert [(where, what) for where, text in told.items() for what in PLANTED if what in text] == []


LISTINGS: dict[str, Answer] = {
    "refuses the key": failure(401, f"Incorrect API key provided: {KEY}"),
    "fails": failure(500, f"no use for {KEY}"),
    "fails in words": Answer([f"no use for {KEY}".encode()], status=500, content_type="text/plain"),
    "fails with a status that says all is well": as_json({"error": {"message": f"no use for {KEY}"}}),
    "is a page": Answer([f"<html>{KEY}</html>".encode()], content_type="text/html"),
    "is no list": as_json({"data": KEY}),
    "is without end": Answer([b"[" * 100_000, KEY.encode()]),
    "breaks off": Answer([f'{{"data": "{KEY}'.encode()], content_length=4096),
    "is reset": Answer([f'{{"data": "{KEY}'.encode()], content_length=4096, then="reset"),
    "hangs": Answer([f'{{"data": "{KEY}'.encode()], content_length=4096, then="hang"),
    "leads elsewhere": Answer([], status=307, headers={"location": f"http://elsewhere/?{KEY}"}),
}
FACADES: dict[str, type[BaseProvider]] = {
    "openai": OpenAIProvider,
    "anthropic": AnthropicProvider,
    "lmstudio": LMStudioProvider,
}


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("name", FACADES)
async def test_a_listing_that_fails_shows_no_key_and_neither_do_the_variables_on_its_way(
    server: Loopback, name: str, listing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    server.script(LISTINGS[listing])
    model = Model(name="m", provider=name, base_url=f"{server.url}/v1", api_key_env="TEST_KEY", price=FREE)
    provider = FACADES[name](model)
    told = ["nothing was raised"]
    for ask in (provider.listing, getattr(provider, "models", provider.listing)):
        try:
            await (ask(0.5) if ask == provider.listing else ask())
        except ProviderError as error:
            told.append(_with_variables(error))
    await provider.aclose()
    assert KEY in str(server.headers)
    assert len(told) > 1 or listing == "is no list"  # which some servers do not keep
    assert [text for text in told if KEY in text] == []


@pytest.mark.parametrize("listing", LISTINGS)
async def test_doctor_shows_no_key_that_a_server_repeats(
    server: Loopback, listing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    server.script(LISTINGS[listing])
    policy = tmp_path / "policy.yaml"
    models = "".join(
        f'  {name}: {{provider: {name}, base_url: "{server.url}/v1", api_key_env: TEST_KEY, price: free}}\n'
        for name in FACADES
    )
    policy.write_text(f"version: 1\nmodels:\n{models}rules:\n  - {{name: all, models: [{', '.join(FACADES)}]}}\n")
    found = await examine(Examination(policy=str(policy), timeout_s=0.5))
    assert KEY in str(server.headers)
    assert {each.subject for each in found if each.section == "models"} >= set(FACADES)
    assert KEY not in str(found)


class Mistaken(OpenAIProvider):
    """Whose listing has a bug in it."""

    @override
    def _listing_headers(self, key: str) -> Mapping[str, str]:
        raise KeyError("authorization")


async def test_a_bug_in_a_listing_shows_no_key_either() -> None:
    mistaken = {"m": Mistaken("m", api_key=KEY, base_url="http://127.0.0.1:9/v1")}
    with pytest.raises(KeyError) as caught:
        await reach(mistaken)
    assert KEY not in _with_variables(caught.value)
    await mistaken["m"].aclose()


def _with_variables(error: BaseException) -> str:
    """As some tools print *error*: with the variables of each frame."""
    shown = traceback.TracebackException(type(error), error, error.__traceback__, capture_locals=True)
    return "".join(shown.format()) + repr(vars(error))


def _without_what_callers_hold(text: str) -> str:
    """Variables may show what was asked: the caller's own frames hold it, too."""
    for each in (PROMPT, SYSTEM, TOOL):
        text = text.replace(each, "")
    return text


def _policy(url: str, transport: str) -> Policy:
    price = Price(input_usd_per_1m=1, output_usd_per_1m=2)
    model = Model(
        name="m",
        provider="openai",
        base_url=url,
        api_key_env="TEST_KEY",
        price=price,
        context_window=8192,
        abilities=frozenset(("chat", "tools", "embeddings")),
        transport=transport,  # type: ignore[arg-type]
    )
    return Policy(
        name="canaries",
        models={"m": model},
        rules=(Rule(name="all", models=("m",), cache=Keep(), on_break="continue"),),
        retry=Retry(attempts=1),
        budgets=(Budget(scope="project", limit_usd=5),),
    )


def _streamed(router: Router) -> object:
    async def ask(prompt: str, **options: object) -> None:
        async for _ in router.generate_stream(prompt, **options):  # type: ignore[arg-type]
            pass

    return ask


def _files(place: Path) -> Iterable[Path]:
    return (each for each in place.rglob("*") if each.is_file())


def _content(file: Path) -> str:
    return file.read_bytes().decode("latin-1")
