"""Real pictures, and small encoders made by our own code, for every test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from indexer import Collection, Encoder
from indexer.search import pixel_verification
from indexer.search.pixel_verification import Sketch
from indexer.store.catalog import Catalog
from massl.core.machine import cores
from tests.forked import Forks, write_stand_in
from tests.objectstore import object_server, running_server

__all__ = ["object_server", "running_server"]  # the fixtures

PICTURES = Path(__file__).parent.parent / "cli" / "pictures"
LONGEST = ("test_offline.py", "test_gpu_checks.py")
LONGEST_SOCKET = 100  # bytes of its path, of which systems take a few more

hypothesis.settings.register_profile("massl", deadline=None)  # machines are busy
hypothesis.settings.load_profile("massl")


def pytest_xdist_auto_num_workers() -> int | None:
    """With `-n auto` a worker more than there are cores, as tests wait for a browser or another process at times."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, so that nothing waits for it alone in the end.

    Nor is it divided then among workers, of which each would make the file's fixtures.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The bundled pictures, a folder a kind. Not to be written to."""
    return PICTURES


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 24 real pictures, 6 of each of 4 kinds, to do with as a test likes."""
    return copy_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The built-in encoder."""
    return Encoder.load()


@pytest.fixture(scope="session")
def index_of_photos(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a folder like `photos`: made once, as it takes a second or two. Not to be changed."""
    made = Collection.create(copy_photos(tmp_path_factory.mktemp("indexed") / "photos"), encoder)
    made.update()
    return made.folder


@pytest.fixture
def indexed(photos: Path, index_of_photos: Path) -> Path:
    """`photos`, indexed."""
    shutil.copytree(index_of_photos, photos / ".massl")
    return photos


@pytest.fixture
def bound() -> list[str]:
    """What stands before a command so that permissions bind it, as they don't bind root."""
    if os.getuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("as root this needs setpriv")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.fixture(scope="session")
def namespace() -> list[str]:
    """What stands before a command so that it has a network and mounts of its own, which it may change."""
    prefix = ["unshare", "--net", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--net", "--mount"]
    missing = [name for name in ("unshare", "setpriv", "mount", "ip") if not shutil.which(name)]
    reason = f"{', '.join(missing)} not on the path" if missing else ""
    if not reason:
        tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
        reason = tried.stderr.strip() if tried.returncode else ""
    if reason:
        message = f"no namespace can be made here ({reason})"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return prefix


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes share which run tests beside each other."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def forks(of_all_workers: Path) -> Iterator[Forks]:
    """Starts `massl` in processes of their own, a hundredth of a second after it is asked to."""
    place = of_all_workers / "forks"
    made = Forks(shared=place if len(os.fsencode(place)) < LONGEST_SOCKET else None)
    yield made
    made.close()


@pytest.fixture(scope="session")
def stand_in(forks: Forks, of_all_workers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that stands for the interpreter where another starts `python -m cli …`: it asks for a fork."""
    return write_stand_in(tmp_path_factory.mktemp("stand-in") / "python", of_all_workers / "forks")


@pytest.fixture(scope="session", autouse=True)
def every_query_takes_the_short_way() -> Iterator[None]:
    """Whatever a test asks a catalog: SQLite may not go through all images, by their state, to find a few by id.

    Left alone it does, as it holds a state to be rare: on a million images a hundred times the time.
    """
    read, seen = Catalog.read, set[str]()

    def watched(self: Catalog, query: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        values = tuple(values)
        form = re.sub(r"\?(, \?)+", "?", re.sub(r"\d+", "?", query))
        if form not in seen and "state = 'ready'" in query:
            seen.add(form)
            for *_, step in read(self, f"EXPLAIN QUERY PLAN {query}", values):
                by_state = "INDEX images_by_state (state=?)" in step
                assert not (by_state and "COVERING" not in step), f"{step}: {form}"
                assert not (by_state and re.search(r"\b(id|image|hash) (=|>|IN|BETWEEN)", form)), f"{step}: {form}"
        return read(self, query, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Catalog, "read", watched)
        yield


@pytest.fixture(scope="session", autouse=True)
def each_pair_is_looked_at_once() -> Iterator[None]:
    """Keeps how well the pixels of two pictures agree: many tests look for duplicates among the same two dozen."""
    look, kept = pixel_verification.agreement, dict[tuple[object, ...], float]()

    def content(sketch: Sketch | None) -> tuple[object, ...]:
        if sketch is None:
            return ()
        images = (sketch.fine, sketch.coarse)
        return (*((image.size, image.tobytes()) for image in images), content(sketch.inside))

    def remembered(one: Sketch, other: Sketch) -> float:
        key = content(one), content(other)
        if key not in kept:
            kept[key] = look(one, other)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_verification, "agreement", remembered)
        yield


def copy_photos(folder: Path) -> Path:
    """Makes what `photos` is; every copy has the same dates, so that one index is right for all of them."""
    for kind in ("flag", "fruit", "space", "painting"):
        (folder / kind).mkdir(parents=True)
        for picture in sorted((PICTURES / kind).glob("*.jpg"))[:6]:
            shutil.copy2(picture, folder / kind)
    return folder
