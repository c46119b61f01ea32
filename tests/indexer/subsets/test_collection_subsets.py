"""Subsets of a real collection: chosen, divided, placed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from indexer import Collection, Query
from indexer.store.filters import Filter
from massl.core.errors import MasslError


@pytest.fixture(scope="module")
def shared(index_of_photos: Path) -> Collection:
    """The 24 photos, indexed. Not to be changed."""
    return Collection.open(index_of_photos.parent)


def test_a_diverse_subset_shows_every_kind_and_says_what_it_covers(shared: Collection) -> None:
    subset = shared.subsets.choose(8, curve=True)
    assert subset.among == 24
    assert [item.rank for item in subset.images] == list(range(1, 9))
    assert len({item.path.split("/")[0] for item in subset.images}) == 4
    assert [covered.images for covered in subset.curve] == [1, 2, 5, 8]
    assert [covered.mean for covered in subset.curve] == sorted(covered.mean for covered in subset.curve)


def test_filters_and_examples_narrow_the_choice(shared: Collection) -> None:
    fruit = shared.subsets.choose(3, wanted=Filter(folders=("fruit",)))
    assert {item.path.split("/")[0] for item in fruit.images} == {"fruit"}
    example_path = sorted((shared.root / "space").glob("*.jpg"))[0]
    example = Query.of_file(example_path)
    near = shared.subsets.choose(1, "typical", like=[example])
    assert 1 <= near.among <= 10
    many = shared.subsets.choose(4, like=[example])
    assert 4 <= many.among < 24  # of all the images, those that are alike
    assert {item.path.split("/")[0] for item in many.images} == {"space"}
    far = shared.subsets.choose(24, unlike=[example])
    assert far.among < 24
    assert example_path.relative_to(shared.root).as_posix() not in {item.path for item in far.images}
    assert not {item.image for item in far.images} & {item.image for item in near.images}
    with pytest.raises(MasslError, match="no image lies below"):
        shared.subsets.choose(3, wanted=Filter(folders=("nowhere",)))


def test_folders_are_balanced_and_labels_only_where_there_are_any(shared: Collection) -> None:
    subset = shared.subsets.choose(8, "balanced", over="folders")
    folders = [item.path.split("/")[0] for item in subset.images]
    assert {folders.count(folder) for folder in folders} == {2}
    assert len(set(folders[:4])) == 4
    with pytest.raises(MasslError, match=r"no image is labelled.*--over folders"):
        shared.subsets.choose(8, "balanced")


def test_near_copies_are_chosen_once_and_split_on_one_side(collection: Collection) -> None:
    originals = sorted(collection.root.glob("*/*.jpg"))
    for original in originals:
        shutil.copy(original, original.with_name(f"copy-{original.name}"))
    collection.update()
    subset = collection.subsets.choose(48)
    names = [Path(item.path).name.removeprefix("copy-") for item in subset.images]
    assert len(names) == len(set(names)) <= 24
    whole = collection.subsets.everything()
    assert len(whole.images) == 48
    split = collection.subsets.split(whole, {"train": 0.5, "test": 0.5})
    sides: dict[str, set[str]] = {}
    for item in split.images:
        sides.setdefault(Path(item.path).name.removeprefix("copy-"), set()).add(item.part)
        assert item.target.startswith(f"{item.part}/{item.label}/")
    assert {len(parts) for parts in sides.values()} == {1}
    assert split.pairs >= 24
    assert split.cut_by_chance == split.pairs / 2
    assert len({item.target for item in split.images}) == 48


def test_where_some_are_labelled_a_split_takes_those_alone(collection: Collection) -> None:
    chosen = collection.subsets.everything()
    for item in chosen.images[:8]:
        collection.labels.add("none of these" if item.rank == 1 else "a", [item.image], "test")
    split = collection.subsets.split(collection.subsets.everything(), {"train": 0.5, "test": 0.5})
    assert {item.label for item in split.images} == {"a"}
    assert (len(split.images), split.without_class) == (7, 17)


@pytest.mark.parametrize("link", [True, False])
def test_a_folder_of_links_or_copies_is_made(collection: Collection, tmp_path: Path, link: bool) -> None:
    subset = collection.subsets.choose(5)
    gone, other, *rest = [item.path for item in subset.images]
    (collection.root / gone).unlink()
    (collection.root / other).unlink()
    (collection.root / other).symlink_to(Path(other).name)
    folder = tmp_path / "taken"
    left = dict(collection.subsets.place(folder, subset, link))
    assert "gone" in left.pop(gone)
    assert left.keys() == {other}
    placed = sorted(path for path in folder.rglob("*") if not path.is_dir())
    assert [str(path.relative_to(folder)) for path in placed] == sorted(rest)  # in the folders that they came from
    assert all(path.is_symlink() == link for path in placed)
    assert {path.read_bytes() for path in placed} == {
        (collection.root / item.path).read_bytes() for item in subset.images[2:]
    }
    split = collection.subsets.split(subset, {"a": 0.5, "b": 0.5})
    collection.subsets.place(tmp_path / "parts", split, link)
    assert len(list((tmp_path / "parts").glob("[ab]/*/*.jpg"))) == 3
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    collection.subsets.place(tmp_path / "link", subset, link)
    assert len(list((tmp_path / "empty").rglob("*.jpg"))) == 3
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(MasslError, match="is not empty"):
        collection.subsets.place(folder, subset, link)


def test_what_can_not_be_placed_leaves_nothing_behind(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subset = collection.subsets.choose(3)
    taken = tmp_path / "taken"
    taken.mkdir()  # an empty folder that is there may be taken
    long = [(item.path, "x" * 300) for item in subset.images]
    from indexer.subsets import placing

    with pytest.raises(MasslError, match="can't be written"):
        placing.place(collection.root, taken, long, link=False)
    assert list(taken.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "taken"}
    for target, said in (
        (collection.root / "new", "among the images"),
        (tmp_path / "no" / "where", "there is no folder"),
        (collection.root, "not empty"),
        (collection.root / subset.images[0].path, "is no folder"),
        (Path("/"), "is the top of a disk"),
    ):
        with pytest.raises(MasslError, match=said):
            collection.subsets.place(target, subset, link=True)
