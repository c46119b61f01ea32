"""The checks that wait for a GPU, on a CPU at toy sizes: each runs, and each notices what it is there for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks come with a clone alone")

# All in one process, as importing everything takes longer than most of the checks.
SCRIPT = """
import sys, time, torch
from pathlib import Path
sys.path.insert(0, "benchmarks")
import gpu, gpu_frozen, gpu_gather, gpu_correctness as checks
from massl.method import device_cutting
from massl.training import learner

FOLDER = sys.argv[1]

def command(*words):
    sys.argv = ["gpu.py", *words]
    try:
        gpu.main()
    except SystemExit as end:
        print("exit", end.code, flush=True)

toy = ("--device", "cpu", "--toy")
command("all", *toy, "--out", FOLDER + "/results.jsonl")
print("-- budget")
command("all", *toy, "--budget", "0")
print("-- gather")
gpu_gather.JPEGS = 7
command("gather", FOLDER + "/gathered", "--packages")
print("-- broken")
bench = gpu.Bench(torch.device("cpu"), True, None, Path(FOLDER))
right = {name: getattr(checks, name) for name in ("massl_loss", "augment")}

def off(name, factor):
    whole = right[name]
    def wrong(*given):
        found = whole(*given)
        return found._replace(loss=factor * found.loss) if name == "massl_loss" else factor * found
    return wrong

def run(check, limit=60):
    result = gpu.in_a_process(check, bench, limit)
    print(result["state"], check, result["said"], sep="|")

checks.massl_loss = off("massl_loss", 1.001)
run("loss")
calls = []
def second(views, draws):
    calls.append(0)
    return right["augment"](views, draws) + 0.02 * (len(calls) > 1)
checks.augment = second
run("augmentation")
resampling = device_cutting.resampling
device_cutting.resampling = lambda start, length, *sizes: resampling(start + 2, length, *sizes)
run("decoding")
device_cutting.resampling = resampling
learner.massl_loss = off("massl_loss", 1.002)
run("steps")
learner.massl_loss = right["massl_loss"]
update = learner.update_teacher
learner.update_teacher = lambda student, teacher, momentum, wanted=None: update(student, teacher, momentum)
run("not-finite")
learner.update_teacher = update
load = learner.Learner.load_state_dict
learner.Learner.load_state_dict = lambda self, state: load(self, {**state, "student": state["teacher"]})
run("memory")
embed = gpu_frozen.Teaching.embed
gpu_frozen.Teaching.embed = lambda self, views: embed(self, views) * float("nan")
run("teaching")
def breaks(bench):
    bench.tell({"measured": 1})
    raise OSError("no such thing")
gpu.CHECKS["breaks"] = gpu.Check(breaks, 9)
gpu.CHECKS["sleeps"] = gpu.Check(lambda bench: time.sleep(60), 9)
gpu.CHECKS["dies"] = gpu.Check(lambda bench: __import__("os")._exit(3), 9)
for check in ("breaks", "sleeps", "dies"):
    run(check, 1)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """What the script wrote, in its four parts, and its folder."""
    folder = tmp_path_factory.mktemp("checks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return re.split(r"-- \w+\n", done.stdout), folder


def test_every_check_passes_on_a_cpu(ran: tuple[list[str], Path]) -> None:
    *lines, end = ran[0][0].splitlines()
    rows = [json.loads(line) for line in lines[1::2]]
    assert [row["check"] for row in rows] == [
        "environment", "loss", "augmentation", "decoding", "steps", "not-finite", "syncs", "memory", "group",
        "adapting", "teaching", "command", "rate", "kernels", "loader", "loss-cost", "packed", "indexing",
    ]  # fmt: skip
    assert [row["state"] for row in rows] == ["PASS"] * 18
    assert lines[::2] == [f"PASS {row['check']}: {row['said']}" for row in rows]
    assert len((ran[1] / "results.jsonl").read_text().splitlines()) == 18
    assert end == "exit False"


def test_a_check_that_should_fail_fails_and_says_why(ran: tuple[list[str], Path]) -> None:
    found = {line.split("|")[1]: line.split("|") for line in ran[0][3].splitlines()}
    assert {state for state, _, _ in found.values()} == {"FAIL"}
    assert len(found) == 10
    assert found["not-finite"][2][0] in "123456789"
    assert "student" in found["memory"][2]
    assert found["breaks"][2] == "OSError: no such thing"
    assert found["sleeps"][2] == "not done after 1 s"
    assert found["dies"][2] == "the process ended by itself"


def test_a_budget_that_is_spent_leaves_the_rest_out(ran: tuple[list[str], Path]) -> None:
    assert ran[0][1].count("SKIP loss: no time was left") == 1
    assert ran[0][1].count("no time was left") == 2 * 18


def test_what_is_gathered_are_pictures(ran: tuple[list[str], Path]) -> None:
    assert "0 wheels and 7 JPEGs" in ran[0][2]
    assert (ran[1] / "gathered" / "images" / "0006.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
