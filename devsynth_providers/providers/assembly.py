"""One provider from what is set for it: its class is told what it takes, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigurationError, NotConfigured
from ..layers.defaults import Defaults
from ..port import ProviderPort
from ..types import Model, Network, Retry, Tls
from .base import BaseProvider
from .known import OF_PROVIDER, Known, of_provider, suggestion, taken_by
from .local import EMBEDDED
from .settings import Setting, Settings
from .stub import StubProvider

_AS_THEY_ARE = ("base_url", "organization", "context_size", "threads", "transport", "timeout")


def assembled(name: str, cls: type[ProviderPort], settings: Settings, config: Mapping[str, Any]) -> ProviderPort:
    """The provider *name* of class *cls*. *config* are the caller's arguments, by the names that settings have.

    Raises ``ConfigurationError`` for what is wrong, ``NotConfigured`` for what is missing.
    """
    return _Assembly(name, cls, settings, config).provider()


class _Assembly:
    def __init__(self, name: str, cls: type[ProviderPort], settings: Settings, config: Mapping[str, Any]) -> None:
        self._name = name
        self._cls = cls
        self._settings = settings
        self._known = of_provider(name, cls)
        self._config = _checked(config, name, self._known)
        self._facts: Model | None = config["model"] if isinstance(config.get("model"), Model) else None
        settings.refuse_strangers(name)

    def provider(self) -> ProviderPort:
        provider = self._of_ours() if issubclass(self._cls, BaseProvider) else self._of_others()
        temperature, max_tokens = self._find("temperature").value, self._find("max_tokens").value
        if temperature is None and max_tokens is None:
            return provider
        return Defaults(provider, temperature=temperature, max_tokens=max_tokens)

    def _of_ours(self) -> ProviderPort:
        told = self._plain() | {"api_key": self._key(), "network": self._network(), "model_path": self._path()}
        if (retry := self._retry()) is not None:
            told["retry_attempts"] = retry
        taken = taken_by(self._cls)
        make: Any = self._cls
        provider: ProviderPort = make(
            self._model(), **{key: value for key, value in told.items() if key in taken and value is not None}
        )
        return provider

    def _of_others(self) -> ProviderPort:
        """A class of a user's own, which takes a ``Model``, and by their names what other settings it knows of."""
        model = self._model()
        make: Any = self._cls
        if not isinstance(model, Model) and not issubclass(self._cls, StubProvider):
            where = {key: self._find(key).value for key in ("base_url", "api_key_env")}
            model = Model(name=model or self._name, provider=self._name, **where)
        told = self._plain() | ({"api_key": self._key()} if "api_key" in self._known else {})
        named = taken_by(self._cls) - {"model", "temperature", "max_tokens", "base_url", "api_key_env"}
        provider: ProviderPort = make(model, **{key: told[key] for key in named & told.keys()})
        return provider

    def _find(self, key: str) -> Setting:
        return self._settings.find(key, self._name, argument=self._config.get(key))

    def _plain(self) -> dict[str, Any]:
        found = {key: self._find(key) for key in _AS_THEY_ARE if key in self._known}
        return {key: setting.value for key, setting in found.items() if setting.given}

    def _model(self) -> str | Model | None:
        if isinstance(self._facts, Model):
            return self._facts
        found = self._find("model")
        return str(found.value) if found.given else None

    def _key(self) -> str | None:
        """The key: given, or in the variable that is named for it, or in the provider's own if it goes to its host."""
        if "api_key" not in self._known or self._config.get("api_key") is not None:
            return self._find("api_key").value if "api_key" in self._known else None
        named = self._find("api_key_env")
        variable = named.value or (self._facts.api_key_env if self._facts else None)
        if variable is not None:
            if (found := self._settings.variable(variable)) is None:
                raise NotConfigured(f"{variable} is not set, which {named.source} names for the key of {self._name}")
            return str(found.value)
        url = self._find("base_url") if "base_url" in self._known else None
        goes_to = url.value if url and url.given else (self._facts.base_url if self._facts else None)
        home = getattr(self._cls, "default_url", None)
        return self._find("api_key").value if goes_to is None or _same_host(goes_to, home) else None

    def _network(self) -> Network | None:
        if "proxy" not in self._known:
            return None
        tls = self._config.get("tls")
        if not isinstance(tls, Tls):
            verify, *files = (self._find(f"tls.{key}").value for key in ("verify", "ca_file", "cert_file", "key_file"))
            ca_file, cert_file, key_file = (None if each is None else str(each) for each in files)
            tls = Tls(verify=verify, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
        return Network(tls=tls, proxy=self._find("proxy").value)

    def _retry(self) -> Retry | None:
        """``retry_attempts`` counts all attempts, ``max_retries`` the extra ones: whichever is said first decides."""
        if "retry_attempts" not in self._known:
            return None
        if "retry_attempts" in self._config and "max_retries" in self._config:
            raise ConfigurationError("retry_attempts counts all attempts, max_retries the extra ones: give one of them")
        attempts, extra = self._find("retry_attempts"), self._find("max_retries")
        waits = {"initial_s": self._find("initial_delay"), "cap_s": self._find("max_delay")}
        given = {name: each.value for name, each in waits.items() if each.given}
        if not (attempts.given or extra.given or given):
            return None
        return Retry(attempts=extra.value + 1 if extra.rank < attempts.rank else attempts.value, **given)

    def _path(self) -> str | None:
        """Where the file is. A model that comes in a package needs none: what variables say of files is not for it."""
        if "model_path" not in self._known:
            return None
        path, model = self._find("model_path"), self._find("model") if self._facts is None else None
        if not path.given:
            return None
        if path.of_variable or (model is not None and model.rank[0] < path.rank[0]):
            named = self._facts.id if self._facts else model and model.given and model.value
            if named in EMBEDDED or (not named and Path(path.value).is_dir()):
                return None
        return str(path.value)


def _checked(config: Mapping[str, Any], name: str, known: Mapping[str, Known]) -> dict[str, Any]:
    """*config* with what is under ``tls`` spelled out. Raises ``ConfigurationError`` for a key that *name* has not."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key == "tls" and isinstance(value, Mapping):
            flat |= {f"tls.{inner}": setting for inner, setting in value.items()}
        elif key == "tls" and not isinstance(value, Tls) and value is not None:
            raise ConfigurationError("tls is a Tls, or a mapping with verify, ca_file, cert_file and key_file")
        elif value is not None:
            flat[str(key)] = value
    for key in flat:
        if key in known or (key == "tls" and "proxy" in known):
            continue
        if key in OF_PROVIDER or key == "tls":
            raise ConfigurationError(f"config: {name} takes no {key!r}; it takes {', '.join(known)}")
        hint = suggestion(key, known) or f"{name} takes {', '.join(known)}"
        raise ConfigurationError(f"config: unknown key {key!r}; {hint}")
    return flat


def _same_host(url: str, home: str | None) -> bool:
    return home is not None and urlsplit(str(url))[:2] == urlsplit(home)[:2]
