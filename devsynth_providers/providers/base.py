"""What all facades share: a wire to one model; and retries, clocks and spans for use without a router."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, ClassVar, TypedDict
from urllib.parse import urlsplit

from typing_extensions import override

from .. import catalogue
from ..errors import ConfigurationError, NotConfigured
from ..layers.metered import Metered
from ..layers.retrying import Retrying
from ..layers.timed import Timed
from ..layers.traced import Traced
from ..layers.wrapper import Wrapper
from ..port import ProviderPort
from ..reply import Reply
from ..scrubbing import scrub
from ..types import Identity, Model, Network, Request, Retry, Timeouts, Transport
from ._litellm.dialects import Dialect
from ._litellm.direct import Direct
from ._litellm.lanes import Lanes
from ._litellm.unified import Unified
from .listing import Listing, ask_listing
from .network import network_from
from .wire import Headers, Key, Wire

NO_KEY = "no-key"
"""Sent where a server wants none. LiteLLM would else send the key of OpenAI to whatever server this is."""

_SALT = os.urandom(16)
"""So that keys can be told apart in this process, and nothing about them anywhere else."""
_METADATA_HOSTS = frozenset(("metadata.google.internal", "100.100.100.200", "fd00:ec2::254"))


class Common(TypedDict, total=False):
    """Keywords that every facade to a server takes."""

    api_key: str | None
    base_url: str | None
    retry_attempts: int | Retry
    timeout: float | Timeouts
    network: Network | None
    transport: Transport | None


class BaseProvider(Wrapper):
    """One model behind LiteLLM. A subclass says, as data, what is different about its provider.

    *model* is a name or a ``Model``; *retry_attempts* counts all attempts, the first too, or is a ``Retry``; *timeout*
    is the deadline for an answer over all attempts, in seconds, or all four clocks; *network* says how to trust servers
    and which proxy to take; *transport* ``litellm`` has LiteLLM itself send, ``auto`` only where nothing better is
    proved. Where a setting is not given, the environment is asked. Raises ``NotConfigured`` if a key is missing, before
    anything is opened.
    """

    provider: ClassVar[str]
    """The name in policies, answers and traces."""
    prefix: ClassVar[str]
    """LiteLLM's name for the provider."""
    default_model: ClassVar[str | None] = None
    model_variables: ClassVar[tuple[str, ...]] = ()
    default_url: ClassVar[str | None] = None
    url_variables: ClassVar[tuple[str, ...]] = ()
    key_variable: ClassVar[str | None] = None
    """Where the key for ``default_url`` is; no other server is ever sent it."""
    listing_path: ClassVar[str] = "/models"
    """Where, below its URL, a server tells which models it has, or at least whether it takes the key."""

    def __init__(
        self,
        model: str | Model | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        retry_attempts: int | Retry = 3,
        timeout: float | Timeouts = 60,
        network: Network | None = None,
        transport: Transport | None = None,
    ) -> None:
        timeouts = Timeouts.of(timeout)
        facts = self._facts(model, base_url)
        if not isinstance(network, Network | None):
            raise ConfigurationError(f"network is a Network, not {network!r}")
        if transport is not None:
            facts = replace(facts, transport=transport)
        self._wire = Wire(network_from(os.environ) if network is None else network, connect_s=timeouts.connect_s)
        key = self._key(facts, api_key)
        self._credential = blake2b(key.encode(), key=_SALT, digest_size=8).hexdigest()
        self._listing_key = Key("" if key == NO_KEY else key)
        super().__init__(self._connect(facts, key, timeouts))
        self._total_s = timeouts.total_s
        self._layered = Retrying(Metered(Traced(Timed(self.inner, timeouts))), Retry.of(retry_attempts))

    @property
    @override
    def identity(self) -> Identity:
        return Identity.of(self.model, self._credential)

    @property
    @override
    def bare(self) -> ProviderPort:
        return self.inner

    @override
    async def send(self, request: Request) -> Reply:
        started = asyncio.get_running_loop().time()
        return (await self._layered.send(request.begun().due(started + self._total_s))).since(started)

    async def why_not_direct(self) -> str | None:
        """Why LiteLLM itself sends, in a few words; ``None`` if our own wire does. The first call loads LiteLLM."""
        if isinstance(self.inner, Lanes):
            return await self.inner.why_not_direct()
        return "no translators are proved for it"

    async def listing(self, timeout_s: float = 5.0) -> Listing | None:
        """What its server says it has; ``None`` if there is no address to ask. No model is asked, nothing is billed.

        Raises ``ProviderError`` if the server can not be reached, or does not take the key.
        """
        if self.model.base_url is None:
            return None
        url = f"{self.model.base_url}{self.listing_path}"
        key = self._listing_key
        headers = Headers(self._listing_headers(key) if key else {})
        return await ask_listing(self._wire, url, headers, self.model, secrets=[key], timeout_s=timeout_s)

    def _listing_headers(self, key: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def _facts(self, model: str | Model | None, base_url: str | None) -> Model:
        if not isinstance(model, str | Model | None):
            raise ConfigurationError(f"model is a name or a Model, not {model!r}")
        facts = model or environment(self.model_variables) or self.default_model
        if facts is None:
            ways = " or ".join(("the argument model", *self.model_variables))
            raise NotConfigured(f"{type(self).__name__} needs a model: {ways}")
        url = base_url or (facts.base_url if isinstance(facts, Model) else None) or environment(self.url_variables)
        if isinstance(facts, str):
            facts = catalogue.complete(Model(name=facts, provider=self.provider, base_url=url))
        return replace(facts, base_url=self._url(checked_url(url or self.default_url)))

    def _url(self, url: str | None) -> str | None:
        """*url* as the wire wants it."""
        return url

    def _key(self, model: Model, given: str | None) -> str:
        at_home = model.base_url == self.default_url
        variable = model.api_key_env or (self.key_variable if at_home else None)
        if not isinstance(given, str | None):
            raise ConfigurationError(f"api_key is text, not {type(given).__name__}")
        key = (given or (os.environ.get(variable) if variable else None) or "").strip()
        if variable and not key:
            raise NotConfigured(f"{variable} is not set, and no api_key is given")
        if not (key.isascii() and key.isprintable()):
            source = "api_key" if given else variable
            raise ConfigurationError(f"{source} has characters in it that no key has")
        return key or NO_KEY

    def _connect(self, model: Model, key: str, timeouts: Timeouts) -> ProviderPort:
        dialect = self._dialect()
        unified = Unified(
            model,
            target=f"{self.prefix}/{model.id}",
            api_key=key,
            base_url=model.base_url,
            wire=self._wire,
            dialect=dialect,
            extra=self._extra(),
        )
        if dialect is None or model.base_url is None:
            return unified
        return Lanes(Direct(model, dialect, self._wire, api_key=key, base_url=model.base_url), unified, dialect)

    def _dialect(self) -> Dialect | None:
        """The wire that the provider speaks, if the direct lane speaks it too."""
        return None

    def _extra(self) -> Mapping[str, Any]:
        """What LiteLLM is told with every call, beside what all providers need."""
        return {}


def environment(variables: Sequence[str]) -> str | None:
    """The first of *variables* that is set to something."""
    return next((value for name in variables if (value := os.environ.get(name))), None)


def checked_url(url: str | None) -> str | None:
    """*url*, if it is one that a request with a key in it may go to. Raises ``ConfigurationError``."""
    if url is None:
        return None
    if not isinstance(url, str):
        raise ConfigurationError(f"base_url is text, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for what is no port
    except ValueError as error:
        raise ConfigurationError(f"base_url is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        told = scrub(url.rpartition("@")[2])
        raise ConfigurationError(f"base_url must start with http:// or https:// and name a host, not {told!r}")
    if any(each.isspace() for each in url):
        raise ConfigurationError("base_url has a blank in it")
    if parts.username or parts.password:
        raise ConfigurationError("base_url must not carry a user name or a password; use api_key")
    if parts.query or parts.fragment:
        raise ConfigurationError("base_url must end with its path: no question mark, no hash")
    if _is_metadata(parts.hostname):
        raise ConfigurationError(f"base_url names {parts.hostname}, where machines keep their own secrets")
    url = url.rstrip("/")
    if url.endswith(("/chat/completions", "/embeddings", "/messages")):
        raise ConfigurationError(f"base_url ends before the name of the call: {url.rpartition('/v1/')[0]}/v1")
    return url


def _is_metadata(host: str) -> bool:
    """Whether *host* is where a cloud tells its machines their credentials: never a model's server."""
    if host.lower().rstrip(".") in _METADATA_HOSTS:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # in one number, or in hexadecimal, or shortened
        except OSError:
            return False
    packed = address.packed
    if len(packed) == 16 and packed[:12] in (b"\0" * 10 + b"\xff\xff", b"\0d\xff\x9b" + b"\0" * 8):
        address = ipaddress.ip_address(packed[12:])  # an IPv4 address in the clothes of IPv6
    return address.is_link_local or str(address) in _METADATA_HOSTS
