"""What processes tell each other: what they have sent of late, and which servers they found unwell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

WINDOW_S = 60
"""Limits are said for a minute. What has passed is counted in seconds, each as long as any of it is in the minute."""
POLL_S = 0.1
"""Nobody knows when a slot becomes free: after so long it is worth asking again."""


class Quota(NamedTuple):
    """A gate that calls pass, and what it lets pass in a minute, and at the same time. ``None`` is all that comes."""

    gate: str
    requests: int | None = None
    tokens: int | None = None
    concurrent: int | None = None


class Leave(NamedTuple):
    """Leave to make a call, which began in this *second* and was taken to use so many *tokens*."""

    id: str
    second: int
    tokens: int


class Full(NamedTuple):
    """No leave: the gate with this *number* has let pass what it lets pass. Ask again after *wait_s*."""

    number: int
    wait_s: float


class Unwell(NamedTuple):
    """A server that a process found unwell: it is to be left alone for *for_s* from now. *until* tells this finding
    from others."""

    until: float
    for_s: float
    reason: str


class SharedUnavailable(Exception):
    """What processes share can not be reached."""


class Shared(Protocol):
    """Whoever implements it never lets more through a gate than its limits, by any number of processes: in no minute,
    and not at the same time. All but ``left`` and ``found`` raise ``SharedUnavailable``."""

    async def enter(self, quotas: Sequence[Quota], tokens: int, lease_s: float) -> Leave | Full:
        """Pass all gates at once, or none, with a call that is expected to use *tokens*. One that alone is more than a
        minute's passes alone. It is over after *lease_s* at the latest."""

    def left(self, quotas: Sequence[Quota], leave: Leave, tokens: int | None) -> None:
        """The call is over, and used so many *tokens*, ``None`` where nobody knows. Nobody waits for it."""

    async def unwell(self) -> Mapping[str, Unwell]:
        """The servers that are to be left alone."""

    def found(self, server: str, for_s: float, reason: str) -> None:
        """*server* is to be left alone for so long; for 0 seconds: it is well again. Nobody waits for it."""

    async def aclose(self) -> None:
        """Let go of it."""
