"""The span that is current here and now: what layers say of it, without knowing whose it is."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, Token
from typing import Any, Self, TypeVar

from opentelemetry import context, trace
from opentelemetry.trace import Span

T = TypeVar("T")
Attribute = str | bool | int | float | list[str]


class Current:
    """A span that is the current one inside a ``with``, which does not end it. Without an SDK it is ``INVALID_SPAN``,
    and nothing changes."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[context.Context] | None = None

    def __enter__(self) -> Self:
        if self._span is not trace.INVALID_SPAN:
            self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, *raised: Any) -> None:
        if self._token is not None:
            context.detach(self._token)


class Racer:
    """One of two that are asked at the same time: its spans tell which of the other it lost to."""

    def __init__(self) -> None:
        self._span: Span = trace.INVALID_SPAN

    async def run(self, work: Awaitable[T]) -> T:
        """Do *work*, as a task of its own; the attempts in it are this one's."""
        _racer.set(self)
        return await work

    def attempted(self, span: Span) -> None:
        """Its next attempt has begun."""
        self._span = span

    def lost_to(self, winner: Racer) -> None:
        """Link what it is doing now to what *winner* did."""
        if self._span.is_recording():
            self._span.add_link(winner._span.get_span_context())


_racer: ContextVar[Racer | None] = ContextVar("devsynth_racer", default=None)


def racing(span: Span) -> None:
    """The attempt of *span* begins; whoever races here is told."""
    if (racer := _racer.get()) is not None:
        racer.attempted(span)


class Beside:
    """Inside its ``with``, attempts stand beside a breaker that is in *state*."""

    def __init__(self, state: str) -> None:
        self._state = state

    def __enter__(self) -> None:
        self._token = _breaker.set(self._state)

    def __exit__(self, *_: object) -> None:
        _breaker.reset(self._token)


_breaker: ContextVar[str] = ContextVar("devsynth_breaker", default="")


def breaker_state() -> str:
    """The state of the breaker that let the present attempt through; empty where there is none."""
    return _breaker.get()


def event(name: str, **facts: Attribute | None) -> None:
    """Note something on the current span."""
    _tell(trace.get_current_span(), name, **facts)


def teller() -> Callable[..., None]:
    """What notes things as ``event`` does, on the span that is current now, also when it no longer is."""
    return functools.partial(_tell, trace.get_current_span())


def _tell(span: Span, name: str, **facts: Attribute | None) -> None:
    if span.is_recording():
        span.add_event(name, {key: value for key, value in facts.items() if value is not None})


def linker() -> Callable[[], None]:
    """What links the span that is current when it is called to the one that is current now."""
    to = trace.get_current_span().get_span_context()

    def link() -> None:
        if to.is_valid:
            trace.get_current_span().add_link(to)

    return link


def way_back() -> Callable[[], Current]:
    """What makes the span that is current now the current one again: for what is done when others read the answer."""
    span = trace.get_current_span()
    return lambda: Current(span)


def mark(name: str, value: Attribute) -> None:
    """Say something of the current span, unless it has ended: whoever began a call that others share may have left."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute(name, value)


def trace_id() -> str | None:
    """The id of the current trace as Jaeger shows it, or ``None`` where nothing is traced."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
