"""The page of a run, and what is noted for it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from massl.core.errors import MasslError
from massl.data.sources import find_source
from massl.encoder import weights
from massl.encoder.inference import Deployed
from massl.training.neighbour_record import FILE, NEIGHBOURS, QUERIES, NeighbourRecord, read_record
from massl.training.probe import Probe
from massl.training.run_report import write_run_report
from tests.forked import Forks
from tests.massl.conftest import full_disk


def page_of(run: Path, tmp_path: Path) -> str:
    write_run_report(tmp_path / "report.html", run)
    return (tmp_path / "report.html").read_text()


def test_neighbours_before_and_now_are_those_of_the_network(run: Path, pictures: Path) -> None:
    source, _ = find_source(pictures / "flag")
    told = read_record(run)
    assert (told["before"]["step"], told["now"]["step"]) == (0, 8)
    found = weights.read(str(run))
    probe = Probe.prepare(source, found.image_size)
    with torch.no_grad():
        z = Deployed(found).eval()(probe.pixels.permute(0, 2, 3, 1))[0].numpy()
    places = {source.name(index): row for row, index in enumerate(probe.drawn)}
    assert len(told["now"]["rows"]) == min(QUERIES, len(source))
    for asked, near in told["now"]["rows"]:
        cosines = z @ z[places[asked]]
        cosines[places[asked]] = -2
        likeness = [cosine for _, cosine in near]
        assert likeness == pytest.approx(np.sort(cosines)[::-1][:NEIGHBOURS], abs=1e-3)
        assert likeness == pytest.approx([cosines[places[name]] for name, _ in near], abs=1e-3)
    assert [row[0] for row in told["before"]["rows"]] == [row[0] for row in told["now"]["rows"]]
    assert told["before"]["figures"]["rankme"] != told["now"]["figures"]["rankme"]
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["rankme_start"] == told["before"]["figures"]["rankme"]


def test_the_page_draws_figures_and_frames_what_is_new(run: Path, tmp_path: Path) -> None:
    page = page_of(run, tmp_path)
    lines = dict(re.findall(r"<h3>([^<]*)</h3>.*?<polyline class=line0 points=\"([^\"]*)\"", page, re.DOTALL))
    assert set(lines) == {"Loss", "Effective dimensions"}  # without labels and without an adapter
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    heights = [float(point.split(",")[1]) for point in lines["Loss"].split()]
    assert np.argsort(heights).tolist() == np.argsort(-np.array(losses)).tolist()
    told = read_record(run)
    new = sum(
        name not in {other for other, _ in before}
        for (_, before), (_, now) in zip(told["before"]["rows"], told["now"]["rows"], strict=True)
        for name, _ in now
    )
    assert page.count("<figure class=same>") == new
    assert page.count("<figure class=query>") == QUERIES
    assert page.count("<img ") == QUERIES * (1 + 2 * NEIGHBOURS)
    assert "http" not in page.replace("http-equiv", "")


def test_a_run_that_lost_its_images_or_its_notes_has_a_page(run: Path, pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    photos = tmp_path / "photos"
    shutil.copytree(pictures / "flag", photos)
    configuration = (run / "config.toml").read_text().replace(str(pictures / "flag"), str(photos))
    (other / "config.toml").write_text(configuration)
    (photos / read_record(run)["now"]["rows"][0][0]).unlink()
    page = page_of(other, tmp_path)
    assert 0 < page.count("<span>no longer there</span>") < 20 < page.count("<img ")
    shutil.rmtree(photos)
    assert "images can't be shown: " in page_of(other, tmp_path)
    for said in ("{", "[]", '{"now": {"rows": [[1]]}}'):
        (other / FILE).write_text(said)
        assert "<h3>Loss</h3>" in page_of(other, tmp_path)
    (other / FILE).write_text("[" * 100_000)
    assert "<h3>Loss</h3>" in page_of(other, tmp_path)
    (other / "metrics.jsonl").write_text('{"step": 1, "loss": null}\n{"step')
    assert "Not two steps were measured" in page_of(other, tmp_path)


def test_notes_of_another_program_make_the_page_no_larger(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    told = read_record(run)
    rows = [[asked, near * 50] for asked, near in told["now"]["rows"]]
    rows += [[f"none-{number}", rows[0][1]] for number in range(100)]
    (other / FILE).write_text(json.dumps(told | {"now": told["now"] | {"rows": rows}}))
    assert page_of(other, tmp_path).count("<figure class=") == QUERIES * (1 + 2 * NEIGHBOURS)


def test_what_can_not_be_noted_is_one_line(run: Path, pictures: Path, tmp_path: Path) -> None:
    source, _ = find_source(pictures / "flag")
    record = NeighbourRecord(tmp_path, source, np.arange(3), begins=True)
    with full_disk(10), pytest.raises(MasslError, match=r"neighbours\.json"):
        record.note("now", np.eye(3, dtype=np.float32), 1, {})
    record.note("now", np.eye(3, dtype=np.float32)[:1], 1, {})  # of one image there is none to be near
    assert not (tmp_path / FILE).exists()


def test_the_command_writes_the_page_of_a_run_alone(run: Path, forks: Forks, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = forks.run(["info", run, "--report", page])
    assert done.returncode == 0, done.stderr
    assert "<h1>massl train run</h1>" in page.read_text()
    refused = forks.run(["info", "builtin", "--report", page])
    assert refused.returncode == 1
    assert b"--report is of a run, and builtin is none" in refused.stderr
