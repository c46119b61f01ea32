"""A collection to work with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from indexer import Collection, Encoder
from tests.conftest import copy_photos
from tests.indexer.tiny import write_encoder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The built-in encoder."""
    return Encoder.load()


@pytest.fixture(scope="session")
def indexed(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of `photos`: made once, as it takes a second or two. Not to be changed."""
    made = Collection.create(copy_photos(tmp_path_factory.mktemp("indexed") / "photos"), encoder)
    made.update()
    return made.folder


@pytest.fixture
def collection(photos: Path, indexed: Path, encoder: Encoder) -> Collection:
    """24 pictures, indexed; to do with as a test likes."""
    shutil.copytree(indexed, photos / ".massl")
    copied = Collection.open(photos)
    copied._encoder = encoder  # as after create()
    return copied


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A real encoder that takes no time."""
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("encoder") / "tiny.onnx"), threads=1)
