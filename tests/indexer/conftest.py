"""A collection to work with."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer import Collection, Encoder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The built-in encoder."""
    return Encoder.load()


@pytest.fixture
def collection(photos: Path, encoder: Encoder) -> Collection:
    """24 pictures, indexed."""
    made = Collection.create(photos, encoder)
    made.update()
    return made
