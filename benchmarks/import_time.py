"""What it costs to import this library, what is below it and what is beside it.

    .venv/bin/python benchmarks/import_time.py [--rounds 5]

Every import is a process of its own, in an environment of its own where it needs one; they take turns, and the figures
are medians. The first round, which may have to compile and to read from the disk, is thrown away.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

import environments
import tables
from peers import HERE

IMPORTS = (
    ("nothing", HERE, "pass"),
    ("`import devsynth_providers`", HERE, "import devsynth_providers"),
    ("`from devsynth_providers import Router`", HERE, "from devsynth_providers import Router"),
    ('`Router.from_policy("offline")`', HERE, "import devsynth_providers as d; d.Router.from_policy('offline')"),
    ("`import aiohttp`", HERE, "import aiohttp"),
    ("`import openai`", "sdks", "import openai"),
    ("`import anthropic`", "sdks", "import anthropic"),
    ("`import litellm`", HERE, "import litellm"),
    ("`import any_llm`", "any-llm", "import any_llm"),
    ("any-llm, with its OpenAI provider", "any-llm", "import any_llm; any_llm.AnyLLM.create('openai', api_key='k')"),
    ("`import pydantic_ai`", "pydantic-ai", "import pydantic_ai"),
    ("pydantic-ai, its OpenAI model", "pydantic-ai", "import pydantic_ai.models.openai"),
    ("`import langchain_openai`", "langchain", "import langchain_openai"),
    ("LangChain, its `ChatOpenAI`", "langchain", "from langchain_openai import ChatOpenAI"),
)

PROBE = """
import json, sys, time
before, started = len(sys.modules), time.perf_counter()
{code}
took = time.perf_counter() - started
try:
    status = open("/proc/self/status").read()
    mb = int(status.partition("VmRSS:")[2].split()[0]) / 1024
except OSError:  # not Linux: the most that it ever was, in bytes
    import resource
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps([took, len(sys.modules) - before, mb]))
"""


def probe(environment: str, code: str) -> list[float]:
    """Seconds, modules that were not loaded before, and MB of the whole process."""
    command = [environments.python(environment), "-c", PROBE.format(code=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environments.variables())
    taken: list[float] = json.loads(done.stdout.splitlines()[-1])
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes that count, of each (default 5)")
    rounds = parser.parse_args().rounds
    taken: dict[str, list[list[float]]] = {}
    absent: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, environment, code in IMPORTS:
            try:
                row = probe(environment, code)
            except environments.NotMade as reason:
                absent[name] = f"no environment: {reason}"
            except subprocess.CalledProcessError as error:
                sys.exit(f"{name}: {error.stderr}")
            else:
                if number:
                    taken.setdefault(name, []).append(row)
    print(tables.heading())
    print("| import | s | modules | MB |\n|---|--:|--:|--:|")
    for name, rows in taken.items():
        seconds, modules, mb = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {seconds:.3f} | {modules:.0f} | {mb:.0f} |")
    for name, reason in absent.items():
        print(f"\n- not measured: {name}: {reason}")


if __name__ == "__main__":
    main()
