"""``batch``: a file of questions and of texts to embed, many at once, to a file of answers; killed, it goes on where it
was."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..bulk import AT_ONCE, in_order
from ..errors import DevSynthError, InvalidRequest
from ..router import Router
from ..types import Response, total_cost
from .answers import Answers, Record
from .ask import send_telemetry
from .leaving import failure, leaving_well
from .questions import Question, Questions
from .standing import Standing

_NOBODY_COULD = frozenset(("no_model_fits", "access_denied", "budget_exceeded"))
"""Failures for which no model is to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What the command line said."""

    questions: Path
    answers: Path
    policy: str
    at_once: int
    retry_failed: bool
    ask_changed: bool
    budget_usd: float | None
    as_json: bool


def batch_command(
    questions: Annotated[Path, typer.Argument(help="The questions: a JSON object on each line.", metavar="IN.JSONL")],
    answers: Annotated[Path, typer.Argument(help="Where the answers go, or are already.", metavar="OUT.JSONL")],
    policy: Annotated[str, typer.Option(help="A policy file, or the name of a packaged policy.")] = "balanced",
    at_once: Annotated[int, typer.Option(help="How many questions are asked at the same time.", min=1)] = AT_ONCE,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again what failed.")] = False,
    ask_changed: Annotated[
        bool, typer.Option("--ask-changed", help="Ask again what has changed since it was asked.")
    ] = False,
    budget_usd: Annotated[
        float | None, typer.Option(help="What this command may spend at most, in US dollars.", min=0)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object, for programs.")] = False,
) -> None:
    """Ask, or embed, what stands in one file, and append each answer to another. What is answered is not asked again.

    Exit codes: 0 all is answered, 2 a line can not be asked, or has changed, 3 wrong policy or setting, or another
    process writes the answers, 4 no model fits some lines, 5 models failed at some, 130 interrupted.
    """
    wanted = Batch(
        questions=questions,
        answers=answers,
        policy=policy,
        at_once=at_once,
        retry_failed=retry_failed,
        ask_changed=ask_changed,
        budget_usd=budget_usd,
        as_json=as_json,
    )
    with leaving_well(as_json=as_json):
        standing = batch(wanted)
        print(json.dumps(_as_dict(standing), ensure_ascii=False) if as_json else standing)
    if code := _exit_code(standing):
        raise typer.Exit(code)


def batch(wanted: Batch) -> Standing:
    """Ask what is open, and say how it stands then."""
    if wanted.answers.exists() and wanted.questions.exists() and wanted.answers.samefile(wanted.questions):
        raise InvalidRequest(f"{wanted.answers}: the questions stand there; name another file for the answers")
    aside = Console(stderr=True, quiet=not sys.stderr.isatty(), highlight=False, emoji=False)
    router = Router.from_policy(wanted.policy)
    questions = Questions(wanted.questions)
    with aside.status("checking the questions"):
        standing = Standing(questions.check())
    with Answers(wanted.answers) as answers:
        with aside.status("reading the answers"):
            for record in answers.records():
                standing.note(record)
        if not wanted.ask_changed:
            standing.refuse_changes(wanted.questions)
        try:
            with aside.status(standing):
                asyncio.run(_ask(router, questions, answers, standing, wanted))
        except KeyboardInterrupt:
            if not wanted.as_json:
                print(f"interrupted: {standing}; the same command goes on from there", file=sys.stderr)
            raise
    return standing


async def _ask(router: Router, questions: Questions, answers: Answers, standing: Standing, wanted: Batch) -> None:
    async def ask(question: Question) -> None:
        standing.asked += 1
        record = await _answer(router, question)
        answers.append(record)  # as soon as there is an answer: a kill must not find it paid for and unwritten
        standing.note(record)

    send_telemetry()
    still = (each for each in questions if standing.wants(each.line, retry_failed=wanted.retry_failed))
    async with router:
        with router.budget(wanted.budget_usd):  # also without: it is one run, of which the policy may say something
            async for _ in in_order(ask, still, at_once=wanted.at_once):
                if answers.sync_is_due:
                    await asyncio.to_thread(answers.sync)


async def _answer(router: Router, question: Question) -> Record:
    """What the file says of *question*: the answer, or why there is none."""
    told: Record = {"line": question.line, "id": question.id, "digest": f"{question.digest:016x}"}
    try:
        return told | _answered(await router.complete(question.request))
    except DevSynthError as error:
        micros, _ = total_cost(getattr(error, "attempts", ()))
        failed = failure(error)
        attempts = len(failed["attempts"])
        cost_usd = None if micros is None else micros / 1_000_000
        return told | failed | {"attempts": attempts, "cost_usd": cost_usd} | _in_part(error)
    except Exception as error:  # noqa: BLE001 - a bug that one line meets must not end a night's work on the others
        return told | {"error": "bug", "message": f"{type(error).__name__}: {error}", "attempts": 0, "cost_usd": None}


def _in_part(error: DevSynthError) -> Record:
    """What came of texts to embed, and why not all did; nothing where none did."""
    if not error.vectors:
        return {}
    failures = {place: {"error": each.kind, "message": str(each)} for place, each in error.failures.items()}
    return {"failures": failures, "vectors": error.vectors}


def _answered(response: Response) -> Record:
    told: Record = {
        **({"vectors": response.vectors} if response.vectors else {"text": response.text}),
        "model": response.model,
        "provider": response.provider,
        "finish_reason": response.finish_reason,
        "usage": asdict(response.usage),
        "cost_usd": response.cost_usd,
        "cost_basis": response.cost_basis,
        "attempts": len(response.attempts),
        "latency_s": response.latency_s,
        "cached": response.cached,
        "degraded": response.degraded,
    }
    return told | ({"tool_calls": [asdict(call) for call in response.tool_calls]} if response.tool_calls else {})


def _exit_code(standing: Standing) -> int:
    kinds = standing.failures.keys()
    if "bug" in kinds:
        return 1
    if standing.answered + standing.failed < standing.lines:  # a line has changed while others were asked
        return 2
    return 0 if not kinds else 4 if kinds <= _NOBODY_COULD else 5


def _as_dict(standing: Standing) -> dict[str, Any]:
    return {
        "lines": standing.lines,
        "answered": standing.answered,
        "failed": standing.failed,
        "failures": standing.failures,
        "asked": standing.asked,
        "cost_usd": standing.cost_usd,
        "unpriced": standing.unpriced,
    }
