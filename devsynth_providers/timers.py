"""Timers that are nearly always called off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")


def ring_at(
    loop: asyncio.AbstractEventLoop, when: float, ring: Callable[[Unpack[Ts]], object], *about: *Ts
) -> asyncio.TimerHandle:
    """As ``loop.call_at``, but with nothing of the present context: a loop keeps what is called off until its time, and
    its context with it, and that of a call holds all of the call."""
    return loop.call_at(when, ring, *about, context=Context())
