"""What the library says by standard logging: nothing unless somebody listens, with ids of the trace, without keys."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import ProviderUnavailable, RateLimitError, Router, telemetry
from devsynth_providers.testing import ScriptedProvider

from .conftest import Ask
from .helpers import PRICED, model, policy

Spans = Callable[[], list[ReadableSpan]]
SECRET = "the merger is on Friday"
KEY = "sk-canary-0123456789abcdef"
LOG = logging.getLogger("devsynth_providers")


@pytest.fixture
def heard() -> Iterator[list[logging.LogRecord]]:
    """What is said to whoever listens at level DEBUG."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment]
    before = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    yield records
    LOG.removeHandler(handler)
    LOG.setLevel(before)


def router(*script: Any) -> Router:
    return Router(policy(model("a", price=PRICED)), {"a": ScriptedProvider(*script)})


async def test_each_attempt_is_told_with_its_trace(ask: Ask, spans: Spans, heard: list[logging.LogRecord]) -> None:
    await ask(router(RateLimitError(f"slow: {SECRET}", status=429), "ok"), SECRET)
    failed, answered = [record for record in heard if hasattr(record, "devsynth")]
    assert (failed.levelname, answered.levelname) == ("INFO", "DEBUG")
    about: dict[str, Any] = failed.devsynth
    assert (about["event"], about["model"], about["outcome"], about["error"]) == (
        *("attempt.ended", "a"),
        *("failed", "rate_limited"),
    )
    assert failed.getMessage().startswith("attempt 1 (primary) at a failed after ")
    assert failed.getMessage().endswith(": rate_limited (HTTP 429)")
    for record, span in zip((failed, answered), spans()[1:], strict=True):
        assert span.context is not None
        assert record.trace_id == f"{span.context.trace_id:032x}"  # type: ignore[attr-defined]
        assert record.span_id == f"{span.context.span_id:016x}"  # type: ignore[attr-defined]
    assert SECRET not in str([vars(record) for record in heard])


def test_whatever_is_said_has_the_ids_of_the_trace(heard: list[logging.LogRecord]) -> None:
    with trace.get_tracer("service").start_as_current_span("handler") as span:
        LOG.warning("here")
    LOG.warning("there")
    here, there = heard
    assert here.trace_id == f"{span.get_span_context().trace_id:032x}"  # type: ignore[attr-defined]
    assert there.trace_id == there.span_id == ""  # type: ignore[attr-defined]


def test_keys_are_taken_out_of_messages_arguments_and_tracebacks(heard: list[logging.LogRecord]) -> None:
    LOG.warning("the key is %s", KEY)
    try:
        raise ProviderUnavailable(f"Bearer {KEY}")
    except ProviderUnavailable:
        LOG.exception("it failed")
    formatted = [logging.Formatter("%(message)s").format(record) for record in heard]
    assert not [each for each in formatted if "canary" in each]
    assert "Traceback" in formatted[1]


def test_an_applications_logger_can_have_both_filters() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(trace_id)s %(message)s"))
    handler.addFilter(telemetry.TraceIds())
    handler.addFilter(telemetry.Scrubbed(["a-password-of-ours"]))
    mine = logging.getLogger("an application")
    mine.addHandler(handler)
    try:
        with trace.get_tracer("service").start_as_current_span("handler") as span:
            mine.warning("it is a-password-of-ours, and %s", KEY)
    finally:
        mine.removeHandler(handler)
    assert written.getvalue() == f"{span.get_span_context().trace_id:032x} it is [key], and [key]\n"


def test_it_is_quiet_by_itself() -> None:
    code = """
import asyncio, logging
from devsynth_providers import RateLimitError, Router
from devsynth_providers.testing import ScriptedProvider
from tests.helpers import model, policy
asyncio.run(Router(policy(model("a")), {"a": ScriptedProvider(RateLimitError("no"), "x")}).complete("hi"))
logging.getLogger("devsynth_providers").error("a warning of ours")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_a_message_that_its_arguments_do_not_fit_fails_nobody() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(telemetry.Scrubbed())
    mine = logging.getLogger("somebody else's")
    mine.addHandler(handler)
    try:
        mine.warning("%d items of " + KEY, "x")
    finally:
        mine.removeHandler(handler)
    assert written.getvalue() == "%d items of [key]\n"


@pytest.mark.parametrize("fails", ["on_start", "on_end", "should_sample"])
def test_whoever_looks_on_and_fails_fails_no_call_and_is_told_of_once(fails: str) -> None:
    code = f"""
import asyncio, logging
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from devsynth_providers import RateLimitError, Router
from devsynth_providers.testing import ScriptedProvider
from tests.helpers import model, policy

def fail(*_, **__):
    raise RuntimeError("a fault of the application")

class Processor(SpanProcessor): pass
class Sampler(ParentBased): pass
setattr(Sampler if "{fails}" == "should_sample" else Processor, "{fails}", fail)
provider = TracerProvider(sampler=Sampler(ALWAYS_ON))
provider.add_span_processor(Processor())
trace.set_tracer_provider(provider)
logging.basicConfig(format="%(message)s")

async def main():
    router = Router(policy(model("a")), {{"a": ScriptedProvider(RateLimitError("no"), "one", "two")}})
    print(await router.generate("hi"), "".join([piece async for piece in router.generate_stream("hi")]))

asyncio.run(main())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    told = "spans are lost: what this application has put into its tracer provider raises RuntimeError"
    assert (run.stdout, run.stderr) == ("one two\n", f"{told}\n")
