"""The matrix: every fault of the wire, on every path that can meet it, by both lanes, against real LiteLLM."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator

import pytest
import trustme
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import FallbackProvider, Retry, stack
from devsynth_providers.providers._litellm import load

from .faults import bodies, statuses, streams, vectors
from .faults.cuts import RECORDINGS, wrong_with
from .faults.paths import PATHS
from .faults.play import FarSide, far_side, met_on, play, provider, well
from .faults.rows import Lane, Row, Wire
from .faults.rules import broken
from .loopback import Loopback

ROWS = [*statuses.ROWS, *bodies.ROWS, *streams.ROWS, *vectors.ROWS]
AT_ONCE = 12


@pytest.fixture(scope="module")
def far() -> Iterator[FarSide]:
    asyncio.run(load.warm_up())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Loopback(tls=context) as stranger, far_side(stranger=stranger.url) as side:
        yield side
        assert stranger.requests == []
        assert side[0].requests == []  # nothing was sent to where a redirect pointed


@pytest.mark.parametrize(
    ("row", "lane"),
    [
        pytest.param(row, lane, id=f"{row.id}, {lane}", marks=[pytest.mark.litellm] if row.everywhere else [])
        for row in ROWS
        for lane in row.lanes
    ],
)
async def test_a_fault_ends_as_it_must(
    row: Row,
    lane: Lane,
    far: FarSide,
    spans: Callable[[], list[ReadableSpan]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    cells = await asyncio.gather(*(play(row, path, lane, far) for path in PATHS.values() if met_on(row, path, lane)))
    assert cells
    wrong = [what for cell in cells for what in broken(cell, spans(), caplog.text)]
    assert not wrong, "\n".join(wrong)
    assert "ended span" not in caplog.text


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("lane", ["direct", "unified"])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.slow
async def test_a_stream_that_is_cut_anywhere_is_whole_interrupted_or_anothers(
    wire: Wire, lane: Lane, then: str, far: FarSide
) -> None:
    server = far[0]
    recording = RECORDINGS[wire]

    async def some(first: int) -> list[str]:
        name = f"cut-{wire}-{lane}-{then}-{first}"
        place, behind = server.at(f"{name}-a"), server.at(f"{name}-b").script(well)
        both = provider(wire, lane, place.url, f"{name}-a"), provider(wire, "direct", behind.url, f"{name}-b")
        once = FallbackProvider([stack(each, retry=Retry(attempts=1)) for each in both])
        cuts = range(first, len(recording.bytes) + 1, AT_ONCE)
        if lane == "unified":  # hears the same events, and takes ten times as long: each byte by one of both ends
            cuts = cuts[then == "reset" :: 2]
        wrong = [what for at in cuts if (what := await wrong_with(once, place, recording, at, then)) is not None]
        await once.aclose()
        assert len(place.requests) == len(cuts)
        return wrong

    wrong = [what for each in await asyncio.gather(*map(some, range(AT_ONCE))) for what in each]
    assert not wrong, "\n".join(wrong)
