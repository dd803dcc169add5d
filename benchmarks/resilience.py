"""What a caller sees when models fail: this library beside ``litellm.Router``, over the same faults, in one run.

    .venv/bin/python benchmarks/resilience.py [--quick] [--only SCENARIO]... [--json FILE] [--write]

A server on loopback plays faults by script, from values that say what the right answer is; each side is a process of
its own, asks a server of its own, and gets the same prompts, times and candidates. An answer counts as right only if
it is what the server had to say. How both sides are set up, and why, stands in ``faulty/ours.py`` and
``faulty/lite.py``. Where LiteLLM's documentation shows several ways, all are measured, and its best one stands in the
summary.

``--write`` puts the tables into ``docs/reliability.md`` and the picture beside it. ``--quick`` asks less, and counts an
outage after 20 seconds instead of a minute: it is for looking, and can not be written. A whole run takes about half an
hour.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import environments
import tables
from faulty import pages
from faulty.scenarios import QUICK, SCENARIOS, Scale
from faulty.sides import TAKES_PART

HERE = Path(__file__).parent / "faulty"
SEED = 7


class Failed(Exception):
    """A side could not be asked at all: nothing that was measured counts."""


class Played:
    """One side in one scenario: its server and its worker."""

    def __init__(self, scenario: str, name: str, *, quick: bool) -> None:
        self._name = f"{scenario}, {name}"
        environment = environments.variables() | {"BENCHMARK_KEY": "k"}
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), str(SEED)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._server.stdout
        command = [sys.executable, str(HERE / "worker.py"), scenario, name, self._server.stdout.readline()]
        self._worker = subprocess.Popen(
            [*command, "quick" if quick else "full"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # LiteLLM tells every failure there, and all of them are wanted
            text=True,
            env=environment,
        )

    def came(self) -> Any:
        """What came of it, when it has ended."""
        told, _ = self._worker.communicate()
        self.end()
        came = json.loads(told) if told else {"failed": "the process ended"}
        if "failed" in came:
            raise Failed(f"{self._name}: {came['failed']}")
        return came

    def end(self) -> None:
        for process in (self._worker, self._server):
            process.kill()
            process.wait()


def play(scenario: str, *, quick: bool) -> dict[str, Any]:
    """What came of *scenario*, by side; a side that this version does not have is left out."""
    names = TAKES_PART[scenario]
    played: list[Played] = []
    found = {}
    try:
        for name in names:
            played.append(Played(scenario, name, quick=quick))
            if not SCENARIOS[scenario].together:
                found[name] = played.pop().came()
        for name, each in zip(names, played, strict=False):
            found[name] = each.came()
    finally:
        for each in played:
            each.end()
    return {name: came for name, came in found.items() if "missing" not in came}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ask less, with a shorter warm-up")
    parser.add_argument("--only", action="append", choices=[*SCENARIOS], help="only this scenario; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was seen there, too")
    parser.add_argument("--again", type=Path, metavar="FILE", help="go on from what a run wrote by --json")
    parser.add_argument("--write", action="store_true", help="rewrite docs/reliability.md and its picture")
    options = parser.parse_args()
    run: dict[str, Any] = {"found": {}, "load": {}}
    if options.again:
        run |= json.loads(options.again.read_text())
    else:
        run |= {"heading": tables.heading().strip(), "versions": pages.versions(), "quick": options.quick}
    played = options.only or ([] if options.again else SCENARIOS)
    if options.write and (run["quick"] or {*run["found"], *played} != SCENARIOS.keys()):
        parser.error("--write takes a whole run: no --quick, and every scenario")
    try:
        for scenario in played:
            print(f"playing: {scenario}", file=sys.stderr)
            run["found"][scenario] = play(scenario, quick=run["quick"])
            run["load"][scenario] = os.getloadavg()[1]
            if options.json:
                options.json.write_text(json.dumps(run))
    except Failed as error:
        sys.exit(str(error))
    scale = QUICK if run["quick"] else Scale()
    if run["quick"]:
        print(
            f"Quick: an outage is counted after {scale.warm_s:.0f} s, not a minute; fewer requests. Not to be quoted.\n"
        )
    print(pages.generated(run, scale))
    if options.write:
        pages.write(run, scale)


if __name__ == "__main__":
    main()
