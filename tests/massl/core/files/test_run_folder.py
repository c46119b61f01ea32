"""Runs that somebody else made: whatever their files hold or are, they are described, or refused in a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cli.info import _run
from massl.core.errors import MasslError
from massl.core.files.run_folder import MOST_CONFIGURATION, MOST_METRICS, describe_run, is_run, read_metrics

CONFIGURATION = '[run]\nimages = 3\nroot = "/photos"\n[settings]\nsteps = 8\n'
ROW = {"step": 4, "epoch": 1.5, "loss": 0.25, "images_per_second": 7.0, "seconds": 3.0, "seconds_left": 3.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIGURATION)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROW) + "\n")
    return tmp_path


def told(folder: Path) -> dict[str, str]:
    return dict(_run(describe_run(folder)))


def test_a_run_is_described(folder: Path) -> None:
    assert told(folder)["progress"] == "step 4 of 8, 1.5 epochs"
    assert told(folder)["pace"] == "7.0 images/s, 0:00:03 so far, 0:00:03 left at that pace"
    assert (told(folder)["loss"], told(folder)["images"]) == ("0.250", "3 of /photos")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl"])
def test_pipes_and_devices_are_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(MasslError, match="not a regular file"):
        describe_run(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(MasslError, match="not a regular file"):
        describe_run(folder)
    assert is_run(folder) == (name != "config.toml")


@pytest.mark.parametrize(("name", "most"), [("config.toml", MOST_CONFIGURATION), ("metrics.jsonl", MOST_METRICS)])
def test_files_larger_than_any_run_has_are_not_read(folder: Path, name: str, most: int) -> None:
    with (folder / name).open("r+b") as file:
        file.truncate(most + 1)
    with pytest.raises(MasslError, match="too large"):
        describe_run(folder)


@pytest.mark.parametrize(
    "said",
    [
        "run = 5\n[settings]\nsteps = 8",
        "settings = []",
        "[settings]\nsteps = '8'",
        "[run]\nimages = '<b>'\n[settings]",
        "[run]\nroot = 5\n[settings]",
        "[settings]\nsteps = " + "[" * 10_000,
    ],
)
def test_a_configuration_of_another_form_is_refused(folder: Path, said: str) -> None:
    (folder / "config.toml").write_text(said)
    with pytest.raises(MasslError, match=r"config\.toml can't be read"):
        told(folder)


def test_a_configuration_does_not_say_what_it_is_itself(folder: Path) -> None:
    (folder / "config.toml").write_text(CONFIGURATION.replace("[run]", '[run]\nkind = "collection"\npath = "/x"'))
    assert (describe_run(folder)["kind"], told(folder)["run"]) == ("run", str(folder))


@pytest.mark.parametrize("value", ['"x"', "null", "NaN", "1e400", "9" * 400, "[1]", "{}", "-1e14", "1e14"])
@pytest.mark.parametrize("name", ROW)
def test_figures_that_are_none_are_left_out(folder: Path, name: str, value: str) -> None:
    line = json.dumps(ROW).replace(f'"{name}": {ROW[name]}', f'"{name}": {value}')
    assert value in line
    (folder / "metrics.jsonl").write_text(line)
    assert told(folder)["progress"].startswith("step 4 of 8" if name != "step" else "no step finished")


def test_lines_that_are_no_figures_are_passed_over(folder: Path) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("[" * 100_000 + '\n[1]\n5\n{"step": true}\n{"loss": 1}\n{"ste')
    assert read_metrics(folder) == [ROW]
