"""Tags in the catalog: what one is, and that the journal has each of them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer import Collection, Encoder
from indexer.store import journal
from indexer.store.tags import MAX_TAG, checked, split
from massl.core.errors import MasslError
from tests.indexer.tiny import picture


@pytest.mark.parametrize("tag", ["", " ", "x" * (MAX_TAG + 1), "a\tb", "a\nb", "a\x07", "a\u202eb", "a,b"])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(MasslError, match="a tag "):
        checked(tag)


@given(st.lists(st.text(max_size=8)))
def test_what_is_split_is_tags_that_split_into_themselves(parts: list[str]) -> None:
    try:
        found = split(",".join(parts))
    except MasslError:
        assert any(not part.strip().isprintable() for part in parts)
        return
    assert split(",".join(found)) == found
    single = [" ".join(filter(None, part.strip().split(" "))) for text in parts for part in text.split(",")]
    assert {unicodedata.normalize("NFC", part) for part in single} - {""} == set(found)


def test_spaces_in_a_row_are_one() -> None:
    assert split("New   York,New York") == ["New York"]


def test_a_tag_outlasts_a_move_a_loss_and_a_kill_before_the_journal(tmp_path: Path, tiny_encoder: Encoder) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(3):
        (root / f"{number}.bmp").write_bytes(picture(number))
    made = Collection.create(root, tiny_encoder)
    made.update()
    one, two, _ = [image for image, _ in made.images.ready()]
    assert made.tags.give([(one, "sea"), (one, "dusk"), (two, "sea"), (one, "sea")], "me") == [
        (one, "sea"), (one, "dusk"), (two, "sea"),
    ]  # fmt: skip
    made.rejected_tags.add([(two, "dusk")])
    assert made.tags.remove([(two, "sea"), (two, "fog")]) == [(two, "sea", "me")]
    before = made.tags.every()
    with pytest.raises(MasslError, match="nothing was tagged"):
        made.tags.give([(one, "new"), (99, "new")], "me")
    assert made.tags.every() == before
    made.catalog.close()

    for file in made.folder.iterdir():  # the index is lost, the journal is left
        if file.name.startswith("catalog"):
            file.unlink()
    (root / "0.bmp").rename(root / "moved.bmp")
    fresh = Collection.create(root, tiny_encoder)
    fresh.update()
    assert fresh.tags.every() == []
    done = fresh.journal.restore()
    assert (done.tags, done.decisions, done.left) == (2, 1, ())
    assert [(tag.path, tag.tag, tag.author, tag.at) for tag in fresh.tags.every()] == [
        ("moved.bmp", tag.tag, tag.author, tag.at) for tag in before
    ]
    assert fresh.rejected_tags.of_tag("dusk") == {fresh.images.id_of("1.bmp")}
    assert {decision.image.path for decision in journal.read(fresh.folder).tagged()} == {"moved.bmp"}
    again = fresh.journal.restore()
    assert (again.tags, again.decisions) == (0, 0)
    fresh.catalog.close()
