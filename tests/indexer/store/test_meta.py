"""The collection's facts: each of one type, and what a wrong or a missing one does."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexer.store.catalog import Catalog
from indexer.store.damage import CatalogDamaged
from indexer.store.kind_ranges import KindRange
from indexer.store.meta import FACTS, Meta, after_repair
from indexer.store.tiling import Tiling
from massl.core.errors import MasslError
from massl.core.images.decoding import MAX_PIXELS


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """One without a fact but its format."""
    return Catalog.create(tmp_path / "catalog.sqlite", {})


def force(catalog: Catalog, name: str, text: str) -> None:
    """Writes a fact past everything that looks at it; its checksum is not known then."""
    catalog.close()
    with closing(sqlite3.connect(catalog.path, isolation_level=None)) as connection:
        connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", [name, text])


VALUES = {
    "encoder_sha256": "a" * 64, "dim": 384, "image_size": 224, "exclude": ("*.tif", "a b"), "include": (".hidden",),
    "left_out": {"hidden": 3}, "arrivals": (("2026-01-01T00:00:00+00:00", 12),), "classes": ("cat", "ä"),
    "generation": 7, "calibrated_generation": 7, "calibration_looks": {"a b": 0.5}, "drift": (7, '{"a": 1}'),
    "max_pixels": 10**8, "engine": "faiss", "map_file": "map-0a.npz", "map_laid_out": 12,
    "restore": True, "square_told": True, "checked": "2026-01-01T00:00:00+00:00", "encoder_bytes": "12", "moves": 3,
    "display_range": "100:4000",
    "kind_ranges": {"uint16": KindRange(1.5, 9.0, 3, 5, 2, 0.25)},
    "channels": ("DAPI", "2"),
    "plane": "12",
    "vectors_change": 9, "vectors_tiles_change": 9, "tiles_told": True, "tiles": Tiling(512, 64),
    "readers_max_pixels": 5, "unusual_file": "unusual-0123456789abcdef.npz",
}  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_comes_back_as_it_was_written(catalog: Catalog, name: str) -> None:
    value = VALUES.get(name, "some text")
    catalog.set_meta(FACTS[name].to(value))
    assert getattr(catalog.meta(), name) == value
    catalog.forget_meta(FACTS[name])
    assert FACTS[name] not in catalog.meta()


def test_a_fact_that_another_process_writes_is_read_and_looked_at_anew(catalog: Catalog) -> None:
    catalog.set_meta(Meta.dim.to(384))
    assert (catalog.meta().dim, catalog.meta().dim) == (384, 384)
    force(catalog, "dim", "385")
    assert catalog.meta().dim == 385
    force(catalog, "dim", "0")
    for _ in range(2):
        with pytest.raises(CatalogDamaged, match="its dim can't be '0'"):
            catalog.meta()


def test_a_missing_fact_is_what_it_was_before_there_was_one(catalog: Catalog) -> None:
    meta = catalog.meta()
    assert (meta.image_size, meta.max_pixels, meta.exclude, meta.include) == (None, MAX_PIXELS, (), None)
    assert (meta.generation, meta.moves, meta.vectors_change, meta.holder) == (0, 0, 0, "another process")
    for name in ("encoder_sha256", "encoder_name", "dim", "created"):
        with pytest.raises(MasslError, match=f"the index is damaged: it doesn't tell its {name}; move it away"):
            getattr(meta, name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dim", "0"),
        ("dim", "12; DROP TABLE images"),
        ("encoder_sha256", "../" + "a" * 61),
        ("engine", "../engine"),
        ("map_file", "/map-0a.npz"),
        ("unusual_file", "../unusual-0123456789abcdef.npz"),
        ("generation", "-1"),
        ("image_size", "many"),
        ("display_range", "all"),
        ("plane", "every"),
        ("tiles", "512; DROP TABLE tiles"),
    ],
)
def test_a_fact_that_does_not_look_as_it_can_is_damage(catalog: Catalog, name: str, text: str) -> None:
    force(catalog, name, text)
    with pytest.raises(CatalogDamaged, match=f"its {name} can't be"):
        catalog.meta()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("exclude", "{}"),
        ("include", "[1]"),
        ("classes", "["),
        ("left_out", '{"a": "b"}'),
        ("display_range", "9:3"),
        ("kind_ranges", '{"uint16": {"low": 9, "high": 3}}'),
        ("kind_ranges", '{"uint16": {"low": 9}}'),
        ("kind_ranges", '{"uint16": {"low": -Infinity, "high": Infinity}}'),
        ("kind_ranges", '{"uint16": {"clipped": 2}}'),
        ("kind_ranges", "[]"),
    ],
)
def test_a_fact_that_is_no_value_is_said_to_be_damaged_by_who_reads_it(catalog: Catalog, name: str, text: str) -> None:
    force(catalog, name, text)
    meta = catalog.meta()  # whoever doesn't need it goes on
    with pytest.raises(
        MasslError, match=r"the index is damaged: .* is no (list of names|table of (counts|ranges)|range)"
    ):
        getattr(meta, name)


@pytest.mark.parametrize(("name", "text"), [("drift", ""), ("calibrated_generation", "x"), ("calibration_looks", "[")])
def test_a_cache_that_is_no_value_counts_as_missing(catalog: Catalog, name: str, text: str) -> None:
    force(catalog, name, text)
    assert getattr(catalog.meta(), name) == FACTS[name].of({})


def test_a_repaired_catalog_has_the_facts_that_could_be_read_but_for_caches_and_the_encoder() -> None:
    new = dict([Meta.encoder_sha256.to("b" * 64), Meta.dim.to(16), Meta.generation.to(0), Meta.created.to("now")])
    read = dict(
        [
            Meta.encoder_sha256.to("a" * 64),
            Meta.generation.to(4),
            Meta.created.to("before"),
            Meta.exclude.to(("x",)),
            Meta.vectors_kept.to("somewhere"),
            Meta.verified.to("2026-01-01"),
        ]
    )
    meta = Meta(after_repair(new, read))
    assert (meta.encoder_sha256, meta.dim, meta.generation, meta.created) == ("b" * 64, 16, 5, "before")
    assert (meta.exclude, meta.vectors_kept, meta.verified, meta.restore) == (("x",), "", None, True)
