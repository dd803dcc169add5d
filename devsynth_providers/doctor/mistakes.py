"""What is wrong with a model though its policy reads well: what its provider says when it is made."""

from __future__ import annotations

from ..errors import ConfigurationError, NotConfigured
from ..providers.registry import registry
from ..providers.stub import StubProvider
from ..types import Model, Timeouts

_OURS = StubProvider.__module__.rpartition(".")[0]


def mistake(model: Model, timeouts: Timeouts) -> str | None:
    """What is there and wrong. What is only missing is no mistake, and nobody else's class is imported or made."""
    if model.provider not in registry.names() or not registry.find(model.provider).__module__.startswith(f"{_OURS}."):
        return None
    try:
        registry.make(model, timeouts)
    except NotConfigured:
        return None
    except ConfigurationError as error:
        return str(error)
    return None
