"""The vocabularies that are at hand, and which model has which: the only door to tiktoken.

The tables are those that come inside LiteLLM; nothing is ever downloaded, and LiteLLM itself is not imported.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError

if TYPE_CHECKING:
    from tiktoken import Encoding

_TABLES = {
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "p50k_base": "ec7223a39ce59f226a68acc30dc1af2788490e15",
}
"""The tables LiteLLM carries, and their files: named, as in tiktoken's cache, by the SHA-1 of where they come from."""

_SAME_TABLE = {"o200k_harmony": "o200k_base", "p50k_edit": "p50k_base"}
"""Encodings that differ from another one in special tokens only, which are never counted as such."""

_NEAREST = {"r50k_base": "p50k_base", "gpt2": "p50k_base"}

_OPENAIS = frozenset(("", "openai", "azure", "azure_ai", "openrouter", "github", "github_copilot"))
"""In front of OpenAI's names, who serves them. Anybody else's ``gpt-4-something`` is another model."""

_OPENAI_LIKE = re.compile(r"gpt-|chatgpt-|codex-|o\d")

_PIECE = 32_768
"""Characters tiktoken is given at once. On a megabyte of spaces it panics, which is no exception to be caught."""

_SEAM = re.compile(r"(?<=[^\W_])[ \n,.;:!?،।。，、；：！？]")  # noqa: RUF001 - other scripts have signs of their own
"""Where no token of any encoding reaches across: between a letter or digit and one of these."""

_BEFORE_SEAM = 1000


def pieces(text: str, longest: int = _PIECE) -> Iterator[str]:
    """*text* in pieces of at most *longest* characters, cut where no token is cut if there is such a place."""
    start = 0
    while len(text) - start > longest:
        end = start + longest
        for seam in _SEAM.finditer(text, max(start + 1, end - _BEFORE_SEAM), end):
            end = seam.start()
        yield text[start:end]
        start = end
    yield text[start:]


def vocabulary_of(model: str) -> tuple[str, bool]:
    """The encoding of *model* that is at hand, and whether it is the model's own."""
    from tiktoken.model import encoding_name_for_model  # noqa: PLC0415 - 20 ms

    served_by, _, name = model.lower().rpartition("/")
    if name.startswith("openai."):  # Bedrock
        served_by, name = "openai", name.removeprefix("openai.")
    name = name.removeprefix("ft:").partition(":")[0]
    if served_by.rpartition("/")[2] in _OPENAIS:
        try:
            encoding = encoding_name_for_model(name)
        except KeyError:
            pass
        else:
            encoding = _SAME_TABLE.get(encoding, encoding)
            return (encoding, True) if encoding in _TABLES else (_NEAREST.get(encoding, "o200k_base"), False)
    return "o200k_base" if _OPENAI_LIKE.match(name) else "cl100k_base", False


def at_hand(encoding: str) -> bool:
    """Whether LiteLLM carries the table of *encoding*."""
    return (_folder() / _TABLES[encoding]).is_file()


def _folder() -> Path:
    """Where LiteLLM keeps its tables. To find it is not to import it."""
    spec = importlib.util.find_spec("litellm")
    where = spec.submodule_search_locations if spec else None
    return Path(where[0] if where else "") / "litellm_core_utils" / "tokenizers"


_loading = threading.Lock()


def _after_fork() -> None:
    global _loading  # noqa: PLW0603 - a thread that is not in the child may have held it
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def table(encoding: str) -> Encoding:
    """The table of *encoding*, read once. Raises ``ConfigurationError`` if it is damaged."""
    with _loading:
        return _read(encoding)


@functools.cache
def _read(encoding: str) -> Encoding:
    from tiktoken import Encoding  # noqa: PLC0415 - 20 ms

    definitions = _definitions()

    def carried(_: str, expected_hash: str | None = None) -> dict[bytes, int]:
        """In place of tiktoken's own function, which would look into caches, and then download."""
        return _ranks(encoding, expected_hash)

    definitions["load_tiktoken_bpe"] = carried
    return Encoding(**definitions[encoding]())


def _definitions() -> dict[str, Any]:
    """tiktoken's definitions of OpenAI's encodings, in a copy that is ours alone."""
    spec = importlib.util.find_spec("tiktoken_ext.openai_public")
    if spec is None or spec.loader is None:
        raise ConfigurationError("tiktoken has no definitions of OpenAI's encodings: install it anew")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


def _ranks(encoding: str, expected_hash: str | None) -> dict[bytes, int]:
    try:
        content = (_folder() / _TABLES[encoding]).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"LiteLLM's table {encoding} can not be read: {error.strerror}") from None
    if expected_hash is None or hashlib.sha256(content).hexdigest() != expected_hash:
        raise ConfigurationError(f"LiteLLM's table {encoding} is not what tiktoken expects: install litellm anew")
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, content.splitlines())}
