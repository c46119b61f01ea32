"""Encoder files and catalogs that pass a first look, and yet don't do: each costs one clear line, and no index."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from indexer import Collection, Encoder, Query
from massl.core.errors import MasslError
from tests.forked import Forks
from tests.indexer.tiny import write_sizes_encoder

SIZES = (8, 12, 16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "photos" / "black.png")
    return tmp_path / "photos"


def write_dividing(path: Path) -> Path:
    """An encoder that divides by the length, which makes no number of a black picture, rather than zeros."""
    model = onnx.load(write_sizes_encoder(path, SIZES))
    nodes = [node for node in model.graph.node if "embedding" not in node.output]
    nodes += [
        helper.make_node("ReduceL2", ["mean"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Div", ["mean", "length"], ["embedding"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("zeros", [False, True], ids=["not a number", "of no length"])
def test_a_picture_without_an_embedding_is_skipped_until_an_encoder_gives_one(
    zeros: bool, root: Path, tmp_path: Path
) -> None:
    file = tmp_path / "encoder.onnx"
    file = write_sizes_encoder(file, SIZES) if zeros else write_dividing(file)
    collection = Collection.create(root, Encoder.load(file))
    report = collection.update()
    assert (report.indexed, report.embedded) == (4, 4)
    assert [(item.path, item.reason) for item in report.skipped] == [
        ("black.png", "the encoder gives no valid embedding for it")
    ]
    again = Collection.open(root)
    assert again.update().indexed == 4
    with pytest.raises(MasslError, match="gives no embedding for that picture"):
        again.search([Query(data=(root / "black.png").read_bytes())])
    anew = Collection.create(root, Encoder.load(), rebuild=True)
    assert (anew.update().indexed, anew.update().skipped) == (5, [])


@pytest.mark.parametrize("size", [10, 2_000, 1_000_000_000])
def test_a_size_that_the_file_does_not_list_is_answered_by_those_that_it_does(size: int, tmp_path: Path) -> None:
    file = write_sizes_encoder(tmp_path / "encoder.onnx", SIZES)
    with pytest.raises(MasslError, match=f"takes pictures of 8, 12 or 16 pixels, not of {size}"):
        Encoder.load(file, image_size=size)


def test_a_catalog_of_a_size_that_its_encoder_does_not_list_is_mended_by_the_command_it_names(
    forks: Forks, root: Path, tmp_path: Path
) -> None:
    collection = Collection.create(root, Encoder.load(write_sizes_encoder(tmp_path / "encoder.onnx", SIZES)))
    collection.update()
    with sqlite3.connect(root / ".massl" / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE meta SET value = '20' WHERE key = 'image_size'")
    with pytest.raises(MasslError, match="8, 12 or 16 pixels, not of 20, as the index says") as told:
        _ = Collection.open(root).encoder
    arguments = shlex.split(str(told.value).rsplit("run: massl ", 1)[1])
    done = forks.run(arguments)
    assert done.returncode == 0, done.stderr
    assert Collection.open(root).encoder.image_size == 8


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("command", [["info"], ["export"]])
def test_a_pipe_in_place_of_an_encoder_is_refused_at_once(forks: Forks, command: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "encoder.onnx")
    done = forks.run([*command, tmp_path / "encoder.onnx"], timeout=60)
    assert done.returncode == 1
    assert b"is not a regular file" in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("image_sizes", "\N{FULLWIDTH DIGIT EIGHT}", "not a list of pixels"),
        ("image_sizes", "+8,12", "not a list of pixels"),
        ("image_sizes", "8,1_2", "not a list of pixels"),
        ("image_sizes", "8,12,8", "not a list of pixels"),
        ("image_sizes", ",".join(map(str, range(8, 41))), "lists 33 sizes, and 32 is the most"),
        ("format", "2", "its massl.format is '2', not 1; install the newest massl"),
    ],
)
def test_a_property_that_massl_would_not_write_is_refused(key: str, value: str, told: str, tmp_path: Path) -> None:
    path = write_sizes_encoder(tmp_path / "encoder.onnx", SIZES)
    model = onnx.load(path)
    kept = {prop.key: prop.value for prop in model.metadata_props}
    helper.set_model_props(model, kept | {f"massl.{key}": value})
    onnx.save(model, path)
    with pytest.raises(MasslError, match=re.escape(told)):
        Encoder.load(path)
