#!/usr/bin/env python3
"""The first fifteen minutes of MaSSL on a GPU: eighteen checks, what must be right before what should be fast.

    benchmarks/gpu.py all [--device cuda] [--data FOLDER] [--budget SECONDS] [--out RESULTS.jsonl]
    benchmarks/gpu.py loss
    benchmarks/gpu.py gather FOLDER [--python 3.12] [--images IMAGES]

Each check prints a line, PASS, FAIL or SKIP with its name and number, and a line of JSON. Each runs in a process of
its own under a time limit, and what it had measured by then is kept. `all` goes through them within the budget.
`--device cpu --toy` runs everything in seconds, to find mistakes of writing. `gather` puts what such a machine may lack
into a folder, to be carried there: wheels, and JPEGs; `pip install --no-index --no-deps --target SITE FOLDER/wheels/*`
installs the wheels. The exit code is 1 where a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import gpu_correctness  # noqa: E402 - what it imports is found by the line before
import gpu_frozen  # noqa: E402
import gpu_speed  # noqa: E402
from gpu_cases import Bench, Outcome, Skipped  # noqa: E402

BUDGET = 780  # seconds


class Check(NamedTuple):
    """A check: what it does, and the seconds that it may take."""

    run: Callable[[Bench], Outcome]
    limit: float


# In the order in which they run. No process that forks may touch a GPU before, so each runs in one that was forked.
CHECKS = {
    "environment": Check(gpu_correctness.environment, 60),
    "loss": Check(gpu_correctness.loss, 60),
    "augmentation": Check(gpu_correctness.augmentation, 45),
    "decoding": Check(gpu_correctness.decoding, 60),
    "steps": Check(gpu_correctness.steps, 90),
    "not-finite": Check(gpu_correctness.not_finite, 60),
    "syncs": Check(gpu_correctness.syncs, 60),
    "memory": Check(gpu_correctness.memory, 60),
    "group": Check(gpu_correctness.group_of_one, 60),
    "adapting": Check(gpu_frozen.adapting, 90),
    "teaching": Check(gpu_frozen.teaching, 90),
    "command": Check(gpu_correctness.command, 150),
    "rate": Check(gpu_speed.rate, 240),
    "kernels": Check(gpu_speed.kernels, 60),
    "loader": Check(gpu_speed.loader, 45),
    "loss-cost": Check(gpu_speed.loss_cost, 60),
    "packed": Check(gpu_speed.packed, 60),
    "indexing": Check(gpu_speed.indexing, 60),
}


def in_a_process(name: str, bench: Bench, limit: float) -> dict[str, Any]:
    """Runs a check in a fork of this process; ends it, and all that it started, when its time is up."""
    began = time.monotonic()
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(reading)
        os.dup2(2, 1)  # standard output is for results
        if bench.toy:
            torch.set_num_threads(1)
        _answer(CHECKS[name].run, bench, writing)
        os._exit(0)
    os.close(writing)
    said = b""
    try:
        while (left := began + limit - time.monotonic()) > 0 and select.select([reading], [], [], left)[0]:
            if not (part := os.read(reading, 1 << 16)):
                break
            said += part
    finally:
        os.close(reading)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    *rows, end = [json.loads(line) for line in said.splitlines() if line.endswith(b"}")] or [{}]
    if "state" not in end:
        rows += [end] if end else []
        late = time.monotonic() - began >= limit
        said_why = f"not done after {limit:.0f} s" if late else "the process ended by itself"
        end = {"state": "FAIL", "value": None, "said": said_why}
    return {"check": name, **end, "rows": rows, "seconds": round(time.monotonic() - began, 1)}


def _answer(run: Callable[[Bench], Outcome], bench: Bench, writing: int) -> None:
    def tell(row: dict[str, Any]) -> None:
        os.write(writing, json.dumps(row).encode() + b"\n")

    try:
        outcome = run(bench._replace(tell=tell))
        tell({"state": "PASS" if outcome.passed else "FAIL", "value": outcome.value, "said": outcome.said})
    except Skipped as reason:
        tell({"state": "SKIP", "value": None, "said": str(reason)})
    except BaseException as error:
        traceback.print_exc()
        first = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        tell({"state": "FAIL", "value": None, "said": first})


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="check", required=True)
    for name in ("all", *CHECKS):
        about = (CHECKS[name].run.__doc__ or "").partition("\n")[0] if name in CHECKS else "All, one after the other."
        one = commands.add_parser(name, help=about)
        one.add_argument("--device", default="cuda")
        one.add_argument("--toy", action="store_true", help="sizes of seconds on a CPU")
        one.add_argument("--data", type=Path, help="the folder that gather made")
        one.add_argument("--out", type=Path, help="a .jsonl file that results are added to")
        one.add_argument("--budget", type=float, default=BUDGET, help="seconds for all of it")
    gathers = commands.add_parser("gather", help="Puts what a machine may lack into a folder.")
    gathers.add_argument("folder", type=Path)
    gathers.add_argument("--python", default="3.12", help="version of Python on that machine")
    gathers.add_argument("--images", type=Path, help="a folder to take JPEGs from; the bundled pictures if left out")
    gathers.add_argument("--packages", nargs="*", help="wheels to take along; what a usual image with torch lacks")
    given = parser.parse_args()
    if given.check == "gather":
        from gpu_gather import gather

        gather(given.folder, given.python, given.images, given.packages)
        return
    until = time.monotonic() + given.budget
    failed = False
    with tempfile.TemporaryDirectory(prefix="massl-gpu-") as scratch:
        bench = Bench(torch.device(given.device), given.toy, given.data, Path(scratch))
        for name in CHECKS if given.check == "all" else [given.check]:
            left = until - time.monotonic()
            if left > 1:
                result = in_a_process(name, bench, min(CHECKS[name].limit, left))
            else:
                result = {"check": name, "state": "SKIP", "value": None, "said": "no time was left", "rows": []}
            failed |= result["state"] == "FAIL"
            print(f"{result['state']} {name}: {result['said']}")
            print(json.dumps(result), flush=True)
            if given.out:
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
