"""Which server, which model on it, and on whose account: what fails, and recovers, as one."""

from __future__ import annotations

from typing import NamedTuple, Self
from urllib.parse import urlsplit

from .model import Model


class Identity(NamedTuple):
    """Who answers. *place* is a host or a file, empty where it is not known; *credential* tells two of them apart, and
    never tells what they are."""

    provider: str
    place: str
    model: str
    credential: str = ""

    @classmethod
    def of(cls, model: Model, credential: str = "") -> Self:
        """The identity of whoever serves *model*; without a *credential*, the name of its variable stands for it."""
        try:
            place = urlsplit(model.base_url or "").netloc.rpartition("@")[2]
        except ValueError:
            place = ""
        return cls(model.provider, place or model.path or "", model.id, credential or model.api_key_env or "")
