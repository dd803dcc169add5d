"""Which process this is, so that others can tell later whether it is still there."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path


def identity() -> str:
    """This process, by host, number and moment of its beginning: numbers are given again."""
    return _identity(os.getpid())


@functools.cache
def _identity(pid: int) -> str:
    """Found out once in each process; what a parent knows of itself is not its child's."""
    return f"{_host()}/{pid}/{_began(pid)}"


def gone(process: str) -> bool:
    """Whether *process*, an ``identity``, has ended for certain; one of another host never is."""
    host, number, began = process.rsplit("/", 2)
    if host != _host() or not number.isdecimal():
        return False
    pid = int(number)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is somebody else's
    return began != _began(pid)


def elsewhere(process: str) -> bool:
    """Whether *process*, an ``identity``, is of another host, of whose processes nothing is known here."""
    return process.rsplit("/", 2)[0] != _host()


def _host() -> str:
    """This host, and on it what gives processes their numbers: containers may share the name, and not the numbers."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _began(pid: int) -> str:
    """When *pid* began, in ticks since the machine did; empty where the system does not tell."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    return told.rpartition(")")[2].split()[19]
