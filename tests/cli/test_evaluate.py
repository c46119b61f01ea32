"""`massl eval` from outside: what it prints for every kind of data and encoder, and what it says to bad input."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from cli.evaluate import Task
from massl.evaluation.tasks import TASKS
from tests.cli.conftest import Ran, failed
from tests.indexer.tiny import write_copy
from tests.massl.evaluation.evaluation_data import CLASSES, embeddings

ROOT = Path(__file__).parents[2]
CONTRACT = {"schema", "task", "metrics", "images", "classes", "encoder"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 300 embeddings of 12 classes."""
    vectors, labels = (values[:300] for values in embeddings())
    np.savez(tmp_path / "table.npz", embeddings=vectors, labels=np.array([f"c{label:02}" for label in labels]))
    return tmp_path / "table.npz"


def eval_json(ran: Ran) -> dict:
    """The JSON of one evaluation, held to the contract."""
    assert ran.code == 0, ran.error
    assert ran.json.keys() >= CONTRACT
    assert ran.json["schema"] == 1
    assert ran.json["encoder"].keys() == {"name", "sha256", "dim"}
    return ran.json


def test_every_task_can_be_asked_for_and_is_described() -> None:
    assert {task.value for task in Task} == {*TASKS, "copies"}
    told = (ROOT / "docs" / "reference" / "evaluation.md").read_text("utf-8")
    assert set(re.findall(r"^### `(.+)`$", told, re.MULTILINE)) == {*Task}
    assert set(re.findall(r"^\| `(.+?)` \| `", told, re.MULTILINE)) == {*Task}


def test_a_table_is_measured_to_the_contract(massl, table: Path) -> None:
    quick = ("--steps", 50, "--draws", 3, "--shots", 1, "--shots", 5, "--json", "-q")
    told = {task: eval_json(massl("eval", task, table, *quick)) for task in ("knn", "linear", "fewshot", "retrieval")}
    assert {(it["images"], it["classes"]) for it in told.values()} == {(300, CLASSES)}
    vectors, labels = (values[:300] for values in embeddings())
    assert told["knn"]["metrics"].keys() >= {"top1", "k"}
    closeness = vectors @ vectors.T - 2 * np.eye(300)
    near = np.argsort(-closeness, axis=1)[:, :20]
    votes = [np.bincount(labels[rows], np.exp(closeness[row, rows] / 0.07)).argmax() for row, rows in enumerate(near)]
    assert told["knn"]["metrics"]["top1"] == pytest.approx((votes == labels).mean(), abs=1e-6)
    assert told["retrieval"]["metrics"].keys() >= {"map", "precision_at_1", "precision_at_10"}
    assert set(told["fewshot"]["metrics"]["shots"]) == {"1", "5"}
    assert all(it.keys() == {"mean", "ci95"} for it in told["fewshot"]["metrics"]["shots"].values())
    assert "half of each class" in told["linear"]["protocol"]


def test_encoders_stand_side_by_side(massl, photos: Path, tmp_path: Path) -> None:
    from indexer.encoder.encoder_file import builtin_encoder

    (tmp_path / "a run").mkdir()
    write_copy(builtin_encoder(), tmp_path / "a run" / "encoder.onnx", name="new | one")
    shown = massl("eval", "knn", photos, "--encoder", "builtin", "--encoder", tmp_path / "a run", "--markdown", "-k", 5)
    head, line, *rows = shown.output.splitlines()
    assert head == r"| set | knn | massl-builtin-6 | new \| one |"
    assert line == "| --- | --- | ---: | ---: |"
    first, second = re.findall(r"([\d.]+%)", rows[0])
    assert first == second
    assert "24 images of 4 classes" in shown.error

    told = eval_json(massl("eval", "knn", photos, "--json", MASSL_ENCODER=str(tmp_path / "a run")))
    assert told["encoder"]["name"] == "new | one"
    assert "results" not in told
    own = photos.parent / "here" / "own.toml"
    own.write_text(f'[eval]\nencoder = ["{tmp_path / "a run"}", "builtin"]\nk = [3]\n')
    told = eval_json(massl("eval", "knn", photos, "--json", MASSL_CONFIG=str(own)))
    assert [result["encoder"]["name"] for result in told["results"]] == ["new | one", "massl-builtin-6"]
    assert told["metrics"]["k"] == 3
    own.write_text(f'[eval]\nencoder = "{tmp_path / "a run"}"\nk = 3\n')
    told = eval_json(massl("eval", "knn", photos, "--json", MASSL_CONFIG=str(own)))
    assert (told["encoder"]["name"], told["metrics"]["k"]) == ("new | one", 3)


def test_transfer_over_several_sets_is_one_table_with_means(massl, table: Path) -> None:
    other = table.with_name("other.npz")
    shutil.copy(table, other)
    shown = massl("eval", "transfer", table, other, "--steps", 50, "--draws", 3, "-q").output.splitlines()
    names = [line.split()[0] for line in shown]
    assert names == ["set", *["table"] * 6, *["other"] * 6, *["mean"] * 6]
    assert shown[1].split()[-1] == shown[7].split()[-1] == shown[13].split()[-1]
    told = massl("eval", "transfer", table, other, "--steps", 50, "--draws", 3, "--json").json
    assert [result["data"] for result in told["results"]] == ["table", "other"]


def test_training_and_test_folders_are_used_as_such(massl, photos: Path, tmp_path: Path) -> None:
    for picture in sorted(photos.glob("*/*"))[::3]:
        (tmp_path / "test" / picture.parent.name).mkdir(parents=True, exist_ok=True)
        picture.rename(tmp_path / "test" / picture.parent.name / picture.name)
    told = eval_json(massl("eval", "knn", "--train", photos, "--test", tmp_path / "test", "--json"))
    assert "16 training and 8 test images" in told["protocol"]
    assert massl("eval", "knn", "--train", photos).code == 2
    assert massl("eval", "knn", photos, "--train", photos, "--test", photos).code == 2


def test_more_votes_than_a_class_has_images_are_spoken_of(massl, photos: Path) -> None:
    assert "the smallest class has 6 images, and 20 neighbours vote" in massl("eval", "knn", photos).error
    assert "neighbours vote" not in massl("eval", "knn", photos, "-k", 5).error


def test_copies_are_found_by_edit_and_by_pairs(massl, photos: Path) -> None:
    told = eval_json(massl("eval", "copies", photos, "--edited", 3, "--json"))
    assert (told["images"], told["metrics"]["queries"]) == (24, 36)
    assert 0.3 < told["metrics"]["micro_ap"] <= 1
    assert told["metrics"]["edits"]["jpeg"]["recall_at_1"] == 1
    report = photos.parent / "report.html"
    assert massl("eval", "copies", photos, "--edited", 3, "--report", report).code == 0
    page = report.read_text()
    found = round(told["metrics"]["recall_at_1"] * 36)
    assert page.count("<figure class=query>") == min(12, found) + min(12, 36 - found)
    assert page.count("<figure class=other>") == min(12, 36 - found)
    assert page.count("<figure class=query><img") == page.count("<figure class=query>")
    first, second = sorted(photos.glob("flag/*"))[:2]
    (photos / "pairs.csv").write_text(
        f"path_a,path_b,same\nflag/{first.name},flag/{first.name},1\nflag/{first.name},flag/{second.name},0\n"
    )
    assert massl("eval", "copies", photos / "pairs.csv", "--json").json["metrics"]["roc_auc"] == 1
    assert massl("eval", "copies", "--train", photos, "--test", photos).code == 2
    assert "measures; knn needs labels" in failed(massl("eval", "knn", photos / "pairs.csv"))


def test_landmarks_with_their_ground_truth(massl, photos: Path, tmp_path: Path) -> None:
    names = []
    (photos / "jpg").mkdir()
    for picture in sorted(photos.glob("f*/*.jpg")):
        picture.rename(photos / "jpg" / f"{picture.parent.name}_{len(names):06}.jpg")
        names.append(f"{picture.parent.name}_{len(names):06}")
    gnd = [
        {"bbx": [-5, 0, 9999, 9999], "easy": [0], "hard": [2], "junk": [3]},
        {"bbx": [0, 0, 9999, 9999], "easy": [6], "hard": [7, 8], "junk": []},
    ]
    truth = {"imlist": names, "qimlist": [names[0], names[6]], "gnd": gnd}
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth))
    told = eval_json(massl("eval", "retrieval", photos, "--ground-truth", tmp_path / "gnd_roxford5k.pkl", "--json"))
    assert (told["images"], told["classes"]) == (12, 2)
    assert set(told["metrics"]["setups"]) == {"easy", "medium", "hard"}
    assert told["metrics"]["map"] == told["metrics"]["setups"]["medium"]["map"]
    assert told["metrics"]["setups"]["easy"]["map"] == 1  # the queries themselves
    assert told["metrics"]["setups"]["hard"]["map"] < 1
    (photos / "jpg" / f"{names[4]}.jpg").unlink()
    assert names[4] in failed(
        massl("eval", "retrieval", photos, "--ground-truth", tmp_path / "gnd_roxford5k.pkl", "-q")
    )


def test_the_report_is_one_file_without_scripts_that_asks_nothing_of_the_network(
    massl, photos: Path, tmp_path: Path
) -> None:
    hostile = photos / "<script>alert(1)<b>"
    hostile.mkdir()
    for number, picture in enumerate(sorted(photos.glob("flag/*"))[:2]):
        shutil.copy(picture, hostile / f'"><img src=x onerror=alert({number})>.jpg')
    (photos / "flag" / "<b>broken.jpg").write_text("no image")
    ran = massl("eval", "knn", photos, "--report", tmp_path / "report.html")
    assert ran.code == 0, ran.error
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img ") > 100
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert "<script" not in page
    assert "onerror=alert(0)>" not in page
    assert "<b>broken" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "&lt;script&gt;alert(1)" in page
    assert "1-src" not in page
    assert "there is no folder" in failed(massl("eval", "knn", photos, "--report", tmp_path / "a" / "b"))
    assert "is a folder; name a file" in failed(massl("eval", "knn", photos, "--report", tmp_path))


def test_what_cannot_be_measured_gets_one_line(massl, photos: Path, table: Path, tmp_path: Path) -> None:
    assert "at least two classes" in failed(massl("eval", "knn", photos / "flag"))
    assert "is a folder but not a run" in failed(massl("eval", "knn", photos, "--encoder", photos))
    assert "99 shots need 99 images" in failed(massl("eval", "fewshot", table, "--shots", 99))
    assert "`copies` needs pictures" in failed(massl("eval", "copies", table))
    (tmp_path / "set.csv").write_text("path,label\na.jpg,x\nb.jpg,y\n")
    assert "no image could be read" in failed(massl("eval", "knn", tmp_path / "set.csv", "-q"))
    shutil.copytree(photos / "flag", photos / "lonely")
    for picture in sorted((photos / "lonely").iterdir())[1:]:
        picture.unlink()
    assert "'lonely' has fewer than 2 images" in failed(massl("eval", "fewshot", photos, "-q"))
    assert massl("eval", "fewshot", photos, "--min-images", 2, "-q", "--draws", 2).code == 0
    assert massl("eval", "knn", photos, "--json", "--markdown").code == 2


def test_the_json_of_several_holds_the_first_at_the_top(massl, table: Path, tmp_path: Path) -> None:
    shutil.copy(table, tmp_path / "b.npz")
    told = eval_json(massl("eval", "retrieval", table, tmp_path / "b.npz", "--json"))
    assert told["metrics"] == told["results"][0]["metrics"]
    assert json.dumps(told["results"][1]["metrics"]) == json.dumps(told["metrics"])
