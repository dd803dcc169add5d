"""A process that forks after it has asked: the child asks by connections of its own, and the parent goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.loads_litellm,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]

START = """
import asyncio, gc, logging, multiprocessing, os, sys, threading, time
from devsynth_providers import *
from devsynth_providers.limits import Limiter
from tests.holdings import ASKING, by_what_is_asked, router
from tests.loopback import Loopback, delta, sse
logging.getLogger("asyncio").addFilter(lambda each: not each.getMessage().startswith("Executing"))  # slow machines
os.environ["TEST_KEY"] = "sk-canary-0123456789abcdef"
lane = sys.argv[1]
server = Loopback(keep_alive=True).script(by_what_is_asked)

def inodes():
    found = set()
    for each in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{each}"))
        except OSError:
            pass
    return found

def to_server():
    "The sockets that are connected to the server, by what the kernel calls them."
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    there = f"0100007F:{server.port:04X}"
    return {f"socket:[{row[9]}]" for row in rows if row[2] == there}

async def ask(mine):
    for kind in ASKING.values():
        assert await kind(mine)

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def run(code: str, *arguments: str) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    done = subprocess.run(
        [*command, "-c", START + code, *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(params=["direct", "unified"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_child_shares_no_connection_and_neither_disturbs_the_other(lane: str) -> None:
    run(
        """
mine = router(server, lane, limits={"m": RateLimits(concurrent=2)})
assert mine.sync.generate("parent") == "w0 w1 w2"
ours = inodes() & to_server()
assert ours
child = os.fork()
if child == 0:
    assert not inodes() & ours
    assert mine.sync.generate("child") == "w0 w1 w2"
    assert "".join(mine.sync.generate_stream("child")) == "w0 w1 w2"
    asyncio.run(ask(mine))
    mine.sync.close()
    sys.exit(0)  # by the way on which everything is tidied up
assert mine.sync.generate("parent") == "w0 w1 w2"
assert ended(child) == 0
assert mine.sync.generate("parent") == "w0 w1 w2"
mine.sync.close()
""",
        lane,
    )


def test_a_child_that_lives_on_does_not_keep_the_connections_of_its_parent(lane: str) -> None:
    """The server sees the parent leave a stream; and the stream that goes on is not disturbed by the child."""
    run(
        """
async def main():
    mine = router(server, lane)
    server.script(sse(delta("w0 "), delta("w1 "), then="hang"))
    reply = await mine.send(ChatRequest.of("hi", stream=True))
    assert (await anext(reply)).text == "w0 "
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    assert (await anext(reply)).text == "w1 "
    assert not server.client_left(0.0)
    await reply.aclose()
    assert await asyncio.to_thread(server.client_left)
    os.close(writing)
    assert ended(child) == 0
    await mine.aclose()
asyncio.run(main())
""",
        lane,
    )


def test_no_lock_that_a_thread_of_the_parent_holds_stops_a_child(lane: str, tmp_path: Path) -> None:
    run(
        """
from contextlib import ExitStack
from devsynth_providers.measured import Measured
from devsynth_providers.providers import sessions
from devsynth_providers.providers._litellm import custom
health, measured, limiter = Health(), Measured(), Limiter()
log = DecisionLog(sys.argv[2])
shadow = router(server, lane).policy
mine = router(server, lane, health=health, measured=measured, limiter=limiter, decisions=log, shadow=shadow,
              limits={"m": RateLimits(concurrent=2)})
asyncio.run(ask(mine))
mine.sync.generate("hi")
deployments = mine._deployments
(circuit,) = deployments.current.circuits.values()
locks = [health._guard, health.retries._guard, circuit._guard, measured._lock, limiter._lock, log._lines._lock,
         limiter.entrance(mine.model)._lock, deployments._lock, deployments.current.shadow._lock, mine.sync._own._lock,
         sessions._lock, custom._guard]
taken, done = threading.Event(), threading.Event()
def hold():
    with ExitStack() as held:
        for each in locks:
            held.enter_context(each)
        taken.set()
        done.wait()
threading.Thread(target=hold, daemon=True).start()
taken.wait()
child = os.fork()
if child == 0:
    threading.Timer(60, os._exit, [3]).start()
    asyncio.run(ask(mine))
    assert mine.sync.generate("child") == "w0 w1 w2"
    assert mine.shadow_report.requests
    mine.sync.close()
    os._exit(0)
done.set()
assert ended(child) == 0
asyncio.run(ask(mine))
mine.sync.close()
log.close()
""",
        lane,
        str(tmp_path / "decisions.jsonl"),
    )


def test_processes_that_multiprocessing_forks_ask_too(lane: str) -> None:
    run(
        """
mine = router(server, lane)
context = multiprocessing.get_context("fork")
def work(number):
    asyncio.run(ask(mine))
    return mine.sync.generate(str(number))
if __name__ == "__main__":
    asyncio.run(ask(mine))
    assert mine.sync.generate("hi") == "w0 w1 w2"
    with context.Pool(3) as pool:
        assert pool.map(work, range(9)) == ["w0 w1 w2"] * 9
    alone = context.Process(target=work, args=(1,))
    alone.start()
    alone.join()
    assert alone.exitcode == 0
    assert mine.sync.generate("hi") == "w0 w1 w2"
    mine.sync.close()
""",
        lane,
    )


def test_a_grandchild_of_a_closed_router_asks_again() -> None:
    run(
        """
mine = router(server, lane)
mine.sync.generate("hi")
mine.sync.close()
child = os.fork()
if child == 0:
    mine.sync.generate("child")
    grandchild = os.fork()
    if grandchild == 0:
        mine.sync.generate("grandchild")
        os._exit(0)
    os._exit(ended(grandchild))
assert ended(child) == 0
assert [each["messages"][0]["content"] for each in server.requests] == ["hi", "child", "grandchild"]
""",
        "direct",
    )


@pytest.mark.local
def test_a_child_has_a_local_model_of_its_own_and_lets_go_of_its_parents() -> None:
    pytest.importorskip("llama_cpp")
    run(
        """
with SyncRouter(LocalProvider(threads=1)) as local:
    assert local.generate("hi", max_tokens=2)
    before = {each for each in inodes() if each.startswith("pipe")}
    worker = local._provider.process_id
    child = os.fork()
    if child == 0:
        assert not before & {each for each in inodes() if each.startswith("pipe")} - STANDARD
        assert local._provider.process_id is None
        assert local.generate("hi", max_tokens=2)
        assert local._provider.process_id != worker
        local.close()
        os._exit(0)
    assert local.generate("hi", max_tokens=2)
    assert ended(child) == 0
    assert local._provider.process_id == worker
    assert local.generate("hi", max_tokens=2)
""".replace("- STANDARD", "- {os.readlink(f'/proc/self/fd/{each}') for each in range(3)}"),
        "direct",
    )
