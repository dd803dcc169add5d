"""What must hold of every cell, whatever the fault. A rule yields a sentence for each time it is broken."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from devsynth_providers import Attempt, ProviderError, StreamInterrupted

from ..schema import mistakes
from .play import WELL, WELL_VECTORS, Cell
from .rows import EMBEDS, KEY, PROMPT, VECTORS

GRACE_S = 5.0
"""On a machine that does much else, too."""

Spans = Sequence[ReadableSpan]
Rule = Callable[[Cell, Spans], Iterator[str]]


def broken(cell: Cell, spans: Spans, log: str) -> list[str]:
    """Every rule that *cell* breaks, as a sentence. *spans* and *log* may be of other cells too."""
    own = [span for span in spans if _about(span, cell)]
    found = [what for rule in RULES for what in rule(cell, own)]
    return [f"{cell}: {what}" for what in (*found, *_secrets(cell, own, log))]


def answered_by(cell: Cell) -> str | None:
    """Who must answer: the one with the *fault*, the one *behind* it, or nobody."""
    if not cell.row.fails:
        return "fault"
    return "behind" if cell.row.then.passes_on and cell.path.others and cell.row.partial is None else None


def comes_of_it(cell: Cell, spans: Spans) -> Iterator[str]:
    """The answer of one model, whole; or exactly the error that the row says."""
    row, error, who = cell.row, cell.error, answered_by(cell)
    if who is not None:
        said, rows = (row.comes, VECTORS) if who == "fault" else (WELL, WELL_VECTORS)
        if error is not None:
            yield f"failed by {error!r}"
        elif cell.path.way in EMBEDS:
            wanted = list(rows[: 1 if cell.path.way == "embed" else 2])
            if cell.caller.vectors != wanted:
                yield f"the vectors are {cell.caller.vectors}, not {wanted}"
        elif cell.caller.text != said:
            yield f"the text is {cell.caller.text!r}, not {said!r}"
        return
    wanted_class = StreamInterrupted if row.partial else row.comes
    if type(error) is not wanted_class:
        yield f"came {error!r}, text {cell.caller.text!r}, not {row.comes}"
        return
    assert isinstance(error, ProviderError)
    if error.status != row.status:
        yield f"the status is {error.status}, not {row.status}: {error}"
    if getattr(error, "retry_after_s", None) != row.after_s:
        yield f"it says to come back after {getattr(error, 'retry_after_s', None)} s, not {row.after_s}"
    if row.says not in str(error):
        yield f"{row.says!r} is not in {error}"
    if len(str(error)) > 600:
        yield f"its text has {len(str(error))} characters"
    told, partial = getattr(error, "partial", ""), row.partial or ""
    exact = told == partial or (row.somewhere and bool(told) and partial.startswith(told))
    if cell.caller.text != told or not exact:
        yield f"{cell.caller.text!r} was delivered, the error has {told!r}, not {partial!r}"


def asks_as_often_as_it_may(cell: Cell, spans: Spans) -> Iterator[str]:
    """So often at the one with the fault as the row says, once at the one behind it if that answers, else never."""
    hits = len(cell.faulty.requests), len(cell.behind.requests)
    wanted = cell.row.then.tries * cell.row.requests, int(answered_by(cell) == "behind")
    if hits != wanted:
        yield f"the servers were asked {hits} times, not {wanted}: {cell.error!r}"


def ends_in_time(cell: Cell, spans: Spans) -> Iterator[str]:
    """By the deadline; and a server that waits for us to leave has been left."""
    if cell.took_s > cell.row.clocks.total_s + GRACE_S:
        yield f"took {cell.took_s} s, with {cell.row.clocks}"
    if not cell.client_left:
        yield "the connection to a server that hangs was not closed"


def tells_its_attempts(cell: Cell, spans: Spans) -> Iterator[str]:
    """One for each try, numbered, with the error that it ended with; and what it cost adds up."""
    attempts, who = _attempts(cell), answered_by(cell)
    wanted = ["a"] * cell.row.then.tries + (["b"] if who == "behind" else [])
    if [each.model for each in attempts] != [f"{cell.name}-{letter}" for letter in wanted]:
        yield f"the attempts are {attempts}"
        return
    if [each.number for each in attempts] != list(range(1, len(attempts) + 1)):
        yield f"the attempts are numbered {[each.number for each in attempts]}"
    failed = attempts if who is None else attempts[:-1]
    kind = StreamInterrupted.kind if cell.row.partial else getattr(cell.row.comes, "kind", None)
    if any(each.error != kind for each in failed) or (who is not None and attempts[-1].error is not None):
        yield f"the attempts ended with {[each.error for each in attempts]}, not {kind}"
    for each in failed:
        yield from _paid(cell, each)
    costs = [each.cost_micros for each in attempts]
    if None in costs or any(min(each.usage.input_tokens, each.usage.output_tokens) < 0 for each in attempts):
        yield f"the attempts used and cost {[(each.usage, each.cost_micros) for each in attempts]}"
    if who is not None:
        yield from _answered(cell, attempts[-1], sum(filter(None, costs)))


def _paid(cell: Cell, failed: Attempt) -> Iterator[str]:
    """What was not billed is free, what may have been is not, and what the server told counts."""
    row, paid = cell.row, (failed.cost_micros, failed.worst_micros)
    if row.bill == "N":
        if paid != (0, 0):
            yield f"it is not billed, and counts {paid}"
    elif row.told is not None:
        if (failed.usage.input_tokens, failed.usage.output_tokens) != row.told or failed.usage.estimated:
            yield f"it was told to have used {row.told}, and counts {failed.usage}"
    elif not (failed.usage.estimated and 0 < (failed.cost_micros or 0) <= (failed.worst_micros or 0)):
        yield f"it may be billed, and counts {paid} for {failed.usage}"
    elif row.partial and failed.usage.output_tokens < 1:
        yield f"{row.partial!r} was delivered, and counts {failed.usage}"


def _answered(cell: Cell, last: Attempt, cost_micros: int) -> Iterator[str]:
    response, row, own = cell.response, cell.row, answered_by(cell) == "fault"
    assert response is not None
    if response.cost_usd is None or round(response.cost_usd * 1_000_000) != cost_micros:
        yield f"it cost {response.cost_usd}, its attempts {cost_micros}"
    if last.usage.estimated != (own and row.estimated) or not last.cost_micros or response.usage != last.usage:
        yield f"the answer counts {response.usage}, and its attempt {last.usage}"
    finish = row.finish if own else "stop"
    if (response.finish_reason, response.tool_calls) != (finish, row.calls if own else ()):
        yield f"it ended with {response.finish_reason}, {response.tool_calls}"
    if own and response.response_model != row.served and not (cell.lane == "unified" and not response.response_model):
        yield f"it is said to be of {response.response_model!r}, not {row.served!r}"
    if response.degraded != (not own):
        yield f"degraded is {response.degraded}"


def leaves_one_trace(cell: Cell, spans: Spans) -> Iterator[str]:
    """One span around all, and one below it for each try, with the error that it ended with and what it used."""
    attempts = [span for span in spans if "devsynth.attempt" in _facts(span)]
    roots = [span for span in spans if span not in attempts]
    told = _attempts(cell)
    if len(attempts) != len(told) or len(roots) != cell.path.through.traced:
        yield f"the spans are {[span.name for span in spans]}, the attempts {len(told)}"
        return
    for span, attempt in zip(sorted(attempts, key=lambda each: each.start_time or 0), told, strict=True):
        facts = _facts(span)
        wanted = (attempt.number, attempt.reason, attempt.cost_micros, attempt.error)
        named = ("devsynth.attempt", "devsynth.attempt.reason", "devsynth.cost.usd_micros", "error.type")
        if tuple(facts.get(name) for name in named) != wanted:
            yield f"the span of an attempt has {facts}, not {wanted}"
        if (span.status.status_code is StatusCode.ERROR) != (attempt.error is not None):
            yield f"the span of an attempt has the status {span.status.status_code}"
        if attempt.error and facts.get("http.response.status_code") != cell.row.status:
            yield f"the span of an attempt has HTTP status {facts.get('http.response.status_code')}"
        if roots and (span.parent is None or span.parent.span_id != _id(roots[0])):
            yield "the span of an attempt is not below that of its request"
    for span in roots:
        yield from _root(cell, span)


def keeps_to_the_schema(cell: Cell, spans: Spans) -> Iterator[str]:
    """Every span has the names and types that all have, and what each must have."""
    for span in spans:
        yield from mistakes(span)


def _root(cell: Cell, span: ReadableSpan) -> Iterator[str]:
    kind = getattr(cell.error, "kind", None)
    facts, told = _facts(span), _attempts(cell)
    if (facts.get("error.type"), span.status.status_code is StatusCode.ERROR) != (kind, kind is not None):
        yield f"the span of the request has {span.status.status_code} and {facts.get('error.type')}, not {kind}"
    totals = len(told), sum(each.cost_micros or 0 for each in told)
    if (facts.get("devsynth.attempts"), facts.get("devsynth.total.cost.usd_micros")) != totals:
        yield f"the span of the request has {facts}, not {totals}"


def keeps_what_is_whole(cell: Cell, spans: Spans) -> Iterator[str]:
    """An answer that came whole, or each vector of it, where answers are kept; never a part, nor a failure."""
    who = answered_by(cell)
    whole = who == "behind" or (who == "fault" and cell.row.finish in ("stop", "tool_calls"))
    wanted = (2 if cell.path.way == "embed_batch" else 1) if whole and cell.path.through.keeps else 0
    if cell.kept != wanted:
        yield f"{cell.kept} answers are kept, not {wanted}"


def stands_in_the_ledger(cell: Cell, spans: Spans) -> Iterator[str]:
    """Each attempt once, as it is told: who, why, what it cost and used, and how it ended."""
    told = [
        (
            each.number,
            each.model,
            each.reason,
            each.cost_micros,
            each.error,
            each.usage.input_tokens,
            each.usage.output_tokens,
        )
        for each in sorted(_attempts(cell), key=lambda attempt: attempt.number)
    ]
    if cell.path.through.traced and cell.booked != told:
        yield f"the ledger has {cell.booked}, and told is {told}"


RULES: tuple[Rule, ...] = (
    comes_of_it,
    asks_as_often_as_it_may,
    ends_in_time,
    tells_its_attempts,
    leaves_one_trace,
    keeps_to_the_schema,
    keeps_what_is_whole,
    stands_in_the_ledger,
)


def _secrets(cell: Cell, spans: Spans, log: str) -> Iterator[str]:
    """No key anywhere; and the prompt at most in the text of the error, if the server repeats it."""
    told = [span.to_json() for span in spans]
    error = cell.error
    texts: list[str] = []
    if error is not None:
        texts = [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
        if type(error.__context__).__module__.partition(".")[0] in ("litellm", "openai", "httpx", "aiohttp"):
            yield f"{error.__context__!r} hangs on the error"
    texts.append(repr(_attempts(cell)))
    prompt = PROMPT.partition(":")[0]
    for where, found in (("a span", told), ("the log", [log]), ("the error", texts)):
        if any(KEY in each for each in found):
            yield f"the key is in {where}"
        if any(prompt in each for each in found) and not (where == "the error" and cell.row.echoes):
            yield f"the prompt is in {where}"


def _attempts(cell: Cell) -> tuple[Attempt, ...]:
    if cell.error is not None:
        return getattr(cell.error, "attempts", ())
    return () if cell.response is None else cell.response.attempts


def _about(span: ReadableSpan, cell: Cell) -> bool:
    facts = _facts(span)
    return str(facts.get("devsynth.model", "")).startswith(f"{cell.name}-") or span.name.endswith(f" {cell.name}-a")


def _facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def _id(span: ReadableSpan) -> int:
    own = span.get_span_context()
    return 0 if own is None else own.span_id
