"""Guesses about a request, cheap enough to make before every call: how hard, how long."""

from .task import TaskAnalyzer, TaskFacts
from .tokens import estimate_tokens

__all__ = ["TaskAnalyzer", "TaskFacts", "estimate_tokens"]
