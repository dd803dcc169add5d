"""The commands, and what their exit codes mean.

0    done
1    something went wrong that is this library's fault
2    the command line itself is wrong, or what a batch is to ask
3    a policy, a setting or a key is wrong, or something is not installed; doctor or ledger check found it broken
4    no model fits: the limits, or what is configured, leave none
5    the models were asked and failed; in a batch, at some lines
130  interrupted
141  whoever read the answer has left
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from typing import Annotated

import typer

from .. import __version__
from ..errors import BudgetExceeded, ConfigurationError, DevSynthError, InvalidRequest, NoModelFits, ProviderError
from .ask import Question, ask, described
from .batch import batch_command
from .cache import cache_app
from .leaving import INTERRUPTED, drop_output, leaving_well, of_system
from .ledger import ledger_app
from .looking import doctor_command, models_command
from .policies import policy_app
from .report import report_command
from .show import explain

EXIT_CODES: tuple[tuple[type[DevSynthError], int], ...] = (
    (InvalidRequest, 2),
    (ConfigurationError, 3),
    (NoModelFits, 4),
    (BudgetExceeded, 4),
    (ProviderError, 5),
)

app = typer.Typer(
    name="devsynth-providers",
    help="Ask language models by a policy, and see why which one answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(policy_app, name="policy")
app.command("batch")(batch_command)
app.add_typer(ledger_app, name="ledger")
app.add_typer(cache_app, name="cache")
app.command("report")(report_command)
app.command("models")(models_command)
app.command("doctor")(doctor_command)

PolicyOption = Annotated[str, typer.Option(help="A policy file, or the name of a packaged policy.")]
PromptArgument = Annotated[str | None, typer.Argument(help="What to ask; standard input if not given, or '-'.")]
TaskOption = Annotated[str | None, typer.Option(help="The kind of task, as the policy's rules name it.")]
CostOption = Annotated[float | None, typer.Option(help="What the answer may cost at most, in US dollars.")]
LatencyOption = Annotated[float | None, typer.Option(help="How soon the whole answer should be there, in seconds.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON object, for programs.")]


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Say which version this is, and leave.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command("ask")
def ask_command(
    prompt: PromptArgument = None,
    policy: PolicyOption = "balanced",
    task: TaskOption = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(help="How many tokens the answer may have.")] = 1000,
    temperature: Annotated[float, typer.Option(help="0 for the likeliest answer, up to 2 for more variety.")] = 0.7,
    max_cost_usd: CostOption = None,
    max_latency_s: LatencyOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the answer.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Show the spans of this call.")] = False,
) -> None:
    """Ask, and stream the answer to standard output; what it took goes to standard error.

    Exit codes: 0 done, 2 wrong usage, 3 wrong policy or setting, 4 no model fits, 5 models failed, 130 interrupted,
    141 nobody reads.
    """
    options = {
        "task": task,
        "system_prompt": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "max_cost_usd": max_cost_usd,
        "max_latency_s": max_latency_s,
    }
    with leaving_well(as_json=as_json):
        question = Question(
            text=_text(prompt), policy=policy, options=options, as_json=as_json, quiet=quiet, trace=trace
        )
        asyncio.run(ask(question))


@app.command("explain")
def explain_command(
    prompt: PromptArgument = None,
    policy: PolicyOption = "balanced",
    task: TaskOption = None,
    project: Annotated[str | None, typer.Option(help="The project that asks.")] = None,
    role: Annotated[str | None, typer.Option(help="The role of whoever asks.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag of the request; may be given again.")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(help="How many tokens the answer may have.")] = 1000,
    max_cost_usd: CostOption = None,
    max_expected_cost_usd: Annotated[
        float | None, typer.Option(help="What an answer of the expected length may cost, in US dollars.")
    ] = None,
    max_latency_s: LatencyOption = None,
    first_token_s: Annotated[float | None, typer.Option(help="How soon the answer should begin, in seconds.")] = None,
    min_quality: Annotated[float | None, typer.Option(help="The least quality, from 0 to 1.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which models would be asked, in which order, and why not the others. Asks none of them.

    Exit codes: 0 done, 2 wrong usage, 3 wrong policy or setting, 4 no model fits.
    """
    options = {
        "task": task,
        "project": project,
        "role": role,
        "tags": tag,
        "system_prompt": system,
        "max_tokens": max_tokens,
        "max_cost_usd": max_cost_usd,
        "max_expected_cost_usd": max_expected_cost_usd,
        "max_latency_s": max_latency_s,
        "first_token_s": first_token_s,
        "min_quality": min_quality,
    }
    with leaving_well(as_json=as_json):
        explain(_text(prompt), policy, options, as_json=as_json)


policy_app.command("explain")(explain_command)


def run() -> int:
    """Carry out the command line; returns the exit code. No traceback comes out of here."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to lose an answer
    _show_warnings()
    try:
        app()
        sys.stdout.flush()
    except SystemExit as leaving:  # how typer ends, well or ill
        return leaving.code if isinstance(leaving.code, int) else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except DevSynthError as error:
        print(f"error: {described(error)}", file=sys.stderr)
        return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)
    except OSError as error:
        drop_output()
        print(f"error: {of_system(error)}", file=sys.stderr)
        return 3
    except Exception as error:  # noqa: BLE001 - a bug: said in one line, and where it happened, not as a traceback
        print(f"error: this is a bug, please report it: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _show_warnings() -> None:
    """The library says nothing by itself; whoever uses the command line wants its warnings."""
    log = logging.getLogger("devsynth_providers")
    if logging.lastResort is not None and logging.lastResort not in log.handlers:
        log.addHandler(logging.lastResort)


def _text(prompt: str | None) -> str:
    text = (prompt or "").strip()
    if prompt in (None, "-") and sys.stdin is not None:
        if sys.stdin.isatty():
            print("reading the prompt from standard input; end it with Ctrl-D", file=sys.stderr)
        try:
            text = sys.stdin.buffer.read().decode().strip()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"standard input is not UTF-8: byte {error.start}") from None
    if not text:
        raise InvalidRequest("there is no prompt: give one as an argument, or on standard input")
    return text
