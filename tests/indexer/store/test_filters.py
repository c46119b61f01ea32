"""Which images a search is confined to: by label, folder and date."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import Collection, Encoder, Query
from indexer.store import filters
from indexer.store.filters import Filter, among, count, day, folders, in_order, modified
from massl.core.errors import MasslError
from tests.indexer.tiny import picture

DAYS = [date(1969, 7, 20), date(2019, 12, 31), date(2020, 1, 1), date(2020, 2, 29), date(2026, 3, 29), date(2099, 1, 1)]
PLACES = ["", "a/", "a/b/", "a0/", "b/ü/"]


@pytest.fixture(scope="module")
def dated(tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A picture a folder and day, changed at the day's first or last second; every third is labelled."""
    root = tmp_path_factory.mktemp("dated")
    for number, (place, when) in enumerate((place, when) for place in PLACES for when in DAYS):
        file = root / place / f"{number:03}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
        moment = datetime.combine(when, datetime.min.time()) + timedelta(seconds=number % 2 * 86_399)
        os.utime(file, (moment.timestamp(), moment.timestamp()))
    collection = Collection.create(root, tiny_encoder)
    collection.update()
    for number, (image, _) in enumerate(collection.images.ready()):
        if number % 3 < 2:
            collection.labels.add("odd" if number % 3 else "even", [image], "me")
    return collection


@given(
    labels=st.lists(st.sampled_from(["odd", "even"]), max_size=2),
    below=st.lists(st.sampled_from(["a", "a/", "a/b", "b", ".", "a0"]), max_size=2),
    since=st.none() | st.sampled_from(DAYS),
    until=st.none() | st.sampled_from(DAYS),
    labelled=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_what_passes_is_what_a_person_would_count(
    dated: Collection, labels: list[str], below: list[str], since: date | None, until: date | None, labelled: bool
) -> None:
    wanted = Filter(tuple(labels), tuple(below), since, until, labelled)
    named = {item.path: item.label for item in dated.labels.every()}
    expected = {
        image
        for image, path in dated.images.ready()
        if (not labels or named.get(path) in labels)
        and (not labelled or path in named)
        and (not below or any(folder == "." or path.startswith(folder.rstrip("/") + "/") for folder in below))
        and (since is None or date.fromtimestamp((dated.root / path).stat().st_mtime) >= since)
        and (until is None or date.fromtimestamp((dated.root / path).stat().st_mtime) <= until)
    }
    if since and until and since > until:
        with pytest.raises(MasslError, match="change one of the two dates"):
            wanted.check(dated.catalog)
        assert not expected
        return
    passing = among(dated.catalog, wanted)
    assert (passing is None) == (not wanted)
    if passing is not None:
        assert passing.tolist() == sorted(expected)
    assert count(dated.catalog, wanted) == len(expected)
    # Page by page, in the order of paths, each once.
    seen: list[tuple[int, str, str | None]] = []
    while rows := in_order(dated.catalog, wanted, seen[-1][1] if seen else "", 4):
        seen += rows
    assert {image for image, _, _ in seen} == expected
    assert [path for _, path, _ in seen] == sorted((path for _, path, _ in seen), key=os.fsencode)
    assert all(label == named.get(path) for _, path, label in seen)


def test_dates_act_inside_the_search(dated: Collection) -> None:
    found = dated.search([Query(image=dated.images.ready()[0][0])], 100, since=DAYS[1], until=DAYS[2], under="a")
    assert len(found) == 4  # two days in two folders
    with pytest.raises(MasslError, match="no image was modified since 2050-01-01 and until 2060-01-01; the files"):
        dated.search([Query(image=1)], since=date(2050, 1, 1), until=date(2060, 1, 1))
    # Days that no clock counts in nanoseconds are no reason to fail.
    assert len(dated.search([Query(image=1)], 100, since=date(1, 1, 1), until=date(9999, 12, 31))) == 29


def test_folders_are_counted_with_what_lies_below(dated: Collection) -> None:
    assert folders(dated.catalog) == {"a": 12, "a/b": 6, "a0": 6, "b": 6, "b/ü": 6}


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-02-29", "2026-W01-1", "\u0662026-1-1"])
def test_what_is_no_day_is_explained(text: str) -> None:
    with pytest.raises(MasslError, match="a date is written YYYY-MM-DD"):
        day(text)
    assert day("2026-01-31") == date(2026, 1, 31)


def test_an_image_is_known_by_its_content(dated: Collection, tmp_path: Path) -> None:
    image, path = dated.images.ready()[7]
    facts = dated.images.facts(image)
    assert (facts.path, facts.width, facts.height, facts.size) == (path, 8, 8, (dated.root / path).stat().st_size)
    assert facts.changed
    assert facts.changed.timestamp() == (dated.root / path).stat().st_mtime
    assert dated.images.of_content(facts.content) == dated.images.of_content(facts.content[:16]) == image
    for unknown in ("", "zz", facts.content[:8], "0" * 16, facts.content + "00", "%' OR 1"):
        with pytest.raises(MasslError, match="no longer in the collection"):
            dated.images.of_content(unknown)
    with pytest.raises(MasslError, match="no longer in the collection"):
        dated.images.facts(9999)


def test_files_of_any_date_are_indexed_and_their_dates_told(tiny_encoder: Encoder, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for number, second in enumerate((0, 1, 86_399, -86_400, -(10**10), 10**10, 10**11, 10**13)):
        file = root / f"{number}.bmp"
        file.write_bytes(picture(number))
        with contextlib.suppress(OSError, OverflowError):  # a date that no file can have here
            os.utime(file, (second, second))
    collection = Collection.create(root, tiny_encoder)
    collection.update()
    for image, _ in collection.images.ready():
        assert collection.images.facts(image).changed is not None
        assert collection.images.file_state(image) == "there"
    outline = collection.images.outline()
    assert outline.first
    assert outline.last
    assert outline.first < outline.last
    assert collection.update().unchanged == 8


class Windows(datetime):
    """Knows no local time before 1970, and of a time without a zone not even the first day of it, as Windows does."""

    def astimezone(self, tz: tzinfo | None = None) -> datetime:
        """See `datetime.astimezone`."""
        if tz is None and self.timestamp() < (0 if self.tzinfo else 86_400):
            raise OSError(22, "Invalid argument")
        return super().astimezone(tz)


def test_where_the_system_knows_no_local_time_a_date_is_told_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "datetime", Windows)
    for second in (-(2**63) // 10**9, -86_400, -1, 0, 1, 86_399, 86_400, 2**63 // 10**9):
        told = modified(second * 10**9)
        assert told == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        assert f"{told:%Y-%m-%d %H:%M}"


@pytest.mark.parametrize("text", ["\ud800", "a\udcff"])
def test_what_is_no_text_passes_no_filter_and_names_no_image(dated: Collection, text: str) -> None:
    for wanted in (Filter(labels=(text,)), Filter(tags=(text,)), Filter(without_tags=(text,)), Filter(folders=(text,))):
        with pytest.raises(MasslError, match=r"is not valid text|no image lies below"):
            among(dated.catalog, wanted)
    assert dated.images.at_path(f"{text}.bmp") is None
    with pytest.raises(MasslError, match="there is no such image"):
        dated.images.id_of(f"{text}.bmp")
    with pytest.raises(MasslError, match="printable characters"):
        dated.labels.add(text, [1], "me")
    with pytest.raises(MasslError, match="is not valid text"):
        dated.labels.add("odd", [1], text)
