"""What a run found, as Markdown tables: each figure with its goal, ours and LiteLLM's, then the details."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import sides
from .scenarios import DEADLINE_S, TIMED_PER_S, Scale
from .side import GIVEN_UP_S
from .slow import CUT_SHARE, SLOW_S, SLOW_SHARE

Found = Mapping[str, Mapping[str, Any]]
"""By scenario and side."""

KINDS = {"stream": "streams", "whole": "answers in one piece", "vectors": "embeddings"}
LATE_S = 2.25
MOST_CALLS = 0.05
LEAST_RIGHT = 0.999


@dataclass(frozen=True)
class Figure:
    """One line of the summary; *holds* is whether ours reaches the goal."""

    name: str
    goal: str
    ours: str
    theirs: str
    holds: bool


def silent(came: Mapping[str, Any], kind: str) -> tuple[int, int, int, int]:
    """Of the faults of a kind: wrong without an error, those of them with no text at all, answered right, and all."""
    faults = [each for each in came[kind].values() if not each["harmless"]]
    wrong = [each for each in faults if each["silent"]]
    empty = [each for each in wrong if each["vectors"] is None and not each["text"].strip()]
    return len(wrong), len(empty), sum(each["right"] for each in faults), len(faults)


def worst_s(came: Sequence[Mapping[str, Any]], kind: str | None = None) -> tuple[float, int, int]:
    """The longest call, how many took more than is allowed, and how many there were."""
    taken = [each["whole_s"] for each in came if kind in (None, each["kind"])]
    return max(taken), sum(each > LATE_S for each in taken), len(taken)


def calls_per_request(came: Mapping[str, Any]) -> dict[str, float]:
    return {kind: each["calls"] / each["requests"] for kind, each in came.items()}


def share_right(came: Mapping[str, Any]) -> float:
    """The share of all requests that were answered rightly."""
    return sum(each["right"] for each in came.values()) / sum(each["requests"] for each in came.values())


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of *values*, which are sorted, does not exceed."""
    return values[min(len(values) - 1, int(share * len(values)))]


def best(found: Mapping[str, Any], names: Sequence[str], badness: Callable[[Any], float]) -> str:
    """The name of LiteLLM's best configuration."""
    return min((name for name in names if name in found), key=lambda name: badness(found[name]))


def figures(found: Found) -> Iterator[Figure]:
    """The summary, of the scenarios that were played."""
    if came := found.get("silent"):
        for kind, title in KINDS.items():
            (ours, *_, count), (theirs, *_) = silent(came[sides.OURS], kind), silent(came[sides.GROUPS], kind)
            yield Figure(f"wrong without an error: {title}, {count} faults", "0", str(ours), str(theirs), ours == 0)
    if came := found.get("deadline"):
        ours_s = worst_s(came[sides.OURS])[0]
        name = best(came, (sides.GROUPS, sides.STRICT, sides.STRICT_ORDERED), lambda each: worst_s(each)[1])
        yield Figure(
            f"longest call, deadline {DEADLINE_S:.0f} s",
            f"≤ {LATE_S:.2f} s",
            _seconds(ours_s),
            _seconds(worst_s(came[name])[0]),
            ours_s <= LATE_S,
        )
    if came := found.get("outage"):
        ours_n = max(calls_per_request(came[sides.OURS]).values())
        name = best(came, (sides.GROUPS, sides.ORDERED), lambda each: max(calls_per_request(each).values()))
        theirs_n = max(calls_per_request(came[name]).values())
        yield Figure(
            "calls upstream for a request, all down",
            f"≤ {MOST_CALLS}",
            f"{ours_n:.3f}",
            f"{theirs_n:.3f}",
            ours_n <= MOST_CALLS,
        )
    if came := found.get("success"):
        ours_share = share_right(came[sides.OURS])
        name = best(came, (sides.GROUPS, sides.ORDERED), lambda each: -share_right(each))
        yield Figure(
            "right answers, one candidate of two healthy",
            f"≥ {LEAST_RIGHT:.1%}",
            f"{ours_share:.2%}",
            f"{share_right(came[name]):.2%}",
            ours_share >= LEAST_RIGHT,
        )


def summary(found: Found) -> str:
    lines = ["| figure | goal | ours | litellm.Router | holds |", "|---|--:|--:|--:|---|"]
    lines += [
        f"| {each.name} | {each.goal} | {each.ours} | {each.theirs} | {'yes' if each.holds else 'NO'} |"
        for each in figures(found)
    ]
    return "\n".join(lines)


def details(found: Found, scale: Scale) -> str:
    """A part for each scenario that was played."""
    parts = []
    for name, write in _DETAILS.items():
        if name in found:
            parts.append(write(found[name], scale))
            parts += [
                f"\nNot measured: {side}. This version's rules have no `{sides.SIDES[side].needs}` yet.\n"
                for side in sides.TAKES_PART[name]
                if side not in found[name]
            ]
    return "\n".join(parts)


def _silent(came: Mapping[str, Any], _: Scale) -> str:
    lines = [
        "### Wrong answers without an error\n",
        "One candidate, status 200. An answer is wrong if there is no error, the finish reason does not say that it is",
        "incomplete, and it is not what the server has to say. *Empty*: those of the wrong ones that have no text.",
        "*Right*: answered in full all the same. *Harmless*: oddities that must be answered, and were.\n",
        "| | faults | wrong, no error | of them empty | right | harmless |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for kind, title in KINDS.items():
        for name, each in came.items():
            wrong, empty, right, count = silent(each, kind)
            harmless = [one["right"] for one in each[kind].values() if one["harmless"]]
            told = f"{sum(harmless)} of {len(harmless)}" if harmless else "-"
            lines.append(f"| {title}: {name} | {count} | {wrong} | {empty} | {right} | {told} |")
    for name, each in came.items():
        for kind, title in KINDS.items():
            wrongs = [fault for fault, one in each[kind].items() if one["silent"]]
            if wrongs:
                lines.append(f"\n{name}, {title}: {'; '.join(wrongs)}.")
    return "\n".join(lines) + "\n"


def _deadline(came: Mapping[str, Any], _: Scale) -> str:
    lines = [
        f"### A deadline of {DEADLINE_S:.0f} s\n",
        "Two candidates with the same fault: hanging, dripping, stalling, `Retry-After`, 5xx, no connection. A call",
        f"that lasts {GIVEN_UP_S:.0f} s is cut off by the benchmark and counts as that long.\n",
        f"| | calls | longest | median | over {LATE_S} s |",
        "|---|--:|--:|--:|--:|",
    ]
    for kind, title in KINDS.items():
        for name, each in came.items():
            longest_s, late, count = worst_s(each, kind)
            median_s = statistics.median(one["whole_s"] for one in each if one["kind"] == kind)
            lines.append(f"| {title}: {name} | {count} | {_seconds(longest_s)} | {median_s:.2f} s | {late} |")
    return "\n".join(lines) + "\n"


def _outage(came: Mapping[str, Any], scale: Scale) -> str:
    lines = [
        "### Everything is down\n",
        f"{scale.rate_per_s:.0f} requests a second to each of three pairs of candidates: all answer 500, all reset the",
        "connection, all hang. Counted are calls that reach the server, for",
        f"{scale.counted_s:.0f} s after the first {scale.warm_s:.0f} s.\n",
        "| calls for a request | 500 | reset | hang | in the time before, 500 / reset / hang |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, each in came.items():
        ratios = " | ".join(f"{ratio:.3f}" for ratio in calls_per_request(each).values())
        before = " / ".join(
            f"{one['calls while it began'] / scale.warm_s / scale.rate_per_s:.2f}" for one in each.values()
        )
        lines.append(f"| {name} | {ratios} | {before} |")
    return "\n".join(lines) + "\n"


def _success(came: Mapping[str, Any], _: Scale) -> str:
    lines = [
        "### One candidate of two is healthy\n",
        "The first fails in one of twenty ways, drawn for each call, before it has said anything; half of the requests",
        "are streams. Either every call to it fails, or every other.\n",
        "| | requests | right, half fail | right, all fail | wrong without an error | errors | slowest |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, each in came.items():
        half, bad = each["half"], each["bad"]
        shares = " | ".join(f"{one['right'] / one['requests']:.2%}" for one in (half, bad))
        errors = sum(sum(one["errors"].values()) for one in (half, bad))
        slowest_s = max(half["slowest_s"], bad["slowest_s"])
        counts = f"{half['silent'] + bad['silent']} | {errors} | {_seconds(slowest_s)}"
        lines.append(f"| {name} | {half['requests'] + bad['requests']} | {shares} | {counts} |")
    return "\n".join(lines) + "\n"


def _tail(came: Mapping[str, Any], _: Scale) -> str:
    lines = [
        "### Slow calls\n",
        f"Streams, {TIMED_PER_S:.0f} a second, two candidates alike; {SLOW_SHARE:.0%} of calls begin {SLOW_S} s late.",
        "All sides at the same time, on the same machine.\n",
        "| seconds | requests | first text p50 | p95 | p99 | whole p50 | p95 | p99 | calls for a request | not right |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, each in came.items():
        times = " | ".join(
            f"{quantile(each[what], share):.3f}" for what in ("first_s", "whole_s") for share in (0.5, 0.95, 0.99)
        )
        count = each["requests"]
        lines.append(f"| {name} | {count} | {times} | {each['calls'] / count:.3f} | {count - each['right']} |")
    return "\n".join(lines) + "\n"


def _cut(came: Mapping[str, Any], _: Scale) -> str:
    lines = [
        "### Streams that are cut\n",
        f"{CUT_SHARE:.0%} of the first candidate's streams are cut after some text, in one of seven ways; the second",
        "is healthy, and goes on from where it is told to, every other time with the last one to six words again.",
        "*Words twice*: nothing is missing, and some of those are still there. Of the streams that were cut:\n",
        "| | cut | whole | words twice | an error | wrong without an error | uncut and right |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, each in came.items():
        cut, errors = each["cut"], sum(each["errors"].values())
        others = f"{each['others right']} of {each['others']}"
        shares = " | ".join(f"{each[what] / cut:.1%}" for what in ("whole", "twice"))
        lines.append(f"| {name} | {cut} | {shares} | {errors} | {each['silent']} | {others} |")
    return "\n".join(lines) + "\n"


def _seconds(seconds: float) -> str:
    return f"≥ {GIVEN_UP_S:.0f} s" if seconds >= GIVEN_UP_S else f"{seconds:.2f} s"


_DETAILS = {
    "silent": _silent,
    "deadline": _deadline,
    "outage": _outage,
    "success": _success,
    "tail": _tail,
    "cut": _cut,
}
