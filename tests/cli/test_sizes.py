"""`massl index --image-size`, and indexes of former built-in encoders, from outside."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from indexer import Collection
from indexer.encoder.encoder_file import BUILTIN
from tests.cli.conftest import failed
from tests.indexer.tiny import picture, write_encoder, write_sizes_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve small pictures."""
    (tmp_path / "photos").mkdir()
    for number in range(12):
        (tmp_path / "photos" / f"{number:02}.bmp").write_bytes(picture(number))
    return tmp_path / "photos"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_sizes_encoder(tmp_path / "sized.onnx", (8, 16, 24))


def test_the_size_is_chosen_once_and_kept(massl, folder: Path, file: Path, tmp_path: Path) -> None:
    def size(*arguments: object, **environment: str) -> tuple[int, int]:
        told = massl("index", folder, "--json", *arguments, **environment).json
        return told["encoder"]["image_size"], round(told["seconds"] * told["images_per_second"])

    assert size("--encoder", file, "--image-size", 16) == (16, 12)
    assert size() == (16, 0)
    assert size("--encoder", file) == (16, 0)
    assert size(MASSL_ENCODER=str(file)) == (16, 0)
    assert size("--image-size", 16) == (16, 0)
    assert size("--rebuild") == (16, 12)
    assert size("--rebuild", "--encoder", file) == (16, 12)
    assert size("--rebuild", "--image-size", 24) == (24, 12)
    other = write_sizes_encoder(tmp_path / "other.onnx", (8, 24), "other")
    assert size("--rebuild", "--encoder", other) == (8, 12)
    assert size("--rebuild", "--encoder", file, "--image-size", 16) == (16, 12)


def test_another_size_is_compared_and_refused_and_the_command_that_is_named_takes_it(
    massl, folder: Path, file: Path
) -> None:
    massl("index", folder, "--encoder", file, "--image-size", 16)
    for label, numbers in (("a", range(6)), ("b", range(6, 12))):
        massl("label", "add", folder, label, *[folder / f"{number:02}.bmp" for number in numbers])
    refused = massl("index", folder, "--image-size", 24)
    assert (refused.code, refused.output) == (4, "")
    *_, compared, line = refused.error.strip().splitlines()
    assert compared.startswith("12 labelled images, named by their nearest others: ")
    assert "right with the present sized at 16 px, " in compared
    assert " with sized at 24 px: " in compared
    assert "was indexed at 16 pixels, not at 24" in line
    command = shlex.split(line.partition("run: ")[2])
    assert command == ["massl", "index", str(folder), "--image-size", "24", "--rebuild"]
    assert massl(*command[1:]).code == 0
    assert massl("info", folder, "--json").json["encoder"]["image_size"] == 24
    assert len(massl("label", "list", folder, "--json").json["labels"]) == 12


def test_a_size_that_the_file_does_not_list_is_a_line_and_writes_nothing(massl, folder: Path, file: Path) -> None:
    said = "takes pictures of 8, 16 or 24 pixels, not of 999"
    assert said in failed(massl("index", folder, "--encoder", file, "--image-size", 999))
    assert "the encoder massl-builtin-6 takes pictures of 112, 126, 168 or 224 pixels, not of 999" in failed(
        massl("index", folder, "--image-size", 999)
    )
    assert not (folder / ".massl").exists()
    massl("index", folder, "--encoder", file)
    before = (folder / ".massl" / "catalog.sqlite").read_bytes()
    for rebuild in ((), ("--rebuild",)):
        assert said in failed(massl("index", folder, "--image-size", 999, *rebuild))
    assert (folder / ".massl" / "catalog.sqlite").read_bytes() == before
    for wrong in ("0", "-1", "x"):
        assert massl("index", folder, "--image-size", wrong).code == 2


def test_info_says_the_sizes_and_what_they_cost(massl, folder: Path, file: Path) -> None:
    told = massl("info", file)
    assert "input        pictures of 8 x 8 pixels\n" in told.output
    assert "other sizes  16 px: 4.0 times the work, 24 px: 9.0 times the work\n" in told.output
    told = massl("info", file, "--json").json
    assert (told["image_size"], told["image_sizes"]) == (8, [8, 16, 24])
    assert "other sizes  112 px: 0.79 times the work" in massl("info", "builtin").output
    massl("index", folder, "--encoder", file, "--image-size", 16)
    told = massl("info", folder)
    assert "sized, 16 numbers per picture, at 16 px\n" in told.output
    assert "other sizes   8 px: 0.25 times the work, 24 px: 2.2 times the work\n" in told.output
    about = massl("info", folder, "--json").json["encoder"]
    assert (about["image_size"], about["image_sizes"]) == (16, [8, 16, 24])


def test_an_index_with_a_damaged_encoder_says_the_size_that_it_knows(massl, folder: Path, file: Path) -> None:
    massl("index", folder, "--encoder", file, "--image-size", 16)
    file.unlink()
    (copy,) = (folder / ".massl").glob("encoder-*.onnx")
    copy.write_bytes(b"cut")
    assert "sized, 16 numbers per picture, at 16 px\n" in massl("info", folder).output
    about = massl("info", folder, "--json").json["encoder"]
    assert (about["image_size"], about["image_sizes"]) == (16, [])
    with Collection.open(folder).catalog.writing() as connection:
        connection.execute("DELETE FROM meta WHERE key = 'image_size'")
    assert massl("info", folder, "--json").json["encoder"]["image_size"] is None
    assert "sized, 16 numbers per picture\n" in massl("info", folder).output


# Former built-in encoders ---------------------------------------------------------------------------------------------


def test_an_index_of_a_former_built_in_encoder_goes_on_with_it_and_says_once_how_to_switch(
    massl, folder: Path, tmp_path: Path
) -> None:
    former = write_encoder(tmp_path / "former.onnx", "massl-builtin-1")
    made = massl("index", folder, "--encoder", former)  # who names it knows
    assert "earlier version" not in made.error
    assert "earlier version" not in massl("index", folder, "-q").error
    told = massl("index", folder, "--json")
    assert told.json["encoder"]["name"] == "massl-builtin-1"
    (line,) = [line for line in told.error.splitlines() if "earlier version" in line]
    assert "earlier version" not in massl("index", folder).error

    opened = Collection.open(folder)
    ids = [image for image, _ in opened.images.ready()]
    opened.labels.add("a", ids[:3], "me")
    opened.rejections.add({ids[4]: "a"})
    opened.decisions.keep_both(ids[5:7])
    command = shlex.split(line.partition("run: ")[2])
    assert command == ["massl", "index", str(folder), "--encoder", "builtin", "--rebuild"]
    assert massl(*command[1:]).code == 0
    switched = Collection.open(folder)
    assert switched.encoder.sha256 == BUILTIN
    assert len(switched.labels.every()) == 3
    assert switched.rejections.by_image() == {ids[4]: frozenset({"a"})}
    assert [len(group) for group in switched.duplicates.kept_together()] == [2]
    assert "earlier version" not in massl("index", folder).error
