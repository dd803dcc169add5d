"""Which settings there are: what each must be, and which variables of the environment say it."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError
from ..port import ProviderPort
from ..types import Timeouts
from .base import BaseProvider, Common
from .network import truth

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be: in words, as a test, and read from text."""

    says: str
    fits: Callable[[Any], bool]
    parse: Callable[[str], Any] = str
    secret: bool = False
    shaped: Callable[[Any], Any] = lambda value: value

    def of(self, value: Any) -> Any:
        """*value*, if it is of this kind. Raises ``ValueError`` with a text that begins with a verb."""
        if not self.fits(value):
            raise ValueError(f"must be {self.says}" + ("" if self.secret else f", not {value!r}"))
        return self.shaped(value)

    def read(self, text: str) -> Any:
        """What *text* says, as a variable of the environment has it. Raises ``ValueError`` as ``of`` does."""
        try:
            value = self.parse(text)
        except ValueError:
            value = text
        return self.of(value)


@dataclass(frozen=True, slots=True)
class Known:
    """A setting: what it must be, the variables that say it, the first before the others, and what it is by default."""

    kind: Kind
    variables: tuple[str, ...] = ()
    default: Any = None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _whole(low: int, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


TEXT = Kind("text", _is_text)
SECRET = Kind("text", _is_text, secret=True)
PATH = Kind("a path", lambda value: _is_text(value) or isinstance(value, os.PathLike))
SWITCH = Kind("a switch: true or false", lambda value: isinstance(value, bool), lambda text: truth("", text, False))
NAMES = Kind(
    "a name, or a list of names",
    lambda value: _is_text(value) or (isinstance(value, list | tuple) and all(map(_is_text, value))),
    _names,
    shaped=lambda value: _names(value) if isinstance(value, str) else tuple(value),
)
COUNT = Kind("a whole number from 1 on", _whole(1), int)
ATTEMPTS = Kind("a whole number from 1 to 20, the first attempt too", _whole(1, 20), int)
RETRIES = Kind("a whole number from 0 to 19, without the first attempt", _whole(0, 19), int)
DELAY = Kind("a number of seconds from 0 on", lambda value: _is_number(value) and 0 <= value <= DAY_S, float)
TIMEOUT = Kind(
    "a number of seconds above 0",
    lambda value: isinstance(value, Timeouts) or (_is_number(value) and 0 < value <= DAY_S),
    float,
)
TEMPERATURE = Kind("a number from 0 to 2", lambda value: _is_number(value) and 0 <= value <= 2, float)
TRANSPORT = Kind("'auto' or 'litellm'", lambda value: value in ("auto", "litellm"))
VARIABLE = Kind(
    "the name of a variable that holds the key, not the key",
    lambda value: isinstance(value, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value) is not None,
    secret=True,  # whoever puts the key here must not find it in a log
)

TLS = {"tls.verify": SWITCH, "tls.ca_file": PATH, "tls.cert_file": PATH, "tls.key_file": PATH}

SHARED: Mapping[str, Kind] = {
    "temperature": TEMPERATURE,
    "max_tokens": COUNT,
    "timeout": TIMEOUT,
    "retry_attempts": ATTEMPTS,
    "max_retries": RETRIES,
    "initial_delay": DELAY,
    "max_delay": DELAY,
    "proxy": Kind("the URL of a proxy, or empty to go straight", lambda value: isinstance(value, str)),
    **TLS,
}
"""What a file may say for all providers at once."""

OF_PROVIDER: Mapping[str, Kind] = {
    "model": TEXT,
    "api_key": SECRET,
    "api_key_env": VARIABLE,
    "organization": TEXT,
    "base_url": TEXT,
    "model_path": PATH,
    "context_size": COUNT,
    "threads": COUNT,
    "transport": TRANSPORT,
    **SHARED,
}
"""What can be said of one provider."""

GENERAL: Mapping[str, Known] = {
    "primary": Known(TEXT, ("DEVSYNTH_PROVIDER",), "openai"),
    "fallback": Known(
        NAMES, ("DEVSYNTH_PROVIDER_FALLBACK_ORDER", "PROVIDER_FALLBACK_ORDER", "DEVSYNTH_FALLBACK_PROVIDER"), ()
    ),
    "use_local_fallback": Known(SWITCH, ("DEVSYNTH_USE_LOCAL_FALLBACK",), False),
    "offline": Known(SWITCH, ("DEVSYNTH_OFFLINE",), False),
    "disable_providers": Known(SWITCH, ("DEVSYNTH_DISABLE_PROVIDERS",), False),
    "safe_default_provider": Known(
        Kind("'stub' or 'null'", lambda value: value in ("stub", "null")), ("DEVSYNTH_SAFE_DEFAULT_PROVIDER",)
    ),
}
"""What is said once: which providers there are, and switches over all of them."""

IN_FILE: Mapping[str, Kind] = {
    **{name: GENERAL[name].kind for name in ("primary", "fallback", "use_local_fallback")},
    **SHARED,
}
"""What a file may say beside its blocks; the switches belong to the environment."""

MEANT = {
    "api_base": "base_url",
    "endpoint": "base_url",
    "context_length": "context_size",
    "context_window": "context_size",
    "path": "model_path",
    "retries": "max_retries",
    "timeout_s": "timeout",
    "call_timeout": "timeout",
    "org": "organization",
}
"""Other names under which these settings are known elsewhere."""

_SPELLINGS = {"lmstudio": ("LMSTUDIO", "LM_STUDIO")}


_ARGUMENTS = {
    "api_key_env": "api_key",
    "max_retries": "retry_attempts",
    "initial_delay": "retry_attempts",
    "max_delay": "retry_attempts",
    "proxy": "network",
    **dict.fromkeys(TLS, "network"),
}
"""By which argument a class is told of a setting, where that has another name."""


@functools.cache
def of_provider(name: str, cls: type[ProviderPort]) -> Mapping[str, Known]:
    """The settings of the provider *name*, which *cls* serves."""
    prefixes = _SPELLINGS.get(name, (re.sub(r"\W", "_", name.upper(), flags=re.ASCII),))
    variables = {
        "model": tuple(f"{prefix}_MODEL" for prefix in prefixes),
        "timeout": (*(f"{prefix}_HTTP_TIMEOUT" for prefix in prefixes), "DEVSYNTH_HTTP_TIMEOUT"),
        "max_retries": ("DEVSYNTH_PROVIDER_MAX_RETRIES", "PROVIDER_MAX_RETRIES"),
        "initial_delay": ("DEVSYNTH_PROVIDER_INITIAL_DELAY", "PROVIDER_INITIAL_DELAY"),
        "max_delay": ("DEVSYNTH_PROVIDER_MAX_DELAY", "PROVIDER_MAX_DELAY"),
        **{key: (f"DEVSYNTH_TLS_{key.removeprefix('tls.').upper()}",) for key in TLS},
    }
    defaults: dict[str, Any] = {"timeout": 60, "retry_attempts": 3, "tls.verify": True}
    if issubclass(cls, BaseProvider):
        variables |= {"model": cls.model_variables, "base_url": cls.url_variables}
        variables["api_key"] = (cls.key_variable,) if cls.key_variable else ()
        defaults |= {"model": cls.default_model, "base_url": cls.default_url}
    if name == "openai":
        variables["organization"] = ("OPENAI_ORGANIZATION",)
    elif name == "lmstudio":
        variables["max_retries"] = ("DEVSYNTH_LMSTUDIO_RETRIES", *variables["max_retries"])
    elif name == "local":
        variables |= {"model_path": ("LOCAL_MODEL_PATH",), "threads": ("LOCAL_MODEL_THREADS",)}
    taken = taken_by(cls)
    return {
        key: Known(kind, variables.get(key, ()), defaults.get(key))
        for key, kind in OF_PROVIDER.items()
        if {key, _ARGUMENTS.get(key, key)} & taken
    }


def taken_by(cls: type[ProviderPort]) -> frozenset[str]:
    """What *cls* can be told: the keywords of its constructor, and what needs none."""
    taken = {"model", "temperature", "max_tokens"}
    parameters = inspect.signature(cls).parameters.values()
    if issubclass(cls, BaseProvider):
        if any(each.kind is each.VAR_KEYWORD for each in parameters):
            taken |= Common.__annotations__.keys()
    else:
        taken |= {"base_url", "api_key_env"}  # facts of the Model that it is made from
    return frozenset(taken | {each.name for each in parameters})


def suggestion(word: str, words: Mapping[str, object]) -> str | None:
    """What *word* was meant to be, as a question, if one can guess."""
    import difflib  # noqa: PLC0415 - only when something is wrong

    near = [MEANT[word]] if MEANT.get(word) in words else difflib.get_close_matches(word, words, n=1)
    return f"did you mean {near[0]!r}?" if near else None


def wrong(where: str, error: ValueError) -> ConfigurationError:
    """*error* of a ``Kind``, with the place of the value before it."""
    return ConfigurationError(f"{where} {error}")
