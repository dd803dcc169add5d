"""What a real Jaeger shows of requests: their trees, what finds them, and what its view of GenAI reads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from .jaeger import MISSING, ROOT, JaegerServer, Span, Trace, eventually, program
from .loopback import Loopback, delta, failure, sse, stream, whole

pytestmark = [pytest.mark.jaeger, pytest.mark.skipif(program() is None, reason=MISSING)]

EXAMPLE = "jaeger-example"
SITUATIONS = ("plain", "fallback", "retry", "hedge", "continuation", "cached", "budget", "queue")
TWO_REQUESTS = ("cached", "queue")
WITH_ERRORS = ["fallback", "retry", "continuation", "budget"]
SEND = ROOT / "examples" / "jaeger" / "send.py"

WIRE = """
import asyncio, sys
from devsynth_providers import OpenAIProvider, Router, telemetry
from tests.helpers import PRICED, model, policy

telemetry.configure(service_name="wire", metrics=False)

def router(path, **rule):
    models = [model(name, provider="openai", price=PRICED, base_url=f"{sys.argv[1]}/{path}-{name}/v1") for name in "ab"]
    providers = {each.name: OpenAIProvider(each, api_key="k") for each in models}
    return Router(policy(*models, **rule), providers)

async def main():
    async with router("busy") as busy:
        print(await busy.generate("hi", project="retry"))
    async with router("cut", on_break="continue") as cut:
        print("".join([piece async for piece in cut.generate_stream("hi", project="continuation")]))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JaegerServer]:
    with JaegerServer(tmp_path_factory.mktemp("jaeger")) as server:
        yield server


@pytest.fixture(scope="module")
def sent(jaeger: JaegerServer) -> dict[str, list[Trace]]:
    """What it shows of examples/jaeger/send.py, by the name of the situation."""
    run([str(SEND)], jaeger.endpoint("grpc"), "grpc")
    traces = arrived(jaeger)
    assert traces, jaeger.find(EXAMPLE)
    by_rule: dict[str, list[Trace]] = {}
    for trace in traces:
        by_rule.setdefault(str(trace.request.tags["devsynth.policy.rule"]), []).append(trace)
    assert list(by_rule) == list(SITUATIONS)
    return by_rule


def arrived(jaeger: JaegerServer) -> list[Trace]:
    """All traces of examples/jaeger/send.py, when they are whole."""

    def whole_ones() -> list[Trace]:
        found = jaeger.find(EXAMPLE)
        complete = len(found) == len(SITUATIONS) + len(TWO_REQUESTS) and all(trace.whole for trace in found)
        return found if complete else []

    return eventually(whole_ones)


def rules(traces: list[Trace]) -> list[Any]:
    return [trace.request.tags["devsynth.policy.rule"] for trace in traces]


def run(command: list[str], endpoint: str, protocol: str) -> list[str]:
    """What a program prints that sends its traces to *endpoint*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    to = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=100, check=False, env=kept | to
    )
    assert done.returncode == 0, done.stderr
    assert "xport" not in done.stderr  # nothing failed to be exported
    return done.stdout.splitlines()


def outline(trace: Trace) -> list[tuple[str, Any, Any]]:
    """Name, reason and error of each attempt, all of which stand right below the request."""
    assert {span.parent for span in trace.attempts} <= {trace.request.id}
    return [(span.name, span.tags["devsynth.attempt.reason"], span.tags.get("error.type")) for span in trace.attempts]


def logs(span: Span) -> list[str]:
    return [name for name, _ in span.logs]


class TestTheTree:
    def test_of_a_plain_call_is_a_request_over_an_attempt(self, sent: dict[str, list[Trace]]) -> None:
        (trace,) = sent["plain"]
        assert trace.request.name == "chat example"
        assert outline(trace) == [("chat large", "primary", None)]
        assert logs(trace.request) == ["policy.decide"]
        assert "error" not in trace.request.tags | trace.attempts[0].tags

    def test_of_a_fallback_has_the_failures_first_and_a_request_without_an_error(
        self, sent: dict[str, list[Trace]]
    ) -> None:
        (trace,) = sent["fallback"]
        assert outline(trace) == [
            ("chat large", "primary", "unavailable"),
            ("chat large", "retry", "unavailable"),
            ("chat small", "fallback", None),
        ]
        assert [span.tags.get("error") for span in trace.attempts] == [True, True, None]
        assert "error" not in trace.request.tags
        (told,) = [facts for name, facts in trace.request.logs if name == "fallback"]
        assert told == {"from": "large", "to": "small", "reason": "unavailable"}

    def test_of_a_retry_says_why_it_was_needed(self, sent: dict[str, list[Trace]]) -> None:
        (trace,) = sent["retry"]
        assert outline(trace) == [("chat large", "primary", "rate_limited"), ("chat large", "retry", None)]
        assert trace.attempts[0].tags["http.response.status_code"] == 429
        assert "retry.scheduled" in logs(trace.request)
        assert "error" not in trace.request.tags

    def test_of_a_hedge_has_the_loser_point_to_the_winner(self, sent: dict[str, list[Trace]]) -> None:
        (trace,) = sent["hedge"]
        assert outline(trace) == [("chat large", "primary", None), ("chat small", "hedge", None)]
        lost, won = trace.attempts
        assert (lost.tags["devsynth.cancelled"], lost.follows) == (True, (won.id,))
        assert "devsynth.cancelled" not in won.tags
        assert [name for name in logs(trace.request) if name.startswith("hedge")] == ["hedge.started", "hedge.won"]

    def test_of_a_stream_that_was_cut_shows_who_went_on(self, sent: dict[str, list[Trace]]) -> None:
        (trace,) = sent["continuation"]
        assert outline(trace) == [
            ("chat large", "primary", "stream_interrupted"),
            ("chat small", "continuation", None),
        ]
        assert trace.request.tags["devsynth.stream.continued"] is True
        assert "error" not in trace.request.tags

    def test_of_a_cache_hit_has_no_attempt(self, sent: dict[str, list[Trace]]) -> None:
        first, second = sent["cached"]
        assert [outline(first), outline(second)] == [[("chat large", "primary", None)], []]
        assert [each.request.tags["devsynth.cache.hit"] for each in (first, second)] == [False, True]

    def test_of_a_refused_budget_is_an_error_that_nothing_was_sent_for(self, sent: dict[str, list[Trace]]) -> None:
        (trace,) = sent["budget"]
        assert outline(trace) == []
        assert (trace.request.tags["error"], trace.request.tags["error.type"]) == (True, "budget_exceeded")

    def test_of_a_queue_tells_how_long_it_waited(self, sent: dict[str, list[Trace]]) -> None:
        waits = [each.attempts[0].tags.get("devsynth.attempt.wait_s", 0.0) for each in sent["queue"]]
        assert sorted(wait > 0.1 for wait in waits) == [False, True]
        assert sorted(name for each in sent["queue"] for name in logs(each.attempts[0])) == ["limit.waited"]


@pytest.mark.usefixtures("sent")
class TestTheSearch:
    @pytest.mark.parametrize("rule", SITUATIONS)
    def test_finds_requests_by_rule(self, jaeger: JaegerServer, rule: str) -> None:
        assert len(jaeger.find(EXAMPLE, devsynth__policy__rule=rule)) == (2 if rule in TWO_REQUESTS else 1)

    def test_finds_requests_by_project(self, jaeger: JaegerServer) -> None:
        assert len(jaeger.find(EXAMPLE, devsynth__project_id="shop")) == 10
        assert jaeger.find(EXAMPLE, devsynth__project_id="ship") == []

    def test_finds_requests_by_the_model_that_was_asked_and_that_answered(self, jaeger: JaegerServer) -> None:
        by_small = ["fallback", "hedge", "continuation"]
        assert rules(jaeger.find(EXAMPLE, gen_ai__request__model="small")) == by_small
        assert rules(jaeger.find(EXAMPLE, "chat example", gen_ai__response__model="small")) == by_small

    def test_finds_what_callers_saw_fail_and_what_only_an_attempt_saw(self, jaeger: JaegerServer) -> None:
        everywhere = rules(jaeger.find(EXAMPLE, error="true"))
        if not everywhere:
            pytest.skip("by error=true the memory of this Jaeger finds nothing, which later ones have mended")
        assert everywhere == WITH_ERRORS
        assert rules(jaeger.find(EXAMPLE, "chat example", error="true")) == ["budget"]
        assert rules(jaeger.find(EXAMPLE, error="true", devsynth__project_id="shop")) == ["budget"]

    def test_finds_each_kind_of_error(self, jaeger: JaegerServer) -> None:
        for kind, situations in {
            "unavailable": ["fallback"],
            "rate_limited": ["retry"],
            "stream_interrupted": ["continuation"],
            "budget_exceeded": ["budget"],
        }.items():
            assert rules(jaeger.find(EXAMPLE, error__type=kind)) == situations

    def test_finds_attempts_by_why_they_were_made(self, jaeger: JaegerServer) -> None:
        for reason, situations in {"hedge": ["hedge"], "retry": ["fallback", "retry"]}.items():
            assert rules(jaeger.find(EXAMPLE, devsynth__attempt__reason=reason)) == situations


def test_what_is_kept_in_files_is_found_after_a_restart_by_error_too(tmp_path: Path) -> None:
    with JaegerServer(tmp_path, "--keep", str(tmp_path / "kept")) as first:
        run([str(SEND)], first.endpoint("grpc"), "grpc")
        assert arrived(first)
    with JaegerServer(tmp_path, "--keep", str(tmp_path / "kept")) as second:
        assert rules(second.find(EXAMPLE, error="true")) == WITH_ERRORS
        assert rules(second.find(EXAMPLE, error="true", devsynth__policy__rule="retry")) == ["retry"]


def test_the_view_of_genai_has_all_that_it_reads(sent: dict[str, list[Trace]]) -> None:
    """Of each span that begins with ``gen_ai.``: who, which model, tokens; contents only where they were asked for."""
    (trace,) = sent["plain"]
    (attempt,) = trace.attempts
    assert trace.request.tags["gen_ai.response.model"] == "large"
    assert trace.request.tags["gen_ai.operation.name"] == attempt.tags["gen_ai.operation.name"] == "chat"
    shown = {name: attempt.tags[name] for name in ("gen_ai.provider.name", "gen_ai.request.model")}
    assert shown == {"gen_ai.provider.name": "large-example", "gen_ai.request.model": "large"}
    usage = [attempt.tags[f"gen_ai.usage.{each}_tokens"] for each in ("input", "output")]
    assert usage == [12, 40]
    contents = {"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"}
    assert not contents & (trace.request.tags.keys() | attempt.tags.keys())


def test_tokens_and_cost_of_all_attempts_stand_on_the_request(sent: dict[str, list[Trace]]) -> None:
    for trace in (trace for traces in sent.values() for trace in traces):
        attempts = [span.tags.get("gen_ai.usage.output_tokens", 0) for span in trace.attempts]
        assert trace.request.tags["devsynth.total.output_tokens"] == sum(attempts)
        assert "gen_ai.usage.output_tokens" not in trace.request.tags


def test_the_newer_api_tells_the_same_tree_as_it_was_sent(jaeger: JaegerServer, sent: dict[str, list[Trace]]) -> None:
    (trace,) = sent["fallback"]
    identity = jaeger.get("/api/traces", service=EXAMPLE, tags='{"devsynth.policy.rule":"fallback"}')["data"][0][
        "traceID"
    ]
    told = jaeger.get(f"/api/v3/traces/{identity}")["result"]["resourceSpans"]
    spans = [span for resource in told for scope in resource["scopeSpans"] for span in scope["spans"]]
    (request,) = [span for span in spans if not span.get("parentSpanId")]
    assert sorted(span["name"] for span in spans if span.get("parentSpanId") == request["spanId"]) == sorted(
        span.name for span in trace.below if span.parent == trace.request.id
    )
    assert "code" not in request.get("status", {})
    with pytest.raises(HTTPError, match="404"):
        jaeger.get(f"/api/v3/traces/{'1' * 32}")


@pytest.mark.usefixtures("sent")
def test_the_monitor_view_has_its_numbers_by_request_and_attempt(jaeger: JaegerServer) -> None:
    """Its graphs are of service, kind and name: ``INTERNAL`` are the requests, ``CLIENT`` the attempts."""

    def lines() -> list[str]:
        of_calls = [
            each for each in jaeger.counted().splitlines() if each.startswith("traces_span_metrics_calls_total")
        ]
        return [each for each in of_calls if f'service_name="{EXAMPLE}"' in each]

    counted = eventually(lines)
    for wanted in (
        ('span_name="chat example"', 'span_kind="SPAN_KIND_INTERNAL"', 'status_code="STATUS_CODE_ERROR"'),
        ('span_name="chat large"', 'span_kind="SPAN_KIND_CLIENT"', 'error_type="rate_limited"'),
        ('span_name="chat small"', 'devsynth_attempt_reason="hedge"', 'gen_ai_provider_name="small-example"'),
    ):
        assert [each for each in counted if all(part in each for part in wanted)], (wanted, counted)


def test_over_real_wires_and_http_it_is_told_where_a_request_went(jaeger: JaegerServer) -> None:
    with Loopback() as server:
        server.at("busy-a").script(failure(429, **{"retry-after": "0"}), whole("after a retry"))
        server.at("cut-a").script(sse(delta("half an ", role="assistant"), then="reset"))
        server.at("cut-b").script(stream("answer"))
        address = f"http://127.0.0.1:{server.port}"
        said = run(["-c", WIRE, address], jaeger.endpoint("http"), "http/protobuf")
        assert said == ["after a retry", "half an answer"]

    def whole_ones() -> list[Trace]:
        found = jaeger.find("wire")
        return found if len(found) == 2 and all(trace.whole for trace in found) else []

    busy, cut = eventually(whole_ones)
    assert outline(busy) == [("chat a", "primary", "rate_limited"), ("chat a", "retry", None)]
    assert outline(cut) == [("chat a", "primary", "stream_interrupted"), ("chat b", "continuation", None)]
    assert {span.tags.get("gen_ai.response.model") for span in busy.attempts} == {None, "served-model"}
    for span in (*busy.attempts, *cut.attempts):
        assert (span.tags["server.address"], span.tags["server.port"]) == ("127.0.0.1", server.port)
        assert span.tags["span.kind"] == "client"


class TestTheScripts:
    def test_one_says_what_it_takes(self) -> None:
        done = script("jaeger", "--nothing")
        assert (done.returncode, done.stdout) == (2, "")
        assert "scripts/jaeger [--page PORT]" in done.stderr

    def test_one_prints_where_the_program_is(self) -> None:
        assert Path(script("jaeger", "get").stdout.strip()).samefile(program() or "")

    @pytest.mark.usefixtures("sent")
    def test_of_a_placeholder_no_picture_is_taken_as_if_it_were_jaegers_page(
        self, jaeger: JaegerServer, tmp_path: Path
    ) -> None:
        if not jaeger.has_a_placeholder:
            pytest.skip("this Jaeger has its page")
        done = script("trace-pictures", "--service", EXAMPLE, jaeger.endpoint("page"), str(tmp_path / "pictures"))
        assert done.returncode == 1
        assert "has only a placeholder" in done.stderr
        assert not list(tmp_path.iterdir())


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
