"""Set-up by the standard variables, against real receivers: up, down, slow, and refusing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from .otlp import HttpReceiver, Receiver, attributes

PRELUDE = """
import asyncio, json, sys, time
from devsynth_providers import AuthenticationError, ConfigurationError, RateLimitError, Router, telemetry
from devsynth_providers.testing import ScriptedProvider
from tests.helpers import model, policy

async def asked():
    texts = []
    for scripts in ((["plain"],), ([RateLimitError("slow", status=429), "after a retry"],),
                    ([AuthenticationError("no", status=401)], ["after a fallback"])):
        models = [model(name) for name, _ in zip("ab", scripts)]
        providers = {each.name: ScriptedProvider(*script) for each, script in zip(models, scripts)}
        router = Router(policy(*models), providers)
        texts.append(await router.generate("hi", project="billing"))
    return texts

def ask():
    began = time.monotonic()
    texts = asyncio.run(asked())
    print(json.dumps(texts), "in", round(time.monotonic() - began, 3))
    print("ended at", time.monotonic())
"""
ANSWERS = ["plain", "after a retry", "after a fallback"]
PATIENCE_S = 10.0
"""On a machine that does much else, too: the end of the interpreter itself takes CPU. The SDK would wait for 30 s."""


class Told:
    """What a process said: the answers, how long they took, how long it took to leave, and what went to stderr."""

    def __init__(self, code: str, variables: dict[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **variables},
        )
        ended = time.monotonic()
        assert done.returncode == 0, done.stderr
        self.lines = done.stdout.splitlines()
        self.stderr = done.stderr
        line = next(each for each in self.lines if " in " in each)
        self.texts = json.loads(line.rpartition(" in ")[0])
        self.took_s = float(line.rpartition(" ")[2])
        at = next(each for each in self.lines if each.startswith("ended at "))
        self.left_s = ended - float(at.rpartition(" ")[2])


def told(code: str = "telemetry.configure()\nask()", receiver: Receiver | None = None, **variables: str) -> Told:
    if receiver is not None:
        variables |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol,
        }
    return Told(code, variables)


@pytest.mark.parametrize("kind", [Receiver, HttpReceiver])
def test_a_receiver_gets_the_trees_of_a_plain_call_a_retry_and_a_fallback_and_the_metrics(kind: Any) -> None:
    with kind() as receiver:
        assert told(receiver=receiver).texts == ANSWERS
    assert receiver.services == {"devsynth_providers"}
    requests = receiver.named("chat test")
    trees = [[span for span in receiver.spans if span.parent_span_id == request.span_id] for request in requests]
    assert [
        [
            (attributes(s)["devsynth.attempt"], attributes(s)["devsynth.attempt.reason"], s.name, s.status.code)
            for s in sorted(tree, key=lambda span: span.start_time_unix_nano)
        ]
        for tree in trees
    ] == [
        [(1, "primary", "chat a", 0)],
        [(1, "primary", "chat a", 2), (2, "retry", "chat a", 0)],
        [(1, "primary", "chat a", 2), (2, "fallback", "chat b", 0)],
    ]
    assert all(request.status.code == 0 for request in requests)
    assert all(attributes(request)["devsynth.project_id"] == "billing" for request in requests)
    assert [[event.name for event in request.events] for request in requests] == [
        ["policy.decide"],
        ["policy.decide", "retry.scheduled"],
        ["policy.decide", "breaker.open", "fallback"],
    ]
    assert len({request.trace_id for request in requests}) == 3
    rows = receiver.metrics["devsynth.attempts"].sum.data_points
    assert sum(row.as_int for row in rows) == 5
    assert all("devsynth.project_id" not in attributes(row) for row in rows)
    duration = receiver.metrics["gen_ai.client.operation.duration"].histogram.data_points[0]
    assert list(duration.explicit_bounds)[:2] == [0.01, 0.02]
    assert {each.trace_id for each in duration.exemplars} <= {each.trace_id for each in requests}
    assert duration.exemplars


def test_the_environment_names_the_service_and_its_resource(tmp_path: Any) -> None:
    with HttpReceiver() as receiver:
        told(
            "telemetry.configure(service_name='given')\nask()",
            receiver,
            OTEL_RESOURCE_ATTRIBUTES="service.name=from-resource,deployment.environment.name=test",
        )
        told("telemetry.configure(service_name='given')\nask()", receiver, OTEL_SERVICE_NAME="from-name")
        told("telemetry.configure(service_name='given')\nask()", receiver)
    assert receiver.services == {"from-resource", "from-name", "given"}
    assert any(each.get("deployment.environment.name") == "test" for each in receiver.resources)


def test_the_sampler_is_the_environments() -> None:
    with HttpReceiver() as receiver:
        told(receiver=receiver, OTEL_TRACES_SAMPLER="always_off")
    assert receiver.spans == []
    assert "devsynth.attempts" in receiver.metrics


def test_each_signal_can_be_left_out() -> None:
    with HttpReceiver() as receiver:
        told(receiver=receiver, OTEL_METRICS_EXPORTER="none")
        assert (receiver.metrics, len(receiver.named("chat test"))) == ({}, 3)
        told(receiver=receiver, OTEL_TRACES_EXPORTER="none")
        assert len(receiver.named("chat test")) == 3
        assert "devsynth.attempts" in receiver.metrics


def test_where_the_sdk_is_disabled_nothing_is_sent() -> None:
    with HttpReceiver() as receiver:
        assert told(receiver=receiver, OTEL_SDK_DISABLED="true").texts == ANSWERS
    assert receiver.asked == 0


def test_the_console_is_an_exporter() -> None:
    said = told(OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="console")
    assert '"name": "chat test"' in "\n".join(said.lines).replace("    ", "")
    assert "devsynth.attempts" in "\n".join(said.lines)


def test_projects_are_a_label_where_that_is_wanted() -> None:
    with HttpReceiver() as receiver:
        told("telemetry.configure(project_label=True)\nask()", receiver)
    rows = receiver.metrics["devsynth.attempts"].sum.data_points
    assert {attributes(row)["devsynth.project_id"] for row in rows} == {"billing"}


LOADED = """
telemetry.configure()
async def many():
    router = Router(policy(model("m")), {"m": ScriptedProvider(*["x"] * 800)})
    for _ in range(800):
        await router.generate("hi")
asyncio.run(many())
ask()
"""
"""More than a batch of spans is on its way when the process ends."""


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2), reason="no thread begins there any more when the interpreter ends"
)
@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_one_that_is_down_or_never_answers_slows_no_call_and_the_end_by_a_second(protocol: str, listens: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen()  # whoever connects is connected, and hears nothing
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        said = told(
            LOADED,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT="60",
            OTEL_BSP_SCHEDULE_DELAY="10",
        )
    assert said.texts == ANSWERS
    assert said.took_s < PATIENCE_S
    assert said.left_s < PATIENCE_S
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("kind", [Receiver, HttpReceiver])
def test_one_that_refuses_fails_no_call(kind: Any) -> None:
    with kind(refuses=True) as receiver:
        said = told(receiver=receiver)
    assert said.texts == ANSWERS
    assert receiver.asked >= 2
    assert "Traceback" not in said.stderr


WRONG = """
for name, value in (("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"), ("OTEL_TRACES_EXPORTER", "zipkin")):
    import os
    os.environ[name] = value
    try:
        telemetry.configure()
    except ConfigurationError as error:
        print(error)
    del os.environ[name]
ask()
"""


def test_a_protocol_or_an_exporter_that_there_is_not_is_told() -> None:
    assert told(WRONG).lines[:2] == [
        "OTEL_EXPORTER_OTLP_PROTOCOL is 'carrier-pigeon'; use one of grpc, http/protobuf",
        "OTEL_TRACES_EXPORTER is 'zipkin'; use one of otlp, console, none",
    ]


OWN = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
reader = InMemoryMetricReader()
mine = TracerProvider(), MeterProvider([reader])
trace.set_tracer_provider(mine[0])
metrics.set_meter_provider(mine[1])
telemetry.configure()
assert (trace.get_tracer_provider(), metrics.get_meter_provider()) == mine
ask()
assert reader.get_metrics_data().resource_metrics
"""


def test_an_application_that_has_providers_keeps_them() -> None:
    with HttpReceiver() as receiver:
        told(OWN, receiver)
    assert receiver.asked == 0


NOT_SET_UP = """
ask()
assert "opentelemetry.sdk" not in sys.modules
"""


def test_without_set_up_no_sdk_is_loaded() -> None:
    assert told(NOT_SET_UP).texts == ANSWERS


LEFT = """
from devsynth_providers import SyncRouter
telemetry.configure()
ask()
router = Router(policy(model("m")), {"m": ScriptedProvider((0.0, "a", 3600.0, "b"))})
pieces = SyncRouter(router).generate_stream("hi", project="left")
next(pieces)
"""


def test_a_stream_without_a_loop_that_is_under_way_when_the_process_ends_is_told() -> None:
    with HttpReceiver() as receiver:
        said = told(LEFT, receiver)
    (attempt,), request = receiver.named("chat m"), receiver.named("chat test")[-1]
    assert attempt.parent_span_id == request.span_id
    assert attributes(request)["devsynth.project_id"] == "left"
    assert attributes(attempt)["devsynth.stream.abandoned"] is attributes(request)["devsynth.stream.abandoned"] is True
    assert sum(row.as_int for row in receiver.metrics["devsynth.attempts"].sum.data_points) == 6
    assert said.stderr == ""


LATEST = """
telemetry.configure()
ask()
"""


def test_the_newer_names_are_spoken_where_they_are_wanted() -> None:
    with HttpReceiver() as receiver:
        told(LATEST, receiver, OTEL_SEMCONV_STABILITY_OPT_IN="http, gen_ai_latest_experimental")
    assert "gen_ai.client.inference.duration" in receiver.metrics
    assert "gen_ai.client.operation.duration" not in receiver.metrics
