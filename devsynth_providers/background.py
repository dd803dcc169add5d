"""Work that nobody waits for, and that does not outlive whoever began it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any


class Background:
    """Tasks on whatever event loop is running; kept until they are done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* beside the caller, whose trace and whose context are not its own."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self) -> None:
        """Wait for those of the running loop; others end with theirs."""
        here = asyncio.get_running_loop()
        await asyncio.gather(*(task for task in list(self._tasks) if task.get_loop() is here), return_exceptions=True)
