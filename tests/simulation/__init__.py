"""Schedules of requests, faults and impatient callers, drawn from a seed and carried out on a virtual clock."""

from __future__ import annotations

import traceback
from dataclasses import replace

from .rules import broken
from .schedule import Schedule
from .world import Around, play


def fails(schedule: Schedule, around: Around = lambda provider: provider) -> list[str]:
    """What *schedule* breaks. A deadlock breaks all."""
    try:
        return broken(play(schedule, around))
    except Exception:  # noqa: BLE001 - whatever it is, it is what was found
        return [traceback.format_exc()]


def shrunk(schedule: Schedule, around: Around = lambda provider: provider) -> Schedule:
    """*schedule* with as few of its requests as still break something: what befalls one depends on no other."""
    size = len(schedule.asks)
    while size := size // 2:
        at = 0
        while at < len(schedule.asks):
            fewer = replace(schedule, asks=schedule.asks[:at] + schedule.asks[at + size :])
            if fewer.asks and fails(fewer, around):
                schedule = fewer
            else:
                at += size
    return schedule


def report(
    schedule: Schedule, found: list[str], around: Around = lambda provider: provider, *, shrink: bool = True
) -> str:
    """What to print of a schedule that fails: how to see it again, what is broken, and by whom."""
    least = shrunk(schedule, around) if shrink else schedule
    asks = "\n".join(f"  {ask}" for ask in least.asks)
    return (
        f"SIMULATION_SEED={schedule.seed} scripts/test -k simulation\n"
        + "\n".join(f"  {each}" for each in found[:10])
        + f"\nof {len(schedule.asks)} requests these are enough:\n{asks}\n"
    )
