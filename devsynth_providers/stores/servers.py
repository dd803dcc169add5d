"""What servers are called, by those who count for them and where processes tell each other: the same in all."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Literal

from ..types import Identity, Model

Kind = Literal["provider", "model"]


def account(model: Model) -> Identity:
    """The account that *model* is asked on, at its place: what a vendor counts, and what models may have in common.
    Those that are files have this machine in common."""
    identity = Identity.of(model)
    return identity._replace(model="", place=identity.place if model.base_url else "")


def server_key(model: Model, kind: Kind, *about: str) -> str:
    """The ``account`` of *model*, or there that model alone: by the name of the key's variable, never by the key."""
    told = Identity.of(model) if kind == "model" else account(model)
    return blake2b(json.dumps([kind, *told, *about]).encode(), digest_size=16).hexdigest()
