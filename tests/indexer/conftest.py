"""A collection to work with."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer import Collection, Encoder
from tests.indexer.tiny import write_encoder


@pytest.fixture
def collection(indexed: Path, encoder: Encoder) -> Collection:
    """24 pictures, indexed; to do with as a test likes."""
    opened = Collection.open(indexed)
    opened.storage._encoder = encoder  # as after create()
    return opened


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A real encoder that takes no time."""
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("encoder") / "tiny.onnx"), threads=1)
