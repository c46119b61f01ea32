"""Images in an object store: a real S3 server, whole, damaged, refusing and gone."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest

from massl.core.errors import MasslError
from massl.core.images.image_errors import ImageError
from massl.data import objects
from massl.data.objects import Store, find_objects, is_address, lists_addresses
from massl.data.sources import Source, find_source
from tests.objectstore import BUCKET, ObjectServer

AT = f"s3://{BUCKET}"


def contents(source: Source) -> dict[str, bytes]:
    return {source.name(index): source.read(index) for index in range(len(source))}


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    """The photos in four tars, a kind each."""
    (tmp_path / "shards").mkdir()
    for number, kind in enumerate(sorted(path for path in photos.iterdir())):
        with tarfile.open(tmp_path / "shards" / f"{number:03d}.tar", "w") as shard:
            shard.add(kind, kind.name)
    return tmp_path / "shards"


def test_a_prefix_holds_what_the_folder_holds(object_server: ObjectServer, photos: Path) -> None:
    (photos / "notes.md").write_text("none")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "no suffix").write_bytes((photos / "flag" / "brazil.jpg").read_bytes())
    (photos / ".hidden.jpg").write_bytes((photos / "flag" / "brazil.jpg").read_bytes())
    (photos / "käse ?#%&+.jpg").write_bytes((photos / "flag" / "bhutan.jpg").read_bytes())
    object_server.put(photos, "2024/photos")
    object_server.put(photos / "flag", "2024/photos-of-others")
    (photos / "empty.jpg").unlink()
    for address in (f"{AT}/2024/photos", f"{AT}/2024/photos/"):
        source, skipped = find_objects(address)
        assert (source.where, skipped) == (address, [])
        assert sum(source.left_out.values()) == 1  # the hidden one
        (empty,) = (index for index in range(len(source)) if source.name(index) == "empty.jpg")
        with pytest.raises(ImageError, match="empty file"):
            source.read(empty)
        found = {source.name(index): source.read(index) for index in range(len(source)) if index != empty}
        assert found == contents(find_source(photos)[0])
        assert list(found) == sorted(found)
        again = pickle.loads(pickle.dumps(source))
        assert (again.identity, again.read(9)) == (source.identity, source.read(9))


def test_shards_hold_what_the_folder_holds(object_server: ObjectServer, photos: Path, shards: Path) -> None:
    object_server.put(shards, "shards")
    wanted = contents(find_source(shards)[0])
    for address in ("shards", "shards/{000..003}.tar", "shards/*.tar", "shards/00[0-3].tar", "{shards,other}/*.tar"):
        source, skipped = find_objects(f"{AT}/{address}")
        assert contents(source) == wanted, address
        assert skipped == []
        assert source.identity == find_source(shards)[0].identity
    assert contents(pickle.loads(pickle.dumps(source))) == wanted


def test_a_hole_among_shards_and_a_damaged_one_are_told(object_server: ObjectServer, shards: Path) -> None:
    (shards / "001.tar").unlink()
    (shards / "002.tar").write_bytes((shards / "002.tar").read_bytes()[:9_000])
    (shards / "003.tar").write_bytes(b"\x1f\x8b" + bytes(2_000))
    object_server.put(shards, "shards")
    source, skipped = find_objects(f"{AT}/shards/{{000..004}}.tar")
    told = {item.path: item.reason for item in skipped}
    assert told["001.tar"] == told["004.tar"] == "there is no such object"
    assert "cut short" in told["002.tar"]
    assert "unpack it once" in told["003.tar"]
    assert len(source) >= 6
    with pytest.raises(MasslError, match="no object matches this pattern"):
        find_objects(f"{AT}/shards/{{100..104}}.tar")


def test_a_list_of_shards_holds_what_they_hold_and_a_hole_is_told(
    object_server: ObjectServer, photos: Path, shards: Path, tmp_path: Path
) -> None:
    (shards / "list.txt").write_text("003.tar\n000.tar\n004.tar\n")
    object_server.put(shards, "shards")
    (tmp_path / "own.txt").write_text("".join(f"{AT}/shards/00{number}.tar\n" for number in (3, 0, 4)))
    both = contents(find_source(shards / "{000,003}.tar")[0])
    for where in (f"{AT}/shards/list.txt", str(tmp_path / "own.txt")):
        source, skipped = find_objects(where)
        assert [item.reason for item in skipped] == ["there is no such object"]
        assert skipped[0].path.endswith("004.tar")
        assert {name.removeprefix(f"{AT}/shards/"): data for name, data in contents(source).items()} == both
    (tmp_path / "own.txt").write_text(f"{AT}/shards/004.tar\n{AT}/shards/005.tar\n")
    with pytest.raises(MasslError, match="there is not one of the 2 shards that it lists"):
        find_objects(str(tmp_path / "own.txt"))


def test_a_shard_that_goes_or_is_replaced_costs_its_own_images_alone(object_server: ObjectServer, shards: Path) -> None:
    object_server.put(shards, "shards")
    source, _ = find_objects(f"{AT}/shards")
    files, first = object_server.files, len(find_source(shards / "000.tar")[0])
    files.pipe_file(f"{BUCKET}/shards/000.tar", (shards / "000.tar").read_bytes()[:2_000])
    for index in (0, first - 1):  # one that is cut, and one that begins after the end
        with pytest.raises(ImageError, match="its shard has become shorter since the run began"):
            source.read(index)
    files.rm_file(f"{BUCKET}/shards/000.tar")
    with pytest.raises(ImageError, match="there is no such object"):
        source.read(0)
    assert len(source.read(first)) > 0


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_a_list_names_objects_by_address_or_from_its_own_place(
    object_server: ObjectServer, photos: Path, tmp_path: Path, name: str
) -> None:
    object_server.put(photos, "photos")
    lines = ["flag/brazil.jpg", "# a comment", f"{AT}/photos/flag/bhutan.jpg", "flag/gone.jpg", "gs://other/1.jpg"]
    (photos / name).write_text("\n".join(["path"] * name.endswith("csv") + lines))
    object_server.put(photos, "photos")
    source, skipped = find_objects(f"{AT}/photos/{name}")
    assert [source.name(index) for index in range(3)] == ["flag/brazil.jpg", f"{AT}/photos/flag/bhutan.jpg", lines[3]]
    assert source.read(0) == (photos / "flag" / "brazil.jpg").read_bytes()
    assert source.read(1) == (photos / "flag" / "bhutan.jpg").read_bytes()
    with pytest.raises(ImageError, match="there is no such object"):
        source.read(2)
    assert [item.path for item in skipped] == ["gs://other/1.jpg"]

    own = tmp_path / name
    own.write_text("\n".join(["path"] * name.endswith("csv") + lines[2:3]))
    assert lists_addresses(own)
    assert not lists_addresses(photos / "none.txt")
    source, _ = find_objects(str(own))
    assert contents(source) == {lines[2]: (photos / "flag" / "bhutan.jpg").read_bytes()}


def test_an_object_that_goes_or_is_denied_costs_itself_alone(
    object_server: ObjectServer, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_server.put(photos, "photos")
    gone, denied = sorted(find_source(photos)[0].paths)[3:5]
    # One that is denied while others are not: the server knows no way to have that.
    import s3fs

    fetch = s3fs.S3FileSystem._cat_file

    async def fetched(self: Any, path: str, **options: Any) -> bytes:
        if path.endswith(denied):
            raise PermissionError("Forbidden")
        return await fetch(self, path, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", fetched)
    source, _ = find_objects(f"{AT}/photos")
    object_server.files.rm_file(f"{BUCKET}/photos/{gone}")
    assert [source.name(3), source.name(4)] == [gone, denied]
    with pytest.raises(ImageError, match="there is no such object"):
        source.read(3)
    with pytest.raises(ImageError, match=r"access is denied \(Forbidden\)"):
        source.read(4)
    assert source.read(5) == (photos / source.name(5)).read_bytes()


def test_a_store_that_refuses_or_goes_ends_the_run_and_blames_no_object(
    object_server: ObjectServer, photos: Path, shards: Path
) -> None:
    object_server.put(photos, "photos")
    object_server.put(shards, "shards")
    sources = [find_objects(f"{AT}/{prefix}")[0] for prefix in ("photos", "shards")]
    assert [len(source.read(0)) > 0 for source in sources] == [True, True]
    for source in sources:
        with (
            object_server.refusing(),
            pytest.raises(MasslError, match=r"can't be read: access is denied .*run the") as told,
        ):
            source.read(1)
        assert not isinstance(told.value, ImageError)
    with object_server.refusing(), pytest.raises(MasslError, match="access is denied"):
        find_objects(f"{AT}/photos")
    object_server.stop()
    try:
        for source in sources:
            with pytest.raises(MasslError, match="run the same command again to go on") as told:
                source.read(1)
            assert not isinstance(told.value, ImageError)
        with pytest.raises(MasslError, match="can't be read"):
            find_objects(f"{AT}/shards/{{000..001}}.tar")
    finally:
        object_server.start()
    assert [len(source.read(1)) > 0 for source in sources] == [True, True]


def test_a_shard_that_can_t_be_read_to_its_end_is_not_taken_for_damaged(
    object_server: ObjectServer, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_BLOCK", 4_096)
    object_server.put(shards, "shards")
    import s3fs

    fetch = s3fs.core.S3File._fetch_range

    def cut_off(self: Any, start: int, end: int) -> bytes:
        if start > 30_000 and self.path.endswith("002.tar"):
            object_server.stop()
        return fetch(self, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", cut_off)
    try:
        with pytest.raises(MasslError, match="run the same command again to go on"):
            find_objects(f"{AT}/shards")
    finally:
        object_server.start()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nothing://x/y", "nothing:// is no kind of address that is known; give a prefix"),
        ("gs://bucket/x", "needs a package that isn't installed; run: pip install gcsfs"),
        ("s3:///", "names no place; give one as s3://bucket/photos"),
        (f"s3://{'x' * 300}/y", "no bucket can be called so; check the spelling$"),
        ("http://127.0.0.1:9/x", "can't be read: Cannot connect .* run the same command again"),
        ("ftp://ada:secret@127.0.0.1/x", "leave the password out"),
        (f"{AT}/nowhere", "there is nothing below it; check the spelling"),
        ("s3://no-such-bucket/x", "there is nothing below it; check the spelling"),
        (f"{AT}/text/notes.md", "is not a source of images; give a prefix"),
        (f"{AT}/text", "no image among 2 objects"),
        (f"{AT}/text/list.txt", "lists no object; write one address a line"),
    ],
)
def test_what_is_no_source_says_why(object_server: ObjectServer, tmp_path: Path, address: str, said: str) -> None:
    (tmp_path / "text").mkdir()
    for name in ("notes.md", "list.txt"):
        (tmp_path / "text" / name).write_text("")
    object_server.put(tmp_path / "text", "text")
    with pytest.raises(MasslError, match=said) as told:
        find_objects(address)
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_store_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MasslError, match=r"run: pip install 'massl\[s3\]'"):
        Store(f"{AT}/x")


@pytest.mark.parametrize(("text", "is_one"), [("s3://b/x", True), ("s3:/b", False), ("C:\\x", False), ("a/b", False)])
def test_an_address_is_told_from_a_path(text: str, is_one: bool) -> None:
    assert is_address(text) is is_one
