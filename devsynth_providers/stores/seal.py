"""What is kept where others may reach it: under names that tell nothing, and signed: nobody else can make it."""

from __future__ import annotations

import functools
import hmac
import json
from typing import Any

from ..errors import ConfigurationError

MAC_BYTES = 32


class Refused(Exception):
    """What is there is not as we put it there."""


class Seal:
    """Names and signs entries with *secret*: whoever has another one neither finds nor reads them, and cannot write
    any. An entry holds only under its own name, and until a moment that is signed with it."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._tenant = functools.lru_cache(1024)(functools.partial(_tenant, secret))

    def row(self, scope: str, key: str) -> str:
        """What *key* of *scope* is called: both behind a hash."""
        tenant = self.tenant(scope)
        return tenant + self._hash(f"{tenant}{key}".encode()).hex()

    def tenant(self, scope: str) -> str:
        """What the names of all that *scope* has begin with."""
        if not isinstance(scope, str):
            raise ConfigurationError(f"the scope of a cache is text, not {type(scope).__name__}")
        return self._tenant(str.__str__(scope))  # one derived from it may say itself what it is equal to

    def closed(self, row: str, value: Any, until: float) -> bytes:
        """*value*, which must be JSON, as an entry to be kept at *row* *until* then, in seconds since 1970."""
        entry = json.dumps([until, value], allow_nan=False, separators=(",", ":")).encode()
        return self._mac(row, entry) + entry

    def opened(self, row: str, entry: bytes, now: float) -> Any | None:
        """The value of an *entry* that was found at *row*; ``None`` if its time is over. Raises what ``read`` does."""
        until, value = self.read(row, entry)
        return value if until > now else None

    def read(self, row: str, entry: bytes) -> tuple[float, Any]:
        """Until when an *entry* holds that was found at *row*, and its value. Raises ``Refused`` if we did not write
        it there, and ``ValueError`` if another version did."""
        mac, signed = entry[:MAC_BYTES], entry[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(row, signed)):
            raise Refused("an entry that we did not write, or not there")
        until, value = json.loads(signed.decode())
        return until, value

    def _mac(self, row: str, entry: bytes) -> bytes:
        return self._hash(row.encode() + b"\0" + entry)

    def _hash(self, what: bytes) -> bytes:
        return _hash(self._secret, what)


def _tenant(secret: bytes, scope: str) -> str:
    return _hash(secret, f"scope {scope}".encode()).hex()[:32] + "/"


def _hash(secret: bytes, what: bytes) -> bytes:
    return hmac.digest(secret, what, "sha256")
