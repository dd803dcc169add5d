"""The decision log: what a line says, what it never says, and that writing it never hurts a call."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devsynth_providers import (
    AuthenticationError,
    ChatRequest,
    Conditions,
    ConfigurationError,
    DecisionLog,
    Evidence,
    Facts,
    Latency,
    Limits,
    NoModelFits,
    ProviderUnavailable,
    Router,
    StreamInterrupted,
    Usage,
)
from devsynth_providers.policy.coding import decoded, encoded
from devsynth_providers.policy.decision import Decision, Log, Outcome, read_log, served
from devsynth_providers.testing import ScriptedProvider

from .helpers import PRICED, model, policy

CANARY = "canary-4711"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def router(path: Path | DecisionLog, *script: Any, **rule: Any) -> Router:
    """Two models: *a* does as the script says, *b* always answers."""
    models = model("a", price=PRICED, latency=Latency(first_token_s=1, tokens_per_s=50)), model("b")
    second = ScriptedProvider(*[f"from b {CANARY}"] * 100)
    return Router(policy(*models, **rule), {"a": ScriptedProvider(*script), "b": second}, decisions=path)


async def test_a_line_says_what_was_known_decided_and_came_of_it(path: Path) -> None:
    async with router(path, ProviderUnavailable("down"), "yes") as asked:
        answer = await asked.complete("Prove it", task="review", max_tokens=50, max_cost_usd=0.5)
    (line,) = read_log(path)
    assert (line.v, line.policy, line.rule, len(line.call)) == (1, "test", "all", 32)
    assert answer.plan is not None
    assert (line.facts.task, line.facts.max_output_tokens, line.facts.limits) == (
        "review",
        50,
        Limits(max_cost_usd=0.5),
    )
    assert line.facts.evidence == answer.plan.evidence
    assert [(each.model, each.served) for each in line.candidates] == [("a", "test/a"), ("b", "test/b")]
    assert line.candidates[0].latency_s == answer.plan.candidates[0].latency_s
    outcome = line.outcome
    assert (outcome.status, outcome.model, outcome.finish_reason, outcome.error) == ("answered", "a", "stop", None)
    assert [(t.served, t.reason, t.error) for t in outcome.attempts] == [
        ("test/a", "primary", "unavailable"),
        ("test/a", "retry", None),
    ]
    assert [t.usage for t in outcome.attempts] == [attempt.usage for attempt in answer.attempts]
    assert outcome.cost_micros == sum(attempt.cost_micros or 0 for attempt in answer.attempts)
    assert (outcome.latency_s, outcome.first_token_s) == (answer.latency_s, answer.first_token_s)
    assert line.time.endswith("+00:00")


async def test_each_way_to_end_is_told(path: Path) -> None:
    async with router(
        path, ("half", AuthenticationError("cut")), ("one", "two"), (60.0,), AuthenticationError("x")
    ) as r:
        with pytest.raises(StreamInterrupted):
            await r.complete("broke off")
        async with await r.send(ChatRequest.of("left", stream=True)):
            pass
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(r.complete("cancelled"), 0.05)
        await r.complete("fell back")
        with pytest.raises(NoModelFits):
            await r.complete("refused", max_tokens=1_000_000)
    log = read_log(path)
    told = [(each.outcome.status, each.outcome.error, each.outcome.degraded) for each in log]
    assert told == [
        ("failed", "stream_interrupted", False),
        ("left", None, False),
        ("cancelled", None, False),
        ("answered", None, True),
        ("refused", "no_model_fits", False),
    ]
    assert [(each.model, each.code, each.reason) for each in log[-1].rejected] == [
        ("a", "window_too_small", ""),
        ("b", "window_too_small", ""),
    ]


async def test_nothing_of_prompt_answer_error_or_key_is_in_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", CANARY)
    script = (AuthenticationError(CANARY, status=403), ("one", ProviderUnavailable(CANARY)), CANARY)
    keyed = model("a", api_key_env="SOME_KEY", base_url=f"https://me:{CANARY}@host:8/v1?key={CANARY}")
    asked = Router(
        policy(keyed, model("b")), {"a": ScriptedProvider(*script), "b": ScriptedProvider(CANARY)}, decisions=path
    )
    await asked.complete(CANARY, system_prompt=CANARY, stop_sequences=[CANARY], tools=[{"name": CANARY}])
    with pytest.raises(StreamInterrupted):
        await asked.complete(CANARY)
    await asked.complete(messages=[{"role": "user", "content": CANARY}])
    await asked.aclose()
    assert len(read_log(path)) == 3
    assert CANARY not in path.read_text()
    assert '"test/a at host:8"' in path.read_text()


async def test_why_a_model_is_unavailable_is_not_told_only_that_it_is(path: Path) -> None:
    asked = Router(policy(model("a", provider="openai"), model("b")), {"b": ScriptedProvider("x")}, decisions=path)
    await asked.complete("hi")
    await asked.aclose()
    assert read_log(path)[0].conditions.unavailable == {"a": ""}


async def test_prompts_are_there_for_those_who_ask(path: Path) -> None:
    log = DecisionLog(path, prompts=True)
    async with router(log, "x", "y") as asked:
        await asked.complete("Prove this", system_prompt="Be brief")
        await asked.complete("hi")
        assert log.flush()
        first, second = read_log(path)
        facts = [first.judged(asked._analyzer), second.judged(asked._analyzer)]
    assert (first.prompt, first.text) == ("Prove this", "Be brief\nProve this")
    assert (second.prompt, second.text) == ("hi", None)
    assert facts == [first.facts, second.facts]


async def test_only_the_owner_may_read_it(path: Path) -> None:
    async with router(path, "x") as asked:
        await asked.complete("hi")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_router_without_one_makes_none_and_no_thread_begins_before_the_first_line(path: Path) -> None:
    before = threading.active_count()
    assert router(path).decisions is not None
    assert threading.active_count() == before
    assert not path.exists()


def test_threads_and_loops_share_one_log(path: Path) -> None:
    log = DecisionLog(path)

    def work() -> None:
        asyncio.run(ask())

    async def ask() -> None:
        asked = router(log, *["x"] * 20)
        await asyncio.gather(*(asked.complete("hi") for _ in range(20)))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    log.close()
    lines = read_log(path)
    assert (len(lines), lines.unreadable, log.lost) == (120, {}, 0)
    assert len({each.call for each in lines}) == 120


def _write(path: Path, count: int, max_bytes: int) -> None:
    with DecisionLog(path, max_bytes=max_bytes) as log:
        for number in range(count):
            log.add(lambda number=number: decision(f"{os.getpid()}-{number}"))  # type: ignore[misc]


def decision(call: str = "") -> Decision:
    return Decision(call=call, outcome=Outcome(status="answered"))


def test_processes_share_one_file_and_rotate_it_once(path: Path) -> None:
    size = len(decision("12345-100").line()) + 1
    makers = [
        multiprocessing.get_context("spawn").Process(target=_write, args=(path, 300, 700 * size)) for _ in range(3)
    ]
    for each in makers:
        each.start()
    for each in makers:
        each.join()
        assert each.exitcode == 0
    lines = read_log(path)
    assert lines.unreadable == {}
    assert len({each.call for each in lines}) == 900
    assert path.stat().st_size <= 700 * size
    assert Path(f"{path}.1").stat().st_size <= 700 * size


def test_what_another_process_makes_the_older_file_meanwhile_takes_no_line_with_it(path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with DecisionLog(path, max_bytes=10) as log:
        log.add(decision)
        assert log.flush()
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            log.add(decision)
            assert not log.flush(0.05)  # kept out
            path.replace(f"{path}.1")
    assert (len(read_log(path)), log.lost) == (2, 0)


def test_a_forked_child_writes_with_a_thread_of_its_own(path: Path) -> None:
    code = f"""
import os
from devsynth_providers import DecisionLog
from tests.test_decisions import decision
log = DecisionLog({str(path)!r})
log.add(lambda: decision("parent"))
log.flush()
if os.fork() == 0:
    log.add(lambda: decision("child"))
    log.close()
    os._exit(0)
os.wait()
log.add(lambda: decision("again"))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
    assert [each.call for each in read_log(path)] == ["parent", "child", "again"]


def test_the_oldest_lines_go_when_it_is_full_and_one_old_file_stays(path: Path) -> None:
    size = len(decision("00").line()) + 1
    with DecisionLog(path, max_bytes=4 * size) as log:
        for number in range(10):
            log.add(lambda number=number: decision(f"{number:02}"))  # type: ignore[misc]
    assert [int(each.call) for each in read_log(path)] == [4, 5, 6, 7, 8, 9]
    assert log.lost == 0
    assert sorted(each.name for each in path.parent.iterdir()) == ["log.jsonl", "log.jsonl.1"]


@pytest.mark.parametrize("place", ["directory", "/dev/full"])
async def test_what_can_not_be_written_fails_no_call_is_counted_and_logged_once(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if place == "/dev/full" and not Path(place).exists():
        pytest.skip("no full device here")
    (tmp_path / "directory").mkdir()
    log = DecisionLog(tmp_path / place)
    with caplog.at_level(logging.WARNING, "devsynth_providers"):
        async with router(log, "x", "y", "z") as asked:
            for _ in range(3):
                await asked.complete("hi")
                assert log.flush()
    assert log.lost == 3
    assert len(caplog.records) == 1


def test_a_folder_that_is_not_there_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        DecisionLog(tmp_path / "missing" / "log.jsonl")


def test_a_sync_router_writes_its_log_when_it_is_closed_and_hides_no_error(path: Path) -> None:
    asked = router(path, "x")
    with pytest.raises(KeyError, match="mine"), asked.sync as sync:
        sync.complete("hi")
        raise KeyError("mine")
    assert len(read_log(path)) == 1


def test_a_line_that_can_not_be_made_takes_no_other_with_it(path: Path) -> None:
    def broken() -> Decision:
        raise RuntimeError("no")

    with DecisionLog(path) as log:
        log.add(broken)
        log.add(decision)
    assert (len(read_log(path)), log.lost) == (1, 1)


def test_what_waits_is_written_when_the_interpreter_ends_and_when_the_log_is_forgotten(path: Path) -> None:
    code = f"""
from devsynth_providers import DecisionLog
from tests.test_decisions import decision
log = DecisionLog({str(path)!r})
for _ in range(50):
    log.add(decision)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert len(read_log(path)) == 50
    log = DecisionLog(path)
    log.add(decision)
    thread = next(each for each in threading.enumerate() if "decision log" in each.name)
    del log
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    assert len(read_log(path)) == 51


def test_a_closed_log_still_takes_what_ends_later(path: Path) -> None:
    log = DecisionLog(path)
    for _ in range(2):
        log.add(decision)
        log.close()
    assert len(read_log(path)) == 2


def test_lines_that_can_not_be_read_are_counted_by_the_reason(path: Path) -> None:
    good = decision("good").line()
    newer = json.loads(good) | {"v": 2}
    wrong = json.loads(good) | {"facts": {"input_tokens": "many"}}
    limits = json.loads(good) | {"facts": {"limits": {"max_cost_usd": -1}}}
    lacking = {"v": 1}
    numbers = [
        json.dumps(json.loads(good) | each)
        for each in ({"facts": {"complexity": 10**400}}, {"facts": {"input_tokens": 10**400}})
    ]
    numbers += [json.dumps(json.loads(good) | {"conditions": {"draw": float(each)}}) for each in ("nan", "-inf")]
    bad = [good[:-20], "[]", json.dumps(newer), json.dumps(wrong), json.dumps(lacking), json.dumps(limits), "\x00"]
    bad += numbers
    path.write_text("\n".join([good, "", *bad, good]) + "\n")
    log = read_log(path)
    assert len(log) == 2
    assert log.unreadable == {
        "no JSON: cut off, or written by something else": 2,
        "no decision: it has no version": 1,
        "version 2, from a newer devsynth_providers": 1,
        "decision.facts.input_tokens: int expected, not str": 1,
        "decision.outcome: missing": 1,
        "decision.facts.limits: max_cost_usd must be a number from 0 on, not -1.0": 1,
        "decision.facts.complexity: no number to count with": 1,
        "decision.facts.input_tokens: no number to count with": 1,
        "decision.conditions.draw: no number to count with": 2,
    }


def test_a_line_of_an_older_or_a_younger_version_is_read_as_far_as_it_goes() -> None:
    line = '{"v":1,"outcome":{"status":"answered","mood":"good"},"facts":{"task":"t","moon":"full"},"weather":1}'
    assert Decision.of_line(line) == Decision(outcome=Outcome(status="answered"), facts=Facts(task="t"))


numbers = st.floats(0, 1000)
facts = st.builds(
    Facts,
    complexity=st.floats(0, 1),
    evidence=st.lists(st.builds(Evidence, st.text(), numbers, numbers)).map(tuple),
    task=st.none() | st.text(),
    needs=st.frozensets(st.sampled_from(("chat", "tools", "json"))),
    input_tokens=st.integers(0, 10**9),
    longest_text_tokens=st.none() | st.integers(0, 10**9),
    max_output_tokens=st.integers(0, 10**9),
    limits=st.builds(Limits, max_cost_usd=st.none() | numbers, min_quality=st.none() | st.floats(0, 1)),
)


@given(facts)
def test_facts_come_back_as_they_went(facts: Facts) -> None:
    assert decoded(Facts, json.loads(json.dumps(encoded(facts)))) == facts


@given(facts, st.dictionaries(st.text(), st.text()), st.text() | st.none())
def test_decisions_come_back_as_they_went(facts: Facts, unavailable: dict[str, str], text: str | None) -> None:
    outcome = Outcome(status="answered", cost_micros=3, first_token_s=0.5)
    whole = Decision(facts=facts, conditions=Conditions(unavailable=unavailable), outcome=outcome, prompt=text)
    line = whole.line()
    assert "\n" not in line
    assert Decision.of_line(line.encode("utf-8", "backslashreplace")) == whole


def test_a_model_is_known_by_who_serves_it_not_by_what_a_policy_calls_it() -> None:
    one = model("mine", model="gpt", provider="openai", base_url="https://me:secret@host:8080/v1?key=1")
    assert served(one) == "openai/gpt at host:8080"
    assert served(model("x", provider="local", path="models/some.gguf")) == "local/x at some.gguf"
    assert served(model("x", base_url="http://[broken")) == "test/x"


def test_a_log_is_a_sequence() -> None:
    log = Log.of([decision("a"), decision("b")])
    assert (len(log), log[0].call, [each.call for each in log[1:]]) == (2, "a", ["b"])
    assert Log.of(log) is log
    assert Usage() == decoded(Usage, {})
