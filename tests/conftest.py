"""What most tests share: asking whole and streamed by one name, and the spans that came of it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import settings
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from devsynth_providers import ProviderPort
from devsynth_providers.cli import app
from devsynth_providers.providers._litellm import load

from . import holdings
from .command import CANARY, Run
from .loopback import Loopback
from .points import Points, points
from .schema import mistakes
from .servers import MISSING, RedisServer, program

Ask = Callable[..., Awaitable[str]]

EXPORTER = InMemorySpanExporter()
READER = InMemoryMetricReader(preferred_temporality=dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA))

settings.register_profile("any machine", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _hears_ctrl_c() -> None:
    """Commands that tests start are interrupted, also where the tests run in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _tracing() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([READER]))


@pytest.fixture(scope="session", autouse=True)
def _litellm_is_there(request: pytest.FixtureRequest) -> None:
    """Importing it takes seconds, on a machine that is busy more than some tests have."""
    marks = ("litellm", "loads_litellm")
    if any(item.get_closest_marker(mark) for item in request.session.items for mark in marks):
        load.load()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads the environment of whoever runs it."""
    for name in os.environ:
        if name.startswith(
            (
                "OPENAI_",
                "LMSTUDIO_",
                "LM_STUDIO_",
                "LOCAL_MODEL",
                "DEVSYNTH_",
                "OTEL_",
                "ANTHROPIC_",
                "OPENROUTER_",
                "PROVIDER_",
            )
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LOCAL_MODEL_THREADS", "1")
    for place in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(place, str(tmp_path_factory.getbasetemp() / place.lower()))


@pytest.fixture(params=["whole", "streamed"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """The text of an answer, taken whole or piece by piece: every behaviour must be the same for both."""

    async def whole(provider: ProviderPort, prompt: str = "hi", **options: object) -> str:
        return await provider.generate(prompt, **options)  # type: ignore[arg-type]

    async def streamed(provider: ProviderPort, prompt: str = "hi", **options: object) -> str:
        return "".join([piece async for piece in provider.generate_stream(prompt, **options)])  # type: ignore[arg-type]

    return whole if request.param == "whole" else streamed


@pytest.fixture
def spans() -> Iterator[Callable[[], list[ReadableSpan]]]:
    """The spans that have ended since the test began, oldest first. Each of ours must be as the schema has it."""
    EXPORTER.clear()
    yield lambda: sorted(EXPORTER.get_finished_spans(), key=lambda span: span.start_time or 0)
    wrong = [what for span in EXPORTER.get_finished_spans() for what in mistakes(span)]
    EXPORTER.clear()
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def measured() -> Callable[[], Points]:
    """The measurements of ours since the test began, or since they were asked for last: each as its name, its labels,
    and its sum."""
    READER.get_metrics_data()
    return lambda: points(READER)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Whoever uses it has a prefix of its own there; it is not to be stopped."""
    if program() is None:
        pytest.skip(MISSING)
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["direct", "unified"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count what is held: without what others hold; and routers that ``holdings`` makes have a key."""
    monkeypatch.setenv("TEST_KEY", holdings.KEY)
    holdings.leave_out_what_there_is()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process. Whatever it prints, no key is in it."""

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["devsynth-providers", *arguments])
        code = app.run()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert CANARY not in out + err
        return code, out, err

    return run
