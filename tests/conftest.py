"""Real pictures, and small encoders made by our own code, for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

PICTURES = Path(__file__).parent.parent / "cli" / "pictures"


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The bundled pictures, a folder a kind. Not to be written to."""
    return PICTURES


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 24 real pictures, 6 of each of 4 kinds, to do with as a test likes."""
    return copy_photos(tmp_path / "photos")


def copy_photos(folder: Path) -> Path:
    """Makes what `photos` is; every copy of it has the same dates."""
    for kind in ("flag", "fruit", "space", "painting"):
        (folder / kind).mkdir(parents=True)
        for picture in sorted((PICTURES / kind).glob("*.jpg"))[:6]:
            shutil.copy2(picture, folder / kind)
    return folder
