"""Plays one row on one path by one lane, in a cell: a place on the server and models that no other cell has."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory
from typing import Any

from typing_extensions import override

from devsynth_providers import (
    AnthropicProvider,
    ContextTooLong,
    OpenAIProvider,
    RequestRejected,
    Response,
    ResponseCache,
    Retry,
    SqliteLedger,
)
from devsynth_providers.providers.base import BaseProvider

from .. import messages
from ..helpers import PRICED, model
from ..loopback import Answer, Loopback, Place, stream, talker, vectors, whole
from .paths import Caller, Path, Setting
from .rows import KEY, LONG, Lane, Row, Wire

WELL = "b0 b1"
"""What the model says that is asked when the first has failed."""
WELL_VECTORS = ([0.5, 0.5], [0.5, -0.5])
FarSide = tuple[Loopback, Mapping[str, str], SqliteLedger]
_number = itertools.count(1)


@dataclass
class Cell:
    """One fault on one path by one lane, and what came of it."""

    row: Row
    path: Path
    lane: Lane
    name: str
    faulty: Place
    behind: Place
    caller: Caller
    error: BaseException | None = None
    took_s: float = 0.0
    client_left: bool = True
    kept: int = 0
    """How many answers, or vectors, are in the cache afterwards."""
    booked: list[tuple[Any, ...]] = field(default_factory=list)
    """What stands in the ledger: of each attempt its number, model, reason, cost in micro-USD and error, and the tokens
    in and out."""

    @property
    def response(self) -> Response | None:
        """The answer as far as it came; ``None`` if it never began."""
        return self.caller.replies[-1].response if self.caller.replies else None

    @override
    def __str__(self) -> str:
        return f"{self.row.id}, {self.path.name}, {self.lane}"


@contextmanager
def far_side(**others: str) -> Iterator[FarSide]:
    """What all cells share: the server, the URLs of those that take no request at all, beside *others*, the ledger."""
    with ExitStack() as stack:
        ledger = SqliteLedger(f"{stack.enter_context(TemporaryDirectory())}/ledger.db")
        stack.callback(lambda: asyncio.run(ledger.aclose()))
        server = stack.enter_context(Loopback())
        mail = stack.enter_context(talker(b"220 mail.test ESMTP\r\n"))
        deaf = stack.enter_context(_deaf())
        with socket.create_server(("127.0.0.1", 0)) as taken:
            closed = taken.getsockname()[1]
        yield (
            server,
            {
                "closed": f"http://127.0.0.1:{closed}/v1",
                "deaf": f"http://127.0.0.1:{deaf}/v1",
                "nobody's name": "http://nowhere.invalid/v1",
                "no TLS": f"https://127.0.0.1:{mail}/v1",
                "mail": f"http://127.0.0.1:{mail}/v1",
                **others,
            },
            ledger,
        )


@contextmanager
def _deaf() -> Iterator[int]:
    """The port of a listener whose queue is full: the kernel drops what knocks, as a firewall would."""
    with ExitStack() as knocks:
        deaf = knocks.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            knock = knocks.enter_context(socket.socket())
            knock.setblocking(False)
            knock.connect_ex(deaf.getsockname())
        yield deaf.getsockname()[1]


async def play(row: Row, path: Path, lane: Lane, far: FarSide) -> Cell:
    """What comes of *row* when it is met on *path* by *lane*."""
    server, elsewhere, ledger = far
    name = f"cell{next(_number)}"
    faulty, behind = server.at(f"{name}-a").script(row.sent), server.at(f"{name}-b").script(well)
    url = elsewhere[row.where] if row.where else faulty.url
    retry = Retry(attempts=2, initial_s=0, cap_s=row.cap_s)
    first, *more = path.through.models
    settings: dict[str, Any] = {"retry_attempts": retry, "timeout": row.clocks}
    providers = [provider(row.wire, lane, url, f"{name}-a", first, **settings)]
    settings |= {"window": row.window, "timeout": LONG}
    providers += [provider(row.wire, "direct", behind.url, f"{name}-b", each, **settings) for each in more]
    async with _cache(path) as cache:
        caller = Caller(path.through.make(Setting(providers, row.clocks, retry, ledger, cache)))
        cell = Cell(row, path, lane, name, faulty, behind, caller)
        if row.partial is not None:
            caller.on_text = lambda text: faulty.heard.set() if text == row.partial else None
        began = time.monotonic()
        try:
            await caller.ask(path.way)
        except Exception as error:  # noqa: BLE001 - whatever it is: the rules say whether it may be
            cell.error = error
        cell.took_s = time.monotonic() - began
        if row.hangs:
            cell.client_left = await asyncio.to_thread(faulty.client_left)
        for opened in (caller, *providers):
            await opened.aclose()
        if cache is not None:
            await cache.flush()
            cell.kept = cache.statistics.stored
    cell.booked = await _booked(ledger, name)
    return cell


async def _booked(ledger: SqliteLedger, name: str) -> list[tuple[Any, ...]]:
    await ledger.recover()  # waits for its turn: what came before is written
    with closing(sqlite3.connect(ledger.file)) as database:
        return database.execute(
            "SELECT attempt, model, reason, cost_micros, error, input_tokens, output_tokens FROM entries"
            " WHERE model IN (?, ?) ORDER BY attempt",
            (f"{name}-a", f"{name}-b"),
        ).fetchall()


@asynccontextmanager
async def _cache(path: Path) -> AsyncIterator[ResponseCache | None]:
    """Where *path* keeps answers, if it does: a place that nobody else has."""
    if not path.through.keeps:
        yield None
        return
    with TemporaryDirectory() as directory:
        cache = ResponseCache(directory=directory, secret=b"s" * 32)
        yield cache
        await cache.aclose()


def provider(
    wire: Wire, lane: Lane, url: str, name: str, id_: str = "served-model", *, window: int = 8192, **settings: Any
) -> BaseProvider:
    """A provider of a model called *name*, which costs something; those that end in ``-a`` share an account."""
    cls = OpenAIProvider if wire == "openai" else AnthropicProvider
    return cls(
        replace(model(name, model=id_, price=PRICED), provider=wire, context_window=window),
        base_url=url,
        api_key=KEY if name.endswith("-a") else f"{KEY}-b",
        transport="auto" if lane == "direct" else "litellm",
        **settings,
    )


def well(asked: dict[str, Any]) -> Answer:
    """The answer of a model that has no fault, on whichever wire it is asked."""
    if "input" in asked:
        return vectors(*WELL_VECTORS[: len(asked["input"])])
    streamed = bool(asked.get("stream"))
    if isinstance(asked["messages"][-1]["content"], list):  # Anthropic's
        return messages.stream("b0 ", "b1") if streamed else messages.whole(WELL)
    return stream("b0 ", "b1") if streamed else whole(WELL)


def met_on(row: Row, path: Path, lane: Lane) -> bool:
    """Whether *row* can be met on *path* by *lane*. A batch that is refused for its size or for what it says is halved
    by routers until the text to blame is found: ``test_splitting.py`` has that."""
    halved = path.way == "embed_batch" and path.through.traced and row.comes in (RequestRejected, ContextTooLong)
    return path.way in row.ways and lane in path.through.lanes and not halved
