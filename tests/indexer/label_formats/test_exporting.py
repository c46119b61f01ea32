"""Labels in the forms that other tools read."""

from __future__ import annotations

import csv
import io
import json
import shutil
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer import Collection, Encoder
from indexer.label_formats.exporting import FORMATS, LabelRow, imagefolder_targets, same_targets, write
from massl.core.errors import MasslError


@pytest.fixture
def labelled(collection: Collection) -> Collection:
    """Three flags and three pictures of space."""
    for kind in ("flag", "space"):
        collection.labels.add(
            kind, [image for image, path in collection.images.ready() if path.startswith(kind)][:3], "me"
        )
    return collection


def test_csv_has_the_labels_and_if_asked_the_predictions(labelled: Collection) -> None:
    rows = list(csv.DictReader(io.StringIO(labelled.exports.labels("csv"))))
    assert [row["path"] for row in rows] == [item.path for item in labelled.labels.every()]
    assert set(rows[0]) == {"path", "label", "author", "at"}
    every = list(csv.DictReader(io.StringIO(labelled.exports.labels("csv", predictions=True))))
    assert [row["path"] for row in every] == sorted(path for _, path in labelled.images.ready())
    assert {row["author"] for row in every if row["probability"]} == {"massl"}
    assert sum(row["probability"] == "" for row in every) == 6
    few = list(csv.DictReader(io.StringIO(labelled.exports.labels("csv", predictions=True, sure=0.8))))
    assert 6 < len(few) < 24
    assert all(row["probability"] == "" or float(row["probability"]) >= 0.8 for row in few)


def test_coco_has_sizes_categories_and_one_annotation_an_image(labelled: Collection) -> None:
    told = json.loads(labelled.exports.labels("coco", predictions=True))
    assert [category["name"] for category in told["categories"]] == ["flag", "space"]
    for key in ("images", "annotations", "categories"):
        assert len({item["id"] for item in told[key]}) == len(told[key])
    names = {image["id"]: image for image in told["images"]}
    by_hand = {item.path: item.label for item in labelled.labels.every()}
    kinds = {category["id"]: category["name"] for category in told["categories"]}
    assert len(told["annotations"]) == len(names) == 24
    for annotation in told["annotations"]:
        image = names[annotation["image_id"]]
        with Image.open(labelled.root / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        assert annotation["bbox"] == [0, 0, image["width"], image["height"]]
        (outline,) = annotation["segmentation"]
        assert set(zip(outline[::2], outline[1::2], strict=True)) == {
            (x, y) for x in (0, image["width"]) for y in (0, image["height"])
        }
        assert ("score" in annotation) == (image["file_name"] not in by_hand)
        if image["file_name"] in by_hand:
            assert kinds[annotation["category_id"]] == by_hand[image["file_name"]]


def test_label_studio_tasks_find_their_images_and_keep_people_and_predictions_apart(labelled: Collection) -> None:
    shutil.copy(labelled.root / labelled.labels.every()[0].path, labelled.root / "a b&c?é.jpg")
    labelled.update()
    labelled.labels.add("flag", [labelled.images.id_of("a b&c?é.jpg")], "me")
    tasks = json.loads(labelled.exports.labels("label-studio", predictions=True))
    results = []
    for task in tasks:
        address = urlsplit(task["data"]["image"])
        assert address.path == "/data/local-files/"
        (path,) = parse_qs(address.query)["d"]
        assert (labelled.root.parent / path).exists()
        assert ("annotations" in task) != ("predictions" in task)
        assert task["id"] == task.get("annotations", [task])[0]["id"]  # Label Studio's converter wants both numbered
        (answer,) = task.get("annotations") or task["predictions"]
        (result,) = answer["result"]
        assert (result["type"], result["from_name"], result["to_name"]) == ("choices", "choice", "image")
        assert result["value"]["choices"][0] in ("flag", "space")
        assert "annotations" in task or 0 <= answer["score"] <= 1
        results.append(result["id"])
    assert sum("annotations" in task for task in tasks) == 7
    assert len(set(results)) == len(tasks) == 25


def test_the_imagefolder_manifest_makes_a_folder_a_class(labelled: Collection, tmp_path) -> None:
    rows = list(csv.DictReader(io.StringIO(labelled.exports.labels("imagefolder"))))
    for row in rows:
        target = tmp_path / "sorted" / row["target"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(labelled.root / row["file_name"], target)
    assert sorted(path.name for path in (tmp_path / "sorted").iterdir()) == ["flag", "space"]
    assert len(list((tmp_path / "sorted").glob("*/*"))) == len(rows) == 6


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["x/a.jpg", "y/a.jpg", "A.jpg", "z/a", "x/.hidden"]),
            st.text(min_size=1, max_size=5).filter(str.isprintable).filter(str.isprintable),
        ),
        min_size=1,
        unique_by=lambda row: row[0],
    )
)
def test_no_two_images_get_one_place_and_none_leaves_the_folder(pairs: list[tuple[str, str]]) -> None:
    rows = [LabelRow(path, label, "me", "", None, 1, 1) for path, label in pairs]
    told = list(csv.DictReader(io.StringIO(write("imagefolder", rows, "photos"), newline="")))
    targets = [row["target"] for row in told]
    assert len({target.casefold() for target in targets}) == len(rows)
    for target in targets:
        folder, _, name = target.partition("/")
        assert folder not in ("", ".", "..")
        assert "/" not in name
        assert "\\" not in folder


def test_labels_that_want_to_be_something_else_stay_text(labelled: Collection) -> None:
    name = '<script>alert("x")</script>,\'"'
    labelled.labels.add(name, [labelled.images.id_of(labelled.labels.every()[0].path)], "me")
    assert name in {row["label"] for row in csv.DictReader(io.StringIO(labelled.exports.labels("csv")))}
    assert name in {kind["name"] for kind in json.loads(labelled.exports.labels("coco"))["categories"]}


def test_no_such_format_is_said_with_those_that_there_are(labelled: Collection) -> None:
    with pytest.raises(
        MasslError, match="no format 'xml'; choose one of csv, imagefolder, coco, label-studio, or onnx"
    ):
        labelled.exports.labels("xml")


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_labelled_is_an_empty_file(collection: Collection, kind: str, encoder: Encoder) -> None:
    text = collection.exports.labels(kind)
    assert "jpg" not in text
    if kind in ("coco", "label-studio"):
        json.loads(text)


NAMES = st.text(st.sampled_from("aA.é漢-"), min_size=1, max_size=130).filter(lambda name: name not in (".", ".."))


@given(st.lists(st.tuples(st.sampled_from(["a/", "A/", "b/c/", ""]), NAMES, NAMES), max_size=12, unique=True))
@example([("a/", "x" * 251 + ".jpg", "l"), ("b/c/", "x" * 251 + ".jpg", "l")])
@example([("", "1.jpg", "漢" * 100), ("", "2.jpg", "漢" * 99 + "字")])
@settings(deadline=None)
def test_every_image_has_a_place_of_its_own_that_file_systems_take(images: list[tuple[str, str, str]]) -> None:
    images = [(folder, name, label) for folder, name, label in images if len(name.encode()) <= 255]
    paths = [folder + name for folder, name, _ in images]
    of_labels = imagefolder_targets([(path, label) for path, (_, _, label) in zip(paths, images, strict=True)])
    for targets in (of_labels, same_targets(paths)):
        assert len({target.casefold() for target in targets}) == len(paths)
        assert all(part and len(part.encode()) <= 255 for target in targets for part in target.split("/"))
    folders = {label: target.split("/")[0] for (_, _, label), target in zip(images, of_labels, strict=True)}
    assert len({folder.casefold() for folder in folders.values()}) == len(folders)
    kept = same_targets(paths)
    assert [target.rpartition("/")[0] for target in kept] == [path.rpartition("/")[0] for path in paths]
    assert len({path.casefold() for path in paths}) < len(paths) or kept == paths
