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
    for kind in ("flag", "fruit", "space", "painting"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for picture in sorted((PICTURES / kind).glob("*.jpg"))[:6]:
            shutil.copy(picture, tmp_path / "photos" / kind)
    return tmp_path / "photos"
