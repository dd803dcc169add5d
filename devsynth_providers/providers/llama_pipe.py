"""The operating system's side of a local model: one process, started, written to, listened to and seen off."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ..errors import ModelNotFound

Event = dict[str, Any]

WORKER = Path(__file__).with_name("llama_worker.py")
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
LOAD_LIMIT_S = 600.0
"""How long loading a model may take before its process is given up."""
END_GRACE_S = 2.0
"""How long a process may take to leave by itself when nobody writes to it any more."""


class LlamaPipe:
    """A process of ``llama_worker``, and the pipes to it. Made is started; ``load`` it before anything else."""

    def __init__(self) -> None:
        # -P: the folder of the script is no place to import from, it has a module called openai.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not SECRET.search(name)},
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us; the process leaves when its input ends
        )
        self._answers = io.BufferedReader(cast("io.RawIOBase", self._process.stdout))
        self._said: collections.deque[str] = collections.deque(maxlen=5)
        self._overhearing = threading.Thread(target=self._overhear, name="llama-err", daemon=True)
        self._overhearing.start()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def load(self, settings: Event) -> None:
        """Have the model loaded, and wait for it. Raises ``ModelNotFound`` if it can not be, and ends the process."""
        deadline = threading.Timer(LOAD_LIMIT_S, self.kill)
        deadline.daemon = True
        deadline.start()
        with contextlib.suppress(OSError):  # it ended already; why is read below
            self.send(settings)
        told = self._answers.readline()
        deadline.cancel()
        event = json.loads(told) if told else {"error": "its process ended while loading it"}
        if "error" in event:
            self._answers.close()
            self.end()
            self._overhearing.join()
            why = " ".join([event["error"], *self._said])
            raise ModelNotFound(f"{settings['path']} can not be loaded: {why}")

    def send(self, line: Event) -> None:
        """Write *line* whole: a pipe may take a part of it and be interrupted by a signal. Raises ``OSError``."""
        assert self._process.stdin is not None
        rest = memoryview(json.dumps(line).encode() + b"\n")
        while rest:
            rest = rest[self._process.stdin.write(rest) :]

    def events(self) -> Iterator[Event]:
        """What the process says, until it ends; a line that its death has cut is not passed on."""
        with self._answers:
            for line in self._answers:
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def kill(self) -> None:
        """End the process at once, without waiting for it."""
        self._process.kill()

    def end(self) -> str:
        """See the process off, within ``END_GRACE_S``; returns what it died of, with the last it printed."""
        with contextlib.suppress(OSError):  # it was gone before the last line reached it
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            code = self._process.wait(END_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        died_of = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{died_of} ({self._said[-1]})" if self._said else died_of

    def disown(self) -> None:
        """In a forked child: it is the parent's, not ours to wait for. It leaves when nobody can write to it any more,
        so the child's copies of its pipes are closed: below the buffers, whose locks a thread may have held."""
        self._process.returncode = 0
        for pipe in filter(None, (self._process.stdin, self._process.stdout, self._process.stderr)):
            pipe.close()

    def _overhear(self) -> None:
        """Keep the last lines that native code has printed, for the error if it dies."""
        with io.BufferedReader(cast("io.RawIOBase", self._process.stderr)) as lines:
            for line in lines:
                self._said.append(line.decode("utf-8", "replace").strip()[:200])
