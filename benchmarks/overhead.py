"""What a call through the router costs beyond LiteLLM itself, beside LiteLLM's own Router, in one run.

    .venv/bin/python benchmarks/overhead.py [--calls 300]

All ways ask the same server on loopback (a process of its own, so that its work is not counted) for the same short
answer. They take turns in blocks, so that whatever else the machine does falls on all alike. CPU is that of this
process; the first block of each is thrown away. Prints a Markdown table; the ratios travel, the milliseconds do not.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from devsynth_providers import FREE, ChatRequest, Model, OpenAIProvider, Policy, Router, Rule, telemetry
from devsynth_providers.providers._litellm import load
from devsynth_providers.testing import ScriptedProvider

Call = Callable[[], Awaitable[Any]]
BLOCKS = 10


def serve(pipe: Any) -> None:
    """The far side: keeps its connections open, as real servers do, and always says the same."""
    import json
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    choice = {"index": 0, "message": {"role": "assistant", "content": "w0 w1 w2"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    whole = json.dumps(body).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536  # one packet for head and body: two would wait for each other (Nagle)

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()


async def ways(url: str) -> dict[str, Call]:
    """The calls to compare, each set up as its documentation advises, with retries off."""
    litellm = await load.ready()
    target = {"model": "openai/m", "api_key": "k", "api_base": url}
    ask: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.7, "max_tokens": 1000}
    theirs = litellm.Router(model_list=[{"model_name": "m", "litellm_params": target}], num_retries=0)
    model = Model(name="m", provider="openai", base_url=url, price=FREE, abilities=frozenset(("chat",)))
    policy = Policy(models={"m": model}, rules=(Rule(name="all", models=("m",)),))
    ours = Router(policy)
    scripted = Router(policy, {"m": ScriptedProvider(*["w0 w1 w2"] * 1_000_000)})
    alone = OpenAIProvider(model)
    return {
        "litellm.acompletion": lambda: litellm.acompletion(**target, **ask, max_retries=0, num_retries=0),
        "litellm.Router": lambda: theirs.acompletion(model="m", **ask),
        "OpenAIProvider": lambda: alone.generate("hi"),
        "Router over OpenAIProvider": lambda: ours.generate("hi"),
        "Router over a scripted provider": lambda: scripted.generate("hi"),
        "of that, Router.plan": lambda: _plan(ours),
        "of that, its spans without an SDK": _spans,
    }


async def _plan(router: Router) -> None:
    router.plan("hi")


async def _spans() -> None:
    """What tracing does for one call: a span for the request, one for its attempt, with nobody to listen."""
    model = Model(name="m", provider="openai")
    request = ChatRequest.of("hi")
    with telemetry.request_span(request, "p"), telemetry.attempt_span(request, model) as attempt:
        telemetry.event("fallback", reason="x")
        _ = attempt.wait_s


async def measure(calls: dict[str, Call], count: int) -> dict[str, tuple[float, float]]:
    """CPU and wall milliseconds a call: the medians over blocks that take turns."""
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    wall: dict[str, list[float]] = {name: [] for name in calls}
    for block in range(BLOCKS + 1):
        for name, call in calls.items():
            cpu_before, wall_before = time.process_time(), time.perf_counter()
            for _ in range(count // BLOCKS):
                await call()
            if block:
                cpu[name].append((time.process_time() - cpu_before) / (count // BLOCKS) * 1000)
                wall[name].append((time.perf_counter() - wall_before) / (count // BLOCKS) * 1000)
    return {name: (statistics.median(cpu[name]), statistics.median(wall[name])) for name in calls}


def imports() -> list[tuple[str, float]]:
    """Seconds to import each, the median of five processes."""
    rows = []
    for what in (
        "import devsynth_providers",
        "from devsynth_providers import Router",
        "import openai",
        "import litellm",
    ):
        code = f"import time; t = time.perf_counter(); {what}; print(time.perf_counter() - t)"
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
        times = [
            float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment).stdout)
            for _ in range(5)
        ]
        rows.append((what, statistics.median(times)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="calls of each kind (default 300)")
    count = max(BLOCKS, parser.parse_args().calls)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"

    async def run() -> dict[str, tuple[float, float]]:
        return await measure(await ways(url), count)

    try:
        rows = asyncio.run(run())
    finally:
        server.kill()
    base = rows["litellm.acompletion"][0]
    print(
        f"{datetime.date.today()}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n"
    )
    print("| one call, whole answer | CPU ms | times litellm.acompletion | wall ms |\n|---|--:|--:|--:|")
    for name, (cpu, wall) in rows.items():
        print(f"| {name} | {cpu:.3f} | {cpu / base:.2f} | {wall:.3f} |")
    print("\n| import | s |\n|---|--:|")
    for name, seconds in imports():
        print(f"| `{name}` | {seconds:.3f} |")


if __name__ == "__main__":
    main()
