"""A data set of JSON Lines, summarized and embedded by many workers on Dask, each with a router of its own.

    python examples/scale/enrich.py in.jsonl out.jsonl --policy examples/scale/policy.yaml \
        --ledger redis://:password@host:6379/0

Each line of the first file has a ``text``; the second has the same lines with ``summary`` and ``vector``. Budgets and
limits of the policy hold for all workers together, by the server of the ledger. Said again, it asks only for what is
missing. See docs/scale.md.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from distributed import Client, LocalCluster, Worker, WorkerPlugin, as_completed, get_worker

from devsynth_providers import ChatRequest, DevSynthError, EmbedRequest, Request, Router

PROMPT = "Summarize in one sentence:\n\n"
MAX_TOKENS = 100
FIELDS = ("summary", "vector")
Place = tuple[int, str]
"""A line of a partition, and a field of it."""


class OneRouter(WorkerPlugin):
    """The router of a worker, for as long as it lives: its connections, breakers and measurements serve all partitions.
    A policy that is wrong is told before any work begins.
    """

    name = "router"

    def __init__(self, policy: str, ledger: str) -> None:
        self._policy = policy
        self._ledger = ledger

    async def setup(self, worker: Worker) -> None:
        """Open the router, on the worker."""
        self.router = Router.from_policy(self._policy, ledger=self._ledger, shared=self._ledger)
        await self.router.warm_up()

    async def teardown(self, worker: Worker) -> None:
        """Close what it has opened."""
        await self.router.aclose()


class Part(NamedTuple):
    """Some lines of the data set, by the bytes where they are; *name* changes with what they say and what is asked."""

    name: str
    begin: int
    end: int


class Work(NamedTuple):
    """What is the same for all partitions: all workers see *source* and *directory*."""

    source: Path
    directory: Path
    project: str
    at_once: int


def parts_of(source: Path, lines: int) -> Iterator[Part]:
    """*source* in partitions of so many lines. Raises ``ValueError`` for a line that is none."""
    with source.open("rb") as data:
        number = first = begin = 0
        while block := list(islice(data, lines)):
            for line_number, line in enumerate(block, first + 1):
                _row(line, f"{source}:{line_number}")
            whole = b"".join(block)
            digest = hashlib.sha256(PROMPT.encode() + whole).hexdigest()[:16]
            yield Part(f"{number:06}-{digest}", begin, begin + len(whole))
            number, first, begin = number + 1, first + len(block), begin + len(whole)


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise ValueError(f"{where}: a line is a JSON object with a text")
    return row


async def enrich(part: Part, work: Work) -> dict[str, Any]:
    """On a worker: ask for what *part* lacks, and write down each answer as it comes. Returns what came of it.

    Dask may have the same part done again, where a worker is lost: what is there is not asked for.
    """
    if (told := _done(part, work)) is not None:
        return told
    plugin: Any = get_worker().plugins[OneRouter.name]
    router: Router = plugin.router
    rows, log = _rows(part, work.source), work.directory / f"{part.name}.answers"
    answers, failures = _answered(log), dict[Place, str]()
    turns = asyncio.Semaphore(work.at_once)

    async def ask(n: int, field: str, out: TextIO) -> None:
        async with turns:
            try:
                answer = await router.complete(_request(rows[n]["text"], field, work.project))
            except DevSynthError as error:
                failures[n, field] = error.kind
                return
        value = answer.text if field == "summary" else answer.vectors[0]
        answers[n, field] = value, answer.cost_usd or 0.0
        out.write(json.dumps([n, field, *answers[n, field]]) + "\n")
        out.flush()

    with log.open("a", encoding="utf-8") as out:
        async with asyncio.TaskGroup() as group:
            for n, field in ((n, field) for n in range(len(rows)) for field in FIELDS if (n, field) not in answers):
                group.create_task(ask(n, field, out))
    _write(work.directory / f"{part.name}.jsonl", [_filled(row, n, answers, failures) for n, row in enumerate(rows)])
    cost_usd = sum(cost_usd for _, cost_usd in answers.values())
    told = {"rows": len(rows), "cost_usd": cost_usd, "failures": Counter(failures.values())}
    if not failures:
        _write(work.directory / f"{part.name}.done", [told])
        log.unlink(missing_ok=True)
    return told


def _done(part: Part, work: Work) -> dict[str, Any] | None:
    """What came of *part*, if nothing is left to ask for."""
    done = work.directory / f"{part.name}.done"
    return json.loads(done.read_text(encoding="utf-8")) if done.exists() else None


def _request(text: str, field: str, project: str) -> Request:
    if field == "vector":
        return EmbedRequest(texts=(text,), project=project)
    return ChatRequest.of(PROMPT + text, max_tokens=MAX_TOKENS, project=project)


def _rows(part: Part, source: Path) -> list[dict[str, Any]]:
    with source.open("rb") as data:
        data.seek(part.begin)
        lines = data.read(part.end - part.begin).removesuffix(b"\n").split(b"\n")
    return [_row(line, part.name) for line in lines]


def _answered(log: Path) -> dict[Place, tuple[Any, float]]:
    """What *log* has, and what each cost. A line that was not written whole is cut off."""
    if not log.exists():
        return {}
    whole = log.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    os.truncate(log, len(whole))
    return {(n, field): (value, cost_usd) for n, field, value, cost_usd in map(json.loads, whole.splitlines())}


def _filled(
    row: dict[str, Any], n: int, answers: dict[Place, tuple[Any, float]], failures: dict[Place, str]
) -> dict[str, Any]:
    found = {field: answers[n, field][0] if (n, field) in answers else None for field in FIELDS}
    failed = {field: failures[n, field] for field in FIELDS if (n, field) in failures}
    return {**row, **found, **({"errors": failed} if failed else {})}


def _write(target: Path, rows: list[dict[str, Any]]) -> None:
    """All of *rows*, or nothing: who looks never sees a part of them."""
    new = target.with_suffix(".new")
    new.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    new.replace(target)


def run(client: Client, parts: list[Part], work: Work) -> Counter[str]:
    """Have *parts* done by the workers, and say how far they are. Returns what failed, by kind."""
    done, rows, cost_usd, failures = 0, 0, 0.0, Counter[str]()
    before = {part: told for part in parts if (told := _done(part, work)) is not None}
    futures = client.map(enrich, [part for part in parts if part not in before], work=work, pure=False)
    now = (told for _, told in as_completed(futures, with_results=True))
    for told in chain(before.values(), now):
        done, rows, cost_usd = done + 1, rows + told["rows"], cost_usd + told["cost_usd"]
        failures += Counter(told["failures"])
        failed = "".join(f", {count} {kind}" for kind, count in sorted(failures.items()))
        print(f"{done} of {len(parts)} partitions, {rows} lines{failed}, ${cost_usd:.4f}", file=sys.stderr)
    return failures


def main() -> int:
    """0 if every line has what it should; 1 if some lack something, which may be asked for again."""
    reading = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reading.add_argument("source", type=Path)
    reading.add_argument("target", type=Path)
    reading.add_argument("--policy", default="ci", help="a file that all workers see, or a packaged name")
    reading.add_argument("--ledger", required=True, help="redis://…, which all workers reach")
    reading.add_argument("--scheduler", help="of a cluster that runs; without it, one of this machine is made")
    reading.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, without --scheduler")
    reading.add_argument("--lines", type=int, default=1000, help="of a partition")
    reading.add_argument("--at-once", type=int, default=32, help="requests under way for a partition")
    reading.add_argument("--project", default="enrich", help="whose budget pays")
    given = reading.parse_args()
    work = Work(given.source.resolve(), Path(f"{given.target.resolve()}.parts"), given.project, given.at_once)
    work.directory.mkdir(exist_ok=True)
    try:
        parts = list(parts_of(work.source, given.lines))
    except (OSError, ValueError) as error:
        reading.error(str(error))
    policy = str(Path(given.policy).resolve()) if Path(given.policy).exists() else given.policy
    own = {"n_workers": given.workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with ExitStack() as stack:
        cluster = given.scheduler or stack.enter_context(LocalCluster(**own))
        client = stack.enter_context(Client(cluster))
        client.register_plugin(OneRouter(policy, given.ledger))
        failures = run(client, parts, work)
    with given.target.open("wb") as out:
        for part in parts:
            out.write((work.directory / f"{part.name}.jsonl").read_bytes())
    if failures:
        print("some lines lack something: the same command asks for that alone", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
