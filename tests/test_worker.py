"""A thread for a store, and what is done without it: nothing is lost, and nobody waits who need not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from devsynth_providers.stores.worker import Busy, Worker


@pytest.fixture
def at_work() -> threading.Event:
    """What the thread is busy with ends when it is set."""
    return threading.Event()


async def test_what_is_cancelled_before_it_begins_keeps_nobody_waiting(at_work: threading.Event) -> None:
    worker = Worker("w")
    first = worker.put(at_work.wait)
    cancelled = asyncio.ensure_future(worker.done(lambda: None))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    with pytest.raises(Busy):
        worker.at_once(lambda: "done")
    at_work.set()
    await asyncio.wrap_future(first)
    await worker.done(lambda: None)
    assert worker.at_once(lambda: "done") == "done"
    worker.close()
