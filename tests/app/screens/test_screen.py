"""What all screens have in common."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from app.screens import SCREENS
from app.session import Session
from indexer import Collection, Encoder
from indexer.store import revision
from tests.indexer.tiny import write_encoder


@pytest.fixture(scope="module")
def collection(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Six pictures of which four are labelled, indexed by an encoder that takes no time."""
    root = tmp_path_factory.mktemp("screen") / "photos"
    root.mkdir()
    for file in sorted((pictures / "flag").glob("*.jpg"))[:6]:
        shutil.copy(file, root)
    made = Collection.create(root, Encoder.load(write_encoder(root.parent / "tiny.onnx"), threads=1))
    made.update()
    made.labels.add("a", [1, 2], "me")
    made.labels.add("b", [3, 4], "me")
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[revision.Revision]:
    """What this thread was answered when it asked whether the collection has changed; what works behind it may, too."""
    answers: list[revision.Revision] = []
    read, here = revision.read, threading.current_thread()

    def count(catalog: object) -> revision.Revision:
        found = read(catalog)  # type: ignore[arg-type]
        if threading.current_thread() is here:
            answers.append(found)
        return found

    monkeypatch.setattr(revision, "read", count)
    return answers


@pytest.mark.parametrize("kind", SCREENS, ids=lambda kind: kind.key)
def test_a_look_asks_once_whether_the_collection_has_changed(
    kind: type, collection: Collection, asked: list[revision.Revision], tmp_path: Path
) -> None:
    screen, session = kind(collection, tmp_path), Session()
    for _ in range(2):
        asked.clear()
        answer = screen.do(session, {"do": "look"})
        assert answer["message"] is None
        assert len(asked) == 1


def test_a_label_is_drawn_with_what_came_of_it(
    collection: Collection, asked: list[revision.Revision], tmp_path: Path
) -> None:
    label = next(kind for kind in SCREENS if kind.key == "label")
    screen, session = label(collection, tmp_path), Session()  # type: ignore[abstract]
    answer = screen.do(session, {"do": "label", "images": [5], "label": "a"})
    assert [entry["count"] for entry in answer["classes"]] == [3, 2]
    before, after = asked  # once to check that it is still this collection, once to draw it
    assert (after.labels - before.labels, after.listed) == (1, before.listed)
    assert collection.fewshot.classify().counts == {"a": 3, "b": 2}
