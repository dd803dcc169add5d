"""Where a setting comes from: an argument, the environment, a ``.env`` file, a YAML file, or what is usual.

The first of them that says anything decides. A ``.env`` file and a YAML file are read only where they are named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from ..errors import ConfigurationError
from .env_file import Line, read_env_file
from .known import GENERAL, SHARED, Known, of_provider, suggestion, wrong
from .registry import ProviderRegistry, registry

if TYPE_CHECKING:
    from .settings_file import Entries

MASKED = "***"
_USERINFO = re.compile(r"(?:(?<=^http://)|(?<=^https://)|^(?!https?://))\S+(?=@)")


@dataclass(frozen=True, slots=True, repr=False)
class Setting:
    """One setting, and who says so. Neither ``repr`` nor ``str`` nor *shown* ever has a key in it."""

    name: str
    """As in the ``provider:`` section of a file: ``primary``, ``openai.model``."""
    value: Any
    source: str
    """``argument``, ``environment OPENAI_MODEL``, ``.env:3 OPENAI_MODEL``, ``config.yml:12 provider.openai.model``, or
    ``default``."""
    secret: bool = False
    problem: str | None = None
    """In a listing, why the value that is there can not be used."""
    rank: tuple[int, int] = field(default=(0, 0), compare=False)
    """The lower, the earlier it is asked."""

    @property
    def shown(self) -> str:
        """The value for people: of a key only that it is set, and no password of a URL."""
        if self.value is None:
            return "not set"
        if self.secret:
            return "set"
        value = ", ".join(self.value) if isinstance(self.value, tuple | list) else str(self.value)
        return _USERINFO.sub(MASKED, value)

    @property
    def given(self) -> bool:
        """Whether somebody said so: it is not what is usual."""
        return self.source != "default"

    @property
    def of_variable(self) -> bool:
        """Whether a variable said so, of the environment or of a ``.env`` file."""
        return self.rank[0] in _TEXTS

    @override
    def __repr__(self) -> str:
        return f"Setting({self.name!r}, {self.shown!r}, {self.source!r})"


class Settings:
    """What is set, and where. Reads its files once, when it is made; the environment is asked anew by each ``find``.

    *env_file* is the path of a ``.env`` file; ``True`` takes the one in the working directory, if there is one. It must
    be readable by its owner only, and never changes the environment. *file* is a YAML file with a section
    ``provider:``. Raises ``ConfigurationError``, as ``PolicyError`` with line and column where the YAML is wrong.
    """

    def __init__(
        self,
        *,
        env_file: str | os.PathLike[str] | bool | None = None,
        file: str | os.PathLike[str] | None = None,
        registry: ProviderRegistry = registry,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = registry
        self._environment = os.environ if environment is None else environment
        self._env_file = None if env_file is False else ".env" if env_file is True else env_file
        if env_file is True and not Path(".env").is_symlink() and not Path(".env").exists():
            self._env_file = None
        self._lines: Mapping[str, Line] = read_env_file(self._env_file) if self._env_file is not None else {}
        self._file = file
        self._entries: Entries = {}
        if file is not None:
            from .settings_file import read_settings_file  # noqa: PLC0415 - yaml, only for those who read files

            self._entries = read_settings_file(file, registry)

    def find(self, key: str, provider: str | None = None, *, argument: Any = None) -> Setting:
        """The setting *key*, of *provider* if it is one of a provider's. *argument* goes before all else.

        Raises ``ConfigurationError`` if what it is set to can not be used, and says where that stands.
        """
        known = self._known(provider)
        if key not in known:
            hint = suggestion(key, known)
            raise ConfigurationError(f"there is no setting {key!r}" + (f"; {hint}" if hint else ""))
        kind = known[key].kind
        name = f"{provider}.{key}" if provider else key
        for rank, source, said in self._said(key, provider, known[key], argument):
            try:
                value = kind.read(said) if rank[0] in _TEXTS else kind.of(said)
            except ValueError as error:
                raise wrong(f"{source}: {name}", error) from None
            return Setting(name, value, source, secret=kind.secret, rank=rank)
        return Setting(name, known[key].default, "default", secret=kind.secret, rank=(_DEFAULT, 0))

    def variable(self, name: str) -> Setting | None:
        """What the variable *name* holds, in the environment or else in the ``.env`` file; shown to nobody."""
        for rank, source, value in self._said("", None, Known(GENERAL["primary"].kind, (name,)), None):
            return Setting(name, value, source, secret=True, rank=rank)
        return None

    def refuse_strangers(self, provider: str) -> None:
        """Raise ``ConfigurationError`` if the file says something of *provider* that its class has no use for."""
        known = self._known(provider)
        for (owner, *rest), entry in self._entries.items():
            if owner == provider and rest and rest[0] not in known:
                raise ConfigurationError(
                    f"{self._file}:{entry.line}: {provider} takes no {rest[0]!r}; it takes {', '.join(known)}"
                )

    def listing(self, *providers: str) -> tuple[Setting, ...]:
        """Every setting that has a value: the general ones, then those of *providers*, or of all that come with the
        library or were registered. What can not be used is listed with its ``problem``; no key is in it at all."""
        names = providers or tuple(self.registry.names())
        found = [self._listed(key, provider) for provider in (None, *names) for key in self._known(provider)]
        kept = (each for each in found if each.value is not None or each.problem)
        return tuple(replace(each, value=MASKED) if each.secret and not each.problem else each for each in kept)

    def _listed(self, key: str, provider: str | None) -> Setting:
        try:
            return self.find(key, provider)
        except ConfigurationError as error:
            known = self._known(provider)[key]
            rank, source, _ = next(self._said(key, provider, known, None))
            name = f"{provider}.{key}" if provider else key
            return Setting(name, None, source, secret=known.kind.secret, problem=str(error), rank=rank)

    def _known(self, provider: str | None) -> Mapping[str, Known]:
        return GENERAL if provider is None else of_provider(provider, self.registry.find(provider))

    def _said(
        self, key: str, provider: str | None, known: Known, argument: Any
    ) -> Iterator[tuple[tuple[int, int], str, Any]]:
        """Who says something, the first before the others: their rank, their place, and what they say."""
        if argument is not None:
            yield (_ARGUMENT, 0), "argument", argument
        for number, variable in enumerate(known.variables):
            if value := self._environment.get(variable, "").strip():
                yield (_ENVIRONMENT, number), f"environment {variable}", value
        for number, variable in enumerate(known.variables):
            line = self._lines.get(variable)
            if line is not None and (value := line.value.strip()):
                yield (_ENV_FILE, number), f"{self._env_file}:{line.number} {variable}", value
        paths: list[tuple[str, ...]] = [(provider, key)] if provider else [(key,)]
        if provider and key in SHARED:
            paths.append((key,))
        for number, path in enumerate(paths):
            if (entry := self._entries.get(path)) is not None:
                yield (_FILE, number), f"{self._file}:{entry.line} provider.{'.'.join(path)}", entry.value


_ARGUMENT, _ENVIRONMENT, _ENV_FILE, _FILE, _DEFAULT = range(5)
_TEXTS = (_ENVIRONMENT, _ENV_FILE)
"""Where values are text, and must be read."""
