"""The example of docs/scale.md, as a command: real workers on Dask, a real Redis, one budget for all of them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devsynth_providers.stores.entries import Purse
from devsynth_providers.stores.redis_ledger import RedisLedger

from .paced import CHAT, EMBEDDING, LOG, TAKES_S
from .servers import MISSING, RedisServer, program

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "scale" / "enrich.py"
PROMPT = "Summarize in one sentence:\n\n"
WORKERS, AT_ONCE = 2, 4
CHAT_MICROS, EMBEDDING_MICROS = ((each.input_tokens + each.output_tokens) * 1000 for each in (CHAT, EMBEDDING))
POLICY = """
version: 1
models:
  chatty: {{provider: "tests.paced:Paced", price: {price}, context_window: 8192, abilities: [chat]}}
  vectors: {{provider: "tests.paced:Paced", price: {price}, context_window: 8192, abilities: [embeddings]}}
rules:
  - {{name: vectors, when: {{modality: embeddings}}, models: vectors, join_embeddings_s: 0.05}}
  - {{name: summaries, models: chatty}}
budgets:
  - {{scope: project, limit_usd: {limit}, per: total}}
limits:
  chatty: {{concurrent: {at_once}}}
"""
PRICE = "{input_usd_per_1m: 1000, output_usd_per_1m: 1000}"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason=MISSING),
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs Dask: 'pip install distributed'"),
]


class Home:
    """A data set, the command that has it enriched, and what models were asked for it."""

    def __init__(self, place: Path, ledger: RedisServer, lines: int) -> None:
        self._asked = place / "asked.jsonl"
        self.texts = [f"text number {n} é" for n in range(lines)]
        self.source, self.target, self.policy = place / "in.jsonl", place / "out.jsonl", place / "policy.yaml"
        self.source.write_text("".join(json.dumps({"id": n, "text": each}) + "\n" for n, each in enumerate(self.texts)))
        self._url = ledger.url()

    def begin(self, *, limit_usd: float, limit: int = 100) -> subprocess.Popen[str]:
        self.policy.write_text(POLICY.format(price=PRICE, limit=limit_usd, at_once=limit))
        options = {"policy": self.policy, "ledger": self._url, "workers": WORKERS, "lines": 7, "at-once": AT_ONCE}
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        return subprocess.Popen(
            [sys.executable, str(EXAMPLE), str(self.source), str(self.target), *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, LOG: str(self._asked)},
        )

    def run(self, *, limit_usd: float) -> tuple[int, str]:
        """Its exit code, and what it said last of how far it is."""
        process = self.begin(limit_usd=limit_usd)
        _, told = process.communicate(timeout=100)
        progress = [line for line in told.splitlines() if " partitions, " in line]
        assert progress, told
        return process.returncode, progress[-1]

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.target.read_text().splitlines()]

    @property
    def chats(self) -> list[str]:
        return [text.removeprefix(PROMPT) for chat, texts, _ in self._requests() if chat for text in texts]

    @property
    def begun_s(self) -> list[float]:
        """When each chat began, by the clock of the machine."""
        return sorted(at for chat, _, at in self._requests() if chat)

    @property
    def batches(self) -> list[list[str]]:
        return [texts for chat, texts, _ in self._requests() if not chat]

    def _requests(self) -> list[tuple[bool, list[str], float]]:
        log = self._asked.read_text(encoding="utf-8") if self._asked.exists() else ""
        return [tuple(json.loads(line)) for line in log.splitlines()]

    @property
    def billed_micros(self) -> int:
        return len(self.chats) * CHAT_MICROS + len(self.batches) * EMBEDDING_MICROS

    def spent_micros(self) -> int:
        async def spent() -> int:
            ledger = RedisLedger(self._url)
            try:
                return await ledger.spent_micros(Purse("project:enrich", "total", 0))
            finally:
                await ledger.aclose()

        return asyncio.run(spent())


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as server:
        yield server


def whole_rows(texts: list[str]) -> list[dict[str, Any]]:
    return [
        {"id": n, "text": text, "summary": f"about {text}", "vector": [float(len(text)), 1.0]}
        for n, text in enumerate(texts)
    ]


def test_all_workers_together_spend_no_more_than_the_budget_and_what_is_missing_is_asked_for_later(
    tmp_path: Path, ledger: RedisServer
) -> None:
    home = Home(tmp_path, ledger, lines=40)
    code, told = home.run(limit_usd=2.5)
    rows = home.rows()
    missing = [row for row in rows if "errors" in row]
    assert (code, len(rows), [row["id"] for row in rows]) == (1, 40, list(range(40)))
    assert 0 < len(missing) < 40
    assert {kind for row in missing for kind in row["errors"].values()} == {"budget_exceeded"}
    assert 1_000_000 < home.spent_micros() == home.billed_micros <= 2_500_000
    assert re.search(r"40 lines, \d+ budget_exceeded, \$(\S+)$", told)
    assert float(told.rpartition("$")[2]) == pytest.approx(home.billed_micros / 1_000_000, abs=1e-4)

    code, told = home.run(limit_usd=100)
    assert code == 0, told
    assert home.rows() == whole_rows(home.texts)
    assert sorted(home.chats) == sorted(home.texts), "each is asked once, in both runs together"
    assert sorted(text for batch in home.batches for text in batch) == sorted(home.texts)
    assert len(home.batches) < 40, "those of one worker are joined"
    assert home.spent_micros() == home.billed_micros
    assert not list(tmp_path.glob("out.jsonl.parts/*.answers"))


def test_a_worker_that_is_killed_costs_no_more_than_what_it_had_under_way(tmp_path: Path, ledger: RedisServer) -> None:
    import psutil  # type: ignore[import-untyped]

    home = Home(tmp_path, ledger, lines=60)
    process = home.begin(limit_usd=100)
    until = time.monotonic() + 60
    while len(home.chats) < 12:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    workers = [each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())]
    assert len(workers) == WORKERS
    workers[0].kill()
    _, told = process.communicate(timeout=100)
    assert process.returncode == 0, told
    assert home.rows() == whole_rows(home.texts)
    assert set(home.chats) == set(home.texts)
    assert len(home.chats) <= 60 + AT_ONCE, "what was answered is not asked again"
    assert home.billed_micros <= home.spent_micros() <= home.billed_micros + AT_ONCE * 120_000


def test_all_workers_together_have_no_more_under_way_than_the_limit(tmp_path: Path, ledger: RedisServer) -> None:
    home = Home(tmp_path, ledger, lines=30)
    process = home.begin(limit_usd=100, limit=2)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 0, told
    assert home.rows() == whole_rows(home.texts)
    begun = home.begun_s
    assert max(sum(at <= other < at + TAKES_S for other in begun) for at in begun) <= 2


def test_what_the_page_says_to_write_is_what_the_command_takes() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    told = subprocess.run([sys.executable, str(EXAMPLE), "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"(?<=[`\s])--[a-z-]+", page))
    assert options <= set(re.findall(r"--[a-z-]+", told))
    assert options >= {"--policy", "--ledger", "--scheduler", "--workers", "--lines", "--at-once", "--project"}


def test_a_line_that_is_none_is_told_by_its_place_and_nothing_is_asked(tmp_path: Path, ledger: RedisServer) -> None:
    home = Home(tmp_path, ledger, lines=3)
    home.source.write_text('{"text": "a"}\n{"txt": "b"}\n')
    process = home.begin(limit_usd=100)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 2
    assert f"{home.source}:2: a line is a JSON object with a text" in told
    assert not home.chats
    assert not home.batches
