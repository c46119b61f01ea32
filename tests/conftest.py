"""Real pictures, and small encoders made by our own code, for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from indexer import Collection, Encoder

PICTURES = Path(__file__).parent.parent / "cli" / "pictures"


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The bundled pictures, a folder a kind. Not to be written to."""
    return PICTURES


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 24 real pictures, 6 of each of 4 kinds, to do with as a test likes."""
    return _copy_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The built-in encoder."""
    return Encoder.load()


@pytest.fixture(scope="session")
def index_of_photos(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a folder like `photos`: made once, as it takes a second or two. Not to be changed."""
    made = Collection.create(_copy_photos(tmp_path_factory.mktemp("indexed") / "photos"), encoder)
    made.update()
    return made.folder


@pytest.fixture
def indexed(photos: Path, index_of_photos: Path) -> Path:
    """`photos`, indexed."""
    shutil.copytree(index_of_photos, photos / ".massl")
    return photos


def _copy_photos(folder: Path) -> Path:
    """Makes what `photos` is; every copy has the same dates, so that one index is right for all of them."""
    for kind in ("flag", "fruit", "space", "painting"):
        (folder / kind).mkdir(parents=True)
        for picture in sorted((PICTURES / kind).glob("*.jpg"))[:6]:
            shutil.copy2(picture, folder / kind)
    return folder
