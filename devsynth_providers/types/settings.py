"""How long to wait, how often to try, and by which way to a server: settings that layers and wires obey."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Interval

from ..errors import ConfigurationError
from .limits import is_number
from .model import STRICT, PositiveSeconds, Seconds, Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The four clocks, in seconds: to connect, to the first content of a stream, between two pieces of it, and
    for the whole request over all its attempts."""

    __pydantic_config__: ClassVar = STRICT

    connect_s: PositiveSeconds = 5.0
    first_token_s: PositiveSeconds = 20.0
    idle_s: PositiveSeconds = 15.0
    total_s: PositiveSeconds = 120.0

    def __post_init__(self) -> None:
        for name in ("connect_s", "first_token_s", "idle_s", "total_s"):
            value = getattr(self, name)
            if not is_number(value) or not 0 < value < math.inf:
                raise ConfigurationError(f"{name} must be a number of seconds above 0, not {value!r}")

    @classmethod
    def of(cls, timeout: float | Timeouts) -> Timeouts:
        """*timeout* itself, or clocks that allow a whole answer, and each part of it, so many seconds."""
        if isinstance(timeout, Timeouts):
            return timeout
        if not is_number(timeout) or not 0 < timeout < math.inf:
            raise ConfigurationError(f"timeout must be a number of seconds above 0, or Timeouts, not {timeout!r}")
        return cls(first_token_s=timeout, idle_s=timeout, total_s=timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often to ask one model, and how long to wait between.

    *attempts* counts all of them, the first too. Waits are drawn from 0 to a bound that starts at *initial_s* and
    doubles up to *cap_s* ("full jitter", AWS Architecture Blog, 2015), so that callers do not return in step. *budget*
    is the share of a router's requests that may be followed by a retry at the same model, all models together.
    """

    __pydantic_config__: ClassVar = STRICT

    attempts: Annotated[int, Interval(ge=1, le=20)] = 3
    initial_s: Seconds = 0.5
    cap_s: Seconds = 8.0
    budget: Share = 0.1

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError(f"attempts counts the first one too: it must be 1 or more, not {self.attempts!r}")
        if not (0 <= self.initial_s < math.inf and 0 <= self.cap_s < math.inf):
            raise ConfigurationError("initial_s and cap_s must be numbers of seconds from 0 on")
        if not is_number(self.budget) or not 0 <= self.budget <= 1:
            raise ConfigurationError(f"budget is a share of the requests, from 0 to 1, not {self.budget!r}")

    @classmethod
    def of(cls, attempts: int | Retry) -> Retry:
        """*attempts* itself, or so many with the usual waits between."""
        return attempts if isinstance(attempts, Retry) else cls(attempts=attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a server proves who it is, and we to it. Files are PEM.

    *ca_file* takes the place of the authorities that this machine trusts; *cert_file*, with *key_file* unless the key
    is in it too, is shown to servers that ask. ``verify=False`` believes every server, and is for tests only.
    """

    verify: bool = True
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca_file", "cert_file", "key_file"):
            file = getattr(self, name)
            if file is not None and not os.path.isfile(file):
                raise ConfigurationError(f"tls: {name} is {file!r}, and no such file is there")
        if self.key_file is not None and self.cert_file is None:
            raise ConfigurationError("tls: key_file is the key of a cert_file, and there is none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The way to a server. *proxy* is a URL; ``None`` asks the environment (``HTTPS_PROXY``, ``HTTP_PROXY``,
    ``NO_PROXY``), and ``""`` goes straight. A server on this machine is never asked through a proxy."""

    tls: Tls = Tls()
    proxy: str | None = field(default=None, repr=False)  # there may be a password in it

    def __post_init__(self) -> None:
        if not isinstance(self.proxy, str | None):
            raise ConfigurationError(f"proxy is a URL, not {type(self.proxy).__name__}")
        if self.proxy and not re.match(r"https?://[^/\s]", self.proxy):
            raise ConfigurationError("proxy is the URL of one: it starts with http:// or https:// and names a host")
