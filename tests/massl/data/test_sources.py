"""Where images come from: folders, lists and shards, whole and damaged."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from indexer import Collection, Encoder
from massl.core.errors import MasslError
from massl.core.files.scan import find_images
from massl.data.sources import Source, check_readable, check_same, doubts, find_source
from massl.method.views import Views, collate
from tests.massl.conftest import small_settings


def write_tar(path: Path, members: dict[str, bytes], format: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def shards_of(photos: Path, out: Path, each: int = 10) -> list[Path]:
    """The photos as a WebDataset writes them: a picture and what belongs to it, side by side."""
    paths = find_images(photos)[0]
    written = []
    for number, start in enumerate(range(0, len(paths), each)):
        members = {}
        for path in paths[start : start + each]:
            members[path] = (photos / path).read_bytes()
            members[str(Path(path).with_suffix(".json"))] = b'{"label": 3}'
            members[str(Path(path).with_suffix(".cls"))] = b"3"
        written.append(write_tar(out / f"images-{number:06d}.tar", members))
    return written


def contents(source: Source) -> list[bytes]:
    return [source.read(index) for index in range(len(source))]


def names(source: Source) -> list[str]:
    return [source.name(index) for index in range(len(source))]


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    """The photos in three shards in a folder."""
    shards_of(photos, tmp_path / "shards")
    return tmp_path / "shards"


# Kinds ----------------------------------------------------------------------------------------------------------------


def test_a_folder_is_what_the_indexer_walks(photos: Path) -> None:
    source, skipped = find_source(photos)
    assert (names(source), skipped) == find_images(photos)
    assert contents(source) == [(photos / path).read_bytes() for path in names(source)]


@pytest.mark.parametrize(
    "path",
    [
        "shards",
        "shards/images-{000000..000002}.tar",
        "shards/images-*.tar",
        "shards/i*[0-2].tar",
        "{nowhere,shards}/images-00000{0,1,2}.tar",
        ".",
    ],
)
def test_shards_hold_the_same_images_as_the_folder(photos: Path, shards: Path, path: str) -> None:
    before = sorted(shards.rglob("*"))
    shutil.move(photos, shards.parent / ".hidden")
    source, _ = find_source(shards.parent / path)
    folder, _ = find_source(shards.parent / ".hidden")
    assert contents(source) == contents(folder)
    assert names(source)[0].endswith("images-000000.tar/" + names(folder)[0])
    assert sorted(shards.rglob("*")) == before


def test_one_shard_is_a_source(shards: Path) -> None:
    source, skipped = find_source(shards / "images-000001.tar")
    assert len(source) == 10
    assert skipped == []


def test_a_missing_shard_of_a_pattern_is_counted(shards: Path) -> None:
    source, skipped = find_source(shards / "images-{000001..000004}.tar")
    assert len(source) == 14
    assert [(item.path, item.reason) for item in skipped] == [
        ("images-000003.tar", "there is no such file"), ("images-000004.tar", "there is no such file"),
    ]  # fmt: skip


@pytest.mark.parametrize("absolute", [False, True])
def test_a_list_of_shards_holds_what_they_hold_and_a_hole_is_told(shards: Path, absolute: bool) -> None:
    listed = [f"images-00000{number}.tar" for number in (2, 3, 0)]
    listed = [str(shards / name) for name in listed] if absolute else listed
    (shards / "list.txt").write_text("\n".join(listed))
    source, skipped = find_source(shards / "list.txt")
    assert [(item.path, item.reason) for item in skipped] == [(listed[1], "there is no such file")]
    parts = [find_source(shards / name)[0] for name in (listed[0], listed[2])]
    assert contents(source) == [data for part in parts for data in contents(part)]
    assert names(source)[0] == f"{listed[0]}/{names(parts[0])[0].partition('/')[2]}"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_with_hard_names(tmp_path: Path, format: int) -> None:
    hard = ["plain.JPG", "./dot.jpg", "späte Äpfel.png", "deep/" * 15 + "a.jpg", "a b.jpeg"]
    hard += ["x" * 300 + ".jpg"] if format != tarfile.USTAR_FORMAT else []
    left_out = ["._plain.jpg", "sub/.hidden.jpg", "notes.txt", ".git/a.jpg"]
    members = {name: name.encode() * 300 for name in [*hard, *left_out]}
    source, skipped = find_source(write_tar(tmp_path / "a.tar", members, format))
    assert names(source) == [f"a.tar/{name}" for name in hard]
    assert contents(source) == [members[name] for name in hard]
    assert skipped == []


def test_members_that_are_no_plain_files_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("folder.jpg", tarfile.DIRTYPE),
            ("fifo.jpg", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("empty.jpg"))
    source, skipped = find_source(tmp_path / "a.tar")
    assert names(source) == ["a.tar/empty.jpg"]
    assert [item.path for item in skipped] == ["a.tar/link.jpg", "a.tar/fifo.jpg"]
    with pytest.raises(MasslError, match="empty file"):
        source.read(0)


def test_a_source_goes_to_other_processes(shards: Path) -> None:
    source, _ = find_source(shards)
    source.read(0)  # opened here before the workers are started
    views = Views(source, small_settings(augment="device"))
    keys = [[(0, index) for index in range(start, start + 4)] for start in range(0, 24, 4)]
    loaded = [batch.large for batch in DataLoader(views, batch_sampler=keys, num_workers=2, collate_fn=collate)]
    assert all((a == collate([views[key] for key in b]).large).all() for a, b in zip(loaded, keys, strict=True))
    assert contents(pickle.loads(pickle.dumps(source))) == contents(source)


def test_more_shards_than_stay_open(tmp_path: Path) -> None:
    for number in range(150):
        write_tar(tmp_path / f"{number:03d}.tar", {f"{n}.jpg": f"{number}/{n}".encode() for n in range(2)})
    source, _ = find_source(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert contents(source) == [f"{number}/{n}".encode() for number in range(150) for n in range(2)]
    assert not before or len(os.listdir("/proc/self/fd")) - before < 100


# Lists ----------------------------------------------------------------------------------------------------------------


def test_a_list_names_files_relative_to_itself_or_absolute(photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    found = find_images(photos)[0]
    lines = ["# three of them, one of those twice", "", f"photos/{found[3]}", f"  {photos / found[1]}"]
    lines += [f"./photos/{found[3]}", "photos/gone.jpg", f"photos/{found[0]}\r", "photos"]
    (tmp_path / "list.txt").write_text("\n".join(lines), newline="")
    source, skipped = find_source(tmp_path / "list.txt")
    assert contents(source) == [(photos / found[index]).read_bytes() for index in (3, 1, 0)]
    assert [(item.path, item.reason) for item in skipped] == [
        ("photos/gone.jpg", "there is no such file"), ("photos", "a folder, not an image"),
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_may_be_written_by_any_editor(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "späte Äpfel.jpg").write_bytes(b"x")
    (tmp_path / "list.lst").write_bytes("späte Äpfel.jpg\r\n".encode(encoding))
    assert names(find_source(tmp_path / "list.lst")[0]) == ["späte Äpfel.jpg"]


def test_a_list_may_hold_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(b"content")
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.jpg\n")
    assert contents(find_source(tmp_path / "list.txt")[0]) == [b"content"]


@pytest.mark.parametrize("header", [["label", "Path"], None])
def test_a_table_has_its_paths_in_a_column(photos: Path, header: list[str] | None) -> None:
    strange = 'a, "b".jpg'
    paths = [*find_images(photos)[0][:3], strange]
    shutil.copy(photos / paths[0], photos / strange)
    with (photos / "list.csv").open("w", newline="") as file:
        rows = [["x", path] for path in paths] if header else [[path, "x"] for path in paths]
        csv.writer(file).writerows([*([header] if header else []), *rows, []])
    assert names(find_source(photos / "list.csv")[0]) == paths


@pytest.mark.parametrize(
    "text",
    [
        "path;label\r\nM\u00fcll/a.jpg;K\u00e4se\r\n",
        "sep=;\r\npath;label\r\nM\u00fcll/a.jpg;x\r\n",
        "path,label\nMu\u0308ll/a.jpg,x\n",
        "path,label\nM\u00fcll\\a.jpg,x,,\n",
        '"path"\t"label"\n"./M\u00fcll/a.jpg"\t"x"\n',
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "M\u00fcll").mkdir()
    (tmp_path / "M\u00fcll" / "a.jpg").write_bytes(b"content")
    (tmp_path / "list.csv").write_bytes(text.encode())
    source, skipped = find_source(tmp_path / "list.csv")
    assert (contents(source), skipped) == ([b"content"], [])


# What can't be used ---------------------------------------------------------------------------------------------------


def make_bad(root: Path, kind: str) -> Path:
    (root / "empty").mkdir()
    (root / "list.txt").write_text("# nothing\n\n")
    (root / "gone.csv").write_text("path\na.jpg\nb.jpg\n")
    (root / "binary.txt").write_bytes(bytes(range(256)))
    (root / "images.zip").write_bytes(b"PK")
    tar = write_tar(root / "tars" / "texts.tar", {"a.txt": b"x"})
    (root / "packed.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    (root / "named.tar").write_bytes(gzip.compress(tar.read_bytes()))
    (root / "no.tar").write_bytes(b"some text, longer than a header" * 100)
    (root / "empty.tar").write_bytes(b"")
    return root / kind


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "holds no image files"),
        ("nowhere", "there is no such file or folder; give a folder of images, a list"),
        ("list.txt", "lists no image; write one path a line"),
        ("gone.csv", r"not one of the 2 files that .* lists can be used; the first is 'a\.jpg': there is no such file"),
        ("binary.txt", "is not text; a list has one path per line"),
        ("images.zip", "is not a source of images; give a folder"),
        ("tars/texts.tar", "no image in 1 tar shard"),
        ("tars", "no image in 1 tar shard"),
        ("packed.tar.gz", "compressed, so its members can't be reached one by one; unpack it once"),
        ("named.tar", "compressed, so its members can't be reached one by one; unpack it once"),
        ("no.tar", "no tar file"),
        ("empty.tar", "empty file"),
        ("images-{000..999}.tar", "no file matches this pattern; check the spelling, and put it in quotes"),
        ("images-{0..99999999999}.tar", "more than 1,000,000 shards"),
        ("{0..9999}{0..9999}.tar", "more than 1,000,000 shards"),
    ],
)
def test_what_is_no_source_says_why(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(MasslError, match=message) as caught:
        find_source(make_bad(tmp_path, kind))
    assert "\n" not in str(caught.value)


def test_a_truncated_shard_gives_what_is_whole(photos: Path, tmp_path: Path) -> None:
    (shard,) = shards_of(photos, tmp_path / "shards", 24)
    whole = contents(find_source(shard)[0])
    data = shard.read_bytes()
    (tmp_path / "half.tar").write_bytes(data[: len(data) // 2])
    source, (damage,) = find_source(tmp_path / "half.tar")
    assert 8 < len(source) < 16
    assert contents(source) == whole[: len(source)]
    assert damage.path == "half.tar"
    assert damage.reason.startswith("cut short: it ends inside ")
    assert damage.reason.endswith(f"the {len(source)} images before that are used")


def test_a_shard_that_shrinks_during_a_run_is_a_broken_image(photos: Path, tmp_path: Path) -> None:
    (shard,) = shards_of(photos, tmp_path / "shards", 24)
    source, _ = find_source(shard)
    os.truncate(shard, shard.stat().st_size // 2)
    assert source.read(0)
    with pytest.raises(MasslError, match="has become shorter"):
        source.read(23)
    shard.unlink()
    with pytest.raises(MasslError, match="its shard can't be read: no such file"):
        pickle.loads(pickle.dumps(source)).read(0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_shards_give_a_beginning_and_say_so(data: st.DataObject) -> None:
    members = {f"{n}{'n' * data.draw(st.sampled_from([1, 200]))}.jpg": bytes([n]) * (600 * n) for n in range(6)}
    with tempfile.TemporaryDirectory() as folder:
        format = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
        shard = write_tar(Path(folder) / "a.tar", members, format)
        content = bytearray(shard.read_bytes())
        end = len(content.rstrip(b"\0"))
        cut = data.draw(st.integers(1, end))
        shard.write_bytes(content[:cut])
        _says_so(shard, members)
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, end))] ^= data.draw(st.integers(1, 255))
        shard.write_bytes(content)
        try:
            source, _ = find_source(shard)
        except MasslError as error:
            assert "\n" not in str(error)
        else:
            assert all(len(source.name(index)) > 0 for index in range(len(source)))
            assert sum(map(len, contents_or_nothing(source))) <= len(content)


def contents_or_nothing(source: Source) -> Iterator[bytes]:
    for index in range(len(source)):
        with contextlib.suppress(MasslError):
            yield source.read(index)


def _says_so(shard: Path, members: dict[str, bytes]) -> None:
    try:
        source, skipped = find_source(shard)
    except MasslError as error:
        assert "cut short" in str(error) or "no tar file" in str(error) or "damaged" in str(error)
        return
    assert len(skipped) == 1
    assert list(contents_or_nothing(source)) == [d for d in members.values() if d][: len(source) - 1]


# Going on with the same, and doubts -----------------------------------------------------------------------------------


def test_a_run_only_goes_on_with_the_same_images(photos: Path, shards: Path, tmp_path: Path) -> None:
    source, _ = find_source(photos)
    check_same(source, 24, source.identity)
    check_same(source, 24, None)
    moved, _ = find_source(Path(shutil.move(photos, tmp_path / "elsewhere")))
    check_same(moved, 24, source.identity)
    with pytest.raises(MasslError, match=r"started on 30 images, but .*elsewhere now holds 24; bring them back"):
        check_same(moved, 30, source.identity)
    first = tmp_path / "elsewhere" / moved.name(0)
    first.rename(first.with_name("zzz.jpg"))
    with pytest.raises(MasslError, match="other names or another order"):
        check_same(find_source(tmp_path / "elsewhere")[0], 24, source.identity)
    packed, _ = find_source(shards)
    (shards / "images-000000.tar").rename(shards / "images-000009.tar")
    with pytest.raises(MasslError, match="other names or another order"):
        check_same(find_source(shards)[0], 24, packed.identity)


def test_doubts_are_spoken_out(photos: Path, tmp_path: Path) -> None:
    source, _ = find_source(photos)
    assert doubts(source, 64) == []
    (line,) = doubts(source, 1024)
    assert line.startswith("24 of 24 images looked at are smaller than a view of 1024 pixels")
    assert "smaller views" in line
    (tmp_path / "mixed").mkdir()
    for number in range(5):
        Image.new("RGB", (80, 80) if number else (50, 50), (40 * number, 9, 9)).save(tmp_path / f"mixed/{number}.png")
    # Smaller views would take pixels from the four that are large enough.
    (line,) = doubts(find_source(tmp_path / "mixed")[0], 64)
    assert line == "1 of 5 images looked at are smaller than a view of 64 pixels and will be enlarged"
    (tmp_path / "same").mkdir()
    for number in range(5):
        (tmp_path / "same" / f"{number}.jpg").write_bytes(source.read(0))
    same, _ = find_source(tmp_path / "same")
    (line,) = doubts(same, 64)
    assert line.startswith("all 5 images looked at are the same picture")
    (tmp_path / "same" / "9.jpg").write_bytes(b"broken")
    assert len(doubts(find_source(tmp_path / "same")[0], 64)) == 1
    (tmp_path / "same" / "8.jpg").write_bytes(source.read(1))
    assert doubts(find_source(tmp_path / "same")[0], 64) == []


def test_not_one_readable_image_says_so(tmp_path: Path) -> None:
    source, _ = find_source(write_tar(tmp_path / "a.tar", {"a.jpg": b"x", "b.jpg": b"text"}))
    with pytest.raises(MasslError, match=r"no image of .*a\.tar can be read; the last was 'a.tar/b.jpg': not an image"):
        check_readable(source)


# The indexer's reasons ------------------------------------------------------------------------------------------------


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes(20_000 // 8 + 1) * 20_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@contextlib.contextmanager
def not_as_root(folder: Path) -> Iterator[None]:
    """Does what is inside as a user for whom permissions count."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(folder, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_training_skips_what_the_indexer_skips_for_the_same_reasons(photos: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        shutil.copytree(photos / "flag", root)
        root.chmod(0o755)
        Path(folder).chmod(0o755)
        for suffix in ("jpg", "png", "webp", "gif", "tiff"):
            Image.fromarray(noise).save(root / f"truncated.{suffix}")
            os.truncate(root / f"truncated.{suffix}", (root / f"truncated.{suffix}").stat().st_size // 3)
        (root / "nothing.jpg").write_bytes(b"")
        (root / "bomb.png").write_bytes(bomb())
        (root / "text.jpg").write_text("a text with the wrong name")
        (root / "program.gif").write_bytes(b"\x7fELF" + bytes(500))
        shutil.copy(next((photos / "fruit").iterdir()), root / "a jpeg.png")  # the wrong name, but an image
        os.mkfifo(root / "fifo.jpg")
        (root / "broken link.jpg").symlink_to(root / "nowhere.jpg")
        shutil.copy(next((photos / "fruit").iterdir()), root / "unreadable.jpg")
        (root / "unreadable.jpg").chmod(0)
        (root / "closed").mkdir(mode=0)
        encoder = Encoder.load()
        with not_as_root(root):
            report = Collection.create(root, encoder).update()
            source, passed_over = find_source(root)
            views = Views(source, small_settings(len(source)))
            trained = {item.path: item.reason for item in passed_over}
            for index in range(len(source)):
                trained |= dict(views[0, index].skipped)
        (root / "closed").chmod(0o755)
    # The indexer adds the flag that it has for it.
    indexed = {item.path: item.reason.removesuffix("; --max-megapixels raises it") for item in report.skipped}
    assert trained == indexed
    expected = {
        "nothing.jpg",
        "bomb.png",
        "text.jpg",
        "program.gif",
        "fifo.jpg",
        "broken link.jpg",
        "unreadable.jpg",
        "closed",
    }
    assert expected <= set(trained)
    assert {f"truncated.{suffix}" for suffix in ("jpg", "png", "webp", "gif", "tiff")} <= set(trained)
    assert "a jpeg.png" not in trained
    assert trained["unreadable.jpg"] == "no permission to read it"
