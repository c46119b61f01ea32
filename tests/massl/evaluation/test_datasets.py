"""Labelled images from folders, CSV files and tables of embeddings."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from indexer import Encoder
from indexer.ingest.edited_copies import embed_edited
from indexer.ingest.embedding import FileEmbedder
from massl.core.errors import MasslError
from massl.core.images.decoding import open_image
from massl.evaluation.datasets import (
    LabelledFiles,
    embed,
    is_pair_list,
    read_halves,
    read_images,
    read_labelled,
    read_pairs,
    read_table,
)
from massl.evaluation.edits import EDITS, edited


def test_a_folder_a_csv_file_and_a_table_say_the_same(photos: Path, encoder: Encoder, tmp_path: Path) -> None:
    (photos / "loose.jpg").write_bytes(next(photos.glob("flag/*")).read_bytes())
    (photos / "flag" / "broken.jpg").write_text("no image")
    found = embed(read_labelled(photos), FileEmbedder(encoder).embed_paths, lambda done, total: None)
    assert found.classes == ("flag", "fruit", "painting", "space")
    assert (np.bincount(found.labels) == 6).all()
    assert [item.path for item in found.skipped] == ["flag/broken.jpg"]
    assert "loose.jpg" not in found.paths

    lines = [f"photos/{path},{path.split('/')[0]}" for path in found.paths]
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *lines]))
    listed = embed(read_labelled(tmp_path / "set.csv"), FileEmbedder(encoder).embed_paths, lambda done, total: None)
    assert np.array_equal(listed.labels, found.labels)
    assert listed.vectors == pytest.approx(found.vectors, abs=1e-5)

    names = np.array([found.classes[label] for label in found.labels])
    np.savez(tmp_path / "set.npz", embeddings=3 * found.vectors, labels=names, paths=np.array(found.paths))
    table = read_table(tmp_path / "set.npz").labelled()
    assert np.array_equal(table.labels, found.labels)
    assert table.vectors == pytest.approx(found.vectors, abs=1e-5)
    files = LabelledFiles("some", photos, ("new.jpg", *found.paths[::-1]), ("flag", *names[::-1]))
    looked_up = read_table(tmp_path / "set.npz").find(files)
    assert looked_up.vectors == pytest.approx(found.vectors[::-1], abs=1e-5)
    assert np.array_equal(looked_up.labels, found.labels[::-1])
    assert [item.path for item in looked_up.skipped] == ["new.jpg"]


def test_training_and_test_images_are_told_apart(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "halved").mkdir()
    photos.rename(tmp_path / "halved" / "train")
    for kind in ("flag", "space"):
        (tmp_path / "halved" / "val" / kind).mkdir(parents=True)
        picture = next((tmp_path / "halved" / "train" / kind).iterdir())
        picture.rename(tmp_path / "halved" / "val" / kind / picture.name)
    halves = read_labelled(tmp_path / "halved")
    assert set(halves.labels) == {"flag", "fruit", "painting", "space"}
    assert (sum(halves.train or ()), len(halves.paths)) == (22, 24)
    given = read_halves(tmp_path / "halved" / "train", tmp_path / "halved" / "val")
    assert sorted(zip(given.labels, given.train or (), strict=True)) == sorted(
        zip(halves.labels, halves.train or (), strict=True)
    )
    (tmp_path / "set.csv").write_text("path,label,split\na.jpg,x,train\nb.jpg,y,Test\nc.jpg,y,val\n")
    assert read_labelled(tmp_path / "set.csv").train == (True, False, False)


def test_small_classes_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("path,label\n" + "".join(f"{n}.jpg,{'aaabbc'[n]}\n" for n in range(6)))
    files = read_labelled(tmp_path / "set.csv")
    assert set(files.without_small(2).labels) == {"a", "b"}
    with pytest.raises(MasslError, match="fewer than two classes of 3 images"):
        files.without_small(3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,label\na.jpg,x\n", "columns path, label; path is missing"),
        ("", "path is missing"),
        ("path,label\n", "no rows"),
        ("path,label\na.jpg,x\nb.jpg\n", "line 3 has fewer values"),
        ("path,label\na.jpg,x\nb.jpg,\n", "line 3: 'b.jpg' has no label"),
        ("path,label\na.jpg,x\nb.jpg,x\n", "at least two classes"),
        ("path,label,split\na.jpg,x,train\nb.jpg,y,maybe\n", "must be train or test"),
    ],
)
def test_wrong_csv_files_get_one_line(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(MasslError, match=reason):
        read_labelled(tmp_path / "set.csv")


def test_pairs_are_read_and_wrong_ones_get_one_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("path_a,path_b,same\na.jpg,b.jpg,1\nb.jpg,c.jpg,no\n")
    assert is_pair_list(path)
    found = read_pairs(path)
    assert found.paths == ("a.jpg", "b.jpg", "c.jpg")
    path.write_text('"Path_A";"path_b";"same"\n"a.jpg";"b.jpg";"1"\n"b.jpg";"c.jpg";"no"\n')
    assert is_pair_list(path)
    assert read_pairs(path).paths == found.paths
    path.write_bytes(b"\xff\xfe\x00")
    assert not is_pair_list(path)  # no table at all, which is said when it is read
    assert (found.first.tolist(), found.second.tolist(), found.same.tolist()) == ([0, 1], [1, 2], [True, False])
    for text, reason in (
        ("path_a,path_b,same\na,b,perhaps\n", "line 2: same must be 1 or 0"),
        ("path_a,path_b,same\na,b,1\n", "that are the same and pairs that are not"),
        ("path_a,path_b\na,b\n", "same is missing"),
    ):
        path.write_text(text)
        with pytest.raises(MasslError, match=reason):
            read_pairs(path)


def test_tables_that_cannot_be_trusted_get_one_line(tmp_path: Path) -> None:
    def refused(**arrays: np.ndarray) -> str:
        np.savez(tmp_path / "t.npz", **arrays)
        with pytest.raises(MasslError) as error:
            read_table(tmp_path / "t.npz").labelled()
        return str(error.value)

    good = np.eye(4, dtype=np.float32)
    assert "needs an array `embeddings`" in refused(vectors=good)
    assert "needs an array `embeddings`" in refused(embeddings=good[0])
    assert "has no labels" in refused(embeddings=good)
    assert "`labels` has shape [3], not [4]" in refused(embeddings=good, labels=np.arange(3))
    assert "fewer than two classes" in refused(embeddings=good, labels=np.zeros(4))
    assert "row 2 is zero" in refused(embeddings=good * [[1], [1], [0], [1]], labels=np.arange(4))
    assert "row 1 is zero or not finite" in refused(embeddings=good * [[1], [np.nan], [1], [1]], labels=np.arange(4))
    assert "can't be read" in refused(embeddings=good, labels=np.array([{}, [], 1, 2], object))
    whole = io.BytesIO()
    np.savez(whole, embeddings=good, labels=np.arange(4))
    for data in (b"", b"text", pickle.dumps(good), whole.getvalue()[:200]):
        (tmp_path / "t.npz").write_bytes(data)
        with pytest.raises(MasslError, match="can't be read as a table"):
            read_table(tmp_path / "t.npz")
    with pytest.raises(MasslError, match="no such table"):
        read_table(tmp_path / "nowhere.npz")


def test_every_edit_changes_the_picture_and_comes_out_the_same_again(pictures: Path) -> None:
    picture = open_image(next((pictures / "fruit").glob("*.jpg")))
    for name in EDITS:
        once, again, other = (edited(picture, name, 0, which) for which in (3, 3, 4))
        assert once.tobytes() == again.tobytes()
        assert once.mode == "RGB"
        assert once.tobytes() != picture.tobytes()
        if name not in ("mirror", "grey"):
            assert once.tobytes() != other.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 2)])
def test_the_smallest_pictures_survive_every_edit(size: tuple[int, int], pictures: Path) -> None:
    picture = open_image(next((pictures / "fruit").glob("*.jpg"))).resize(size)
    for name in EDITS:
        assert min(edited(picture, name, 1, 0).size) >= 1


def test_edited_pictures_are_embedded_in_their_order(photos: Path, encoder: Encoder) -> None:
    paths = read_images(photos).paths[:3]
    edits = [lambda picture, row: picture, lambda picture, row: edited(picture, "mirror", 0, row)]
    found = embed_edited(photos, paths, encoder, edits, lambda done, total: None)
    assert found.shape == (3, 2, encoder.dim)
    plain = embed(read_labelled(photos), FileEmbedder(encoder).embed_paths, lambda done, total: None)
    rows = [plain.paths.index(path) for path in paths]
    assert (found[:, 0] * plain.vectors[rows]).sum(1) == pytest.approx(np.ones(3), abs=0.02)
    assert not np.allclose(found[:, 0], found[:, 1])
