"""The example of docs/scale.md, as a command: real workers on Dask, a real Redis, one budget for all of them."""

from __future__ import annotations

import asyncio
import importlib
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
WITHIN_S = 300
"""Five processes begin, each with all that it imports; on a machine that does much else that takes a while."""
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

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Its exit code, and what it said last of how far it is, or why it is not."""
        _, told = process.communicate(timeout=WITHIN_S)
        lines = [line for line in told.splitlines() if " partitions, " in line or " error: " in line]
        assert lines, told
        return process.returncode, lines[-1]

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


def workers(command: subprocess.Popen[str]) -> list[Any]:
    psutil: Any = importlib.import_module("psutil")  # which Dask brings
    children = psutil.Process(command.pid).children()
    found = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
    assert len(found) == WORKERS
    return found


def whole_rows(texts: list[str]) -> list[dict[str, Any]]:
    return [
        {"id": n, "text": text, "summary": f"about {text}", "vector": [float(len(text)), 1.0]}
        for n, text in enumerate(texts)
    ]


@pytest.mark.timeout(WITHIN_S)
def test_workers_together_spend_no_more_than_the_budget_and_what_is_missing_is_asked_for_later(
    tmp_path: Path, ledger: RedisServer
) -> None:
    """Also where one of them is killed then: what it had under way may be asked twice, and nothing else."""
    home = Home(tmp_path, ledger, lines=60)
    code, told = home.ended(home.begin(limit_usd=2.5))
    rows, billed_micros = home.rows(), home.billed_micros
    missing = [row for row in rows if "errors" in row]
    assert (code, [row["id"] for row in rows]) == (1, list(range(60)))
    assert 0 < len(missing) < 60
    assert {kind for row in missing for kind in row["errors"].values()} == {"budget_exceeded"}
    assert 1_000_000 < home.spent_micros() == billed_micros <= 2_500_000
    assert re.search(r"60 lines, \d+ budget_exceeded, \$", told)
    assert float(told.rpartition("$")[2]) == pytest.approx(billed_micros / 1_000_000, abs=1e-4)
    assert len(set(home.chats)) == len(home.chats) == sum(row["summary"] is not None for row in rows)

    again, before = home.begin(limit_usd=100), len(home.chats)
    while len(home.chats) < before + 8:
        assert again.poll() is None
        time.sleep(0.01)
    workers(again)[0].kill()
    code, told = home.ended(again)
    assert code == 0, told
    assert home.rows() == whole_rows(home.texts)
    assert len(list(tmp_path.glob("out.jsonl.parts/*.done"))) == 9
    assert set(home.chats) == set(home.texts)
    assert len(home.chats) <= 60 + AT_ONCE, "what was answered is not asked again"
    asked = [text for batch in home.batches for text in batch]
    assert set(asked) == set(home.texts)
    assert len(asked) <= 60 + AT_ONCE
    assert len(home.batches) < 60, "those of one worker are joined"
    assert home.billed_micros <= home.spent_micros() <= home.billed_micros + AT_ONCE * 120_000


@pytest.mark.timeout(WITHIN_S)
def test_all_workers_together_have_no_more_under_way_than_the_limit(tmp_path: Path, ledger: RedisServer) -> None:
    home = Home(tmp_path, ledger, lines=30)
    code, told = home.ended(home.begin(limit_usd=100, limit=2))
    assert code == 0, told
    assert home.rows() == whole_rows(home.texts)
    begun = home.begun_s
    assert max(sum(at <= other < at + TAKES_S for other in begun) for at in begun) <= 2


def test_a_line_that_is_none_is_told_by_its_place_and_nothing_is_asked(tmp_path: Path, ledger: RedisServer) -> None:
    home = Home(tmp_path, ledger, lines=3)
    home.source.write_text('{"text": "a"}\n{"txt": "b"}\n')
    code, told = home.ended(home.begin(limit_usd=100))
    assert code == 2
    assert told.endswith(f"{home.source}:2: a line is a JSON object with a text")
    assert not home.chats
    assert not home.batches


def test_what_the_page_says_to_write_is_what_the_command_takes() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    told = set(re.findall(r"(?<=[`\s])--[a-z-]+", page))
    assert told == set(re.findall(r'"(--[a-z-]+)"', EXAMPLE.read_text(encoding="utf-8")))
