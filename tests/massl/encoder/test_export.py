"""Export: the file keeps the contract and agrees with torch, for every patch and image size."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from typer.testing import CliRunner

from cli.commands import app
from cli.export import command
from indexer import Encoder
from indexer.encoder.encoder_file import builtin_encoder
from indexer.monitoring.drift import mean_score
from massl.core.errors import MasslError
from massl.core.files.onnx_digest import sealed
from massl.core.images.decoding import open_image
from massl.data.sources import find_source
from massl.encoder import checkpoint, weights
from massl.encoder.export import export, export_run
from massl.encoder.inference import CELLS, Deployed, all_stages, layout, pooled
from massl.encoder.weights import ALL_STAGES
from massl.encoder.whitening import MIXED, OWN, SHRINKAGE, moments_of, whitening_of
from massl.method.network import build_backbone
from massl.planning import plan
from massl.training.distributed import World
from massl.training.learner import Learner
from massl.training.loop import Interrupted, train
from tests.massl import exporting
from tests.massl.conftest import full_disk, small_settings


def real_pixels(encoder: Encoder, pictures: Path) -> np.ndarray:
    files = [sorted((pictures / kind).glob("*.jpg"))[3] for kind in ("flag", "space", "painting", "bug")]
    return np.stack([encoder.prepare(open_image(file)) for file in files])


def test_the_file_does_not_tell_where_it_was_made(run: Path) -> None:
    export(str(run), run.parent / "plain.onnx")
    for file in (run.parent / "plain.onnx", builtin_encoder()):
        data = file.read_bytes()
        assert b"export.py" not in data
        assert str(Path.home()).encode() not in data


def untrained(folder: Path, backbone: str, patch: int, size: int) -> Path:
    """A run's folder with a checkpoint of random weights."""
    settings = small_settings(
        backbone=backbone, patch_size=str(patch), image_size=str(size), local_size=str(patch), drop_path="0.1"
    )
    teacher = Learner(settings, World(torch.device("cpu"))).teacher
    state = {"settings": dataclasses.asdict(settings), "teacher": teacher.state_dict()}
    state |= {"images": 10, "images_seen": 20, "seconds": 1.0}
    checkpoint.save(folder / "checkpoints", 1, state, 1)
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional run of random weights. Not to be changed."""
    return untrained(tmp_path_factory.mktemp("resnet") / "run", "resnet10t", 16, 64)


@pytest.fixture(scope="module")
def plain(resnet: Path, pictures: Path) -> Encoder:
    """It, put out on so few images that it embeds by its last layer alone."""
    return Encoder.load(export_run(resnet, "mine", find_source(pictures / "flag")[0]))


@pytest.fixture(scope="module")
def whitened(resnet: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """It, put out by the command with all its stages, whitened on all pictures. Its file is not to be changed."""
    file = tmp_path_factory.mktemp("whitened") / "first.onnx"
    told = ["export", str(resnet), "-o", str(file), "--stages", "--whiten", str(pictures)]
    assert CliRunner().invoke(app, [*told, "--whiten-strength", "0.6"]).exit_code == 0
    return Encoder.load(file)


def test_a_graph_that_these_tests_use_again_is_what_torch_would_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or they would test a file of their own; see `tests.massl.exporting`."""
    first, second = (untrained(tmp_path / name, "vit_shallow_patch16", 16, 32) for name in ("first", "second"))
    export(str(first), tmp_path / "e.onnx")
    with monkeypatch.context() as asked:
        asked.setattr("massl.encoder.export.torch.onnx.export", None)
        export(str(second), tmp_path / "e.onnx")
    again = (tmp_path / "e.onnx").read_bytes()
    monkeypatch.setattr("massl.encoder.export._to_onnx", exporting.to_onnx)
    export(str(second), tmp_path / "e.onnx")
    assert (tmp_path / "e.onnx").read_bytes() == again


@pytest.mark.parametrize(
    ("backbone", "patch", "trained", "size"),
    [
        ("vit_shallow_tiny_patch16", 16, 96, None),
        ("vit_shallow_patch16", 8, 64, 96),
        ("vit_shallow_patch16", 14, 98, None),
        ("resnet18", 16, 64, 96),
    ],
)
def test_the_file_agrees_with_torch_on_real_images(
    tmp_path: Path, pictures: Path, backbone: str, patch: int, trained: int, size: int | None
) -> None:
    run = untrained(tmp_path / "run", backbone, patch, trained)
    export(str(run), tmp_path / "e.onnx", image_sizes=(size,) if size else ())
    encoder = Encoder.load(tmp_path / "e.onnx")
    assert encoder.image_size == (size or trained)
    pixels = real_pixels(encoder, pictures)
    with torch.no_grad():
        embedding, patches = Deployed(weights.read(str(run), size)).eval()(torch.from_numpy(pixels))
    np.testing.assert_allclose(encoder.embed(pixels), embedding.numpy(), atol=1e-4)
    np.testing.assert_allclose(encoder.embed_patches(pixels), patches.numpy(), atol=1e-4)
    assert patches.shape[1:3] == ((size or trained) // (32 if backbone == "resnet18" else patch),) * 2


@pytest.mark.parametrize(
    ("backbone", "patch", "sizes"),
    [("vit_shallow_patch16", 16, (64, 96, 160)), ("vit_shallow_patch14_reg4_dinov2", 14, (70, 112, 98))],
)
def test_one_file_takes_every_size_that_it_lists(
    tmp_path: Path, pictures: Path, backbone: str, patch: int, sizes: tuple[int, ...]
) -> None:
    run = untrained(tmp_path / "run", backbone, patch, 6 * patch)
    export(str(run), tmp_path / "e.onnx", image_sizes=sizes)
    usual = Encoder.load(tmp_path / "e.onnx")
    assert (usual.image_size, usual.image_sizes) == (sizes[0], sizes)
    torch_side = Deployed(weights.read(str(run))).eval()
    for size in sizes:
        encoder = Encoder.load(tmp_path / "e.onnx", image_size=size)
        assert (encoder.image_size, encoder.image_sizes, encoder.sha256) == (size, sizes, usual.sha256)
        pixels = real_pixels(encoder, pictures)
        with torch.no_grad():
            embedding, patches = torch_side(torch.from_numpy(pixels))
        np.testing.assert_allclose(encoder.embed(pixels), embedding.numpy(), atol=1e-4)
        np.testing.assert_allclose(encoder.embed_patches(pixels), patches.numpy(), atol=1e-4)
    low, middle, high = sorted(sizes)
    with pytest.raises(MasslError, match=f"takes pictures of {low}, {middle} or {high} pixels, not of 999"):
        Encoder.load(tmp_path / "e.onnx", image_size=999)


def test_position_embeddings_are_resized_once_on_loading(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", "vit_shallow_patch16", 16, 96)
    export(str(run), tmp_path / "e.onnx", image_sizes=(64, 96))
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name("S", 96)
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "e.onnx", options, providers=["CPUExecutionProvider"])
    used = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert "MatMul" in used
    assert "Resize" not in used


def test_what_a_network_holds_twice_comes_back_twice(tmp_path: Path) -> None:
    """The class token's position, which in DINOv2's weights is the class token itself."""
    backbone = build_backbone("vit_shallow_patch16", 96, 16)
    with torch.no_grad():
        backbone.pos_embed[:, :1] = backbone.cls_token.normal_()
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    export(str(tmp_path / "weights.pth"), tmp_path / "e.onnx", image_sizes=(96, 64), backbone="vit_shallow_patch16")
    again = weights.read_initial(str(tmp_path / "e.onnx")).backbone
    assert again.keys() == backbone.state_dict().keys()
    for name, tensor in backbone.state_dict().items():
        torch.testing.assert_close(again[name], tensor, atol=1e-6, rtol=0, msg=name)


def test_sizes_that_a_network_cannot_take_are_refused_in_one_line(resnet: Path, tmp_path: Path) -> None:
    vit = untrained(tmp_path / "vit", "vit_shallow_patch16", 16, 64)
    with pytest.raises(MasslError, match=r"100 is not a multiple of the patch size \(16 pixels\); use --image-size 96"):
        export(str(vit), tmp_path / "e.onnx", image_sizes=(64, 100))
    with pytest.raises(MasslError, match="resnet10t takes pictures of one size; give one --image-size"):
        export(str(resnet), tmp_path / "e.onnx", image_sizes=(64, 96))
    assert not (tmp_path / "e.onnx").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_transformer_comes_back_out_of_its_file(tmp_path: Path, pictures: Path, precision: str) -> None:
    run = untrained(tmp_path / "run", "vit_shallow_tiny_patch16", 16, 96)
    export(str(run), tmp_path / "e.onnx", image_sizes=(96, 64), precision=precision, calibrate=find_source(pictures)[0])
    export(str(tmp_path / "e.onnx"), tmp_path / "again.onnx", precision="fp32")
    first, again = Encoder.load(tmp_path / "e.onnx"), Encoder.load(tmp_path / "again.onnx")
    assert again.image_sizes == (96, 64)
    begun = weights.read_initial(str(tmp_path / "e.onnx"))
    wanted = weights.read_initial(str(run))
    assert begun.backbone.keys() == wanted.backbone.keys()
    assert begun.positions == wanted.positions
    if precision != "int8":  # which scales channels, and what comes before them the other way
        close = {"fp32": 1e-6, "fp16": 2e-3}[precision]
        for name, tensor in wanted.backbone.items():
            torch.testing.assert_close(begun.backbone[name], tensor, atol=close, rtol=close, msg=name)
    pixels = real_pixels(first, pictures)
    cosine = (first.embed(pixels) * again.embed(pixels)).sum(1)
    assert (cosine > (0.97 if precision == "int8" else 0.9999)).all()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose weights are most of its file, and that file. Not to be changed."""
    run = untrained(tmp_path_factory.mktemp("full") / "run", "vit_shallow_tiny_patch16", 16, 96)
    export(str(run), run / "full.onnx")
    return run, run / "full.onnx"


@pytest.mark.parametrize(("precision", "share", "cosine"), [("fp16", 0.55, 0.99999), ("int8", 0.35, 0.997)])
def test_smaller_files_point_the_same_way(
    full: tuple[Path, Path], tmp_path: Path, pictures: Path, precision: str, share: float, cosine: float
) -> None:
    run, file = full
    export(str(run), tmp_path / "small.onnx", precision=precision, calibrate=find_source(pictures)[0])
    large, small = Encoder.load(file), Encoder.load(tmp_path / "small.onnx")
    assert small.path.stat().st_size < share * file.stat().st_size
    pixels = real_pixels(large, pictures)
    assert ((large.embed(pixels) * small.embed(pixels)).sum(1) > cosine).all()


@pytest.mark.parametrize("size", [80, 96, 112, 200])
def test_places_are_told_at_any_size_of_picture(size: int) -> None:
    backbone = build_backbone("resnet10t", size).eval()
    with torch.no_grad():
        features, places = all_stages(backbone, torch.randn(2, 3, size, size))
    side = -(-size // 32)
    assert places.shape[:3] == (2, side, side)
    assert torch.isfinite(features).all()
    stage = torch.randn(1, 5, size // 4, size // 4)
    torch.testing.assert_close(pooled(stage, side).mean((2, 3)), stage.mean((2, 3)))
    torch.testing.assert_close(pooled(stage[..., :16, :16], 4), functional.avg_pool2d(stage[..., :16, :16], 4))


def test_whitening_by_all_stages_evens_out_the_embeddings(plain: Encoder, whitened: Encoder, pictures: Path) -> None:
    assert (whitened.dim, whitened.metadata["pooling"]) == (64, ALL_STAGES)
    pixels = np.stack([plain.prepare(open_image(file)) for file in sorted(pictures.glob("*/*.jpg"))])

    def alike(encoder: Encoder) -> float:
        embeddings = encoder.embed(pixels)
        return float((embeddings @ embeddings.T).mean())

    assert alike(plain) > 0.7  # an untrained network sees everything the same way
    assert abs(alike(whitened)) < 0.02
    assert whitened.embed_patches(pixels[:2]).shape == (2, 2, 2, 64)


def test_a_run_is_put_out_as_it_puts_itself_out(tmp_path: Path, pictures: Path, monkeypatch) -> None:
    images = shutil.copytree(pictures, tmp_path / "images")
    source, _ = find_source(images)
    settings = small_settings(len(source), backbone="resnet10t", image_size="64", local_size="32", steps="2")
    with pytest.raises(Interrupted, match=f"or export it as it is: massl export {tmp_path / 'run'}"):
        train(source, tmp_path / "run", settings, stop=lambda: True)
    told: list[str] = []
    export(str(tmp_path / "run"), tmp_path / "stopped.onnx", tell=told.append)
    read = []
    monkeypatch.setattr(checkpoint, "load", lambda path, load=checkpoint.load: (read.append(path), load(path))[1])
    own = Encoder.load(export_run(tmp_path / "run", "run", source))
    assert read == [checkpoint.latest(tmp_path / "run" / "checkpoints")]  # once
    stopped = Encoder.load(tmp_path / "stopped.onnx")
    kept = len(source) // 3
    assert told == [
        f"whitening on {len(source)} images, to {kept} numbers each, a third as many; from 1,152 images on to 384",
        "writing the network, and comparing it with torch",
    ]
    assert (stopped.dim, stopped.metadata["pooling"], stopped.whitening) == (own.dim, ALL_STAGES, 0.5)
    pixels = real_pixels(own, pictures)
    np.testing.assert_allclose(stopped.embed(pixels), own.embed(pixels), atol=1e-6)
    images.rename(tmp_path / "moved")
    with pytest.raises(MasslError, match=r"there is no such file or folder.*give them, or others of their kind"):
        export(str(tmp_path / "run"), tmp_path / "stopped.onnx")
    export(str(tmp_path / "run"), tmp_path / "moved.onnx", whiten=find_source(tmp_path / "moved")[0])
    np.testing.assert_allclose(Encoder.load(tmp_path / "moved.onnx").embed(pixels), own.embed(pixels), atol=1e-6)


def test_stages_say_what_there_is_and_how_evenly(
    resnet: Path, whitened: Encoder, tmp_path: Path, pictures: Path
) -> None:
    export(str(resnet), tmp_path / "e.onnx", stages=True)
    uneven = Encoder.load(tmp_path / "e.onnx")
    wide = [64, 128, 256, 512]
    laid_out = [CELLS * CELLS // 2 * channels for channels in wide[:3]]
    assert uneven.dim == 2 * sum(wide) + sum(laid_out)
    pixels = real_pixels(uneven, pictures)
    for encoder in (uneven, whitened):
        embeddings, patches = encoder.embed(pixels), encoder.embed_patches(pixels)
        assert patches.shape == (4, 2, 2, encoder.dim)
        np.testing.assert_allclose(np.linalg.norm(patches, axis=-1), 1, atol=1e-4)
        # A picture's places are more like it than like the others.
        alike = np.einsum("nd,mhwd->nmhw", embeddings, patches).mean((2, 3))
        assert (alike.argmax(0) == np.arange(4)).all()
    blocks = np.split(uneven.embed(pixels), np.cumsum([*wide, *wide, *laid_out])[:-1], 1)
    np.testing.assert_allclose([np.linalg.norm(block, axis=1) for block in blocks], 11**-0.5, atol=1e-4)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_layout_tells_where_and_is_the_mirror_images_too(height: int, width: int, seed: int) -> None:
    stage = torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(seed))
    told = layout(stage)
    assert told.shape == (2, 3 * CELLS * CELLS // 2)
    torch.testing.assert_close(told, layout(stage.flip(3)), atol=1e-5, rtol=0)
    grid = told.unflatten(1, (3, CELLS, CELLS // 2))
    torch.testing.assert_close(grid.mean((2, 3)), stage.mean((2, 3)), atol=1e-5, rtol=0)  # every position counts alike
    if height % CELLS == 0 and width % CELLS == 0:
        cells = functional.avg_pool2d(stage, (height // CELLS, width // CELLS))
        left, right = cells[..., : CELLS // 2], cells.flip(3)[..., : CELLS // 2]
        torch.testing.assert_close(grid, (left + right) / 2, atol=1e-5, rtol=0)


def test_an_encoder_file_can_be_put_out_again(whitened: Encoder, tmp_path: Path, pictures: Path) -> None:
    """Smaller, the same embeddings; whitened on other images, other ones."""
    pixels = real_pixels(whitened, pictures)
    wanted = whitened.embed(pixels)
    for precision, share in (("fp16", 0.52), ("int8", 0.32)):  # in fp32 a test of transformers does it
        written = export(str(whitened.path), tmp_path / "again.onnx", precision=precision)
        again = Encoder.load(tmp_path / "again.onnx")
        assert written["bytes"] < share * whitened.path.stat().st_size
        assert ((again.embed(pixels) * wanted).sum(1) > 0.999).all()
        kept = ("pooling", "whitening", "training_images", "architecture", "resize")
        assert [again.metadata[key] for key in kept] == [whitened.metadata[key] for key in kept]
        assert again.metadata["source"] == "first"

    told = ["export", str(tmp_path / "again.onnx"), "-o", str(tmp_path / "flags.onnx")]
    assert CliRunner().invoke(app, [*told, "--whiten", str(pictures / "flag")]).exit_code == 0
    flags = Encoder.load(tmp_path / "flags.onnx")
    assert (flags.metadata["source"], flags.metadata["precision"]) == ("again", "int8")
    assert (flags.dim, flags.whitening) == (64, MIXED)
    mixed = flags.embed(np.stack([flags.prepare(open_image(file)) for file in sorted(pictures.glob("flag/*.jpg"))]))
    assert abs(mean_score(mixed, flags.mean_embedding)) < 0.1  # seen from their middle two have nothing in common


def test_an_eight_bit_transformer_of_several_sizes_can_be_put_out_for_other_images(
    tmp_path: Path, pictures: Path
) -> None:
    """As is the built-in encoder, which takes minutes."""
    run, file = untrained(tmp_path / "run", "vit_shallow_tiny_patch16", 16, 96), tmp_path / "shipped.onnx"
    export(str(run), file, image_sizes=(96, 64), precision="int8", calibrate=find_source(pictures)[0])
    told = ["export", str(file), "--whiten", str(pictures), "-o", str(tmp_path / "mine.onnx"), "--name", "mine"]
    assert CliRunner().invoke(app, told).exit_code == 0
    mine, shipped = Encoder.load(tmp_path / "mine.onnx"), Encoder.load(file)
    assert (mine.name, mine.image_sizes, mine.whitening) == ("mine", shipped.image_sizes, 0.5)
    assert (mine.metadata["source"], mine.metadata["precision"]) == (shipped.name, "int8")


def test_an_encoder_of_an_earlier_version_is_not_put_out_as_something_else(
    whitened: Encoder, tmp_path: Path, pictures: Path
) -> None:
    images = find_source(pictures)[0]
    file = tmp_path / "e.onnx"
    model = onnx.load(whitened.path)
    for entry in model.metadata_props:
        if entry.key == "massl.pooling":
            entry.value = "all stages, means and deviations"
    file.write_bytes(sealed(model))
    with pytest.raises(MasslError, match="earlier version of massl did; give --whiten IMAGES"):
        export(str(file), tmp_path / "again.onnx")
    export(str(file), tmp_path / "again.onnx", whiten=images, dim=48)
    assert Encoder.load(tmp_path / "again.onnx").metadata["pooling"] == ALL_STAGES


def test_a_runs_encoder_is_whitened_on_its_own_images_where_there_are_enough(
    resnet: Path, plain: Encoder, tmp_path: Path, pictures: Path
) -> None:
    """Listed ones; those of a folder are a part of `test_a_run_is_put_out_as_it_puts_itself_out`."""
    assert (plain.dim, plain.metadata["pooling"], plain.whitening) == (512, "last", 0)
    names = [str(file) for file in sorted(pictures.rglob("*.jpg"))]  # 194
    (tmp_path / "all.txt").write_text("\n".join(names))
    run = shutil.copytree(resnet, tmp_path / "run")
    listed = Encoder.load(export_run(run, "mine", find_source(tmp_path / "all.txt")[0]))
    assert (listed.dim, listed.metadata["pooling"], listed.whitening) == (64, ALL_STAGES, 0.5)
    vit = untrained(tmp_path / "vit", "vit_shallow_patch16", 16, 32)
    assert Encoder.load(export_run(vit, "mine", find_source(pictures)[0])).whitening == 0


def test_the_command_whitens_by_half_unless_told_otherwise(whitened: Encoder) -> None:
    assert whitened.whitening == 0.6
    defaults = inspect.signature(command).parameters
    assert (defaults["strength"].default, defaults["own"].default) == (None, OWN)


def test_a_strength_of_no_whitening_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MasslError, match="--whiten-strength needs --whiten IMAGES"):
        export(str(run), tmp_path / "e.onnx", strength=0.5)


def test_whitening_needs_enough_images(resnet: Path, tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(MasslError, match=r"30 images can be read .* takes 64"):
        export(str(resnet), tmp_path / "e.onnx", whiten=find_source(pictures / "flag")[0], dim=32)
    with pytest.raises(MasslError, match="has no four stages"):
        export(str(untrained(tmp_path / "vit", "vit_shallow_patch16", 16, 32)), tmp_path / "e.onnx", stages=True)


def test_the_file_describes_itself(run: Path, tmp_path: Path) -> None:
    written = export(str(run), tmp_path / "e.onnx", name="flags", evaluation={"knn": {"flags": 0.5}})
    encoder = Encoder.load(tmp_path / "e.onnx")
    assert (encoder.name, encoder.dim, encoder.image_size) == ("flags", 64, 32)
    assert written["dim"] == 64
    told = encoder.metadata
    assert (told["format"], told["training_images"], told["training_images_seen"]) == ("1", "30", "32")
    assert told["architecture"] == "vit_shallow_patch16, patch 16"
    assert told["evaluation"] == '{"knn": {"flags": 0.5}}'
    onnx.checker.check_model(onnx.load(tmp_path / "e.onnx"))


def test_a_full_disk_keeps_the_file_that_was_there_and_leaves_nothing_behind(run: Path, tmp_path: Path) -> None:
    (tmp_path / "old.onnx").write_text("old")
    with pytest.raises(MasslError, match=r"old\.onnx can't be written"), full_disk(1000):
        export(str(run), tmp_path / "old.onnx")
    assert (tmp_path / "old.onnx").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]


def test_sources_that_can_not_be_read_say_why(tmp_path: Path) -> None:
    with pytest.raises(MasslError, match="there is no such file"):
        export(str(tmp_path / "nowhere.pth"), tmp_path / "e.onnx")
    with pytest.raises(MasslError, match="holds no checkpoint"):
        export(str(tmp_path), tmp_path / "e.onnx")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(MasslError, match=r"by names that MaSSL knows .* \(it has weights\); .* --backbone NAME"):
        export(str(tmp_path / "other.pth"), tmp_path / "e.onnx")
    torch.save({"teacher": {"x": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(MasslError, match=r"by names that MaSSL knows .* \(it has x\)"):
        export(str(tmp_path / "other.pth"), tmp_path / "e.onnx")
    with pytest.raises(MasslError, match="timm has no network"):
        export("timm:nonsense", tmp_path / "e.onnx")
    assert not (tmp_path / "e.onnx").exists()


def test_a_timm_network_says_when_it_can_not_be_fetched(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MasslError, match=r"could not be fetched \(is this machine online\?\)"):
        export("timm:vit_tiny_patch16_224.augreg_in21k", tmp_path / "e.onnx")


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_whitening_evens_the_components_out_as_far_as_told(strength: float) -> None:
    spread = torch.tensor([8.0, 4.0, 2.0, 1.0])
    # A large first number makes all of one length: so normalising leaves the spread as it is.
    noise = torch.randn((20_000, 4), generator=torch.Generator().manual_seed(0)) * spread
    features = torch.cat([torch.full((len(noise), 1), 1e4), noise], 1)
    mean, matrix, _ = whitening_of(features, 4, strength)
    found = (torch.nn.functional.normalize(features, dim=1) - mean).double() @ matrix.double()
    wanted = spread ** (1 - strength)
    # What keeps noise from being blown up, a hundredth of the mean variance, shows in the least component most.
    torch.testing.assert_close((found.std(0) / found.std(0)[0]).float(), wanted / wanted[0], rtol=0.1, atol=0)


def test_moments_come_back_out_of_a_whitening_and_mix_with_those_of_other_features() -> None:
    draw = torch.Generator().manual_seed(0)
    basis = torch.randn((6, 6), generator=draw)
    few = torch.randn((300, 6), generator=draw) @ basis
    many = torch.randn((900, 6), generator=draw) @ basis.roll(1, 0) + 2
    few, many = (torch.nn.functional.normalize(part, dim=1) for part in (few, many))
    before = moments_of(whitening_of(many, 6, 0.75), 0.75)
    covariance = many.T.cov()
    shrunk = covariance + SHRINKAGE * covariance.diagonal().mean() * torch.eye(6)
    torch.testing.assert_close(before.mean, many.mean(0))
    torch.testing.assert_close(before.factor @ before.factor.T, shrunk, atol=1e-4, rtol=1e-3)
    mixed = whitening_of(few, 6, before=before, own=0.25)
    variance, directions = torch.linalg.eigh((few.T.cov() + 3 * shrunk) / 4)
    wanted = directions / (variance + SHRINKAGE * variance.mean()) ** (MIXED / 2)
    torch.testing.assert_close(mixed.centre, (few.mean(0) + many.mean(0)) / 2)
    for one, other in zip(mixed.matrix.T, wanted.T.flip(0), strict=True):  # each but for its sign
        torch.testing.assert_close(one * (one @ other).sign(), other, rtol=2e-3, atol=2e-3)
    assert mixed.mean_embedding is not None
    embedded = torch.nn.functional.normalize((few - mixed.centre) @ mixed.matrix, dim=1)
    torch.testing.assert_close(mixed.mean_embedding, embedded.mean(0))
    for one, other in zip(whitening_of(few, 6, before=before, own=1), whitening_of(few, 6), strict=True):
        torch.testing.assert_close(one, other)


def test_a_run_that_began_with_an_encoder_is_whitened_for_a_mixture_with_what_that_was_whitened_for(
    whitened: Encoder, tmp_path: Path, pictures: Path
) -> None:
    images, _ = find_source(pictures / "flag")  # 30, too few to be whitened on alone
    initial = weights.read_initial(str(whitened.path))
    settings = plan("cpu", len(images), {"steps": "2", "batch": "4", "warmup": "1"}, None, "fp32", 0, initial.begins)[0]
    run, stops = tmp_path / "run", iter([True])
    with pytest.raises(Interrupted):
        train(images, run, settings, initial=initial, stop=lambda: next(stops))
    train(images, run, settings, resume=True)  # which is told nothing of the encoder
    mixed = Encoder.load(export_run(run, "mine", images))
    assert (mixed.dim, mixed.metadata["pooling"], mixed.whitening) == (64, ALL_STAGES, MIXED)
    again = weights.read_initial(str(run))
    for one, other in zip(again.moments or (), initial.moments or (), strict=True):
        assert torch.equal(one, other)

    found = weights.read(str(run))
    pixels = torch.from_numpy(
        np.stack([mixed.prepare(open_image(file, mixed.resize)) for file in (pictures / "flag").glob("*.jpg")])
    )
    with torch.no_grad():
        whitening = whitening_of(Deployed(found, stages=True).eval()(pixels)[0], 64, before=initial.moments)
        wanted = Deployed(found, True, whitening).eval()(pixels)[0].numpy()
    # Scores, as components of like variance may be turned among themselves.
    alike, wanted = (rows @ rows.T for rows in (mixed.embed(pixels.numpy()), wanted))
    np.testing.assert_allclose(alike, wanted, atol=1e-4)
    # Its file tells where its own images lie, from which their scores are 0 on average again.
    embedded = mixed.embed(pixels.numpy())
    np.testing.assert_allclose(mixed.mean_embedding, embedded.mean(0), atol=1e-3)
    assert abs(mean_score(embedded, mixed.mean_embedding)) < 0.05
    export(str(run / "encoder.onnx"), tmp_path / "half.onnx", precision="fp16")
    np.testing.assert_array_equal(Encoder.load(tmp_path / "half.onnx").mean_embedding, mixed.mean_embedding)
    with pytest.raises(MasslError, match=r"30 images can be read .* takes 64"):
        export(str(run), tmp_path / "own.onnx", stages=True, whiten=images, dim=32, own=1)
