"""The labels of a collection judge a training on its folder."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.commands import app
from cli.judging_labels import ENOUGH, choose_labels
from indexer import Collection
from massl.evaluation.datasets import LabelledFiles
from tests.massl.conftest import SMALL


def label(root: Path, **classes: int) -> None:
    """Labels so many images of each class, in order."""
    collection = Collection.open(root)
    images = [image for image, _ in sorted(collection.images.ready(), key=lambda image: image[1])]
    for name, count in classes.items():
        collection.labels.add(name, [images.pop() for _ in range(count)], "test")
    collection.close()


def test_labels_of_the_collection_judge_and_a_line_says_so(
    indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = indexed
    label(photos, rare=3, two=10, one=11)
    monkeypatch.chdir(tmp_path)
    flags = [
        f"--set={name}={value}"
        for name, value in {"backbone": "vit_shallow_patch16", **SMALL}.items()
        if name not in ("steps", "probe_every")
    ]
    words = ["train", str(photos), "--init", "none", *flags, "--set=steps=2", "--set=probe_every=1", "--epochs", "1"]
    ran = CliRunner().invoke(app, [*words, "--out", "run"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    said = f"judged by 21 labels of 2 classes in {photos / '.massl'}; 1 with fewer than {ENOUGH} images left out."
    assert said in " ".join(ran.stderr.split())
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["knn_top1"] in {right / 10 for right in range(11)}
    start = lines[0]["knn_start"]  # of the network that it began with
    assert [line["knn_start"] for line in lines] == [start] * len(lines)
    assert ran.stderr.index(f"before training: k-NN accuracy {start:.1%}") < ran.stderr.index("step 1: k-NN accuracy")
    assert f"(before training {start:.1%})" in ran.stderr
    # A handful of settings, those that were given among them, and none that only follows.
    table = ran.stderr.partition("-v or --plan prints all settings")[0]
    assert "image_size" in table
    assert "temperature_warmup" not in table
    assert tomllib.loads(Path("run/config.toml").read_text())["run"]["labels"] == "collection"
    # A run that goes on is judged in the same way, also after more labels were given.
    judges, _ = choose_labels(photos, None, Path("run"))
    assert isinstance(judges, LabelledFiles)
    assert sorted(judges.labels) == ["one"] * 11 + ["two"] * 10
    with pytest.raises(typer.BadParameter, match="judged as it began"):
        choose_labels(photos, Path("none"), Path("run"))
    ran = CliRunner().invoke(app, ["train", str(photos), "--resume", "run", "--epochs", "2"], catch_exceptions=False)
    assert "judged by 21 labels" in " ".join(ran.stderr.split())
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert "knn_top1" in last
    assert last["knn_start"] == start


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({}, ""),
        ({"one": 9, "two": 10}, "not judged by the 19 labels in"),
        ({"one": 12, "none of these": 12}, "not judged by the 12 labels in"),
    ],
)
def test_too_few_labels_are_not_used(indexed: Path, classes: dict[str, int], said: str) -> None:
    label(indexed, **classes)
    judges, line = choose_labels(indexed, None, None)
    assert judges is None
    assert line.startswith(said)
    assert bool(line) == bool(said)


def test_labels_of_images_that_have_gone_are_not_counted(indexed: Path) -> None:
    label(indexed, one=11, two=11)
    collection = Collection.open(indexed)
    paths = [given.path for given in collection.labels.every() if given.label == "one"]
    collection.close()
    (indexed / paths[0]).unlink()
    judges, _ = choose_labels(indexed, None, None)
    assert isinstance(judges, LabelledFiles)
    assert sorted(judges.labels) == ["one"] * 10 + ["two"] * 11
    (indexed / paths[1]).unlink()
    judges, line = choose_labels(indexed, None, None)
    assert judges is None
    assert line.startswith("not judged by the 22 labels in")
    assert "2 of them of images that have gone" in line


def test_labels_are_ignored_where_that_is_asked_for_or_the_run_began_so(indexed: Path, tmp_path: Path) -> None:
    label(indexed, one=12, two=12)
    assert choose_labels(indexed, None, None)[0] is not None
    assert choose_labels(indexed, Path("none"), None) == (None, "")
    (tmp_path / "config.toml").write_text('[run]\nlabels = ""\n[settings]\n')
    assert choose_labels(indexed, None, tmp_path) == (None, "")


def test_a_collection_that_can_not_be_read_is_no_reason_not_to_learn(indexed: Path) -> None:
    label(indexed, one=12, two=12)
    (indexed / ".massl" / "catalog.sqlite").write_bytes(b"no catalog" * 1000)
    judges, line = choose_labels(indexed, None, None)
    assert judges is None
    assert "can't be read" in line
