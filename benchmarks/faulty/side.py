"""One of those who are compared: asked for a stream, a whole answer or vectors, it tells what its caller saw."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .said import PROMPT, TEXT, VECTORS

WARM = "warm"
"""A group that every side has beside those of the scenario: its server is well."""
GIVEN_UP_S = 15.0
"""A call that lasts so long is cut off by the benchmark."""


@dataclass(frozen=True)
class Setup:
    """What both sides are told alike: for each group, the scripts of its candidates in order, and the times.

    *rule* has further keys of a rule of our policy, *policy* further keys of the policy.
    """

    groups: Mapping[str, Sequence[str]]
    total_s: float = 10.0
    first_token_s: float = 5.0
    idle_s: float = 5.0
    rule: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Told:
    """What a caller saw: text and finish reason, or vectors, or an error; and when."""

    text: str = ""
    finish: str | None = None
    vectors: Sequence[Any] | None = None
    error: str = ""
    first_s: float | None = None
    whole_s: float = 0.0

    @property
    def right(self) -> bool:
        """No error, and exactly what the server would have said."""
        if self.error:
            return False
        if self.vectors is not None:
            return all(isinstance(each, list) for each in self.vectors) and self.vectors == [*map(list, VECTORS)]
        return self.text == TEXT

    @property
    def silent(self) -> bool:
        """Wrong, and neither an error nor the finish reason says so."""
        return not self.error and not self.right and self.finish in (None, "", "stop")

    @property
    def twice(self) -> bool:
        """Nothing is missing, and at one place some words come again."""
        more = len(self.text) - len(TEXT)
        begun = next(
            (at for at, pair in enumerate(zip(self.text, TEXT, strict=False)) if len(set(pair)) > 1), len(TEXT)
        )
        return not self.error and 0 < more <= begun and self.text[begun:] == TEXT[begun - more :]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "right": self.right, "silent": self.silent}


class Side:
    """One way to ask, made for a ``Setup``. A subclass says how; ``addresses`` are the server's."""

    def __init__(self, setup: Setup, addresses: Mapping[str, str]) -> None:
        self.setup = replace(setup, groups={WARM: ("well",), **setup.groups})
        self._addresses = addresses
        self._born = 0.0

    async def open(self) -> None:
        """Make what is made once."""

    async def stream(self, group: str, prompt: str, told: Told) -> None:
        raise NotImplementedError

    async def whole(self, group: str, prompt: str, told: Told) -> None:
        raise NotImplementedError

    async def vectors(self, group: str, prompt: str, told: Told) -> None:
        raise NotImplementedError

    async def warm_up(self) -> None:
        """Ask for everything, all being well, until it is answered: what is slow at first is no fault of a server."""
        for kind in ("whole", "stream", "vectors"):
            for _ in range(10):
                told = await self.ask(kind, WARM, PROMPT.format(number=0))
                if told.right:
                    break
            else:
                raise AssertionError(f"{kind}: not answered though nothing is wrong: {told}")

    def base_url(self, script: str) -> str:
        return self._addresses.get(script, self._addresses[""]) + "/v1"

    async def ask(self, kind: str, group: str, prompt: str) -> Told:
        """The outcome of one call, whatever it is."""
        told, begun = _Timed(), time.perf_counter()
        told.begun = begun
        try:
            async with asyncio.timeout(GIVEN_UP_S):
                await getattr(self, kind)(group, prompt, told)
        except TimeoutError:
            told.error = "never ended"
        except Exception as error:  # noqa: BLE001 - that there is one, and which, is what is measured
            told.error = type(error).__name__
        told.whole_s = time.perf_counter() - begun
        return told


@dataclass
class _Timed(Told):
    begun: float = 0.0


def heard(told: Told, text: str) -> None:
    """A piece of the answer has reached the caller."""
    if text:
        assert isinstance(told, _Timed)
        if told.first_s is None:
            told.first_s = time.perf_counter() - told.begun
        told.text += text
