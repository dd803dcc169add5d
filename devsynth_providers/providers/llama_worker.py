"""The process that runs llama.cpp: the only module that imports llama_cpp. Run as a script, never imported.

It reads requests as lines of JSON from standard input and answers in lines of JSON on what was standard output;
whatever native code prints goes to standard error. One thread reads, so that counting and cancelling never wait for
the one that decodes; requests are decoded one at a time, in the order in which they came.

    {"id": 1, "do": "chat", "messages": [...], "max_tokens": 9, ...}      {"id": 1, "begin": true}
    {"id": 2, "do": "embed", "texts": [...]}                              {"id": 1, "text": "..."}
    {"id": 3, "do": "count", "text": "..."}                               {"id": 1, "done": {...}}
    {"cancel": 1}                                                         {"id": 1, "error": "...", "kind": "..."}

When the other side is gone, so is this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Refused(Exception):
    """A request that is at fault itself; *kind* says how, *facts* go with the answer."""

    def __init__(self, kind: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.facts = facts


class Worker:
    """One model file, and at most two contexts over it: one to write, one to embed."""

    def __init__(self, settings: dict[str, Any], out: Any) -> None:
        import llama_cpp

        self._lib = llama_cpp
        self._settings = settings
        self._out = out
        self._out_lock = threading.Lock()
        self._todo: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._current: int | None = None
        self._embedder: Any = None
        self._writer = self._context(n_ctx=settings["n_ctx"])
        self._formatter = self._make_formatter()
        # llama.cpp asks this before every step of a computation; without it a long prompt could not be stopped.
        self._abort = llama_cpp.ggml_abort_callback(lambda _: self._current in self._cancelled)
        llama_cpp.llama_set_abort_callback(self._writer.ctx, self._abort, None)

    def _context(self, **more: Any) -> Any:
        threads = self._settings["n_threads"]
        # Without flash attention, llama.cpp misreads prompts on some processors (0.3.36 on one that has AVX2 alone):
        # whatever is read in pieces of more than one token is answered as if it were another.
        return self._lib.Llama(
            self._settings["path"],
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
            **more,
        )

    def _make_formatter(self) -> Any:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        template = self._writer.metadata.get("tokenizer.chat_template")
        if template is None:
            return None
        text_of = self._writer._model.token_get_text
        eos, bos = self._writer.token_eos(), self._writer.token_bos()
        return Jinja2ChatFormatter(
            template,
            eos_token=text_of(eos) if eos != -1 else "",
            bos_token=text_of(bos) if bos != -1 else "",
            stop_token_ids=[eos] if eos != -1 else None,
        )

    def say(self, **line: Any) -> None:
        data = json.dumps(line, ensure_ascii=False) + "\n"
        with self._out_lock:
            self._out.write(data.encode("utf-8", "replace"))
            self._out.flush()

    def read(self, lines: Any) -> None:
        """Take requests until the other side is gone; answer at once what needs no decoding."""
        for line in lines:
            request = json.loads(line)
            if "cancel" in request:
                self._cancelled.add(request["cancel"])
            elif request["do"] == "count":
                try:
                    self.say(id=request["id"], done={"tokens": len(self._tokens(request["text"], special=False))})
                except Exception as error:
                    self.say(id=request["id"], error=f"{type(error).__name__}: {error}", kind="failed")
            else:
                self._todo.put(request)
        os._exit(0)

    def work(self) -> None:
        """Decode one request after the other, for ever."""
        while True:
            request = self._todo.get()
            number = self._current = request["id"]
            try:
                if number not in self._cancelled:
                    self.say(id=number, begin=True)
                    for answer in self._answer(request):
                        self.say(id=number, **answer)
                if number in self._cancelled:
                    self.say(id=number, cancelled=True)
            except Refused as error:
                self.say(id=number, error=str(error), kind=error.kind, **error.facts)
            except Exception as error:  # whatever it is, the caller must hear of it and the next be served
                self.say(id=number, error=f"{type(error).__name__}: {error}", kind="failed")
                self._writer.reset()
            finally:
                self._current = None
                self._cancelled.discard(number)

    def _answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from (self._embed(request) if request["do"] == "embed" else self._chat(request))

    def _chat(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        tokens, stop = self._prompt(request["messages"])
        window = self._writer.n_ctx()
        if len(tokens) >= window:
            raise Refused(
                "too_long", f"the prompt is {len(tokens)} tokens, the context holds {window}", context_window=window
            )
        options = {key: request[key] for key in _SAMPLING & request.keys()}
        if (form := request.get("response_format")) is not None:
            options["grammar"] = self._grammar(form)
        if not request.get("temperature") or "seed" in request:
            # Who wants the same answer again must not get one that hangs on what was asked before: taking up an
            # earlier prompt where this one leaves it is quicker, but rounds differently.
            self._writer.reset()
        else:
            options["seed"] = int.from_bytes(os.urandom(4))  # else every process would draw the same
        written, finish = 0, None
        for piece in self._writer.create_completion(
            tokens,
            max_tokens=request["max_tokens"],
            stop=[*stop, *request.get("stop", ())],
            stream=True,
            **options,
        ):
            if request["id"] in self._cancelled:
                return
            choice = piece["choices"][0]
            finish = choice["finish_reason"] or finish
            # The token that reaches the limit is written but no longer read back into the context.
            written = self._writer.n_tokens - len(tokens) + (finish == "length")
            if choice["text"]:
                yield {"text": choice["text"]}
        yield {"done": {"finish_reason": finish, "input_tokens": len(tokens), "output_tokens": max(written, 0)}}

    def _prompt(self, messages: list[dict[str, str]]) -> tuple[list[int], list[str]]:
        if self._formatter is None:
            text = "\n".join(message["content"] for message in messages)
            return self._writer.tokenize(text.encode(), add_bos=True, special=False), []
        try:
            made = self._formatter(messages=messages)
        except Exception as error:  # the template is the model's own, and may raise anything
            raise Refused("rejected", f"the model's chat template refuses these messages: {error}") from None
        stop = made.stop if isinstance(made.stop, list) else [made.stop]
        return self._tokens(made.prompt, special=True), [each for each in stop if each]

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        tokens: list[int] = self._writer.tokenize(text.encode("utf-8", "replace"), add_bos=False, special=special)
        return tokens

    def _grammar(self, form: dict[str, Any]) -> Any:
        kind = form.get("type")
        if kind not in ("json_object", "json_schema"):
            raise Refused("rejected", f"response_format {kind!r} is not one of json_object and json_schema")
        schema = form.get("json_schema", {}).get("schema") or {"type": "object"}
        return self._lib.llama_grammar.LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)

    def _embed(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self._embedder is None:
            self._embedder = self._context(
                n_ctx=self._settings["n_ctx"],
                n_batch=self._settings["n_ctx"],
                n_ubatch=self._settings["n_ctx"],
                embedding=True,
                pooling_type=self._lib.LLAMA_POOLING_TYPE_MEAN,
            )
            self._lib.llama_set_abort_callback(self._embedder.ctx, self._abort, None)
        window = self._embedder.n_ctx()
        vectors, used = [], 0
        for text in request["texts"]:
            tokens = len(self._tokens(text, special=False)) + 2
            if tokens > window:
                raise Refused(
                    "too_long", f"a text is {tokens} tokens, the context holds {window}", context_window=window
                )
            if request["id"] in self._cancelled:
                return
            made = self._embedder.create_embedding(text)
            vectors.append(made["data"][0]["embedding"])
            used += made["usage"]["prompt_tokens"]
        yield {"done": {"vectors": vectors, "input_tokens": used, "output_tokens": 0}}


_SAMPLING = frozenset(
    ("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repeat_penalty")
)


def main() -> None:
    """Load the model that the first line names, say so, and serve."""
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(
            resource.RLIMIT_CORE, (0, 0)
        )  # of native code a crash is expected, gigabytes of core are not
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    lines = sys.stdin.buffer
    settings = json.loads(lines.readline())
    try:
        worker = Worker(settings, out)
    except Exception as error:  # told to the other side, which raises it
        out.write(json.dumps({"id": 0, "error": f"{type(error).__name__}: {error}", "kind": "load"}).encode() + b"\n")
        out.flush()
        return
    worker.say(id=0, done={"n_ctx": worker._writer.n_ctx(), "n_ctx_train": worker._writer._model.n_ctx_train()})
    threading.Thread(target=worker.read, args=(lines,), daemon=True).start()
    worker.work()


if __name__ == "__main__":
    main()
