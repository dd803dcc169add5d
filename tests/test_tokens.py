"""Tokens: counted by the model's own table, without a network; estimated near enough where nothing may be loaded."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devsynth_providers import ConfigurationError, InvalidRequest, Message, Model, OpenAIProvider, TokenCounter
from devsynth_providers.analysis import estimate_tokens
from devsynth_providers.types import ToolCall
from devsynth_providers.vocabularies import _SEAM, pieces
from devsynth_providers.vocabularies import table as table_of

SAMPLES = sorted((Path(__file__).parent / "data/tokens").glob("*.txt"))
NEW, OLD = TokenCounter("gpt-4o"), TokenCounter("gpt-4")
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}},
            "required": ["place"],
        },
    },
}


def python(code: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("text", "newer", "older"),
    [
        ("", 0, 0),
        ("hello world", 2, 2),
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 8, 9),
        ("<|endoftext|>", 7, 7),
        ("\ud800", 1, 1),
    ],
)
def test_texts_are_counted_as_the_models_do(text: str, newer: int, older: int) -> None:
    assert (NEW.count(text), OLD.count(text)) == (newer, older)


@pytest.mark.parametrize(
    ("model", "encoding", "exact"),
    [
        ("gpt-4o", "o200k_base", True),
        ("GPT-4o-mini-2024-07-18", "o200k_base", True),
        ("openai/gpt-5.1", "o200k_base", True),
        ("openrouter/openai/gpt-4o:extended", "o200k_base", True),
        ("ft:gpt-4.1-mini-2025-04-14:us::id", "o200k_base", True),
        ("bedrock/openai.gpt-oss-120b-1:0", "o200k_base", True),
        ("o3-mini", "o200k_base", True),
        ("gpt-4-turbo", "cl100k_base", True),
        ("azure/gpt-35-turbo-16k", "cl100k_base", True),
        ("text-embedding-3-small", "cl100k_base", True),
        ("text-davinci-003", "p50k_base", True),
        ("gpt2", "p50k_base", False),
        ("gpt-9", "o200k_base", False),
        ("somebody/gpt-4-alpaca", "o200k_base", False),
        ("claude-sonnet-4-5", "cl100k_base", False),
        ("gemini/gemini-2.5-pro", "cl100k_base", False),
        ("meta-llama/Llama-3.1-8B", "cl100k_base", False),
    ],
)
def test_a_model_has_its_own_vocabulary_or_the_nearest_and_says_which(model: str, encoding: str, exact: bool) -> None:
    counter = TokenCounter(model)
    assert (counter.encoding, counter.exact) == (encoding, exact)


def test_a_model_is_known_by_the_name_that_its_provider_knows_it_by() -> None:
    assert TokenCounter(Model(name="fast", provider="openai", model="gpt-4o")).exact


@pytest.mark.parametrize("model", ["", None, 4])
def test_what_is_no_model_is_refused(model: object) -> None:
    with pytest.raises(ConfigurationError, match="TokenCounter takes"):
        TokenCounter(model)  # type: ignore[arg-type]


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not NoneType"):
        NEW.count(None)  # type: ignore[arg-type]


@given(ANY_TEXT)
def test_any_text_is_counted(text: str) -> None:
    """Each token is a byte at least, and a lone surrogate is replaced by three."""
    assert (text != "") <= NEW.count(text) <= len(text.encode("utf-8", "surrogatepass"))


@given(ANY_TEXT, ANY_TEXT)
def test_two_texts_together_are_hardly_more_than_each_alone(one: str, other: str) -> None:
    assert NEW.count(one + other) <= NEW.count(one) + NEW.count(other) + 8


@pytest.mark.parametrize("one", ["a", " ", "\n", "-", "🙂", "\x85", "अ"])
@pytest.mark.parametrize("counter", [NEW, OLD], ids=["o200k_base", "cl100k_base"])
def test_a_megabyte_of_one_character_is_counted(counter: TokenCounter, one: str) -> None:
    """tiktoken alone panics on the spaces. There is no assertion on time: a hang is the failure."""
    share = counter.count(one * 65_536) / 65_536
    assert counter.count(one * 1_000_000) == pytest.approx(share * 1_000_000, abs=40)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base", "p50k_base"])
def test_a_long_text_is_cut_where_it_makes_no_difference(path: Path, encoding: str) -> None:
    text = path.read_text(encoding="utf-8")
    table = table_of(encoding)
    cut = list(pieces(text, 1100))
    assert "".join(cut) == text
    assert len(cut) > 1 or len(text) <= 1100
    whole, apart = len(table.encode_ordinary(text)), sum(len(table.encode_ordinary(piece)) for piece in cut)
    assert apart == whole


@given(
    st.lists(
        st.sampled_from(["word", " ", "\n", ". ", "don't", "'s", "9", "漢字", "。", "é", "\t", "/", "🙂"]), max_size=60
    )
)
def test_no_token_reaches_over_a_cut(parts: list[str]) -> None:
    text = "".join(parts)
    seams = [0, *(seam.start() for seam in _SEAM.finditer(text)), len(text)]
    for encoding in ("o200k_base", "cl100k_base", "p50k_base"):
        table = table_of(encoding)
        apart = sum(len(table.encode_ordinary(text[a:b])) for a, b in itertools.pairwise(seams))
        assert apart == len(table.encode_ordinary(text))


def test_a_message_costs_its_role_its_text_and_what_is_around_it() -> None:
    assert NEW.count_messages([]) == 3
    assert NEW.count_messages([Message("user", "hello world")]) == 3 + 3 + 1 + 2
    assert NEW.count_messages([{"role": "user", "content": "hello world"}]) == 9
    assert NEW.count_messages([{"role": "user", "name": "bob", "content": "hello world"}]) == 9 + 1 + NEW.count("bob")


def test_calls_of_tools_are_allowed_for() -> None:
    """One more than was billed for such a conversation: 40, 89 and 114 tokens."""
    start = Message("user", "How much is 2 plus 2?")
    pair = [Message("assistant", tool_calls=(ToolCall("a", "calculator", '{"a":2, "b":2}'),)), Message("tool", "4")]
    assert [OLD.count_messages([start, *pair * times]) for times in (1, 2, 3)] == [41, 90, 115]


def test_tools_cost_their_names_descriptions_and_parameters() -> None:
    alone = NEW.count_messages([Message("user", "hi")])
    heading, place, unit = (
        NEW.count("weather:What the weather is"),
        NEW.count("place:string:"),
        NEW.count("unit:string:"),
    )
    expected = 12 + 7 + heading + 3 + (3 + place) + (3 + unit) - 3 + (3 + 1) + (3 + 1)
    assert NEW.count_messages([Message("user", "hi")], [WEATHER]) - alone == expected
    assert OLD.count_messages([Message("user", "hi")], [WEATHER]) > NEW.count_messages(
        [Message("user", "hi")], [WEATHER]
    )


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search", "user_location": {"country": "DE"}},
        {"type": "function", "function": {"name": "now"}},
        {"type": "function", "function": {"name": "f", "description": None, "parameters": {"properties": {"a": True}}}},
    ],
)
def test_tools_of_other_kinds_cost_something_too(tool: dict[str, object]) -> None:
    assert NEW.count_messages([], [tool]) > NEW.count_messages([]) + 12


def test_what_is_deep_in_a_tool_is_counted() -> None:
    def tool(schema: dict[str, object]) -> dict[str, object]:
        return {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": schema}}}}

    deep = {"type": "string", "description": "The name of the street, without the number of the house."}
    flat = NEW.count_messages([], [tool({"type": "string"})])
    schemas: list[dict[str, object]] = [
        {"type": "object", "properties": {"street": deep}},
        {"type": "array", "items": deep},
        {"anyOf": [deep, {"type": "null"}]},
    ]
    for schema in schemas:
        assert NEW.count_messages([], [tool(schema)]) > flat + 10


@pytest.mark.parametrize(("messages", "tools"), [("hi", ()), ({"role": "user", "content": "hi"}, ()), ([], {})])
def test_one_message_is_no_list_of_messages(messages: object, tools: object) -> None:
    with pytest.raises(InvalidRequest, match="takes a list"):
        NEW.count_messages(messages, tools)  # type: ignore[arg-type]


def test_a_facade_counts_as_its_model_does() -> None:
    provider = OpenAIProvider("gpt-4o", api_key="k")
    text = "お誕生日おめでとう " * 50
    assert provider.count_tokens(text) == provider.bare.count_tokens(text) == NEW.count(text) != estimate_tokens(text)


NO_NETWORK = """
import sys
def refuse(event, args):
    if event.startswith("socket."):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(refuse)
from devsynth_providers import TokenCounter
"""


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "text-davinci-003", "gpt2"])
def test_counting_needs_no_network_no_cache_and_no_litellm(model: str, tmp_path: Path) -> None:
    """Each in a process of its own, with tiktoken's cache where nothing is, and nothing comes to be."""
    code = f"""{NO_NETWORK}
import os
before = dict(os.environ)
count = TokenCounter({model!r}).count("hello world")
import tiktoken.registry
print(count, "litellm" in sys.modules, "requests" in sys.modules, os.environ == before, tiktoken.registry.ENCODINGS)
"""
    assert python(code, TIKTOKEN_CACHE_DIR=str(tmp_path)) == "2 False False True {}"
    assert not list(tmp_path.iterdir())


def test_making_a_counter_and_estimating_loads_nothing() -> None:
    code = """
import sys
from devsynth_providers import TokenCounter
from devsynth_providers.analysis import estimate_tokens
TokenCounter("gpt-4o"), estimate_tokens("größer als 3")
print("tiktoken" in sys.modules)
"""
    assert python(code) == "False"


def _litellm_in(folder: Path) -> Path:
    tables = folder / "litellm" / "litellm_core_utils" / "tokenizers"
    tables.mkdir(parents=True)
    (folder / "litellm" / "__init__.py").touch()
    return tables


def _beside(folder: Path, code: str) -> str:
    return python(f"import sys; sys.path.insert(0, {str(folder)!r}){NO_NETWORK}{code}")


def test_without_a_table_tokens_are_estimated_and_the_counter_says_so(tmp_path: Path) -> None:
    _litellm_in(tmp_path)
    code = 'c = TokenCounter("gpt-4o"); c.load(); print(c.encoding, c.exact, c.count("hello world, " * 100))'
    assert _beside(tmp_path, code) == f"estimate False {estimate_tokens('hello world, ' * 100)}"


@pytest.mark.parametrize("content", [b"", b"IQ== 0\n"])
def test_a_damaged_table_is_told_and_not_counted_with(content: bytes, tmp_path: Path) -> None:
    (_litellm_in(tmp_path) / "fb374d419588a4632f3f557e76b4b70aebbca790").write_bytes(content)
    code = """
from devsynth_providers import ConfigurationError
try:
    TokenCounter("gpt-4o").count("hi")
except ConfigurationError as error:
    print(error)
"""
    assert _beside(tmp_path, code) == "LiteLLM's table o200k_base is not what tiktoken expects: install litellm anew"


def test_threads_share_one_table_and_count_alike() -> None:
    code = """
import threading
from concurrent.futures import ThreadPoolExecutor
from devsynth_providers import TokenCounter, vocabularies
reads = []
ranks = vocabularies._ranks
vocabularies._ranks = lambda *args: reads.append(args) or ranks(*args)
start = threading.Barrier(8)
def count(_):
    start.wait()
    return TokenCounter("gpt-4o").count("hello world " * 1000)
with ThreadPoolExecutor(8) as pool:
    print(set(pool.map(count, range(8))), len(reads))
"""
    assert python(code) == "{2001} 1"


def test_many_threads_count_at_once() -> None:
    texts = [path.read_text(encoding="utf-8") for path in SAMPLES] * 5
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(NEW.count, texts)) == [NEW.count(text) for text in texts]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_a_table_is_read_can_count() -> None:
    code = """
import os, threading
from devsynth_providers import TokenCounter, vocabularies
reading, go_on = threading.Event(), threading.Event()
ranks = vocabularies._ranks
def slow(*args):
    reading.set()
    go_on.wait()
    return ranks(*args)
vocabularies._ranks = slow
thread = threading.Thread(target=TokenCounter("gpt-4o").load)
thread.start()
reading.wait()
if (child := os.fork()) == 0:
    vocabularies._ranks = ranks
    os._exit(TokenCounter("gpt-4o").count("hello world") != 2)
go_on.set()
thread.join()
print(os.waitpid(child, 0)[1], TokenCounter("gpt-4o").count("hello world"))
"""
    assert python(code) == "0 2"


@functools.cache
def sample(name: str) -> str:
    return next(path for path in SAMPLES if path.stem == name).read_text(encoding="utf-8")


LOOSE = {"dutch": -0.25}
"""Dutch looks like English, and takes more."""


@pytest.mark.parametrize("name", [path.stem for path in SAMPLES])
def test_the_estimate_is_near_the_dearer_of_the_two_vocabularies_and_rather_above(name: str) -> None:
    dearer = max(NEW.count(sample(name)), OLD.count(sample(name)))
    assert LOOSE.get(name, -0.1) <= estimate_tokens(sample(name)) / dearer - 1 <= 0.3


def test_over_all_samples_the_estimate_is_not_below_the_count() -> None:
    texts = [sample(path.stem) for path in SAMPLES]
    estimated = sum(map(estimate_tokens, texts))
    assert max(sum(map(NEW.count, texts)), sum(map(OLD.count, texts))) <= estimated


@pytest.mark.parametrize("name", ["english", "markdown", "python", "shell", "json", "numbers"])
def test_for_english_code_and_data_it_is_near_both(name: str) -> None:
    for counter in (NEW, OLD):
        assert estimate_tokens(sample(name)) == pytest.approx(counter.count(sample(name)), rel=0.2)


@given(ANY_TEXT)
def test_any_text_has_an_estimate(text: str) -> None:
    assert (text != "") <= estimate_tokens(text) <= 4 * len(text)


@given(st.text(max_size=200))
def test_the_estimate_of_any_text_is_a_fifth_of_its_count_at_least(text: str) -> None:
    """Characters at random are the worst there is: most are of scripts that no vocabulary knows."""
    assert estimate_tokens(text) >= 0.2 * OLD.count(text) - 2


@pytest.mark.parametrize("text", ["1 2 3 4 5 6 7 8 9 0 " * 50, "a b c d e f " * 50, "G A T T A C A\n" * 50])
def test_what_stands_alone_between_spaces_is_counted_each(text: str) -> None:
    """Boards, grids and sequences: there are hardly any letters, and each is a token, a digit two."""
    assert estimate_tokens(text) >= 0.9 * max(NEW.count(text), OLD.count(text))
