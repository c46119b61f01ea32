"""An encoder file of which a bit has flipped: noticed before it is used, mended where that can be done."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from indexer import Collection, Encoder, Query
from indexer.encoder import encoder_file, onnx_encoder
from indexer.encoder.encoder_file import EncoderDamaged, builtin_encoder
from massl.core.errors import MasslError
from massl.core.files.onnx_digest import is_whole, sealed
from tests.cli.conftest import Ran, failed, massl  # noqa: F401 - a fixture
from tests.indexer.tiny import picture, write_encoder


def flip(path: Path, place: float = 0.5) -> None:
    """Flips a bit in the middle of a file, where an encoder has its weights."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x40
    path.write_bytes(data)


@pytest.fixture
def own(tmp_path: Path) -> Encoder:
    return Encoder.load(write_encoder(tmp_path / "own.onnx"))


@pytest.fixture
def small(tmp_path: Path, own: Encoder) -> Collection:
    """Six pictures, indexed by an encoder of the user's."""
    root = tmp_path / "small"
    root.mkdir()
    for number in range(6):
        (root / f"{number}.bmp").write_bytes(picture(number))
    made = Collection.create(root, own)
    made.update()
    return made


def the_copy(collection: Collection) -> Path:
    (copy,) = collection.folder.glob("encoder*.onnx")
    return copy


def test_the_copy_is_made_anew_from_the_built_in_encoder(collection: Collection, caplog) -> None:
    copy = the_copy(collection)
    whole = copy.read_bytes()
    query = Query(picture(99))  # what the collection doesn't hold is embedded
    before = [vars(result) for result in collection.search([query], 5)]
    flip(copy)
    again = Collection.open(collection.root)
    assert [vars(result) for result in again.search([query], 5)] == before
    assert copy.read_bytes() == whole
    (said,) = caplog.messages
    assert said == "the index's copy of its encoder was damaged; it was made anew from builtin"


@pytest.mark.parametrize("damage", [flip, lambda copy: copy.write_bytes(b"cut"), os.unlink])
def test_the_copy_is_made_anew_from_where_it_came(small: Collection, own: Encoder, damage) -> None:
    copy = the_copy(small)
    damage(copy)
    assert Collection.open(small.root).encoder.sha256 == own.sha256
    assert copy.read_bytes() == own.path.read_bytes()


def test_a_file_of_another_content_where_it_came_from_is_not_taken(small: Collection, own: Encoder) -> None:
    copy = the_copy(small)
    flip(copy)
    flip(own.path)
    with pytest.raises(EncoderDamaged, match=r"its encoder, tiny, is damaged; .* sound"):
        _ = Collection.open(small.root).encoder


def test_a_damaged_encoder_costs_only_what_needs_the_network(
    small: Collection,
    own: Encoder,
    massl: Callable[..., Ran],  # noqa: F811
) -> None:
    own.path.rename(own.path.with_name("put away.onnx"))
    flip(the_copy(small))
    other = own.path.with_name("other.bmp")
    other.write_bytes(picture(99))
    again = Collection.open(small.root)
    image = again.images.id_of("0.bmp")
    assert len(again.search([Query(image=image)], 3)) == 3
    assert massl("label", "add", small.root, "first", small.root / "0.bmp").code == 0
    assert "0.bmp,first" in massl("label", "export", small.root).output
    assert massl("info", small.root).code == 0

    assert massl("search", small.root, small.root / "0.bmp").code == 0
    line = failed(massl("search", small.root, other))
    advised = shlex.split(line.partition("run: ")[2])
    assert advised == ["massl", "index", str(small.root), "--encoder", "FILE"]
    back = own.path.with_name("put away.onnx")
    assert massl(*[str(back) if word == "FILE" else word for word in advised[1:]]).code == 0
    assert the_copy(small).read_bytes() == back.read_bytes()
    assert massl("search", small.root, other).code == 0


def test_a_damaged_copy_is_accepted_under_no_name(small: Collection, tmp_path: Path, massl: Callable[..., Ran]) -> None:  # noqa: F811
    copy = the_copy(small)
    flip(copy)
    for given in (copy, tmp_path / copy.name):
        if given != copy:
            shutil.copyfile(copy, given)
        assert "is damaged" in failed(massl("index", small.root, "--encoder", given, "--rebuild"))
        assert "is damaged" in failed(massl("info", given))
    assert Collection.open(small.root).catalog.meta().encoder_sha256.startswith(copy.stem[-16:])


def test_a_copy_on_a_disk_that_cant_be_written_is_done_without(small: Collection, own: Encoder, monkeypatch) -> None:
    flip(the_copy(small))
    shutil.rmtree(small.folder / "thumbnails", ignore_errors=True)
    the_copy(small).rename(small.folder / "kept.bin")
    the_copy_again = small.folder / f"encoder-{own.sha256[:16]}.onnx"
    the_copy_again.mkdir()  # what lies there can't be replaced
    assert Collection.open(small.root).encoder.sha256 == own.sha256


def test_a_damaged_built_in_encoder_says_that_the_installation_is(tmp_path: Path, monkeypatch) -> None:
    broken = Path(shutil.copy(builtin_encoder(), tmp_path / "encoder.onnx"))
    flip(broken)
    for module in (encoder_file, onnx_encoder):
        monkeypatch.setattr(module, "builtin_encoder", lambda: broken)
    for use in (Encoder.load, encoder_file.check_builtin):
        with pytest.raises(EncoderDamaged, match="install massl again"):
            use()


def test_the_built_in_encoder_is_the_one_of_this_version() -> None:
    encoder_file.check_builtin()


def test_an_exported_file_tells_of_every_flipped_bit(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "exported.onnx")
    model = onnx.load(path)
    data = sealed(model)
    assert is_whole(data)
    assert sealed(onnx.load_model_from_string(data)) == data
    chance = np.random.default_rng(0)
    unnoticed = []
    for place in chance.choice(len(data), 300, replace=False):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(chance.integers(8))
        path.write_bytes(damaged)
        try:
            Encoder.load(path)
            unnoticed.append(place)
        except MasslError:
            pass
    # In the digest's own name it can't be noticed: the file is then one without a digest, and its network whole.
    assert all(data[: place + 14].rfind(b"massl.digest") >= place - 14 for place in unnoticed)
    path.write_bytes(data)
    assert Encoder.load(path).name == "tiny"


def test_a_file_without_a_digest_is_taken(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "of_another_program.onnx")
    assert is_whole(path.read_bytes())
    assert Encoder.load(path).name == "tiny"
