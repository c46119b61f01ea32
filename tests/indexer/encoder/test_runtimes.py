"""Which runtime embeds many pictures, and that it makes no difference which."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from indexer import Collection, Encoder, Query
from indexer.encoder import onnx_encoder, runtimes
from indexer.encoder.encoder_file import builtin_encoder
from indexer.encoder.openvino_runtime import BATCH, OpenVino
from indexer.encoder.runtimes import choose, many, rule
from indexer.encoder.small_batches import SmallBatches
from massl.core.images.decoding import open_image
from massl.core.machine import cores
from tests.indexer.tiny import DIM, SIDE, write_encoder, write_quantised_encoder

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs pip install 'massl[openvino]'"
)
FLOAT, QUANTISED = {"MatMul", "Softmax"}, {"MatMul", "QuantizeLinear", "DequantizeLinear"}


@pytest.mark.parametrize(
    ("operations", "able", "wanted", "runtime", "precision"),
    [
        (FLOAT, {"bf16", "vnni"}, "auto", "openvino", "bf16"),
        (FLOAT, {"vnni"}, "auto", "onnxruntime", "f32"),
        (FLOAT, {"vnni"}, "openvino", "openvino", "f32"),
        (FLOAT, {"bf16", "vnni"}, "openvino", "openvino", "bf16"),
        (QUANTISED, {"bf16", "vnni"}, "auto", "openvino", "f32"),
        (QUANTISED, {"vnni"}, "auto", "openvino", "f32"),
        (QUANTISED, set(), "auto", "onnxruntime", "f32"),
        ({"DynamicQuantizeLinear", "MatMulInteger"}, {"bf16", "vnni"}, "auto", "onnxruntime", "f32"),
        (QUANTISED | {"MatMulInteger"}, {"bf16", "vnni"}, "auto", "onnxruntime", "f32"),
        ({"DynamicQuantizeLinear"}, set(), "openvino", "openvino", "f32"),
    ],
)
def test_the_runtime_follows_from_the_file_and_the_processor(operations, able, wanted, runtime, precision) -> None:
    choice = rule(operations, able, wanted)
    assert (choice.runtime, choice.amiss) == (runtime, False)
    if runtime == "openvino":
        assert choice.precision == precision


def test_onnx_runtime_is_taken_where_it_is_asked_for_or_alone(encoder: Encoder) -> None:
    assert choose(b"", "onnxruntime").runtime == "onnxruntime"
    code = (
        "import sys; sys.modules['openvino'] = None; from indexer import Encoder; encoder = Encoder.load(); "
        "print(encoder.choice().why, encoder.choice().amiss, encoder.choice('openvino').amiss); "
        "print(encoder.for_many(10**9).runtime, encoder.for_many(1, 'openvino').runtime)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "OpenVINO is not installed False True\nonnxruntime onnxruntime\n"
    told = "OpenVINO can't run the encoder massl-builtin-4, so ONNX Runtime does: OpenVINO is not installed"
    assert ran.stderr == told.replace("massl-builtin-4", encoder.name) + "\n"


@pytest.mark.parametrize(
    ("instructions", "pays"), [({"avx512_vnni", "fpu"}, True), ({"avx512_bf16"}, True), ({"fpu"}, False)]
)
def test_openvino_is_worth_installing_where_it_would_be_taken(monkeypatch, instructions, pays) -> None:
    monkeypatch.setattr(runtimes, "_instructions", lambda: instructions)
    assert runtimes.would_pay(builtin_encoder().read_bytes()) is pays


def test_a_few_pictures_do_not_wait_for_openvino() -> None:
    code = (
        "import sys; from indexer import Encoder; from indexer.encoder.runtimes import many; encoder = Encoder.load(); "
        "few = many() - 1; assert encoder.for_many(few) is encoder.for_many(few, 'onnxruntime') is encoder; "
        "assert encoder.for_many(10**9, 'onnxruntime').runtime == 'onnxruntime'; "
        "print('openvino' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
    assert many() >= 128


@pytest.fixture(scope="module")
def of_pictures(encoder: Encoder, pictures: Path) -> NDArray[np.uint8]:
    """Every third of the demo's pictures, as the built-in encoder takes them."""
    return np.stack([encoder.prepare(open_image(path)) for path in sorted(pictures.glob("*/*.jpg"))[::3]])


@pytest.fixture(scope="module")
def compiled(encoder: Encoder) -> Encoder:
    """The built-in encoder, run by OpenVINO."""
    return encoder.for_many(1, "openvino")


def cosines(one: Encoder, other: Encoder, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (one.embed(pixels) * other.embed(pixels)).sum(1)


@needs_openvino
def test_both_runtimes_embed_the_demo_s_pictures_alike(
    encoder: Encoder, compiled: Encoder, of_pictures: NDArray[np.uint8]
) -> None:
    assert (encoder.runtime, compiled.runtime, compiled.device) == ("onnxruntime", "openvino", "cpu")
    found = cosines(encoder, compiled, of_pictures)
    in_8_bits = b"QuantizeLinear" in encoder.path.read_bytes()
    assert found.min() >= (0.98 if in_8_bits else 0.99)
    assert found.mean() >= (0.99 if in_8_bits else 0.999)
    embedded = compiled.embed(of_pictures)
    assert embedded.shape == (len(of_pictures), encoder.dim)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)


@needs_openvino
def test_both_runtimes_embed_alike_in_8_bits(tmp_path: Path, pictures: Path) -> None:
    encoder = Encoder.load(write_quantised_encoder(tmp_path / "e.onnx"))
    pixels = np.stack([encoder.prepare(open_image(path)) for path in sorted(pictures.glob("*/*.jpg"))])
    compiled = encoder.for_many(1, "openvino")
    assert compiled.runtime == "openvino"
    assert cosines(encoder, compiled, pixels).min() >= 0.99


@needs_openvino
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_embedding_does_not_depend_on_its_neighbours(
    encoder: Encoder, of_pictures: NDArray[np.uint8], runtime
) -> None:
    used = encoder.for_many(1, runtime)
    assert used.runtime == runtime
    together = used.embed(of_pictures[:32])
    for count in (1, 5, BATCH, BATCH + 1):
        apart = [used.embed(of_pictures[start : start + count]) for start in range(0, 32, count)]
        np.testing.assert_allclose(np.concatenate(apart)[:32], together, atol=1e-5)
    np.testing.assert_allclose(used.embed(of_pictures[31::-1])[::-1], together, atol=1e-5)
    assert used.embed(of_pictures[:0]).shape == (0, encoder.dim)


def test_small_batches_side_by_side_embed_what_one_batch_does(encoder: Encoder, of_pictures: NDArray[np.uint8]) -> None:
    side_by_side = encoder.for_many(many(), "onnxruntime")
    if cores() == 1:
        assert side_by_side is encoder
        return
    assert isinstance(side_by_side.faster, SmallBatches)
    assert side_by_side.for_many(many()) is side_by_side
    for count in (0, 1, 4, 5, 32, len(of_pictures)):
        np.testing.assert_array_equal(side_by_side.embed(of_pictures[:count]), encoder.embed(of_pictures[:count]))
    np.testing.assert_array_equal(side_by_side.embed_patches(of_pictures[:2]), encoder.embed_patches(of_pictures[:2]))


def test_an_encoder_of_one_thread_takes_one_batch_at_a_time(tmp_path: Path) -> None:
    encoder = Encoder.load(write_encoder(tmp_path / "e.onnx"), threads=1)
    assert encoder.for_many(10**9, "onnxruntime") is encoder


def test_weights_are_not_loaded_once_more_where_memory_is_short(tmp_path: Path, monkeypatch) -> None:
    encoder = Encoder.load(write_encoder(tmp_path / "e.onnx"), threads=2)
    assert encoder.for_many(10**9, "onnxruntime") is not encoder
    monkeypatch.setattr(onnx_encoder, "available_memory", lambda: 2 * encoder.path.stat().st_size)
    assert encoder.for_many(10**9, "onnxruntime") is encoder


def test_a_file_that_changed_after_it_was_loaded_is_not_loaded_again(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "e.onnx")
    encoder = Encoder.load(path, threads=2)
    pixels = np.random.default_rng(0).integers(0, 256, (9, SIDE, SIDE, 3), np.uint8)
    before = encoder.embed(pixels)
    write_encoder(path, seed=1)
    assert encoder.for_many(10**9, "onnxruntime") is encoder
    np.testing.assert_array_equal(encoder.embed(pixels), before)


@needs_openvino
def test_threads_share_a_compiled_encoder(compiled: Encoder, of_pictures: NDArray[np.uint8]) -> None:
    alone = compiled.embed(of_pictures)
    with ThreadPoolExecutor(8) as threads:
        rows = [range(start, len(of_pictures), 16) for start in range(16)]
        for chosen, found in zip(rows, threads.map(lambda some: compiled.embed(of_pictures[some]), rows), strict=True):
            np.testing.assert_array_equal(found, alone[chosen])


@needs_openvino
def test_patches_come_of_the_same_encoder(encoder: Encoder, compiled: Encoder, of_pictures: NDArray[np.uint8]) -> None:
    assert compiled.has_patches
    np.testing.assert_array_equal(compiled.embed_patches(of_pictures[:2]), encoder.embed_patches(of_pictures[:2]))


@needs_openvino
def test_an_encoder_keeps_its_number_of_threads(encoder: Encoder) -> None:
    network = Encoder.load(threads=1).for_many(1, "openvino").faster
    assert isinstance(network, OpenVino)
    assert network._compiled.get_property("INFERENCE_NUM_THREADS") == 1


@needs_openvino
@pytest.mark.parametrize(("first", "then"), [("openvino", "onnxruntime"), ("onnxruntime", "openvino")])
def test_a_collection_of_one_runtime_is_searched_and_kept_current_by_the_other(
    encoder: Encoder, photos: Path, first, then
) -> None:
    assert Collection.create(photos, runtime=first).update().runtime == first
    collection = Collection.open(photos, runtime=then)
    again, original = photos.parent / "again.png", sorted(photos.glob("fruit/*"))[0]
    with open_image(original) as picture:
        picture.save(again)
        query = encoder.for_many(1, then).embed(encoder.prepare(picture)[None])
    path = original.relative_to(photos).as_posix()
    (scores,), ids = collection.searcher.index().search(query, 1)
    assert collection.images.paths_of(ids[0].tolist()) == [path]
    assert scores[0] > 0.99
    assert collection.search([Query.of_file(again)], 1)[0].path == path
    again.rename(photos / "again.png")
    report = collection.update()
    assert (report.added, report.unchanged, report.runtime) == (1, 24, then)
    assert {result.path for result in collection.search([Query.of_file(original)], 2)} == {path, "again.png"}


def model(path: Path, *nodes: onnx.NodeProto) -> Path:
    """An encoder: a linear map to `projected`, then these nodes."""
    made = onnx.load(write_encoder(path))
    del made.graph.node[-1]
    made.graph.node.extend(nodes)
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    onnx.save(made, path)
    return path


@needs_openvino
def test_a_file_that_openvino_cannot_run_is_run_by_onnx_runtime_and_a_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [
        helper.make_node("Scaler", ["projected"], ["scaled"], domain="ai.onnx.ml", offset=[0.0], scale=[2.0]),
        helper.make_node("LpNormalization", ["scaled"], ["embedding"], axis=1, p=2),
    ]
    encoder = Encoder.load(model(tmp_path / "e.onnx", *nodes))
    with caplog.at_level(logging.WARNING):
        assert encoder.for_many(1, "openvino") is encoder
    (said,) = caplog.messages
    assert said.startswith("OpenVINO can't run the encoder tiny, so ONNX Runtime does: ")
    assert "Scaler" in said
    assert ".cpp" not in said
    assert "\n" not in said
    assert len(said) < 250


@needs_openvino
def test_a_file_that_openvino_runs_otherwise_is_run_by_onnx_runtime(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = [
        helper.make_node("RandomNormalLike", ["projected"], ["noise"], seed=1.0, scale=1e6),
        helper.make_node("Add", ["projected", "noise"], ["noisy"]),
        helper.make_node("LpNormalization", ["noisy"], ["embedding"], axis=1, p=2),
    ]
    encoder = Encoder.load(model(tmp_path / "e.onnx", *noise))
    with caplog.at_level(logging.WARNING):
        assert encoder.for_many(1, "openvino") is encoder
    assert "its embeddings have a cosine of" in caplog.text


@needs_openvino
def test_a_file_that_has_changed_since_it_was_loaded_is_not_compiled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder.load(write_encoder(tmp_path / "e.onnx"))
    write_encoder(tmp_path / "e.onnx", "another")
    with caplog.at_level(logging.WARNING):
        assert encoder.for_many(1, "openvino") is encoder
    assert "e.onnx is damaged: its SHA-256 is" in caplog.text


@needs_openvino
def test_a_batch_that_does_not_fit_into_memory_is_not_begun(tmp_path: Path) -> None:
    wide = 10_000_000  # numbers, 40 MB a picture
    nodes = [
        helper.make_node("Tile", ["projected", "often"], ["wide"]),
        helper.make_node("Exp", ["wide"], ["other"]),
        helper.make_node("Add", ["wide", "other"], ["sum"]),
        helper.make_node("ReduceMean", ["sum"], ["nothing"], axes=[1]),
        helper.make_node("Add", ["projected", "nothing"], ["moved"]),
        helper.make_node("LpNormalization", ["moved"], ["embedding"], axis=1, p=2),
    ]
    made = onnx.load(model(tmp_path / "e.onnx", *nodes))
    made.graph.initializer.append(numpy_helper.from_array(np.array([1, wide // DIM], np.int64), "often"))
    data = made.SerializeToString()
    needed = BATCH * wide * 4 * 3  # three such tensors are in use at a time
    with pytest.raises(MemoryError):
        OpenVino(data, SIDE, "f32", 1, needed * 99 // 100)
    OpenVino(data, SIDE, "f32", 1, needed * 101 // 100)


@needs_openvino
def test_little_free_memory_is_left_to_onnx_runtime(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("indexer.encoder.onnx_encoder.available_memory", lambda: 0)
    with caplog.at_level(logging.WARNING):
        assert encoder.for_many(1, "openvino") is encoder
    assert caplog.messages[0].endswith("so ONNX Runtime does: it may take too much memory")
