"""What the tests of commands that look at servers share."""

from __future__ import annotations

import socket
from collections.abc import Callable

from .loopback import Answer, as_json

CANARY = "sk-canary-0123456789-abcdef"
"""A key. Whatever is printed, it is not in it."""

Run = Callable[..., tuple[int, str, str]]
"""The command line in this process, as the fixture ``cli`` has it: its exit code, its output and what went aside."""


def listing(*names: str) -> Answer:
    return as_json({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


def nobodys_url() -> str:
    """A URL on loopback where no server is."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}/v1"
