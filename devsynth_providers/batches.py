"""What is known of batches of texts: how many one request may hold, which refusals are of some of the texts alone, and
what an error says of each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from .analysis import estimate_tokens
from .errors import AllProvidersFailed, CircuitOpen, ContentFiltered, ContextTooLong, DevSynthError, RequestRejected
from .retold import retold
from .types import Chunk, EmbedRequest, Model, Request, Vector

_REFUSED = (400, 422)
_MOST_TOKENS_A_CHARACTER = 3
"""More than any estimate has, so that small batches need none."""

Part = Sequence[int]
"""Some texts of a batch, by their places, from 0."""


class Capacity(NamedTuple):
    """How many texts one request may hold, and how many tokens in all."""

    texts: int
    tokens: int

    @classmethod
    def of(cls, models: Iterable[Model]) -> Self:
        """What all *models* take."""
        each = [OPENAI if _is_openai(model) else OTHERS for model in models]
        return cls(min(one.texts for one in each), min(one.tokens for one in each))


OPENAI = Capacity(2048, 300_000)
"""API reference, "Create embeddings", of the parameter ``input``."""
OTHERS = Capacity(96, 20_000)
"""The least that is usual: Cohere takes 96 texts ("Embed API"), Vertex AI 20,000 tokens ("Text embeddings API")."""


def may_be_parted(error: DevSynthError) -> bool:
    """Whether some of the texts may be taken where all of them were not: it is of their size, or of what they say."""
    if isinstance(error, AllProvidersFailed):
        return any(map(may_be_parted, error.exceptions))
    refused = isinstance(error, RequestRejected) and error.status in _REFUSED
    return refused or isinstance(error, ContextTooLong | ContentFiltered)


def nobody_was_asked(error: DevSynthError) -> bool:
    """Whether those who could be asked are left alone, also from the first: another request, which may be another part
    of the same batch, finds out whether they are well."""
    ends = error.exceptions if isinstance(error, AllProvidersFailed) else (error,)
    return all(isinstance(each, CircuitOpen) and each.__cause__ is None for each in ends)


def in_parts(texts: Sequence[str], places: Sequence[int], capacity: Capacity) -> list[Part]:
    """As few as hold the texts at *places* in their order, none over *capacity* but what is a single text."""
    if len(places) <= capacity.texts and sum(map(len, texts)) * _MOST_TOKENS_A_CHARACTER <= capacity.tokens:
        return [places]
    parts, first, tokens = list[Part](), 0, 0
    for number, place in enumerate(places):
        more = estimate_tokens(texts[place])
        if number > first and (number - first == capacity.texts or tokens + more > capacity.tokens):
            parts.append(places[first:number])
            first, tokens = number, 0
        tokens += more
    return [*parts, places[first:]]


def taken(error: DevSynthError, of: int) -> tuple[list[Vector | None], Mapping[int, DevSynthError]]:
    """What *error* says of each of so many texts, their vectors and failures. It is taken off it, and off the errors of
    the models that failed: places in a part are none in the whole."""
    vectors, failures = list[Vector | None]([None] * of), dict[int, DevSynthError]()
    for each in (error, *(error.exceptions if isinstance(error, AllProvidersFailed) else ())):
        if len(each.vectors) == of:
            vectors = [one or other for one, other in zip(vectors, each.vectors, strict=True)]
        failures |= each.failures
        if each.vectors or each.failures:
            each.vectors, each.failures = (), {}
    return vectors, failures


def own_of(error: DevSynthError) -> DevSynthError:
    """*error* as one that may tell of texts: others may hold it, or raise it again."""
    own = retold(error, led=True)
    assert isinstance(own, DevSynthError)
    return own


def telling(
    error: DevSynthError,
    vectors: Sequence[Vector | None],
    failures: Mapping[int, DevSynthError] = MappingProxyType({}),
) -> DevSynthError:
    """*error*, which says what came of each text of a batch: *vectors*, and of those without one, *failures*, or else
    that it is the failure of the text."""
    copies = dict[int, DevSynthError]()
    lacking = [place for place, vector in enumerate(vectors) if vector is None]
    error.failures = {place: _by_itself(failures.get(place, error), copies) for place in lacking}
    error.vectors = () if len(lacking) == len(vectors) else tuple(vectors)
    return error


def tell_remembered(error: DevSynthError, request: Request, space: str) -> None:
    """Have *error*, if it says nothing of the texts of *request*, say what had come of them when it had to be left."""
    if isinstance(request, EmbedRequest) and not error.failures:
        came = request.call.tally.vectors
        telling(error, [came.get((space, text)) for text in request.texts])


class ByText(NamedTuple):
    """What came of some texts, whatever their places."""

    vectors: dict[str, Vector]
    failures: dict[str, DevSynthError]

    @classmethod
    def of(cls, error: DevSynthError, texts: Sequence[str]) -> Self:
        """As *error* says, of *texts*: ``taken`` off it."""
        vectors, failures = taken(error, len(texts))
        came = {text: vector for text, vector in zip(texts, vectors, strict=True) if vector is not None}
        return cls(came, {texts[place]: failure for place, failure in failures.items()})

    def tell(self, error: DevSynthError, texts: Sequence[str]) -> None:
        """Have *error* say it of *texts*."""
        failures = {place: self.failures[text] for place, text in enumerate(texts) if text in self.failures}
        telling(error, [self.vectors.get(text) for text in texts], failures)


def _by_itself(error: DevSynthError, copies: dict[int, DevSynthError]) -> DevSynthError:
    """*error* as a value: it tells of no attempts, holds no frames, and is one for all the texts that it is of."""
    own = copies.get(id(error))
    if own is None:
        copy = retold(error, led=False)
        assert isinstance(copy, DevSynthError)
        own = copies[id(error)] = copy
        _drop_frames(copy)
    return own


def _drop_frames(error: BaseException) -> None:
    error.__traceback__ = None
    for each in (error.__cause__, *(error.exceptions if isinstance(error, AllProvidersFailed) else ())):
        if each is not None:
            _drop_frames(each)


async def once(chunk: Chunk) -> AsyncGenerator[Chunk, None]:
    """An answer that is one piece."""
    yield chunk


def _is_openai(model: Model) -> bool:
    """Whether it is OpenAI's own server, not another one that speaks like it."""
    return model.provider == "openai" and urlsplit(model.base_url or "").hostname in (None, "api.openai.com")
