"""Providers and a clock for tests: yours as well as ours. Nothing here waits, or needs a network."""

from .clock import VirtualClock, run_virtually
from .faults import Fault
from .faulty import FaultyProvider, Hit
from .scripted import EchoProvider, Line, ScriptedProvider, Step

__all__ = [
    "EchoProvider",
    "Fault",
    "FaultyProvider",
    "Hit",
    "Line",
    "ScriptedProvider",
    "Step",
    "VirtualClock",
    "run_virtually",
]
