"""What servers are called where processes tell each other of them: the same in all, and telling nothing."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Literal

from ..types import Identity, Model

Kind = Literal["provider", "model"]


def server_key(model: Model, kind: Kind, *about: str) -> str:
    """The account that *model* is asked on, at its place, or there that model alone: by the name of the key's variable,
    never by the key."""
    identity = Identity.of(model)
    told = identity if kind == "model" else identity._replace(model="")
    return blake2b(json.dumps([kind, *told, *about]).encode(), digest_size=16).hexdigest()
