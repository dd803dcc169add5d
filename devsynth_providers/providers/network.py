"""The way to servers, as the environment has it."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigurationError
from ..types import Network, Tls

_TRUE = frozenset(("1", "true", "yes", "on"))
_FALSE = frozenset(("0", "false", "no", "off"))


def truth(name: str, value: str | None, default: bool) -> bool:
    """What the switch *name* is set to. Raises ``ConfigurationError`` for what is neither yes nor no."""
    lowered = (value or "").strip().lower()
    if not lowered:
        return default
    if lowered in _TRUE | _FALSE:
        return lowered in _TRUE
    raise ConfigurationError(f"{name} is {value!r}; it is a switch: 1 or 0, true or false, yes or no, on or off")


def network_from(variables: Mapping[str, str]) -> Network:
    """What ``DEVSYNTH_TLS_VERIFY``, ``_CA_FILE``, ``_CERT_FILE`` and ``_KEY_FILE`` say, in *variables*."""
    prefix = "DEVSYNTH_TLS_"
    tls = Tls(
        verify=truth(f"{prefix}VERIFY", variables.get(f"{prefix}VERIFY"), True),
        ca_file=variables.get(f"{prefix}CA_FILE") or None,
        cert_file=variables.get(f"{prefix}CERT_FILE") or None,
        key_file=variables.get(f"{prefix}KEY_FILE") or None,
    )
    return Network(tls=tls)
