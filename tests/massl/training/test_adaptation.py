"""Adapting an encoder: a linear layer learns on the embeddings of a frozen backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from cli.train import _begins
from indexer.encoder.encoder_file import builtin_encoder
from massl.core.errors import MasslError
from massl.data.sources import find_source
from massl.encoder import checkpoint, weights
from massl.encoder.adapted import START, with_map
from massl.encoder.export import export, export_run
from massl.encoder.weights import read_initial
from massl.encoder.whitening import Whitening
from massl.method.network import Adapter, ComponentHead, Network, scaled
from massl.planning import plan
from massl.settings import Settings
from massl.training.adaptation import GAIN, SHARES, Choice
from massl.training.loop import Interrupted, train
from massl.training.view_embeddings import FILE, ViewEmbeddings, agreement
from tests.forked import Forks
from tests.massl.conftest import full_disk


@pytest.fixture(scope="module")
def start(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder file to begin with, of a small transformer."""
    path = tmp_path_factory.mktemp("start") / "start.onnx"
    export(str(run), path, name="start")
    return path


def adapting(start: Path, images: int, **overrides: str) -> Settings:
    overrides = {"steps": "12", "log_every": "1", "probe_every": "4", "workers": "0", **overrides}
    return plan("adapt", images, overrides, precision="fp32", begins=read_initial(str(start)).begins)[0]


def adapt(start: Path, photos: Path, out: Path, **options: Any) -> dict[str, Any]:
    source, _ = find_source(photos)
    initial = None if options.get("resume") else read_initial(str(start))
    return train(source, out, adapting(start, len(source)), initial=initial, **options)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def embedded(path: Path, pixels: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["embedding", "patches"], {"pixels": pixels})


def test_the_encoder_is_the_start_with_a_share_of_what_was_learnt(start: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = adapt(start, photos, out, labelled=photos)
    assert not (out / FILE).exists()
    assert len(losses(out)) == 12
    starts = {json.loads(line)["knn_start"] for line in (out / "metrics.jsonl").read_text().splitlines()}
    assert len(starts) == 1  # of the encoder that it adapts
    share = summary["kept"]["share"]
    assert summary["kept"]["measure"] == "labels"
    assert summary["kept"]["figures"][str(share)] >= max(summary["kept"]["figures"].values()) - GAIN
    state, _ = checkpoint.latest_sound(out / "checkpoints")
    assert state["share"] == share
    change = state["teacher"]["adapter.change.weight"]
    assert change.abs().max() > 1e-6  # something was learnt
    for tried in (share, 0.0, 1.0):
        state["share"] = tried
        torch.save(state, out / "checkpoints" / "step-00000012.pt")
        path = export_run(out, "mine", find_source(photos)[0])
        pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
        for one, other in zip(embedded(start, pixels), embedded(path, pixels), strict=True):
            wanted = one + tried * (one @ change.T.numpy())
            np.testing.assert_allclose(other, wanted / np.linalg.norm(wanted, axis=-1, keepdims=True), atol=1e-5)
        again = weights.read(str(path))  # what was written is read
        assert (again.whitening is not None) == (tried > 0)
        assert again.facts["name"] == "mine"
    with pytest.raises(MasslError, match="adapted, whitened or projected already"):
        train(find_source(photos)[0], tmp_path / "more", adapting(path, 24), initial=read_initial(str(path)))


def test_it_goes_on_to_the_same_numbers_wherever_it_was_stopped(start: Path, photos: Path, tmp_path: Path) -> None:
    adapt(start, photos, tmp_path / "whole")
    expected = losses(tmp_path / "whole")
    out = tmp_path / "stopped"
    with pytest.raises(Interrupted, match="stopped while views were embedded"):
        adapt(start, photos, out, stop=lambda: True)
    rows = np.load(out / FILE)
    assert 0 < np.isnan(rows[:, ::2, 0]).mean() < 1
    asked = iter([False] * 5)
    with pytest.raises(Interrupted, match="stopped at step"):
        adapt(start, photos, out, resume=True, stop=lambda: next(asked, True))
    assert 0 < len(losses(out)) < 12
    told = export(str(out), tmp_path / "early.onnx")  # as it is, without a choice
    assert (told["precision"], told["difference"] < 1e-5) == ("fp32", True)
    assert "50%" in str(weights.read(str(out)).facts["training_method"])
    adapt(start, photos, out, resume=True)
    assert losses(out) == expected
    ended = [checkpoint.latest_sound(run / "checkpoints")[0] for run in (tmp_path / "whole", out)]
    assert torch.equal(*(state["teacher"]["adapter.change.weight"] for state in ended))


def test_a_start_that_is_gone_or_another_is_one_line_and_no_other_encoder(
    start: Path, run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        adapt(start, photos, out, stop=lambda: True)
    kept = (out / START).read_bytes()
    export(str(run), tmp_path / "other.onnx", name="other")  # whole, and yet not what the run began with
    damaged = kept[: len(kept) // 2] + bytes([kept[len(kept) // 2] ^ 1]) + kept[len(kept) // 2 + 1 :]
    for found, said in ((None, "is missing"), (damaged, "is damaged"), ((tmp_path / "other.onnx").read_bytes(), "ano")):
        (out / START).unlink() if found is None else (out / START).write_bytes(found)
        with pytest.raises(MasslError, match=rf"start\.onnx, .* {said}.*; copy the encoder that .* or start a new run"):
            adapt(start, photos, out, resume=True)
        with pytest.raises(MasslError, match=said):
            export_run(out, "mine", find_source(photos)[0])
        assert not (out / "encoder.onnx").exists()
    (out / START).write_bytes(kept)
    adapt(start, photos, out, resume=True)
    assert export_run(out, "mine", find_source(photos)[0]).exists()


def test_views_that_are_damaged_are_embedded_anew(start: Path, photos: Path, tmp_path: Path) -> None:
    adapt(start, photos, tmp_path / "whole")
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        adapt(start, photos, out, stop=lambda: True)
    (out / FILE).write_bytes((out / FILE).read_bytes()[:100])
    adapt(start, photos, out, resume=True)
    assert losses(out) == losses(tmp_path / "whole")


def test_a_full_disk_ends_the_run_in_a_line(start: Path, photos: Path, tmp_path: Path) -> None:
    with full_disk(1000), pytest.raises(MasslError, match=r"views\.npy"):
        ViewEmbeddings(tmp_path, find_source(photos)[0], adapting(start, 24), 384)
    assert list(tmp_path.glob("views*")) == []


def test_a_disk_that_was_full_leaves_the_folder_free(start: Path, photos: Path, tmp_path: Path) -> None:
    for room in (1000, start.stat().st_size):  # where the start's file does not fit, and where the checkpoint doesn't
        with full_disk(room), pytest.raises(MasslError, match="can't be written"):
            adapt(start, photos, tmp_path / "run")
    adapt(start, photos, tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 12


@pytest.mark.parametrize(("images", "judged"), [(319, 319), (320, 40), (1000, 125)])
def test_enough_images_are_held_out_to_have_neighbours(
    start: Path, photos: Path, tmp_path: Path, images: int, judged: int
) -> None:
    views = ViewEmbeddings(tmp_path, find_source(photos)[0], adapting(start, 24), 3)
    views.rows = np.zeros((images, 2, 3), np.float16)
    assert len(views.held_out()) == judged


def test_pairs_are_different_views_of_an_image(start: Path, photos: Path, tmp_path: Path) -> None:
    source, _ = find_source(photos)
    settings = adapting(start, len(source))
    views = ViewEmbeddings(tmp_path, source, settings, 3)
    count, each, _ = views.rows.shape
    views.rows[:] = np.stack(np.meshgrid(np.arange(count), np.arange(each), [0.0], indexing="ij"), -1)[:, :, 0]
    for batch in views.batches(0, 5):
        one, other = batch.large.numpy()
        assert (one[:, 0] == other[:, 0]).all()
        assert (one[:, 1] != other[:, 1]).all()
        assert len(set(one[:, 0])) == settings.batch


@given(st.lists(st.floats(0, 1), min_size=len(SHARES), max_size=len(SHARES)))
def test_labels_choose_the_smallest_share_that_is_as_good_as_the_best(figures: list[float]) -> None:
    choice = Choice.by_labels(dict(zip(SHARES, figures, strict=True)))
    assert choice.figures[choice.share] >= max(figures) - GAIN
    assert all(choice.figures[share] < max(figures) - GAIN for share in SHARES if share < choice.share)
    assert choice.figures[choice.share] >= choice.figures[0.0] - GAIN
    assert choice.sentence


def test_without_labels_the_start_is_kept_where_views_agree_less() -> None:
    assert Choice.by_agreement({0.0: 0.5, 0.5: 0.6, 1.0: 0.4}).share == 0.5
    worse = Choice.by_agreement({0.0: 0.5, 0.5: 0.49, 1.0: 0.7})
    assert worse.share == 0
    assert worse.sentence.startswith("kept the encoder that it began with")


def test_pictures_that_are_all_alike_leave_the_start_as_it_is(start: Path, photos: Path, tmp_path: Path) -> None:
    assert Choice.by_agreement({0.0: 0.3, 0.5: 0.6, 1.0: 0.4}, rank=60.0).share == 0.5
    assert Choice.by_agreement({0.0: 0.3, 0.5: 0.6, 1.0: 0.4}, rank=1.2).share == 0
    copies, one = tmp_path / "copies", sorted(photos.rglob("*.jpg"))[0]
    copies.mkdir()
    for number in range(24):
        (copies / f"{number}.jpg").write_bytes(one.read_bytes())
    warnings: list[str] = []
    summary = adapt(start, copies, tmp_path / "run", report=lambda now: warnings.extend(now.warnings))
    assert (summary["kept"]["share"], summary["kept"]["measure"]) == (0.0, "rank")
    assert "nearly all images got the same embedding" in summary["why"]
    assert not [line for line in warnings if "collapsing" in line]  # it began so


def test_views_agree_fully_or_by_chance() -> None:
    draw = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(200, 8, generator=draw), dim=-1)
    assert agreement(images[:, None].expand(-1, 4, -1)) == 1
    for count in (2, 8, 15):  # where all others would be near, nothing could disagree
        assert agreement(normalize(torch.randn(count, 40, 8, generator=draw), dim=-1)) < 1 or count == 2
    unrelated = normalize(torch.randn(200, 4, 8, generator=draw), dim=-1)
    assert agreement(unrelated) == pytest.approx(10 / 199, abs=0.02)


@given(st.floats(0, 1))
def test_a_share_of_an_adapter_lies_on_the_line_from_the_start(share: float) -> None:
    adapter = Adapter(6)
    torch.nn.init.normal_(adapter.change.weight, std=0.1)
    x = normalize(torch.randn(5, 6), dim=-1)
    with torch.no_grad():
        found = scaled(adapter, share)(x)
        wanted = normalize(x + share * adapter.change(x), dim=-1)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_an_adapter_computes_in_float32_whatever_autocast_says() -> None:
    network = Network(torch.nn.Identity(), ComponentHead(6, 4), adapter=Adapter(6))
    assert network.adapter is not None
    torch.nn.init.normal_(network.adapter.change.weight, std=0.1)
    views = normalize(torch.randn(2, 5, 6), dim=-1)
    plain = network(views)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(views), plain)


def test_a_file_in_eight_bits_is_mapped_as_it_is(tmp_path: Path) -> None:
    matrix = torch.eye(384) + 0.1 * torch.randn(384, 384, generator=torch.Generator().manual_seed(0)) / 384**0.5
    path = tmp_path / "mapped.onnx"
    path.write_bytes(with_map(builtin_encoder(), Whitening(torch.zeros(384), matrix), {"name": "mine"})[0])
    for size in (112, 126):
        pixels = np.random.default_rng(size).integers(0, 256, (2, size, size, 3), np.uint8)
        plain, mapped = embedded(builtin_encoder(), pixels), embedded(path, pixels)
        for one, other in zip(plain, mapped, strict=True):
            wanted = one @ matrix.numpy()
            np.testing.assert_allclose(other, wanted / np.linalg.norm(wanted, axis=-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("preset", "init", "overrides", "found"),
    [
        (None, None, {}, ("adapt", "builtin")),
        (None, None, {"steps": "4"}, ("adapt", "builtin")),
        (None, "a.onnx", {}, ("adapt", "a.onnx")),
        (None, "none", {}, (None, None)),
        (None, None, {"backbone": "resnet18"}, (None, None)),
        ("cpu", None, {}, ("cpu", None)),
        ("cpu", "builtin", {}, ("cpu", "builtin")),
        ("adapt", None, {}, ("adapt", "builtin")),
    ],
)
def test_what_a_run_begins_with(
    preset: str | None, init: str | None, overrides: dict[str, str], found: tuple[str | None, str | None]
) -> None:
    assert _begins(preset, init, overrides) == found


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--preset", "adapt", "--init", "none"], "an adapter needs weights to begin with"),
        (["--preset", "adapt", "--devices", "2", "--plan"], "an encoder is adapted on one device"),
    ],
)
def test_what_can_not_be_adapted_is_refused_in_a_line(
    forks: Forks, photos: Path, tmp_path: Path, words: list[str], line: str
) -> None:
    done = forks.run(["train", photos, "--out", tmp_path / "run", *words])
    assert done.returncode == 1
    assert line in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not (tmp_path / "run").exists()


def test_the_command_adapts_the_built_in_encoder(forks: Forks, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    page = tmp_path / "report.html"
    words = ["train", photos, "--out", out, "--set", "steps=4", "--labels", photos, "--report", page, "--json"]
    done = forks.run(words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["why"].split(":")[0] in page.read_text()
    assert "<h3>Agreement of views on what is near</h3>" in page.read_text()
    assert json.loads(done.stdout)["kept"]["measure"] == "labels"
    assert "mean of k-NN and retrieval on your labels" in done.stderr.decode()
    told = weights.read(str(out / "encoder.onnx"))
    assert told.architecture == "vit_small_patch14_dinov2, patch 14"
    assert told.image_sizes == (126, 112, 168, 224)
    assert told.facts["licence"] == "Apache-2.0"
