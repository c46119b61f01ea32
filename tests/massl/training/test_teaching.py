"""A small network that learns from a frozen encoder."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.functional import normalize

from indexer import Encoder
from massl.core.errors import MasslError
from massl.core.files.run_folder import describe_run
from massl.core.images.decoding import decode
from massl.data.sources import find_source
from massl.encoder import checkpoint, weights
from massl.encoder.export import export
from massl.encoder.inference import Deployed
from massl.method.augment import normalise
from massl.method.loss import plain_loss
from massl.method.network import build_backbone, output_width
from massl.method.schedules import Rates
from massl.planning import plan
from massl.settings import Settings, read_settings
from massl.training import teaching, utilisation
from massl.training.adaptation import origin_of
from massl.training.cost import operations_of_an_image
from massl.training.distributed import World
from massl.training.learner import Learner
from massl.training.loop import Interrupted, train
from massl.training.run_state import RunState
from massl.training.teaching import FILE, Teacher, TeacherEmbeddings, Teaching
from tests.forked import Forks
from tests.massl.conftest import SMALL

RATES = Rates(1e-3, 0.04, 0.9, 0.05)


@pytest.fixture(scope="module")
def encoder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher: an encoder file of 64 numbers at 32 pixels, the middle of pictures of 40."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    export(str(run), path, name="teacher", resize=40)
    return path


def taught(images: int, dim: int, **overrides: str) -> Settings:
    small = {name: value for name, value in SMALL.items() if name not in ("projection_norm", "local_views")}
    given = {**small, "backbone": "vit_shallow_patch16", "image_size": "48", "steps": "6", **overrides}
    return plan("cpu", images, given, precision="fp32", teacher_dim=dim)[0]


def teach(encoder: Path, photos: Path, out: Path, settings: dict[str, str] | None = None, **options: Any) -> Any:
    source, _ = find_source(photos)
    teacher = Teacher(str(encoder), str(encoder))
    return train(source, out, taught(len(source), teacher.dim, **(settings or {})), teacher=teacher, **options)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_is_the_papers_with_the_teachers_embeddings_in_place_of_projections() -> None:
    settings = taught(24, 300, memory="32", block="8", head_norm="false")
    learner = Learner(settings, World(torch.device("cpu")))
    assert learner.target is not None
    draws = torch.Generator().manual_seed(0)
    everything = normalize(torch.randn(40, 300, generator=draws) + 1.0, dim=1)
    learner.begin_with(everything)
    leading = learner.target.components
    torch.testing.assert_close(leading.T @ leading, torch.eye(256), atol=1e-5, rtol=0)
    cosines = [rows @ rows.T for rows in (everything, learner.target(everything))]
    torch.testing.assert_close(*cosines, atol=1e-4, rtol=0)  # 40 embeddings have no more than 40 components
    views, embeddings = torch.randn(2, 4, 3, 48, 48, generator=draws), everything[:4]
    permutation, before = torch.randperm(32, generator=draws), learner.memory.rows.clone()
    with torch.no_grad():
        z = learner.target(embeddings)
        found = plain_loss(learner.student(views), torch.stack([z, z]), before, permutation, 8, 0.1, 0.05)
    step = learner.step([views], RATES, 0, permutation, embeddings[None])
    torch.testing.assert_close(step.loss, found)
    torch.testing.assert_close(learner.memory.rows[:4], z)  # after the step, where the oldest were
    assert torch.equal(learner.target.components, leading)  # the teacher stays as it is


def test_what_is_exported_normalises_as_the_student_does_and_a_bad_step_changes_nothing() -> None:
    learner = Learner(taught(24, 64, backbone="resnet10t", image_size="32"), World(torch.device("cpu")))
    learner.begin_with(normalize(torch.randn(40, 64), dim=1))
    views, embeddings = torch.randn(2, 4, 3, 32, 32), normalize(torch.randn(4, 64), dim=1)
    learner.step([views], RATES, 0, embeddings=embeddings[None])
    own, average = (dict(network.named_buffers())["backbone.bn1.running_mean"]
                    for network in (learner.student, learner.teacher))  # fmt: skip
    torch.testing.assert_close(average, 0.1 * own)  # they began at zero
    before = {name: buffer.clone() for name, buffer in learner.teacher.named_buffers()}
    learner.step([views.fill_(torch.nan)], RATES, 1, embeddings=embeddings[None])
    assert all(torch.equal(buffer, before[name]) for name, buffer in learner.teacher.named_buffers())


def apart(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """The distance between the weights of two networks of one form."""
    with torch.no_grad():
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        return float(sum((first - second).square().sum() for first, second in pairs)) ** 0.5


def test_what_a_taught_network_exports_is_what_it_learnt_and_not_its_first_weights(
    encoder: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for picture in sorted(pictures.glob("*/*.jpg"))[:120:2]:
        shutil.copy(picture, tmp_path / "photos" / f"{picture.parent.name}-{picture.name}")
    small = {"backbone": "resnet10t", "image_size": "32", "batch": "16", "steps": "20", "probe_every": "100"}
    teach(encoder, tmp_path / "photos", tmp_path / "run", {**small, "head_norm": "true"})
    learner = Learner(read_settings(tmp_path / "run" / "config.toml"), World(torch.device("cpu")))
    first = copy.deepcopy(learner.teacher)
    learner.load_state_dict(checkpoint.latest_sound(tmp_path / "run" / "checkpoints")[0])
    average = learner.teacher  # which is exported
    assert apart(average, learner.student) < 0.25 * apart(average, first)
    told = losses(tmp_path / "run")
    assert sum(told[-5:]) / 5 < told[0] - 0.05


def test_it_goes_on_to_the_same_numbers_wherever_it_was_stopped(
    encoder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "BATCH", 8)
    teach(encoder, photos, tmp_path / "whole")
    expected = losses(tmp_path / "whole")
    out = tmp_path / "stopped"
    with pytest.raises(Interrupted, match="stopped while the teacher's images were embedded"):
        teach(encoder, photos, out, stop=lambda: True)
    assert np.isfinite(np.load(out / FILE)).all(1).sum() == 8
    other = tmp_path / "other.onnx"
    other.write_bytes(encoder.read_bytes()[:1000])
    with pytest.raises(MasslError, match="damaged"):
        teach(other, photos, out, resume=True)
    asked = iter([False] * 5)
    with pytest.raises(Interrupted, match="stopped at step"):
        teach(encoder, photos, out, resume=True, stop=lambda: next(asked, True))
    assert 0 < len(losses(out)) < len(expected)
    teach(encoder, photos, out, resume=True)
    assert losses(out) == expected
    ended = [checkpoint.latest_sound(run / "checkpoints")[0] for run in (tmp_path / "whole", out)]
    for part in ("student", "teacher", "target"):
        for name, tensor in ended[0][part].items():
            assert torch.equal(tensor, ended[1][part][name]), name


def test_a_run_goes_on_with_its_own_teacher_alone(
    encoder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "BATCH", 8)
    source, _ = find_source(photos)
    teacher = Teacher(str(encoder), str(encoder))
    settings = taught(len(source), teacher.dim)
    state = RunState(tmp_path, settings, source, Learner(settings, World(torch.device("cpu"))))
    embeddings = TeacherEmbeddings(state)
    embeddings.rows[:8] = np.eye(teacher.dim)[0]  # of which the teacher says something else
    with pytest.raises(MasslError, match="is not what it was when the run began"):
        embeddings.compute(teacher, torch.device("cpu"), lambda done, whole: None, lambda: False)


def test_each_image_gets_the_embedding_of_what_is_shown_for_it(encoder: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(photos, folder)
    source, _ = find_source(folder)
    (folder / source.name(1)).write_bytes(b"no picture")  # gives way to the next one
    teacher = Teacher(str(encoder), str(encoder))
    settings = taught(len(source), teacher.dim)
    state = RunState(tmp_path, settings, source, Learner(settings, World(torch.device("cpu"))))
    embeddings = TeacherEmbeddings(state)
    skipped = embeddings.compute(teacher, torch.device("cpu"), lambda done, whole: None, lambda: False)
    assert list(skipped) == [source.name(1)]
    assert embeddings.complete
    rows = embeddings.all()
    assert torch.equal(rows[1], rows[2])
    assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--teacher", "builtin", "--init", "builtin"], "leave --init out"),
        (["--teacher", "cut.onnx"], "damaged"),
        (["--teacher", "foreign.onnx"], "was not written by massl export"),
        (["--teacher", "none.onnx"], "there is no such file"),
        (["--teacher", "builtin", "--devices", "2", "--plan"], "on one device"),
        (["--teacher", "builtin", "--preset", "adapt"], "leave --init and --preset adapt out"),
        (["--teacher", "builtin", "--set", "local_views=2"], "leave local_views out"),
        (["--set", "teacher_dim=384", "--init", "none"], "give --teacher"),
        (["--set", "teacher_crops=true", "--init", "none"], "teacher_crops needs a --teacher"),
        (["--teacher", "whole.onnx", "--out", "cut.onnx"], "is a file; choose another --out"),
        (["--teacher", "whole.onnx", "--labels", "empty"], "no image"),
    ],
    ids=lambda given: " ".join(given)[:40] if isinstance(given, list) else "",
)
def test_what_can_not_teach_is_refused_in_a_line(
    encoder: Path, forks: Forks, photos: Path, tmp_path: Path, words: list[str], line: str
) -> None:
    import onnx

    (tmp_path / "cut.onnx").write_bytes(encoder.read_bytes()[:5000])
    shutil.copy(encoder, tmp_path / "whole.onnx")
    model = onnx.load(encoder)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    (tmp_path / "empty").mkdir()
    given = [str(tmp_path / word) if word.endswith(".onnx") or word == "empty" else word for word in words]
    done = forks.run(["train", photos, *(() if "--out" in words else ("--out", tmp_path / "run")), *given])
    assert done.returncode in (1, 2)
    said = " ".join(done.stderr.decode().replace("│", " ").split())
    assert line in said
    assert "Traceback" not in said
    assert "setting value why" not in said  # before anything is shown
    assert not (tmp_path / "run").exists()


def test_the_command_teaches_a_network_at_another_size_and_names_the_teacher(
    encoder: Path, massl_train: Callable[..., str], photos: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "run", tmp_path / "report.html"
    small = {"backbone": "vit_shallow_patch16", "image_size": "48", "head_width": "32", "workers": "0", "batch": "8"}
    words = [word for name, value in {**small, "steps": "4"}.items() for word in ("--set", f"{name}={value}")]
    begun = [photos, "--out", out, "--teacher", encoder, *words]
    told = json.loads(massl_train(*begun, "--plan", "--json"))
    assert told["teacher"] == {"name": str(encoder), "bytes": 2 * 64 * told["images"], "views": 0}
    assert told["settings"]["export_projection"]["value"] is True
    ended = json.loads(massl_train(*begun, "--labels", photos, "--report", page, "--json"))
    assert ended["teacher"] == str(encoder)
    assert {"knn_top1", "knn_last", "knn_start"} <= ended["metrics"].keys()
    assert not (out / FILE).exists()
    assert describe_run(out)["teacher"] == str(encoder)
    assert f"taught by {encoder}" in page.read_text()
    found = weights.read(str(out / "encoder.onnx"))
    assert (found.image_size, found.projected) == (48, True)
    assert embeds_by_the_projection(out, out / "encoder.onnx", 48)
    initial = weights.read_initial(str(out / "encoder.onnx"))
    with pytest.raises(MasslError, match="adapted, whitened or projected already"):
        origin_of(initial, plan("adapt", 24, begins=initial.begins)[0])
    plain = export(str(out / "encoder.onnx"), tmp_path / "plain.onnx", projection=False)
    assert plain["dim"] == found.backbone.num_features
    assert not weights.read(str(tmp_path / "plain.onnx")).projected

    settings = dataclasses.replace(read_settings(out / "config.toml"), steps=5)
    source, _ = find_source(photos)
    longer = train(source, out, settings, resume=True, teacher=Teacher(str(encoder), str(encoder)))
    assert longer["steps"] == 5  # its rows are made again


def embeds_by_the_projection(run: Path, encoder: Path, size: int) -> bool:
    """Whether an encoder file of a run, and what is read of it again, project as the run's average does."""
    learner = Learner(read_settings(run / "config.toml"), World(torch.device("cpu")))
    learner.load_state_dict(checkpoint.latest_sound(run / "checkpoints")[0])
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=draws)
    session = onnxruntime.InferenceSession(encoder, providers=["CPUExecutionProvider"])
    embedding, patches = session.run(["embedding", "patches"], {"pixels": pixels.numpy()})
    with torch.no_grad():
        wanted = learner.teacher.eval()(normalise(pixels.permute(0, 3, 1, 2).float())[None])[0].numpy()
        again = Deployed(weights.read(str(encoder))).eval()(pixels)[0].numpy()
    assert embedding.shape[1] == patches.shape[-1] == 64
    return np.allclose(embedding, wanted, atol=1e-5) and np.allclose(again, wanted, atol=1e-5)


def test_a_convolutional_network_is_exported_with_its_projection(encoder: Path, photos: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "run", tmp_path / "projected.onnx"
    small = {"backbone": "test_resnet", "image_size": "32", "steps": "2", "head_norm": "true"}
    teach(encoder, photos, out, small)
    export(str(out), path)
    assert embeds_by_the_projection(out, path, 32)
    with pytest.raises(MasslError, match="leave --stages or --projection out"):
        export(str(path), tmp_path / "none.onnx", stages=True, projection=True)
    with pytest.raises(MasslError, match="no projection head that is known"):
        export(str(encoder), tmp_path / "none.onnx", projection=True)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "ghostnet_050"])
def test_patches_are_as_long_as_embeddings_where_a_layer_follows_the_pooling(backbone: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(backbone, 64).eval()
    assert network.head_hidden_size != network.num_features
    head = torch.nn.Sequential(torch.nn.Linear(output_width(network), 16))
    found = weights.PretrainedBackbone(network, backbone, 64, {}, head=head)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    for projected, dim in ((False, output_width(network)), (True, 16)):
        with torch.no_grad():
            embedding, patches = Deployed(dataclasses.replace(found, projected=projected)).eval()(pixels)
        assert embedding.shape == (2, dim)
        assert patches.shape == (2, 2, 2, dim)
        assert torch.allclose(patches.norm(dim=-1), torch.ones(2, 2, 2), atol=1e-4)
    with torch.no_grad():
        embedding, patches = Deployed(found).eval()(pixels[:, :32, :32])
    torch.testing.assert_close(patches[:, 0, 0], embedding)  # of a map of one cell this is the picture


def test_a_teacher_may_see_the_crops_that_the_network_sees(encoder: Path, photos: Path, tmp_path: Path) -> None:
    source, _ = find_source(photos)
    teacher = Teacher(str(encoder), str(encoder))
    settings = taught(len(source), teacher.dim, teacher_crops="true", image_size="32", steps="2")
    state = RunState(tmp_path, settings, source, Learner(settings, World(torch.device("cpu"))))
    pixels = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    found = Teaching(state, teacher).embed(normalise(pixels.float()))
    for view in range(2):  # at the teacher's own size they are shown as they are
        wanted = teacher.deployed(pixels[view].permute(0, 2, 3, 1))[0]
        torch.testing.assert_close(found[view], wanted, atol=1e-4, rtol=0)
    seen: list[torch.Tensor] = []
    step = Learner.step

    def noting(learner: Learner, *given: Any, embeddings: torch.Tensor, **more: Any) -> Any:
        seen.append(embeddings)
        return step(learner, *given, embeddings=embeddings, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", noting)
        train(source, tmp_path / "run", settings, teacher=teacher)
    assert [each.shape for each in seen] == [(2, 4, 64)] * 2
    assert (seen[0][0] - seen[0][1]).abs().max() > 1e-3  # of two views
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "run"))


def test_a_plan_counts_what_a_teacher_does_at_each_step(
    encoder: Path, massl_train: Callable[..., str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [photos, "--teacher", encoder, "--plan"]
    for name, value in {"backbone": "vit_shallow_patch16", "image_size": "48", "steps": "4", "batch": "8"}.items():
        words += ["--set", f"{name}={value}"]
    crops = ["--set", "teacher_crops=true"]
    once, always = (json.loads(massl_train(*words, *more, "--json")) for more in ([], crops))
    assert (once["teacher"]["views"], always["teacher"]["views"]) == (0, 4 * 8 * 2)
    teacher = Teacher(str(encoder), str(encoder))
    weights_of_it = sum(4 * each.numel() for each in teacher.deployed.state_dict().values())
    assert always["cost"]["fixed"] - once["cost"]["fixed"] == teacher.bytes == weights_of_it
    assert "It also embeds" not in massl_train(*words)
    settings = taught(24, 64, teacher_crops="true")
    own, whole = operations_of_an_image(settings), operations_of_an_image(settings, teacher.operations)
    assert whole == (own or 0) + 2 * teacher.operations
    assert own
    said = massl_train(*words, *crops)
    assert re.search(
        r"two views of each image at each step, 64 in all: \d+% of a step's operations", " ".join(said.split())
    )
    monkeypatch.setattr(utilisation, "matrix_rate", lambda device, kind: 1e9)
    used = utilisation.Utilisation(settings, torch.device("cpu"), 1, teacher)
    assert used.share(1e9 / whole, 31) == pytest.approx(1)


def test_the_teacher_is_shown_what_its_own_rules_say(encoder: Path, photos: Path, tmp_path: Path) -> None:
    source, _ = find_source(photos)
    teacher = Teacher(str(encoder), str(encoder))
    settings = taught(len(source), teacher.dim)
    state = RunState(tmp_path, settings, source, Learner(settings, World(torch.device("cpu"))))
    embeddings = TeacherEmbeddings(state)
    embeddings.compute(teacher, torch.device("cpu"), lambda done, whole: None, lambda: False)
    theirs = Encoder.load(encoder)  # as a collection embeds
    wanted = theirs.embed([theirs.prepare(decode(source.read(index)).picture) for index in range(4)])
    cosines = (embeddings.all()[:4].numpy() * np.asarray(wanted, np.float32)).sum(1)
    assert cosines.min() > 0.999


def test_images_of_which_the_teacher_says_the_same_teach_without_harm() -> None:
    learner = Learner(taught(24, 64), World(torch.device("cpu")))
    alike = normalize(torch.ones(40, 64), dim=1)
    learner.begin_with(alike)
    result = learner.step([torch.randn(2, 4, 3, 48, 48)], RATES, 0, embeddings=alike[None, :4])
    assert bool(result.finite)


def test_ten_images_are_enough_to_begin(encoder: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ten"
    folder.mkdir()
    for picture in sorted(photos.glob("*/*.jpg"))[:10]:
        shutil.copy(picture, folder / f"{picture.parent.name}-{picture.name}")
    summary = teach(encoder, folder, tmp_path / "run", {"steps": "2", "image_size": "32"})
    assert (summary["steps"], summary["images"]) == (2, 10)
    for picture in folder.iterdir():
        picture.write_bytes(b"gone")
    with pytest.raises(MasslError, match=r"no image of .* can be read"):
        teach(encoder, folder, tmp_path / "none", {"steps": "2", "image_size": "32"})
