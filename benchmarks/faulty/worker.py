"""One side in a process of its own: plays one scenario, and prints what came of it as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from faulty.ours import has
from faulty.scenarios import QUICK, SCENARIOS, Scale
from faulty.side import Side
from faulty.sides import SIDES


async def _play(scenario: str, name: str, addresses: dict[str, str], scale: Scale) -> Any:
    if (key := SIDES[name].needs) and not has(key):
        return {"missing": key}
    played = SCENARIOS[scenario]
    side: Side = SIDES[name].make(played.setup, addresses)
    await side.open()
    await side.warm_up()
    return await played.run(side, scale, addresses)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print is no answer
    scenario, name, addresses, scale = sys.argv[1:]
    try:
        came = asyncio.run(_play(scenario, name, json.loads(addresses), QUICK if scale == "quick" else Scale()))
    except Exception:  # noqa: BLE001 - the parent tells it, and ends
        came = {"failed": traceback.format_exc()}
    answers.write(json.dumps(came) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
