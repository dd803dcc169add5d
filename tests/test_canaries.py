"""Keys and prompts planted in everything that goes in, and looked for in everything that comes to be: nowhere."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import (
    Budget,
    DecisionLog,
    DevSynthError,
    Keep,
    Model,
    Policy,
    Price,
    ResponseCache,
    Retry,
    Router,
    Rule,
    SqliteLedger,
)

from .loopback import Answer, Loopback, as_json, delta, failure, sse, stream, whole
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
                told[f"error {number}"] = said.replace(PROMPT, "").replace(SYSTEM, "")  # as the server repeats it
    await ledger.aclose()
    await cache.aclose()
    told |= {"spans": str([span.to_json() for span in spans()]), "metrics": str(measured())}
    told |= {"log": caplog.text + str([vars(record) for record in caplog.records]), "output": str(capfd.readouterr())}
    told |= {f"{file.relative_to(tmp_path)}": _content(file) for file in _files(tmp_path)}
    assert KEY in str(server.headers)
    assert PROMPT in str(server.requests)
    assert "ledger.db" in told
    assert [(where, what) for where, text in told.items() for what in PLANTED if what in text] == []


def _policy(url: str, transport: str) -> Policy:
    price = Price(input_usd_per_1m=1, output_usd_per_1m=2)
    model = Model(
        name="m",
        provider="openai",
        base_url=url,
        api_key_env="TEST_KEY",
        price=price,
        context_window=8192,
        abilities=frozenset(("chat", "tools")),
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
